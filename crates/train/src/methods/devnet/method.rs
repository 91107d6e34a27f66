//! The stages and their score as one of the methods of a model.

use super::stages::{Stages, Weights};
use crate::device;
use crate::features::Extractor;
use crate::graph::{EnergyHead, Graph, Id, Joint, Linear, Pool, Term};
use crate::methods::folding::{largest, tensor};
use crate::methods::learner::{Learner, adam};
use crate::methods::{Batch, Losses, Method, MethodError, Needs, StepBatch, UnreadLosses, cosine_decay};
use burn::module::Module;
use burn::prelude::*;
use burn::tensor::activation::relu;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[devnet]` of the training config.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DevnetConfig {
    /// The backbone's stages behind this stride learn; one of `features.strides`, below 32.
    pub from: usize,
    /// At the start; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// The score of an image is the mean of its most deviating places, one in so many.
    pub one_in: usize,
    /// The deviation that an anomalous image is to have at least.
    pub margin: f64,
}

impl Default for DevnetConfig {
    fn default() -> Self {
        DevnetConfig { from: 16, learning_rate: 2e-4, one_in: 10, margin: 5.0 }
    }
}

/// How far a place is from normal.
const DEVIATION: Term = Term::map("deviation").taught();
/// The mean of an image's most deviating places.
const DEVNET: Term = Term::image("devnet").taught();

/// As the authors' code.
const GRADIENT: f64 = 1.0;

/// The method.
pub struct Devnet {
    config: DevnetConfig,
    stages: Stages,
    weights: Learner<Weights>,
    device: Device,
}

impl Devnet {
    /// With the backbone's own weights, for the features of `extractor`.
    pub fn new(config: DevnetConfig, extractor: &Extractor, device: &Device) -> Devnet {
        let scale = extractor.scales.iter().position(|s| s.stride == config.from).unwrap_or(0);
        let stages = Stages::behind(extractor, scale, device);
        let weights = Learner::new(device::drawn(device, |device| stages.weights(device)), adam);
        Devnet { config, stages, weights, device: device.clone().autodiff() }
    }

    fn features(&self, batch: &Batch, device: &Device) -> Tensor<4> {
        tensor(&batch.features[self.stages.scale()], device)
    }

    fn pool(&self) -> Pool {
        Pool { one_in: self.config.one_in }
    }

    /// The score of every image, `[N]`.
    fn scores(&self, weights: &Weights, features: Tensor<4>) -> Tensor<1> {
        let deviations = self.stages.deviations(weights, features);
        let [_, places] = deviations.dims();
        largest(deviations.unsqueeze_dim(1), self.pool().count(places)).flatten(0, 2)
    }
}

#[cfg(test)]
impl Devnet {
    /// The scores as the layers give them once they are trained.
    pub fn image_scores(&self, batch: &Batch) -> Vec<f32> {
        let features = self.features(batch, &self.device.clone().inner());
        crate::methods::folding::values(self.scores(&self.weights.network.valid(), features)).0
    }

    /// What the last stage gives, `[N,C,h,w]`.
    pub fn last_stage(&self, batch: &Batch) -> Vec<f32> {
        let features = self.features(batch, &self.device.clone().inner());
        crate::methods::folding::values(self.stages.forward(&self.weights.network.valid(), features).maps()).0
    }
}

impl Method for Devnet {
    fn name(&self) -> String {
        "devnet".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![DEVIATION, DEVNET]
    }

    fn needs(&self) -> Needs {
        Needs { steps: true, features: true, anomalous: true, labels: 1, labels_a_fold: 1, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let Some(labelled) = batch.anomalous.as_ref().filter(|_| !batch.made) else { return Losses::default() };
        let features = [&batch.normal, labelled].map(|batch| self.features(batch, &self.device));
        let scores = self.scores(&self.weights.network, Tensor::cat(features.to_vec(), 0));
        let (normal, images) = (batch.normal.len(), scores.dims()[0]);
        // A deviation is measured in units of the scores that normal images would have by chance, N(0, 1), as the paper has it.
        let down = scores.clone().narrow(0, 0, normal).mean();
        let up = relu(scores.narrow(0, normal, images - normal).neg().add_scalar(self.config.margin)).mean();
        let losses = UnreadLosses::default().with("deviation normal", &down).with("deviation anomalous", &up);
        self.weights.step(self.config.learning_rate * cosine_decay(progress), GRADIENT, &(down + up));
        if batch.tell { losses.read() } else { Losses::default() }
    }

    fn append(&self, graph: &mut Graph, _: &Extractor, wanted: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let weights = self.weights.network.valid();
        let last = self.stages.append(graph, &weights);
        let [_, h, w] = graph.shape(last);
        let places = graph.joint("devnet.places", vec![last], Joint { smooth: false, unit: false }, [h, w]);
        let map = graph.energy("deviation", places, EnergyHead { convs: vec![weights.score()] });
        let mut terms = vec![(DEVIATION, map)];
        if wanted(DEVNET) {
            let pooled = graph.pool("deviation.pool", map, self.pool());
            // Of mean, largest and smallest.
            terms.push((
                DEVNET,
                graph.linear("devnet", vec![pooled], Linear { weights: vec![0.0, 1.0, 0.0], bias: 0.0 }),
            ));
        }
        terms
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.weights.save(folder, FILES)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.weights.load(folder, FILES)
    }
}

/// What the files of a checkpoint begin with.
const FILES: &str = "devnet";
