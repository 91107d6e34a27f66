//! How far an image as a whole is from normal ones: the Mahalanobis distance of its pooled frozen features to a Gaussian of
//! those of normal images (as Rippel, Mertens and Merhof 2020, arXiv 2005.14140, with probabilistic principal components
//! in place of a full covariance). No label teaches it, and so it knows kinds of defects that nobody has shown.

use super::pooled::pools;
use super::{Method, MethodError, TrainingImages};
use crate::features::Extractor;
use crate::graph::{self, Graph, Id, Term};
use crate::whitening::Whitening;
use ckaad_bundle::replace;
use ndarray::Axis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// `[gaussian]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GaussianConfig {
    /// Strides of the backbone whose channels are pooled.
    pub strides: Vec<usize>,
    /// As `pooled.one_in`.
    pub one_in: usize,
    /// Directions in which normal images spread each in its own way, at most.
    pub directions: usize,
}

impl Default for GaussianConfig {
    fn default() -> Self {
        GaussianConfig { strides: vec![8, 16, 32], one_in: 50, directions: 128 }
    }
}

/// The distance of the image.
const MAHALANOBIS: Term = Term::image("mahalanobis");

/// The method.
pub struct Gaussian {
    config: GaussianConfig,
    /// `None` until it has learned.
    learned: Option<graph::Gaussian>,
}

impl Gaussian {
    /// Without a mean yet.
    pub fn new(config: GaussianConfig) -> Gaussian {
        Gaussian { config, learned: None }
    }

    fn pools(&self, graph: &mut Graph, extractor: &Extractor) -> Vec<Id> {
        pools(graph, extractor, &self.config.strides, self.config.one_in)
    }
}

impl Method for Gaussian {
    fn name(&self) -> String {
        "gaussian".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![MAHALANOBIS]
    }

    fn learn(&mut self, images: &TrainingImages) -> Result<(), MethodError> {
        let mut graph = images.extractor().graph.clone();
        let pools = self.pools(&mut graph, images.extractor());
        let all = graph.concat("gaussian.values", pools);
        let rows = images.table("gaussian.values", &graph, all)?.mapv(f64::from);
        let normal: Vec<usize> =
            images.iter().enumerate().filter(|(_, image)| image.sample.defect.is_none()).map(|(i, _)| i).collect();
        let whitening = Whitening::of(rows.select(Axis(0), &normal).view(), self.config.directions);
        self.learned = Some(whitening.gaussian());
        Ok(())
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let pools = self.pools(graph, extractor);
        let values = pools.iter().map(|&id| graph.shape(id)[0]).sum();
        // Untrained, it has its size but says nothing.
        let untrained = || graph::Gaussian {
            mean: vec![0.0; values],
            inverse: vec![0.0; values],
            directions: vec![0.0; values * self.config.directions],
        };
        let gaussian = self.learned.clone().unwrap_or_else(untrained);
        vec![(MAHALANOBIS, graph.gaussian("mahalanobis", pools, gaussian))]
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        let path = folder.join(FILE);
        let failed = |cause: String| MethodError::checkpoint(&path, cause);
        let text = serde_json::to_vec(&self.learned).map_err(|e| failed(e.to_string()))?;
        replace(&path, |out| out.write_all(&text)).map_err(|e| failed(e.to_string()))
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        let path = folder.join(FILE);
        let failed = |cause: String| MethodError::checkpoint(&path, cause);
        let text = std::fs::read(&path).map_err(|e| failed(e.to_string()))?;
        let learned: graph::Gaussian = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
        let values = learned.mean.len();
        if learned.inverse.len() != values || !learned.directions.len().is_multiple_of(values.max(1)) {
            return Err(failed("as many deviations as means, and whole directions, are expected".into()));
        }
        self.learned = Some(learned);
        Ok(())
    }
}

/// Name of the Gaussian in a checkpoint.
const FILE: &str = "gaussian.json";
