//! MVAD as one of the methods of a model.

use super::fold;
use super::net::{MvadNet, Shape, Size};
use super::windows::looked_at;
use crate::device;
use crate::features::Extractor;
use crate::graph::{ChannelStatistics, CrossView, Graph, Id, Term};
use crate::methods::folding::tensors;
use crate::methods::learner::Learner;
use crate::methods::raw::{ErrorSpace, Raw, cosine_errors};
use crate::methods::{Losses, Method, MethodError, Needs, StepBatch, UnreadLosses, late_drop};
use burn::module::Module;
use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[mvad]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MvadConfig {
    /// Widths that fit a device, or the paper's.
    pub size: Size,
    /// Where the error is measured: on features as the backbone gives them, or on standardised ones.
    pub error: ErrorSpace,
    /// Windows of the other views that a window looks at.
    pub top: usize,
    /// Heads of the attention; they divide the channels of every stride.
    pub heads: usize,
    /// The same for the first four fifths of the steps, a tenth of it behind. The paper has 0.0125 for 40 images a step.
    pub learning_rate: f64,
    /// Of the squared error.
    pub weight: f64,
    /// Share of the values, and of the images, that the attention's blocks drop while training; the paper has 0.1.
    pub dropout: f64,
    /// The gradient is scaled down to this length; 0 leaves it.
    pub clip: f64,
    /// Whether a view is drawn from its own features too (the paper), or from what the other views answer alone: then what they do not show is missing.
    pub own: bool,
}

impl Default for MvadConfig {
    fn default() -> Self {
        MvadConfig {
            size: Size::Slim,
            error: ErrorSpace::Raw,
            top: 4,
            heads: 8,
            learning_rate: 2e-3,
            weight: 5.0,
            dropout: 0.0,
            clip: 5.0,
            own: true,
        }
    }
}

/// Cosine error of what was drawn with the other views at hand.
const CROSS_VIEW: Term = Term::map("cross-view");
/// Squared error of the features, over all scales.
const RECONSTRUCTION: &str = "cross-view";

fn adam_w() -> ModuleOptimizer {
    AdamWConfig::new().with_weight_decay(1e-4).init()
}

/// The method.
pub struct Mvad {
    config: MvadConfig,
    net: Learner<MvadNet>,
    /// Of each scale.
    windows: Vec<CrossView>,
    /// What brings the features of each tap back from standardised to raw ones before errors are measured; `None`
    /// measures them as they are.
    spread: Option<Vec<ChannelStatistics>>,
    raw: Raw,
    device: Device,
}

/// Cells along a window of the scale `i`, the finest first: of the paper's three 5, 4 and 3.
fn side(i: usize) -> usize {
    5usize.saturating_sub(i).max(3)
}

impl Mvad {
    /// Untrained networks for the features of `extractor`, of parts that so many views show.
    pub fn new(config: &MvadConfig, views: usize, extractor: &Extractor, device: &Device) -> Mvad {
        let spread = extractor.spread.clone().filter(|_| config.error == ErrorSpace::Raw);
        let how = |i: usize| CrossView { views, window: side(i), top: config.top, heads: config.heads };
        let windows: Vec<CrossView> = (0..extractor.scales.len()).map(how).collect();
        let shape = Shape { size: config.size, dropout: config.dropout, own: config.own };
        let net = device::drawn(device, |device| MvadNet::new(&extractor.scales, &shape, device));
        Mvad {
            config: config.clone(),
            net: Learner::new(net, adam_w),
            raw: Raw::new(spread.as_deref().unwrap_or_default(), device),
            windows,
            spread,
            device: device.clone().autodiff(),
        }
    }
}

impl Method for Mvad {
    fn name(&self) -> String {
        "mvad".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![CROSS_VIEW]
    }

    fn needs(&self) -> Needs {
        let views = self.windows.first().map_or(1, |how| how.views);
        Needs { steps: true, features: true, views, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let found = &batch.normal.features;
        let inner = self.device.clone().inner();
        let others: Vec<_> =
            found.iter().zip(&self.windows).map(|(scale, &how)| looked_at(scale, how, &inner)).collect();
        let features = tensors(found, &self.device);
        let outputs = self.net.network.forward(&features, &others, &self.windows);
        let loss = self.raw.squared_error(&features, &outputs).mul_scalar(self.config.weight);
        let losses = UnreadLosses::default().with(RECONSTRUCTION, &loss);
        self.net.step(self.config.learning_rate * late_drop(progress), self.config.clip, &loss);
        if batch.tell { losses.read() } else { Losses::default() }
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let outputs = fold::predictions(graph, &self.net.network.valid(), &extractor.taps, &self.windows);
        cosine_errors(graph, CROSS_VIEW, &extractor.taps, outputs, self.spread.as_deref())
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.net.save(folder, FILES)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.net.load(folder, FILES)
    }
}

/// What the files of a checkpoint begin with.
const FILES: &str = "mvad";

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
