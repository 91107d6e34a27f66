//! InvAD as one of the methods of a model.

use super::fold::Fold;
use super::net::{InvadNet, NetConfig};
use crate::device;
use crate::features::Extractor;
use crate::graph::{ChannelStatistics, Graph, Id, Joint, Term};
use crate::methods::folding::tensors;
use crate::methods::learner::Learner;
use crate::methods::raw::{ErrorSpace, Raw, cosine_errors};
use crate::methods::{Losses, Method, MethodError, Needs, StepBatch, UnreadLosses, late_drop};
use burn::module::Module;
use burn::optim::{AdamConfig, ModuleOptimizer};
use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[invad]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InvadConfig {
    /// Where the error is measured: on features as the backbone gives them, or on standardised ones.
    pub error: ErrorSpace,
    /// How the errors of the scales become one map.
    pub map: MapKind,
    /// The same for the first four fifths of the steps, a tenth of it behind. The paper has 0.001 for every 8 images of a batch.
    pub learning_rate: f64,
    /// Of the squared error; the paper has 5 for InvAD-lite and 1 for InvAD.
    pub weight: f64,
    /// The gradient is scaled down to this length; 0 leaves it.
    pub clip: f64,
    /// Fuser and decoder.
    pub net: NetConfig,
}

impl Default for InvadConfig {
    fn default() -> Self {
        InvadConfig {
            error: ErrorSpace::Raw,
            map: MapKind::Scales,
            learning_rate: 2e-3,
            weight: 5.0,
            clip: 5.0,
            net: NetConfig::default(),
        }
    }
}

/// How the errors of several scales become one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MapKind {
    /// The sum of one cosine error a scale.
    Scales,
    /// One cosine error of all scales together, each brought to length 1 and to the finest one's grid (the paper). It is measured on
    /// features as they come.
    Joint,
}

/// Cosine error of what the styles made of an image.
const INVERSION: Term = Term::map("inversion");
/// Squared error of the features, over all scales.
const RECONSTRUCTION: &str = "inversion";

fn adam() -> ModuleOptimizer {
    AdamConfig::new().with_beta_1(0.0).with_beta_2(0.99).with_epsilon(1e-8).init()
}

/// The method.
pub struct Invad {
    config: InvadConfig,
    net: Learner<InvadNet>,
    /// What brings the features of each tap back from standardised to raw ones before errors are measured; `None`
    /// measures them as they are.
    spread: Option<Vec<ChannelStatistics>>,
    raw: Raw,
    device: Device,
}

impl Invad {
    /// Untrained networks for the features of `extractor`.
    pub fn new(config: &InvadConfig, extractor: &Extractor, device: &Device) -> Invad {
        let spread = extractor.spread.clone().filter(|_| config.error == ErrorSpace::Raw);
        let grid = extractor.shapes().last().map_or([1, 1], |&[_, h, w]| [h, w]);
        let net = device::drawn(device, |device| InvadNet::new(&config.net, &extractor.scales, grid, device));
        Invad {
            config: config.clone(),
            net: Learner::new(net, adam),
            raw: Raw::new(spread.as_deref().unwrap_or_default(), device),
            spread,
            device: device.clone().autodiff(),
        }
    }
}

impl Method for Invad {
    fn name(&self) -> String {
        "invad".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![INVERSION]
    }

    fn needs(&self) -> Needs {
        Needs { steps: true, features: true, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let features = tensors(&batch.normal.features, &self.device);
        let outputs = self.net.network.forward(&features);
        let loss = self.raw.squared_error(&features, &outputs).mul_scalar(self.config.weight);
        let losses = UnreadLosses::default().with(RECONSTRUCTION, &loss);
        self.net.step(self.config.learning_rate * late_drop(progress), self.config.clip, &loss);
        if batch.tell { losses.read() } else { Losses::default() }
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let taps = &extractor.taps;
        let outputs = Fold { graph, norm: self.config.net.norm }.predictions(&self.net.network.valid(), taps);
        if self.config.map == MapKind::Joint {
            let [_, h, w] = graph.shape(taps[0]);
            let unit = Joint { smooth: false, unit: true };
            let targets = graph.joint("inversion.targets", taps.clone(), unit, [h, w]);
            let predictions = graph.joint("inversion.predictions", outputs, unit, [h, w]);
            return vec![(INVERSION, graph.cosine_error("inversion", targets, predictions, None))];
        }
        cosine_errors(graph, INVERSION, taps, outputs, self.spread.as_deref())
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.net.save(folder, FILES)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.net.load(folder, FILES)
    }
}

/// What the files of a checkpoint begin with.
const FILES: &str = "invad";

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
