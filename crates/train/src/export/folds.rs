//! The models of the folds, and their verdicts on the images that each of them never saw.

use super::segments;
use super::{Context, ExportError, UnitModel};
use crate::datasets::Sample;
use crate::graph::{Term, TermWeights};
use crate::onnx::int8::Dialect;
use crate::quantise::{self, HeldOutSet};
use crate::run::Unit;
use crate::score::{Branch, Choice, ImageTerm, Judged, Segments};
use crate::views::Seen;
use ckaad_inspect::engine::{Engine, Plan};
use ndarray::Array2;
use rayon::prelude::*;

/// One model a fold.
pub struct Folds<'a> {
    pub context: &'a Context<'a>,
    models: Vec<UnitModel<'a>>,
    /// Each term alone, as the models of the folds give it in the precision that is exported.
    pub judged: Judged,
    /// Each term of the image branch alone.
    pub image_terms: Vec<ImageTerm>,
}

/// What the models of the folds, as they are exported, come to.
pub struct Decided {
    /// Weights, rule, and the score of every image by a model that never saw it.
    pub choice: Choice,
    /// The map's part of every score.
    pub map_scores: Vec<f32>,
    /// Largest value of the smoothed map of every normal image.
    pub peaks: Vec<f32>,
    /// What the image branch says, where it takes part.
    pub branch: Option<Branch>,
    /// What the rule `forest` looks at, where there are any.
    pub segments: Option<Segments>,
}

impl<'a> Folds<'a> {
    /// Loads the models and lets each judge the images of its fold, term by term.
    pub fn load(context: &'a Context<'a>) -> Result<Folds<'a>, ExportError> {
        let units = (0..context.info.folds).map(|fold| context.unit(Unit::Without(fold)));
        let models: Vec<UnitModel> = units.collect::<Result<_, _>>()?;
        let (judged, image_terms) = judge_terms(context, &models)?;
        Ok(Folds { context, models, judged, image_terms })
    }

    /// Weights of the map's terms and of the image branch.
    pub fn choose(&self) -> TermWeights {
        let config = self.context.config;
        let map = self.judged.choose_map(&config.score, self.context.size());
        self.judged.choose_fusion(map, &config.score).weights
    }

    /// Which layers stay in float, found on the first fold's images, and what was measured on the way; none of a model in
    /// f32.
    pub fn float_layers(&self, weights: &TermWeights) -> Result<(Vec<String>, Option<quantise::Report>), ExportError> {
        let unit = &self.models[0];
        let graph = unit.model.graph(self.context.extractor, &weights.map());
        let Some(int8) = unit.numbers.int8(&graph, Dialect::QOperator) else { return Ok((vec![], None)) };
        let held_out = self.held_out(0);
        let maps = held_out.maps(&int8.model(&int8.asked()), "judging int8")?;
        let report = int8.search(&held_out, maps)?.report;
        Ok((report.float_layers.clone(), Some(report)))
    }

    /// Lets what learned in a pass learn again, now that other layers are in float.
    pub fn learn_again(&mut self, float_layers: &[String]) -> Result<(), ExportError> {
        for unit in &mut self.models {
            unit.library = self.context.library(&unit.numbers, float_layers);
            unit.learn_again()?;
        }
        Ok(())
    }

    /// Rule, fusion and scores under fixed weights, of the networks as they are exported.
    pub fn decide(&self, weights: &TermWeights, float_layers: &[String]) -> Result<Decided, ExportError> {
        let (config, images) = (self.context.config, self.context.images);
        let mut maps = vec![Array2::zeros((0, 0)); images.len()];
        let mut seen = vec![0.0; images.len()];
        for (fold, unit) in self.models.iter().enumerate() {
            let graph = unit.model.graph(self.context.extractor, weights);
            let engine = Engine::load(&unit.numbers.write(&graph, None, float_layers, Dialect::QOperator), 1)?;
            let held = held(self.context, |i| i.fold == fold);
            let outputs = over(self.context, engine.views(), &held, "judging", |pixels| Ok(engine.run(pixels)?))?;
            for (i, output) in held.into_iter().zip(outputs) {
                maps[i] = output.map;
                seen[i] = output.image_score.unwrap_or_default();
            }
        }
        let smooth = |i: usize| ckaad_inspect::smooth(maps[i].view(), self.context.size(), config.score.sigma_px);
        let mut judged = self.judged.labels();
        let map = judged.choose_rule(&weights.map(), smooth, &config.score);
        let of_image = weights.image();
        if !of_image.is_empty() {
            judged.branches = vec![Branch::mixed(&self.image_terms, of_image).again(seen)];
        }
        let map_scores = map.scores.clone();
        let choice = judged.choose_fusion(map, &config.score);
        let normal: Vec<usize> = (0..images.len()).filter(|&i| !judged.positive[i]).collect();
        let peaks = normal.into_par_iter().map(|i| ckaad_inspect::top_k_mean(smooth(i).view(), 1)).collect();
        Ok(Decided { choice, map_scores, peaks, branch: judged.branches.pop(), segments: judged.segments })
    }

    /// The terms that were judged.
    pub fn terms(&self) -> Vec<Term> {
        let of_map = self.judged.maps.iter().map(|(term, _)| *term);
        of_map.chain(self.image_terms.iter().map(|term| term.term)).collect()
    }

    /// One of the models: all are of one size.
    pub fn any(&self) -> &UnitModel<'a> {
        &self.models[0]
    }

    /// Each term of the map alone, with the scores of all images.
    pub fn alone(&self) -> Vec<(&'static str, Vec<f32>)> {
        self.judged.alone(&self.context.config.score, self.context.size())
    }

    /// The images of a fold, as the quantiser judges by them.
    fn held_out(&self, fold: usize) -> HeldOutSet<'_> {
        let of = |anomalous: bool| -> Vec<Sample> {
            let held = held(self.context, |i| i.fold == fold && i.sample.defect.is_some() == anomalous);
            held.into_iter().map(|i| self.context.images[i].sample.clone()).collect()
        };
        let mut samples = of(false);
        let normal = samples.len();
        samples.extend(of(true));
        let config = self.context.config;
        HeldOutSet {
            samples,
            normal,
            input: config.input.into(),
            views: &config.views,
            score: &config.score,
            progress: self.context.progress,
        }
    }
}

/// Places of the images that are `wanted`.
pub fn held(context: &Context, wanted: impl Fn(&crate::methods::Labelled) -> bool) -> Vec<usize> {
    (0..context.images.len()).filter(|&i| wanted(&context.images[i])).collect()
}

/// What `run` makes of each of some images at the network's input size, which takes so many `views` of a part at once.
pub fn over<T: Send>(
    context: &Context,
    views: usize,
    images: &[usize],
    what: &str,
    run: impl Fn(&[u8]) -> Result<Vec<T>, ExportError> + Sync,
) -> Result<Vec<T>, ExportError> {
    let samples = context.images.iter().map(|image| &image.sample).collect();
    let seen = Seen { samples, views: context.config.views_of(views), input: context.config.input.into() };
    seen.each(images, what, context.progress, run)
}

/// Every term of every image by the model of its fold.
fn judge_terms(context: &Context, models: &[UnitModel]) -> Result<(Judged, Vec<ImageTerm>), ExportError> {
    let count = context.images.len();
    let wanted = |term: &Term| context.config.score.weight(*term) != Some(0.0);
    let all: Vec<Term> = models[0].model.terms().into_iter().filter(wanted).collect();
    let (of_map, of_image): (Vec<Term>, Vec<Term>) = all.iter().partition(|term| term.is_map());
    let mut maps: Vec<(Term, Vec<Array2<f32>>)> =
        of_map.iter().map(|&term| (term, vec![Array2::zeros((0, 0)); count])).collect();
    let mut image_terms: Vec<ImageTerm> =
        of_image.iter().map(|&term| ImageTerm { term, seen: vec![0.0; count], unseen: None }).collect();
    for (fold, unit) in models.iter().enumerate() {
        let held = held(context, |i| i.fold == fold);
        for (i, values) in held.iter().zip(term_values(unit, &all, &held)?) {
            for ((_, maps), map) in maps.iter_mut().zip(values.maps) {
                maps[*i] = map;
            }
            image_terms.iter_mut().zip(values.images).for_each(|(term, value)| term.seen[*i] = value);
        }
    }
    for method in models[0].model.methods.iter().filter(|method| !method.needs().steps) {
        let own = image_terms.iter_mut().filter(|term| method.terms().contains(&term.term));
        own.for_each(|term| term.unseen = Some(term.seen.clone()));
    }
    judge_unseen(context, models, &mut image_terms)?;
    let positive: Vec<bool> = context.images.iter().map(|i| i.sample.defect.is_some()).collect();
    let folds = context.images.iter().map(|i| i.fold).collect();
    let kinds = context.images.iter().map(|i| i.sample.defect.clone()).collect();
    let branches = Branch::of(&image_terms, &positive);
    Ok((Judged { positive, folds, kinds, segments: segments::find(context)?, maps, branches }, image_terms))
}

/// What image terms answer to every anomalous image by models that never saw its kind of defect, where there are such.
fn judge_unseen(context: &Context, models: &[UnitModel], image_terms: &mut [ImageTerm]) -> Result<(), ExportError> {
    if image_terms.is_empty() {
        return Ok(());
    }
    for (fold, of_fold) in models.iter().enumerate() {
        for kind in context.info.kinds() {
            let held = held(context, |i| i.fold == fold && i.sample.defect.as_ref() == Some(&kind));
            let unit = Unit::WithoutKind(fold, kind);
            let Some(model) = context.load(&unit)?.filter(|_| !held.is_empty()) else { continue };
            // The backbone is the same, and so are its ranges; the rest of such a model is float.
            let (numbers, library) = (of_fold.numbers.clone(), of_fold.library.clone());
            let mut unit = UnitModel { unit, model, numbers, library };
            if context.other_numbers() {
                unit.learn_again()?;
            }
            let given = unit.model.terms();
            let mut of_unit: Vec<&mut ImageTerm> =
                image_terms.iter_mut().filter(|term| given.contains(&term.term)).collect();
            let terms: Vec<Term> = of_unit.iter().map(|term| term.term).collect();
            for (i, values) in held.iter().zip(term_values(&unit, &terms, &held)?) {
                for (term, value) in of_unit.iter_mut().zip(values.images) {
                    term.unseen.iter_mut().for_each(|unseen| unseen[*i] = value);
                }
            }
        }
    }
    Ok(())
}

/// The terms of one image, in the order that they were asked for in: its maps, and its image scores.
struct TermValues {
    maps: Vec<Array2<f32>>,
    images: Vec<f32>,
}

fn term_values(unit: &UnitModel, terms: &[Term], images: &[usize]) -> Result<Vec<TermValues>, ExportError> {
    let context = unit.numbers.context;
    let (graph, ids) = unit.model.term_graph(context.extractor, terms);
    let asked = &context.config.quantise.float_layers;
    let plan = Plan::load(&unit.numbers.write(&graph, Some(&ids), asked, Dialect::QOperator), 1)?;
    let shapes = plan.outputs().to_vec();
    over(context, plan.views(), images, "judging terms", |pixels| {
        let mut found: Vec<TermValues> =
            (0..plan.views()).map(|_| TermValues { maps: vec![], images: vec![] }).collect();
        for ((values, [c, h, w]), term) in plan.run(pixels)?.into_iter().zip(&shapes).zip(terms) {
            for (view, values) in found.iter_mut().zip(values.chunks_exact(c * h * w)) {
                if term.is_map() {
                    let map = Array2::from_shape_vec((*h, *w), values.to_vec());
                    view.maps.push(map.expect("a plan gives what its shapes say"));
                } else {
                    view.images.push(values.first().copied().unwrap_or_default());
                }
            }
        }
        Ok(found)
    })
}
