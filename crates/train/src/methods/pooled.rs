//! The image branch: logistic regression on pooled frozen features. Of each channel of some strides the mean, the mean
//! of the largest and the mean of the smallest cells; no map, no steps. It decides about the image as a whole, and knows
//! only kinds of defects that it was shown: the maps, and how far an image lies from normal ones as a whole
//! ([`Mahalanobis`](super::Mahalanobis)), are for the others.
//!
//! The weights are held back in coordinates in which normal images spread alike in every direction ([`Whitening`]): so it
//! looks first along those in which normal images hardly differ.
//!
//! What is kept for a whole model is the mean of as many heads as there are folds, each of which has not seen one.

use super::{Method, MethodError, Needs, TrainingImages, checkpoint};
use crate::features::Extractor;
use crate::graph::{Graph, Id, Linear, Pool, Term};
use crate::logistic::Logistic;
use crate::whitening::Whitening;
use ndarray::{Array2, Axis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[pooled]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PooledConfig {
    /// Strides of the backbone whose channels are pooled; 32 knows most of what an image shows.
    pub strides: Vec<usize>,
    /// The means of the largest and smallest cells are taken of one cell in so many.
    pub one_in: usize,
    /// The inverse of the ridge, as scikit-learn's `C`: smaller holds the weights back more.
    pub c: f64,
    /// Directions in which normal images spread each in its own way, at most; 0 holds the weights of values back that are
    /// standardised by normal images, as if these did not depend on each other.
    pub directions: usize,
}

impl Default for PooledConfig {
    fn default() -> Self {
        PooledConfig { strides: vec![8, 16, 32], one_in: 50, c: 0.01, directions: 256 }
    }
}

/// The logit that the image is anomalous.
const POOLED: Term = Term::image("pooled").taught();

/// Fewer labels cannot be cross-fitted in five folds.
const LABELS: usize = 5;

/// Appends the pooled values of each of the strides. What another method pools in the same way has the same node, and in
/// another way another name.
pub(super) fn pools(graph: &mut Graph, extractor: &Extractor, strides: &[usize], one_in: usize) -> Vec<Id> {
    let taps = strides.iter().filter_map(|&stride| extractor.tap(stride).map(|tap| (stride, tap)));
    taps.map(|(stride, tap)| graph.pool(format!("pooled.{stride}.{one_in}"), tap, Pool { one_in })).collect()
}

/// The pooled values of every image, a row each; computed once for all methods that pool in the same way.
pub(super) fn values(images: &TrainingImages, strides: &[usize], one_in: usize) -> Result<Array2<f64>, MethodError> {
    let mut graph = images.extractor().graph.clone();
    let pools = pools(&mut graph, images.extractor(), strides, one_in);
    let name = format!("pooled.{strides:?}.{one_in}");
    let all = graph.concat(name.as_str(), pools);
    Ok(images.table(&name, &graph, all)?.mapv(f64::from))
}

/// The method.
pub struct Pooled {
    config: PooledConfig,
    /// One weight a pooled value, and a bias; empty until it has learned.
    head: Linear,
}

impl Pooled {
    /// Without a head yet.
    pub fn new(config: PooledConfig) -> Pooled {
        Pooled { config, head: Linear { weights: vec![], bias: 0.0 } }
    }

    fn fit(&self, rows: &Array2<f64>, positive: &[bool], kept: &[usize]) -> Logistic {
        let normal: Vec<usize> = kept.iter().copied().filter(|&i| !positive[i]).collect();
        let whitening = Whitening::of(rows.select(Axis(0), &normal).view(), self.config.directions);
        let positive: Vec<bool> = kept.iter().map(|&i| positive[i]).collect();
        // As scikit-learn weighs the loss: C for each of the images.
        let ridge = 1.0 / (self.config.c * kept.len() as f64);
        let rows = whitening.rows(rows.select(Axis(0), kept).view());
        let Logistic { weights, bias } = Logistic::fit_as_is(rows, &positive, ridge);
        let (weights, bias) = whitening.linear(&weights, bias);
        Logistic { weights, bias }
    }
}

impl Method for Pooled {
    fn name(&self) -> String {
        "pooled".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![POOLED]
    }

    fn needs(&self) -> Needs {
        Needs { labels: LABELS, ..Needs::default() }
    }

    fn learn(&mut self, images: &TrainingImages) -> Result<(), MethodError> {
        let rows = values(images, &self.config.strides, self.config.one_in)?;
        let positive: Vec<bool> = images.iter().map(|image| image.sample.defect.is_some()).collect();
        let without = |fold: Option<usize>| -> Vec<usize> {
            images.iter().enumerate().filter(|(_, image)| Some(image.fold) != fold).map(|(i, _)| i).collect()
        };
        let left_out = images.folds().map_or(vec![None], |folds| folds.into_iter().map(Some).collect());
        let heads: Vec<Logistic> =
            left_out.into_iter().map(|fold| self.fit(&rows, &positive, &without(fold))).collect();
        let mean = Logistic::mean(&heads);
        self.head = Linear { weights: mean.weights.iter().map(|&w| w as f32).collect(), bias: mean.bias as f32 };
        Ok(())
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let pools = pools(graph, extractor, &self.config.strides, self.config.one_in);
        let mut head = self.head.clone();
        if head.weights.is_empty() {
            // Untrained, it has its size but says nothing.
            head.weights = vec![0.0; pools.iter().map(|&id| graph.shape(id)[0]).sum()];
        }
        vec![(POOLED, graph.linear("pooled", pools, head))]
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        checkpoint::write(&folder.join(FILE), &self.head)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.head = checkpoint::read(&folder.join(FILE))?;
        Ok(())
    }
}

/// Name of the head in a checkpoint.
const FILE: &str = "head.json";
