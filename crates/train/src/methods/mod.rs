//! Ways of telling anomalous images from normal ones that can be trained. A model is a list of them: each gives terms,
//! the anomaly map is a weighted sum of those that speak of places, and the image score beside it of those that speak of
//! whole images. How they are weighed is decided in `score`.

mod adapt;
mod bank;
mod batch;
mod checkpoint;
pub mod ckaad;
mod clip;
pub mod devnet;
mod folding;
#[cfg(test)]
mod formula;
mod grid;
mod images;
pub mod invad;
mod learner;
mod mahalanobis;
pub mod mil;
pub mod mvad;
mod places;
mod pooled;
mod raw;
mod segmenter;
pub mod sparsity;
#[cfg(test)]
pub(crate) mod specimens;
pub mod tocoad;

pub use bank::{Bank, BankConfig};
pub use batch::{Batch, Losses, MeanLosses, Outlined, StepBatch, UnreadLosses};
pub use images::{Emit, Labelled, Library, TrainingImages};
pub use mahalanobis::{Mahalanobis, MahalanobisConfig};
pub use pooled::{Pooled, PooledConfig};
pub use raw::ErrorSpace;

use crate::features::{Extractor, FeatureError};
use crate::graph::{Graph, Id, Term, TermWeights};
use std::path::{Path, PathBuf};

/// Why a method cannot learn, or cannot be kept.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum MethodError {
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error("checkpoint {path}: {cause}")]
    Checkpoint { path: PathBuf, cause: String },
}

impl MethodError {
    /// A checkpoint cannot be read or written.
    pub fn checkpoint(path: &Path, cause: impl ToString) -> MethodError {
        MethodError::Checkpoint { path: path.to_owned(), cause: cause.to_string() }
    }
}

/// What a method must be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// It is trained in steps, epoch by epoch, before [`Method::learn`]; otherwise all it learns is in that.
    pub steps: bool,
    /// Steps read frozen features of the extractor's scales.
    pub features: bool,
    /// Steps read the images themselves.
    pub images: bool,
    /// Steps read anomalous images too, labelled or made.
    pub anomalous: bool,
    /// Steps also read so many normal images with defects, and controls that are none, painted into them.
    pub painted: usize,
    /// So many of them a step; labelled images with masks are among these.
    pub painted_batch: usize,
    /// Steps read each normal image a second time, in another light, and painted ones as they were before.
    pub twice: bool,
    /// So many views of each part lie behind one another among the normal images of a step; below 2 images come one by one.
    pub views: usize,
    /// With fewer labelled anomalies it learns nothing of use, and is left out.
    pub labels: usize,
    /// The same where a model of some fold sees fewer.
    pub labels_a_fold: usize,
}

/// One way of telling anomalous from normal.
///
/// A method is made untrained, learns, and can then append itself to a graph. The same method is trained several times
/// in a run: once without the images of each fold, so that every image is judged by one that never saw it, and once with
/// all.
///
/// ```
/// use ckaad_train::features::Extractor;
/// use ckaad_train::graph::{Activation, Conv, Graph, Id, Term};
/// use ckaad_train::methods::{Method, MethodError};
/// use std::path::Path;
///
/// /// The mean of all feature channels, place by place: it learns nothing.
/// struct Brightness;
/// const BRIGHTNESS: Term = Term::map("brightness");
///
/// impl Method for Brightness {
///     fn name(&self) -> String {
///         "brightness".into()
///     }
///     fn terms(&self) -> Vec<Term> {
///         vec![BRIGHTNESS]
///     }
///     fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
///         let tap = extractor.taps[0];
///         let channels = graph.shape(tap)[0];
///         let (weight, activation) = (vec![1.0 / channels as f32; channels], Activation::Linear);
///         let mean =
///             Conv { weight, bias: vec![0.0], out: 1, kernel: 1, stride: 1, pads: [0; 4], groups: 1, activation };
///         vec![(BRIGHTNESS, graph.conv("brightness", tap, mean))]
///     }
///     fn save(&self, _: &Path) -> Result<(), MethodError> {
///         Ok(())
///     }
///     fn load(&mut self, _: &Path) -> Result<(), MethodError> {
///         Ok(())
///     }
/// }
/// ```
pub trait Method {
    /// Its name in a bundle, `[a-z0-9-]`, with what tells its variants apart.
    fn name(&self) -> String;

    /// The terms that it gives.
    fn terms(&self) -> Vec<Term>;

    /// What it must be given.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Learns what passes over the images teach: once where there are no steps, behind the last one where there are.
    ///
    /// # Errors
    /// An image cannot be read.
    fn learn(&mut self, _images: &TrainingImages) -> Result<(), MethodError> {
        Ok(())
    }

    /// One step; `progress` goes from 0 at the first of all steps towards 1. Gives the losses where the batch asks to be told.
    fn step(&mut self, _batch: &StepBatch, _progress: f64) -> Losses {
        Losses::default()
    }

    /// What is wrong with the training, as far as the mean losses of an epoch show it.
    fn doubt(&self, _losses: &Losses) -> Option<String> {
        None
    }

    /// Appends, behind the nodes of `extractor`, all that leads to the terms that are `wanted`, and gives the nodes of
    /// each: several nodes of one term are summed. A map is `[1,h,w]`, an image score `[1,1,1]`. An untrained method
    /// appends what has its size.
    fn append(&self, graph: &mut Graph, extractor: &Extractor, wanted: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)>;

    /// Writes what it learned into `folder`, which is there and its own.
    ///
    /// # Errors
    /// It cannot be written.
    fn save(&self, folder: &Path) -> Result<(), MethodError>;

    /// Reads what [`Method::save`] wrote.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    fn load(&mut self, folder: &Path) -> Result<(), MethodError>;
}

/// The methods of one model, in the order of the config.
pub struct Model {
    /// None of them shares a term with another.
    pub methods: Vec<Box<dyn Method>>,
}

impl Model {
    /// What any of the methods needs.
    pub fn needs(&self) -> Needs {
        let any = |what: fn(&Needs) -> bool| self.methods.iter().any(|m| what(&m.needs()));
        let most = |what: fn(&Needs) -> usize| self.methods.iter().map(|m| what(&m.needs())).max().unwrap_or(0);
        Needs {
            steps: any(|n| n.steps),
            features: any(|n| n.features),
            images: any(|n| n.images),
            anomalous: any(|n| n.anomalous),
            twice: any(|n| n.twice),
            painted: most(|n| n.painted),
            painted_batch: most(|n| n.painted_batch),
            views: most(|n| n.views),
            labels: 0,
            labels_a_fold: 0,
        }
    }

    /// The terms of all methods.
    pub fn terms(&self) -> Vec<Term> {
        self.methods.iter().flat_map(|m| m.terms()).collect()
    }

    /// Names of the methods that a part of the answer comes from.
    pub fn used(&self, weights: &TermWeights) -> Vec<String> {
        let used = self.methods.iter().filter(|m| m.terms().iter().any(|term| weights.of(*term) != 0.0));
        used.map(|method| method.name()).collect()
    }

    /// The methods that are trained in steps, or those that are not, learn from `images` what passes over them teach.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn learn(&mut self, images: &TrainingImages, steps: bool) -> Result<(), MethodError> {
        self.methods.iter_mut().filter(|m| m.needs().steps == steps).try_for_each(|m| m.learn(images))
    }

    /// One step of all methods that are trained in steps.
    pub fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let mut losses = Losses::default();
        for method in self.methods.iter_mut().filter(|m| m.needs().steps) {
            losses.add(&method.step(batch, progress), 1.0);
        }
        losses
    }

    /// The graph of extractor, methods and the weighted sum of their terms. What weighs nothing is left out with all
    /// that leads to it.
    pub fn graph(&self, extractor: &Extractor, weights: &TermWeights) -> Graph {
        let mut graph = extractor.graph.clone();
        let nodes = self.append(&mut graph, extractor, &|term| weights.of(term) != 0.0);
        let of = |graph: &mut Graph, name: &str, map: bool| {
            let chosen: Vec<(Term, Id)> = nodes.iter().copied().filter(|(term, _)| term.is_map() == map).collect();
            let factors = chosen.iter().map(|(term, _)| weights.of(*term)).collect();
            let ids: Vec<Id> = chosen.iter().map(|(_, id)| *id).collect();
            (!ids.is_empty()).then(|| graph.sum_maps(name, ids, factors))
        };
        graph.map = of(&mut graph, "map", true);
        graph.image_score = of(&mut graph, "image_score", false);
        graph.pruned()
    }

    /// The graph of extractor and methods, and in it the node of each of `terms`.
    pub fn term_graph(&self, extractor: &Extractor, terms: &[Term]) -> (Graph, Vec<Id>) {
        let mut graph = extractor.graph.clone();
        let nodes = self.append(&mut graph, extractor, &|term| terms.contains(&term));
        let of = |term: &Term| {
            let ids: Vec<Id> = nodes.iter().filter(|(t, _)| t == term).map(|(_, id)| *id).collect();
            let ones = vec![1.0; ids.len()];
            graph.sum_maps(format!("term.{}", term.name), ids, ones)
        };
        let ids = terms.iter().map(of).collect();
        (graph, ids)
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, wanted: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let asked = self.methods.iter().filter(|m| m.terms().into_iter().any(wanted));
        asked.flat_map(|m| m.append(graph, extractor, wanted)).filter(|(term, _)| wanted(*term)).collect()
    }

    /// Writes what every method learned into `folder`, one folder a method.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.methods.iter().try_for_each(|method| {
            let own = folder.join(method.name());
            std::fs::create_dir_all(&own).map_err(|e| MethodError::checkpoint(&own, e))?;
            method.save(&own)
        })
    }

    /// Reads what [`Model::save`] wrote.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.methods.iter_mut().try_for_each(|method| method.load(&folder.join(method.name())))
    }
}

/// 1 for the first four fifths of the steps, a tenth behind.
fn late_drop(progress: f64) -> f64 {
    if progress < 0.8 { 1.0 } else { 0.1 }
}

/// 1 at the start, 0 at the end.
fn cosine_decay(progress: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bundle named every method that was trained, those that weigh nothing too.
    #[test]
    fn only_methods_that_a_part_of_the_answer_comes_from_are_used() {
        let (bank, pooled) = (Bank::new(BankConfig::default()), Pooled::new(PooledConfig::default()));
        let (distance, image) = (bank.terms()[0], pooled.terms()[0]);
        let model = Model { methods: vec![Box::new(bank), Box::new(pooled)] };
        assert_eq!(model.used(&TermWeights::only(distance)), ["bank"]);
        assert_eq!(model.used(&TermWeights::only(distance).with(image, 0.5)), ["bank", "pooled"]);
        assert!(model.used(&TermWeights::default()).is_empty());
    }
}
