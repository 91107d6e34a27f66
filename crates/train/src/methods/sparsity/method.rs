//! Auto-encoder and head as one of the methods of a model.

use super::loss::{self, Masked};
use crate::device;
use crate::features::Extractor;
use crate::graph::{ChannelStatistics, Graph, Id, Term};
use crate::methods::batch::together;
use crate::methods::checkpoint;
use crate::methods::ckaad::{self, AutoEncoder, Cosine, Fold, NetConfig, errors, reconstruction};
use crate::methods::folding::{tensors, values};
use crate::methods::grid::to_grid;
use crate::methods::learner::{self, Learner};
use crate::methods::raw::{ErrorSpace, Raw};
use crate::methods::segmenter::Segmenter;
use crate::methods::{Losses, Method, MethodError, Needs, StepBatch, UnreadLosses, cosine_decay};
use burn::module::Module;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[sparsity]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SparsityConfig {
    /// Where the residual is measured: on features as the backbone gives them, or on standardised ones.
    pub error: ErrorSpace,
    /// The auto-encoder.
    pub net: NetConfig,
    /// Of the auto-encoder, which learns in the first half of the steps; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Of the head, which learns in the second half; it falls likewise.
    pub head_learning_rate: f64,
    /// Channels of the head.
    pub width: usize,
    /// The part of an image that the smallest defects cover; up to five times as much costs nothing.
    pub share: f32,
    /// Of that expectation, against what the masks leave out.
    pub weight: f64,
}

impl Default for SparsityConfig {
    fn default() -> Self {
        SparsityConfig {
            error: ErrorSpace::Raw,
            net: NetConfig::default(),
            learning_rate: 2e-3,
            head_learning_rate: 1e-3,
            width: 16,
            share: 0.01,
            weight: 0.5,
        }
    }
}

/// The residual where it is a defect's.
const MASK: Term = Term::map("mask").taught();

/// Share of the steps after which the auto-encoder stands still and the head learns.
const HEAD_FROM: f64 = 0.5;
/// Share of the places of normal images with a residual above the limit. The auto-encoder has learned from these images, so that they are too low;
/// it has not from the labelled ones, of which as many may be above it as a large defect covers.
const ABOVE_LIMIT: f32 = 0.005;
/// The limit is the mean over about so many steps.
const LIMIT_STEPS: u32 = 50;

/// The residual that counts as a whole one, and how many steps it was taken from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    residual: f32,
    steps: u32,
}

impl Limit {
    fn add(&mut self, residual: f32) {
        self.steps += 1;
        self.residual += (residual - self.residual) / self.steps.min(LIMIT_STEPS) as f32;
    }

    /// Above 0 before the first step too.
    fn value(self) -> f32 {
        if self.steps == 0 { 1.0 } else { self.residual.max(1e-6) }
    }
}

/// The method.
pub struct Sparsity {
    config: SparsityConfig,
    auto_encoder: Learner<AutoEncoder>,
    head: Learner<Segmenter>,
    limit: Limit,
    raw: Raw,
    /// What brings the features of each tap back from standardised to raw ones before residuals are measured.
    spread: Option<Vec<ChannelStatistics>>,
    device: Device,
}

impl Sparsity {
    /// Untrained, for the features of `extractor`.
    pub fn new(config: &SparsityConfig, extractor: &Extractor, device: &Device) -> Sparsity {
        let spread = extractor.spread.clone().filter(|_| config.error == ErrorSpace::Raw);
        let scales = &extractor.scales;
        // The residual, then features and reconstruction of each scale.
        let inputs: Vec<usize> = [1].into_iter().chain(scales.iter().flat_map(|s| [s.channels; 2])).collect();
        Sparsity {
            config: config.clone(),
            auto_encoder: Learner::new(
                device::drawn(device, |d| AutoEncoder::new(&config.net, scales, d)),
                ckaad::adam,
            ),
            head: Learner::new(device::drawn(device, |d| Segmenter::new(&inputs, config.width, d)), learner::adam),
            limit: Limit { residual: 0.0, steps: 0 },
            raw: Raw::new(spread.as_deref().unwrap_or_default(), device),
            spread,
            device: device.clone().autodiff(),
        }
    }

    /// The auto-encoder's step.
    fn reconstruct(&mut self, batch: &StepBatch, progress: f64) -> UnreadLosses {
        let features = tensors(&batch.normal.features, &self.device);
        let outputs = self.auto_encoder.network.forward(&features);
        let loss = reconstruction(Cosine::Position, &self.raw.of(&features), &self.raw.of(&outputs));
        let losses = UnreadLosses::default().with("mask reconstruction", &loss);
        self.auto_encoder.step(self.config.learning_rate * cosine_decay(progress / HEAD_FROM), 0.0, &loss);
        losses
    }

    /// The head's step, where there is somebody to learn from.
    fn segment(&mut self, batch: &StepBatch, progress: f64) -> UnreadLosses {
        let Some(labelled) = batch.anomalous.as_ref().filter(|_| !batch.made) else { return UnreadLosses::default() };
        let plain = self.device.clone().inner();
        let features = together(&[&batch.normal, labelled], &plain);
        let normal = batch.normal.len();
        let seen = seen(&self.auto_encoder.network.valid(), &self.raw, &features);
        let (mut of_normal, _) = values(seen.residual.clone());
        let mut of_labelled = of_normal.split_off(of_normal.len() / features[0].dims()[0] * normal);
        let limit = high(&mut of_normal, ABOVE_LIMIT).max(high(&mut of_labelled, loss::most(self.config.share)));
        self.limit.add(limit);
        let inputs = seen.inputs(self.limit.value());
        let inputs: Vec<Tensor<4>> = inputs.into_iter().map(Tensor::from_inner).collect();
        let shares = sigmoid(self.head.network.forward(&inputs));
        let Masked { residual, size, shape } = loss::masked(shares, inputs[0].clone(), normal, self.config.share);
        let losses = UnreadLosses::default()
            .with("mask residual", &residual)
            .with("mask size", &size)
            .with("mask shape", &shape);
        let loss = residual + size.mul_scalar(self.config.weight) + shape;
        let rate = self.config.head_learning_rate * cosine_decay((progress - HEAD_FROM) / (1.0 - HEAD_FROM));
        self.head.step(rate, 0.0, &loss);
        losses
    }
}

/// Features, what became of them, and how far the two are apart, without gradients.
struct Seen {
    features: Vec<Tensor<4>>,
    outputs: Vec<Tensor<4>>,
    /// Summed over the scales, on the finest one's grid: `[N,1,h,w]`.
    residual: Tensor<4>,
}

impl Seen {
    /// What the head reads.
    fn inputs(self, limit: f32) -> Vec<Tensor<4>> {
        let residual = self.residual.div_scalar(limit).clamp_max(1.0);
        let scales = self.features.into_iter().zip(self.outputs);
        [residual].into_iter().chain(scales.flat_map(|(f, g)| [f, g])).collect()
    }
}

fn seen(net: &AutoEncoder, raw: &Raw, features: &[Tensor<4>]) -> Seen {
    let outputs = net.forward(features);
    let pairs = raw.of(features).into_iter().zip(raw.of(&outputs));
    let [_, _, _, width] = features[0].dims();
    let residual = pairs.map(|(f, g)| to_grid(errors(&f, &g), width)).reduce(|a, b| a + b);
    let residual = residual.expect("an extractor has at least one scale");
    Seen { features: features.to_vec(), outputs, residual }
}

/// The value that so large a share of all is above.
fn high(residuals: &mut [f32], share: f32) -> f32 {
    let rank = (residuals.len() as f32 * share) as usize;
    let Some(last) = residuals.len().checked_sub(1) else { return 0.0 };
    *residuals.select_nth_unstable_by(last - rank.min(last), f32::total_cmp).1
}

#[cfg(test)]
impl Sparsity {
    /// What the layers give for each place.
    pub fn masks(&self, batch: &crate::methods::Batch) -> Vec<f32> {
        let (net, head) = (self.auto_encoder.network.valid(), self.head.network.valid());
        let inputs =
            seen(&net, &self.raw, &tensors(&batch.features, &self.device.clone().inner())).inputs(self.limit.value());
        values(sigmoid(head.forward(&inputs)) * inputs[0].clone()).0
    }
}

impl Method for Sparsity {
    fn name(&self) -> String {
        "sparsity".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![MASK]
    }

    fn needs(&self) -> Needs {
        Needs { steps: true, features: true, anomalous: true, labels: 1, labels_a_fold: 1, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let losses = match progress < HEAD_FROM {
            true => self.reconstruct(batch, progress),
            false => self.segment(batch, progress),
        };
        if batch.tell { losses.read() } else { Losses::default() }
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let taps = &extractor.taps;
        let outputs = Fold { graph, prefix: "sparsity." }.auto_encoder(&self.auto_encoder.network.valid(), taps);
        let pairs: Vec<(Id, Id)> = taps.iter().copied().zip(outputs).collect();
        let error = |(i, &(tap, output)): (usize, &(Id, Id))| {
            let raw = self.spread.as_ref().map(|all| all[i].clone());
            graph.cosine_error(format!("sparsity.error.{i}"), tap, output, raw)
        };
        let errors: Vec<Id> = pairs.iter().enumerate().map(error).collect();
        let ones = vec![1.0; errors.len()];
        let residual = graph.sum_maps("sparsity.residual", errors, ones);
        let residual = graph.capped("sparsity.capped", residual, self.limit.value());
        let inputs: Vec<Id> = [residual].into_iter().chain(pairs.into_iter().flat_map(|(f, g)| [f, g])).collect();
        let logit = self.head.network.valid().append(graph, "mask", &inputs);
        vec![(MASK, graph.gated("mask", logit, residual))]
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.auto_encoder.save(folder, AUTO_ENCODER)?;
        self.head.save(folder, HEAD)?;
        checkpoint::write(&folder.join(LIMIT), &self.limit)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.auto_encoder.load(folder, AUTO_ENCODER)?;
        self.head.load(folder, HEAD)?;
        self.limit = checkpoint::read(&folder.join(LIMIT))?;
        Ok(())
    }
}

/// What the files of a checkpoint begin with.
const AUTO_ENCODER: &str = "auto-encoder";
const HEAD: &str = "head";
const LIMIT: &str = "limit.json";
