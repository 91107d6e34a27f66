//! Which of the methods of a run are worth their time: those of one list, beginning with what is cheap and always there, to which one method after
//! another is added as long as the verdicts on images that no model had seen gain more by it than chance would.

use super::folds::Folds;
use super::{Context, ExportError};
use crate::config::{MethodKind, TrainConfig, join};
use crate::frame_time;
use crate::graph::Term;
use crate::metrics::Placements;
use crate::onnx::int8::Dialect;
use crate::run::RunFolder;
use crate::score::{Branch, Choice, FEW_LABELS, ImageTerm, Judged};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// What was chosen, and what it was held against; `choice.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodsChosen {
    /// The methods that are exported.
    pub methods: Vec<MethodKind>,
    /// Milliseconds that a frame may take on one thread of this machine; `None` where nothing was said.
    pub budget_ms: Option<f64>,
    /// Every list, in the order in which they were tried, the first being what the others are added to.
    pub tried: Vec<TriedMethods>,
}

/// One list of methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriedMethods {
    /// The list.
    pub methods: Vec<MethodKind>,
    /// Image AUROC over images that the judging models never saw; `None` where one class is missing.
    pub image_auroc: Option<f64>,
    /// Its standard error.
    pub standard_error: Option<f64>,
    /// By how much that is above the list that it was tried beside, and the standard error of the difference; `None` of the first.
    pub gain: Option<(f64, f64)>,
    /// Of the network in int8 with smoothing and score, on one thread of this machine.
    pub ms: f64,
}

impl TriedMethods {
    fn of(methods: &[MethodKind], own: Option<&Placements>, beside: Option<&Placements>, ms: f64) -> TriedMethods {
        TriedMethods {
            methods: methods.to_vec(),
            image_auroc: own.map(Placements::auroc),
            standard_error: own.map(Placements::standard_error),
            gain: own.zip(beside).map(|(own, beside)| own.gain_over(beside)),
            ms,
        }
    }

    /// By how much it is better than what it was tried beside, if that is more than so many standard errors.
    fn gains(&self, errors: f64) -> Option<f64> {
        self.gain.filter(|(gain, error)| *gain > errors * error).map(|(gain, _)| gain)
    }
}

impl MethodsChosen {
    /// Begins with `base` and adds, of `extras`, whatever gains most, as long as something does; `judge` says how a list tells images apart and how
    /// many milliseconds a frame takes.
    fn of<E>(
        base: Vec<MethodKind>,
        mut extras: Vec<MethodKind>,
        budget_ms: Option<f64>,
        judge: impl Fn(&[MethodKind]) -> Result<(Option<Placements>, f64), E>,
    ) -> Result<MethodsChosen, E> {
        let (mut best, ms) = judge(&base)?;
        let first = TriedMethods::of(&base, best.as_ref(), None, ms);
        let mut chosen = MethodsChosen { methods: base, budget_ms, tried: vec![first] };
        while let Some(beside) = best.take() {
            let errors = errors(extras.len());
            let mut most = 0.0;
            let mut next = None;
            for &kind in &extras {
                let methods = [&chosen.methods[..], &[kind]].concat();
                let (placements, ms) = judge(&methods)?;
                let tried = TriedMethods::of(&methods, placements.as_ref(), Some(&beside), ms);
                if let Some(gain) = tried.gains(errors).filter(|gain| *gain > most && chosen.affords(&tried)) {
                    most = gain;
                    next = placements.map(|placements| (kind, placements));
                }
                chosen.tried.push(tried);
            }
            if let Some((kind, placements)) = next {
                chosen.methods.push(kind);
                extras.retain(|other| *other != kind);
                best = Some(placements);
            }
        }
        Ok(chosen)
    }

    /// A few per cent more are what measuring again may say of the same.
    fn affords(&self, tried: &TriedMethods) -> bool {
        self.budget_ms.is_none_or(|budget| tried.ms <= 1.05 * budget)
    }

    /// Why it is these.
    fn reason(&self) -> String {
        let first = self.tried.first();
        if first.is_none_or(|first| first.image_auroc.is_none()) || self.tried.len() == 1 {
            return format!("with fewer than {FEW_LABELS} anomalous images nothing tells whether others help");
        }
        let within = if self.budget_ms.is_some() { " within the budget" } else { "" };
        if first.is_some_and(|first| self.methods != first.methods) {
            return format!(
                "what was added made it better by more than chance would, and no other method{within} does"
            );
        }
        format!("no other method{within} makes it better by more than chance would")
    }
}

/// By so many standard errors the best of `tried` lists that are all no better is above with the chance with which a single one is by one:
/// `Φ⁻¹(Φ(1)^(1/tried))`.
fn errors(tried: usize) -> f64 {
    const OF: [f64; 8] = [1.0, 1.387, 1.590, 1.725, 1.825, 1.905, 1.971, 2.027];
    OF[tried.clamp(1, OF.len()) - 1]
}

impl fmt::Display for MethodsChosen {
    /// A line a list, and one that says what was chosen and why.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for tried in &self.tried {
            let auroc = match (tried.image_auroc, tried.standard_error) {
                (Some(auroc), Some(error)) => format!("{auroc:.4} ± {error:.4}"),
                _ => "n/a".into(),
            };
            let gain = match tried.gain {
                Some((gain, error)) => format!(", {gain:+.4} ± {error:.4}"),
                None => String::new(),
            };
            let dear = if self.affords(tried) { "" } else { ", above the budget" };
            writeln!(f, "  {}: {auroc}{gain}, {:.1} ms{dear}", join(&tried.methods), tried.ms)?;
        }
        write!(f, "chosen: {}; {}", join(&self.methods), self.reason())
    }
}

/// Tries lists of the run's methods, as its config names them, in int8 and keeps the choice in its folder, where `export` finds it.
///
/// # Errors
/// As [`super::export_with`].
pub fn choose_methods(folder: &Path) -> Result<MethodsChosen, ExportError> {
    let run = RunFolder::at(folder);
    let config = TrainConfig::of_run(&run)?;
    Context::with(&run, &config, true, &TrainConfig::model, |context| {
        let folds = Folds::load(context)?;
        let chosen = Chooser { context, folds: &folds }.choose()?;
        context.run.keep_choice(&chosen)?;
        Ok(chosen)
    })
}

struct Chooser<'a> {
    context: &'a Context<'a>,
    folds: &'a Folds<'a>,
}

impl Chooser<'_> {
    fn choose(&self) -> Result<MethodsChosen, ExportError> {
        let (base, extras) = MethodKind::apart(&self.taught());
        let budget_ms = self.context.config.budget.map(|budget| budget.ms / budget.factor);
        MethodsChosen::of(base, extras, budget_ms, |methods| self.tried(methods))
    }

    /// The methods that the data could teach.
    fn taught(&self) -> Vec<MethodKind> {
        let given: Vec<Term> = self.folds.terms();
        let gives = |kind: &MethodKind| given.iter().any(|term| MethodKind::of_term(term.name) == Some(*kind));
        self.context.config.methods.iter().copied().filter(gives).collect()
    }

    fn tried(&self, methods: &[MethodKind]) -> Result<(Option<Placements>, f64), ExportError> {
        let choice = self.judged(methods);
        let ms = self.milliseconds(&choice)?;
        Ok((choice.placements, ms))
    }

    /// What is made of the terms of these methods alone.
    fn judged(&self, methods: &[MethodKind]) -> Choice {
        let of_list = |term: &Term| MethodKind::of_term(term.name).is_some_and(|kind| methods.contains(&kind));
        let all = &self.folds.judged;
        let maps = all.maps.iter().filter(|(term, _)| of_list(term)).cloned().collect();
        let mut terms: Vec<ImageTerm> = self.folds.image_terms.iter().filter(|t| of_list(&t.term)).cloned().collect();
        if !self.tries_without_kinds() {
            terms.iter_mut().for_each(|term| term.unseen = None);
        }
        let judged = Judged { maps, branches: Branch::of(&terms, &all.positive), ..all.labels() };
        let config = &self.context.config.score;
        let map = judged.choose_map(config, self.context.size());
        judged.choose_fusion(map, config)
    }

    /// Whether every term was also judged without each kind of defect, or learned from no label. If only some lists were held to that, the others would
    /// gain by being spared.
    fn tries_without_kinds(&self) -> bool {
        let maps = self.folds.judged.maps.iter().all(|(term, _)| !term.taught);
        maps && self.folds.image_terms.iter().all(|term| term.unseen.is_some())
    }

    fn milliseconds(&self, choice: &Choice) -> Result<f64, ExportError> {
        let whole = self.folds.any();
        let graph = whole.model.graph(self.context.extractor, &choice.weights);
        let float_layers = &self.context.config.quantise.float_layers;
        let model = whole.numbers.write(&graph, None, float_layers, Dialect::QOperator);
        let (height, width) = self.context.size();
        Ok(frame_time::milliseconds(&model, [height, width], self.context.config.score.sigma_px)?)
    }
}

/// The run's config, without the methods that were tried and not chosen.
pub(super) fn chosen(run: &RunFolder) -> Result<TrainConfig, ExportError> {
    let mut config = TrainConfig::of_run(run)?;
    match run.choice::<MethodsChosen>()? {
        Some(chosen) => {
            config.methods = chosen.methods;
            config.check(&run.choice_path())?;
        }
        None if run.info()?.choose => return Err(ExportError::NotChosen { run: run.folder.clone() }),
        None => {}
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use MethodKind::{Bank, Ckaad, Mahalanobis, Mil, Tocoad};

    /// Twenty normal images and twenty anomalous ones, of which so many are above all normal ones and the others below.
    fn above(found: usize) -> Option<Placements> {
        let anomalous = (0..20).map(|i| if i < found { 9.0 } else { -9.0 });
        let scores: Vec<f32> = anomalous.chain((0..20).map(|i| i as f32 / 40.0)).collect();
        Placements::of(&scores, &[[true; 20], [false; 20]].concat())
    }

    /// Each method finds some defects more and takes some time.
    fn choose(budget_ms: Option<f64>, worth: fn(MethodKind) -> (usize, f64)) -> MethodsChosen {
        let judge = |methods: &[MethodKind]| {
            let all: Vec<(usize, f64)> = methods.iter().map(|kind| worth(*kind)).collect();
            let (found, ms) = all.into_iter().fold((0, 0.0), |(a, b), (c, d)| (a + c, b + d));
            Ok::<_, ()>((above(found), ms))
        };
        MethodsChosen::of(vec![Bank, Mahalanobis], vec![Ckaad, Mil, Tocoad], budget_ms, judge).unwrap()
    }

    fn worth(kind: MethodKind) -> (usize, f64) {
        match kind {
            Bank => (10, 5.0),
            Mahalanobis => (2, 1.0),
            Mil => (5, 3.0),
            Ckaad => (2, 4.0),
            _ => (0, 1.0),
        }
    }

    #[test]
    fn methods_join_one_after_another_while_they_gain() {
        let chosen = choose(None, worth);
        assert_eq!(chosen.methods, [Bank, Mahalanobis, Mil, Ckaad]);
        // The base, three beside it, two beside the first choice, one beside the second.
        assert_eq!(chosen.tried.len(), 1 + 3 + 2 + 1);
        let said = chosen.to_string();
        assert!(said.starts_with("  bank + mahalanobis: 0.6000 ± "), "{said}");
        assert!(said.contains("\n  bank + mahalanobis + mil: 0.8500 ± ") && said.contains(", +0.2500 ± "), "{said}");
        let last = "chosen: bank + mahalanobis + mil + ckaad; what was added made it better by more than chance would, and no other method does";
        assert_eq!(said.lines().last(), Some(last));
    }

    #[test]
    fn what_the_budget_does_not_allow_is_tried_and_not_chosen() {
        let chosen = choose(Some(8.5), worth);
        assert_eq!(chosen.methods, [Bank, Mahalanobis]);
        let said = chosen.to_string();
        assert_eq!(said.matches(", above the budget").count(), 2);
        assert!(
            said.ends_with("; no other method within the budget makes it better by more than chance would"),
            "{said}"
        );
        assert_eq!(choose(Some(9.5), worth).methods, [Bank, Mahalanobis, Mil]);
    }

    #[test]
    fn what_gains_no_more_than_chance_is_left_out() {
        // One and a half standard errors: more than a single list would gain by chance, less than the luckiest of three.
        let lucky = |kind| match kind {
            Bank => (12, 1.0),
            Ckaad => (2, 1.0),
            _ => (0, 1.0),
        };
        let chosen = choose(None, lucky);
        let (gain, error) = chosen.tried[1].gain.unwrap();
        assert!(errors(1) < gain / error && gain / error < errors(3), "{gain} {error}");
        assert_eq!(chosen.methods, [Bank, Mahalanobis]);
        assert!(chosen.to_string().ends_with("; no other method makes it better by more than chance would"));
    }

    #[test]
    fn without_anomalous_images_nothing_is_compared() {
        let judge = |_: &[MethodKind]| Ok::<_, ()>((None, 1.0));
        let chosen = MethodsChosen::of(vec![Bank], vec![Mil], None, judge).unwrap();
        assert_eq!((chosen.methods.as_slice(), chosen.tried.len()), ([Bank].as_slice(), 1));
        assert!(
            chosen.to_string().contains("bank: n/a, 1.0 ms\nchosen: bank; with fewer than 5 anomalous images"),
            "{chosen}"
        );
    }
}
