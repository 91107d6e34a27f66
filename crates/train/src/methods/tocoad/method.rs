//! Adapters and bank as one of the methods of a model.

use super::loss;
use super::net::{Adapters, Compared};
use crate::augment::defects::Cell;
use crate::device;
use crate::features::Extractor;
use crate::graph::{Graph, Id, Term};
use crate::methods::bank::Coreset;
use crate::methods::batch::{plane, together};
use crate::methods::checkpoint;
use crate::methods::folding::tensors;
use crate::methods::grid::to_grid;
use crate::methods::learner::{Learner, adam};
use crate::methods::places::Places;
use crate::methods::segmenter::Segmenter;
use crate::methods::{
    BankConfig, Batch, Losses, Method, MethodError, Needs, Outlined, StepBatch, TrainingImages, UnreadLosses,
    cosine_decay,
};
use burn::module::Module;
use burn::prelude::*;
use burn::tensor::activation::sigmoid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[tocoad]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TocoadConfig {
    /// Patch vectors that are kept.
    pub vectors: usize,
    /// Input pixels a cell of the grid; one of `features.strides`.
    pub stride: usize,
    /// Channels of the network that sees painted defects; it learns in the first third of the steps.
    pub width: usize,
    /// Its own, at the start; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Of the adapters, which learn in the other two thirds; it falls likewise.
    pub adapter_learning_rate: f64,
    /// Images that defects, and controls that are none, are painted into, for all of training.
    pub painted: usize,
    /// So many of them a step; where labelled images have masks, a quarter of these is labelled ones.
    pub painted_batch: usize,
}

impl Default for TocoadConfig {
    fn default() -> Self {
        TocoadConfig {
            vectors: 1024,
            stride: 8,
            width: 32,
            learning_rate: 1e-3,
            adapter_learning_rate: 1e-3,
            painted: 600,
            painted_batch: 8,
        }
    }
}

/// Distance of every adapted patch to the nearest of the bank.
const ADAPTED: Term = Term::map("adapted");

/// Share of the steps after which the adapters learn.
const ADAPTERS_FROM: f64 = 1.0 / 3.0;
/// Adapters that leave places less than this share of their spread would blind the bank: the last ones that did not are taken.
const LEAST_SPREAD: f32 = 0.3;
const SPREAD: &str = "spread";

/// The method.
pub struct Tocoad {
    config: TocoadConfig,
    judge: Learner<Segmenter>,
    adapters: Learner<Adapters>,
    /// Those of the last step that told its losses before they collapsed; at the start, and where a run is resumed, those that change nothing.
    sound: Adapters,
    /// Whether the adapters have collapsed.
    collapsed: bool,
    bank: Coreset,
    device: Device,
}

impl Tocoad {
    /// Untrained, for the features of `extractor`.
    pub fn new(config: &TocoadConfig, extractor: &Extractor, device: &Device) -> Tocoad {
        let scales = &extractor.scales;
        let channels: Vec<usize> = scales.iter().map(|s| s.channels).collect();
        let judge = device::drawn(device, |device| Segmenter::new(&channels, config.width, device));
        let adapters = device::drawn(device, |device| Adapters::new(scales, device));
        let sound = adapters.clone();
        Tocoad {
            config: config.clone(),
            judge: Learner::new(judge, adam),
            adapters: Learner::new(adapters, adam),
            sound,
            collapsed: false,
            bank: Coreset::new(BankConfig { vectors: config.vectors, stride: config.stride }),
            device: device.clone().autodiff(),
        }
    }

    /// A step of what sees painted defects.
    fn judge(&mut self, normal: &Batch, outlined: &Outlined, progress: f64) -> UnreadLosses {
        let device = self.device.clone();
        let logits = self.judge.network.forward(&together(&[normal, &outlined.batch], &device));
        let plane = |untouched: f32, is: fn(Cell) -> bool| plane(normal, untouched, Some(outlined), is, &device);
        let anomalous = plane(0.0, |cell| cell == Cell::Anomalous);
        let loss = loss::painted(logits, anomalous, plane(1.0, |cell| cell != Cell::Ignored));
        let losses = UnreadLosses::default().with("painted", &loss);
        self.judge.step(self.config.learning_rate * cosine_decay(progress / ADAPTERS_FROM), 0.0, &loss);
        losses
    }

    /// A step of the adapters.
    fn adapt(&mut self, normal: &Batch, relit: &Batch, outlined: Option<&Outlined>, progress: f64) -> UnreadLosses {
        let device = self.device.clone();
        let pairs = outlined.and_then(|o| Some((o.before.as_ref()?, &o.batch)));
        let seen = pairs
            .map(|(_, o)| sigmoid(self.judge.network.valid().forward(&tensors(&o.features, &device.clone().inner()))));
        let mut parts = vec![normal, relit];
        parts.extend(pairs.iter().flat_map(|(before, painted)| [*before, *painted]));
        let rows: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let (mut near, mut far, mut spread) = (vec![], vec![], vec![]);
        for (scale, all) in together(&parts, &device).into_iter().enumerate() {
            let [_, _, h, w] = all.dims();
            let Compared { adapted, projected, predicted } = self.adapters.network.compared(scale, &all);
            let of = |x: &Tensor<2>, part: usize| {
                let from: usize = rows[..part].iter().sum();
                x.clone().narrow(1, from * h * w, rows[part] * h * w)
            };
            let [q1, q2] = [0, 1].map(|part| of(&predicted, part));
            near.push(loss::alike([&q1, &q2], [&of(&projected, 0), &of(&projected, 1)]));
            spread.push(loss::spread(&adapted) / loss::spread(&Places::of(&all).values).clamp_min(1e-6));
            if let Some(seen) = &seen {
                let weight = to_grid(seen.clone(), w);
                let count = weight.dims().iter().product::<usize>();
                let weight = Tensor::from_inner(weight.reshape([1, count]));
                far.push(loss::unlike(&of(&predicted, 2), &of(&projected, 3), weight));
            }
        }
        let mean = |all: Vec<Tensor<1>>| Tensor::cat(all, 0).mean();
        let (near, spread) = (mean(near), mean(spread));
        let mut losses = UnreadLosses::default().with("alike", &near).with(SPREAD, &spread);
        let mut loss = near;
        if !far.is_empty() {
            let far = mean(far);
            losses = losses.with("unlike", &far);
            loss = loss + far;
        }
        let rate = self.config.adapter_learning_rate * cosine_decay((progress - ADAPTERS_FROM) / (1.0 - ADAPTERS_FROM));
        self.adapters.step(rate, 0.0, &loss);
        losses
    }

    /// The grid of patch vectors behind the adapters.
    fn patches(&self, graph: &mut Graph, extractor: &Extractor) -> Id {
        let adapters = self.adapters.network.valid();
        let taps = extractor.taps.iter().enumerate();
        let adapted = taps.map(|(i, &tap)| graph.conv(format!("tocoad.adapt.{i}"), tap, adapters.folded(i))).collect();
        self.bank.patches(graph, extractor, "tocoad.patches", adapted)
    }
}

#[cfg(test)]
impl Tocoad {
    /// What the layers make of features of one scale.
    pub fn adapted(&self, scale: usize, features: &ndarray::Array4<f32>) -> Tensor<4> {
        let adapters = self.adapters.network.valid();
        adapters.adapted(scale, &crate::methods::folding::tensor(features, &self.device.clone().inner())).maps()
    }

    /// These W in place of its own.
    pub fn put(&mut self, weights: Vec<Tensor<4>>) {
        for (conv, weight) in self.adapters.network.own.iter_mut().zip(weights) {
            conv.weight = burn::module::Param::from_tensor(Tensor::from_inner(weight));
        }
    }
}

impl Method for Tocoad {
    fn name(&self) -> String {
        "tocoad".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![ADAPTED]
    }

    fn needs(&self) -> Needs {
        let TocoadConfig { painted, painted_batch, .. } = self.config;
        Needs { steps: true, features: true, painted, painted_batch, twice: true, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        // Not the labelled ones: of a term that labels have taught less may be said where kinds of defects were left out.
        let drawn = batch.outlined.as_ref().and_then(Outlined::drawn);
        let before = self.adapters.network.clone();
        let unread = match (&batch.relit, &drawn) {
            (_, Some(drawn)) if progress < ADAPTERS_FROM => self.judge(&batch.normal, drawn, progress),
            (Some(relit), drawn) if progress >= ADAPTERS_FROM && !self.collapsed => {
                self.adapt(&batch.normal, relit, drawn.as_ref(), progress)
            }
            _ => UnreadLosses::default(),
        };
        let losses = if batch.tell { unread.read() } else { Losses::default() };
        // The spread is that of the adapters before this step.
        match losses.of(SPREAD) {
            Some(spread) if spread < LEAST_SPREAD => {
                self.collapsed = true;
                self.adapters.network = self.sound.clone();
            }
            Some(_) => self.sound = before,
            None => {}
        }
        losses
    }

    fn learn(&mut self, images: &TrainingImages) -> Result<(), MethodError> {
        let mut graph = images.extractor().graph.clone();
        let patches = self.patches(&mut graph, images.extractor());
        self.bank.learn(images, &graph, patches)
    }

    fn doubt(&self, _: &Losses) -> Option<String> {
        self.collapsed.then(|| {
            format!(
                "the adapters give all places nearly the same features and learn no more; a lower tocoad.adapter_learning_rate (now {}) helps",
                self.config.adapter_learning_rate
            )
        })
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let patches = self.patches(graph, extractor);
        vec![(ADAPTED, self.bank.append(graph, "adapted", patches))]
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.judge.save(folder, JUDGE)?;
        self.adapters.save(folder, ADAPTERS)?;
        checkpoint::write(&folder.join(COLLAPSED), &self.collapsed)?;
        self.bank.save(folder)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.judge.load(folder, JUDGE)?;
        self.adapters.load(folder, ADAPTERS)?;
        self.collapsed = checkpoint::read(&folder.join(COLLAPSED))?;
        self.bank.load(folder)
    }
}

/// What the files of a checkpoint begin with.
const JUDGE: &str = "judge";
const ADAPTERS: &str = "adapters";
const COLLAPSED: &str = "collapsed.json";
