//! The head as one of the methods of a model.

use super::fold::{self, Folded};
use super::loss;
use super::net::{Logits, MilNet};
use crate::augment::defects::Cell;
use crate::device;
use crate::features::Extractor;
use crate::graph::{Graph, Id, Pool, Term};
use crate::methods::batch::{plane, together};
use crate::methods::learner::Learner;
use crate::methods::{Batch, Losses, Method, MethodError, Needs, StepBatch, UnreadLosses, cosine_decay};
use burn::module::Module;
use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[mil]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MilConfig {
    /// Channels that every scale is adapted to.
    pub width: usize,
    /// Channels of the image branch's convolutions.
    pub context: usize,
    /// Places of the map, on the finest scale's grid, that speak for an image: about as many as a defect covers.
    pub places: usize,
    /// At the start; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Images that defects, and controls that are none, are painted into, for all of training.
    pub painted: usize,
    /// So many of them a step; where labelled images have masks, a quarter of these is labelled ones.
    pub painted_batch: usize,
}

impl Default for MilConfig {
    fn default() -> Self {
        MilConfig { width: 64, context: 32, places: 24, learning_rate: 1e-3, painted: 600, painted_batch: 8 }
    }
}

/// How anomalous a place is; of a map that labels have taught.
const INSTANCE: Term = Term::map("instance").taught();
/// The logit that the image is anomalous.
const BAG: Term = Term::image("bag").taught();

/// Share of the steps after which labelled images teach places: the largest places of an untrained head are noise, and few
/// images would be learned by heart.
const INSTANCES_FROM: f64 = 1.0 / 3.0;
/// As SuperSimpleNet's.
const GRADIENT: f64 = 1.0;
const DECAY: f32 = 1e-4;

fn adam() -> ModuleOptimizer {
    AdamWConfig::new().with_weight_decay(DECAY).init()
}

/// The method.
pub struct Mil {
    config: MilConfig,
    net: Learner<MilNet>,
    device: Device,
}

impl Mil {
    /// Untrained, for the features of `extractor`.
    pub fn new(config: &MilConfig, extractor: &Extractor, device: &Device) -> Mil {
        let cells = extractor.shapes().first().map_or(0, |[_, h, w]| h * w);
        // As many as the graph's pool will take.
        let places = Pool { one_in: (cells / config.places).max(1) }.count(cells);
        let net = device::drawn(device, |device| {
            MilNet::new(&extractor.scales, config.width, config.context, places, device)
        });
        Mil { config: config.clone(), net: Learner::new(net, adam), device: device.clone().autodiff() }
    }
}

#[cfg(test)]
impl Mil {
    /// The logits of all places and of all images, as the layers give them once they are trained.
    pub fn logits(&self, batch: &Batch) -> (Vec<f32>, Vec<f32>) {
        let net = self.net.network.valid();
        let Logits { places, images } =
            net.forward(&crate::methods::folding::tensors(&batch.features, &self.device.clone().inner()));
        (crate::methods::folding::values(places).0, crate::methods::folding::values(images).0)
    }
}

/// What a step is taught by: its images in one tensor a scale, normal ones first, then labelled, then outlined ones.
struct Lesson {
    features: Vec<Tensor<4>>,
    normal: usize,
    labelled: usize,
    outlined: usize,
    /// 1 for each image that is anomalous.
    anomalous: Tensor<1>,
    /// Of normal and outlined images, `[N,1,h,w]`: 1 at an anomalous place.
    defects: Tensor<4>,
    /// The same: 1 at a place that is certainly anomalous or certainly not.
    known: Tensor<4>,
}

impl Lesson {
    fn of(batch: &StepBatch, device: &Device) -> Lesson {
        let labelled = batch.anomalous.as_ref().filter(|_| !batch.made);
        let outlined = batch.outlined.as_ref();
        let parts: Vec<&Batch> =
            [Some(&batch.normal), labelled, outlined.map(|o| &o.batch)].into_iter().flatten().collect();
        let count = |part: Option<&Batch>| part.map_or(0, Batch::len);
        let (normal, labelled) = (batch.normal.len(), count(labelled));
        let cells = outlined.map_or(&[][..], |o| &o.cells);
        let plane = |untouched: f32, is: fn(Cell) -> bool| plane(&batch.normal, untouched, outlined, is, device);
        let mut anomalous = vec![0.0; normal];
        anomalous.extend(vec![1.0; labelled]);
        anomalous.extend(cells.iter().map(|c| f32::from(u8::from(c.iter().any(|&c| c == Cell::Anomalous)))));
        Lesson {
            features: together(&parts, device),
            normal,
            labelled,
            outlined: cells.len(),
            anomalous: Tensor::from_data(TensorData::new(anomalous.clone(), [anomalous.len()]), device),
            defects: plane(0.0, |cell| cell == Cell::Anomalous),
            known: plane(1.0, |cell| cell != Cell::Ignored),
        }
    }

    /// The losses, and their sum.
    fn losses(&self, logits: &Logits, places: usize, progress: f64) -> (Tensor<1>, UnreadLosses) {
        let rows = |from: usize, count: usize| logits.places.clone().narrow(0, from, count);
        let normal = rows(0, self.normal);
        let mut taught = vec![normal.clone()];
        if self.outlined > 0 {
            taught.push(rows(self.normal + self.labelled, self.outlined));
        }
        let of_places = loss::places(Tensor::cat(taught, 0), self.defects.clone(), self.known.clone());
        let of_bags = loss::focal(logits.images.clone(), self.anomalous.clone(), loss::GAMMA).mean();
        let mut losses = UnreadLosses::default().with("places", &of_places).with("bag", &of_bags);
        let mut sum = of_places + of_bags;
        if self.labelled > 0 && progress >= INSTANCES_FROM {
            let of_instances = loss::instances(normal, rows(self.normal, self.labelled), places);
            losses = losses.with("instances", &of_instances);
            sum = sum + of_instances;
        }
        (sum, losses)
    }
}

impl Method for Mil {
    fn name(&self) -> String {
        "mil".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![INSTANCE, BAG]
    }

    fn needs(&self) -> Needs {
        let MilConfig { painted, painted_batch, .. } = self.config;
        Needs { steps: true, features: true, anomalous: true, painted, painted_batch, labels: 1, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let lesson = Lesson::of(batch, &self.device);
        let net = &self.net.network;
        let logits = net.forward(&lesson.features);
        let (loss, losses) = lesson.losses(&logits, net.places, progress);
        self.net.step(self.config.learning_rate * cosine_decay(progress), GRADIENT, &loss);
        if batch.tell { losses.read() } else { Losses::default() }
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, wanted: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let Folded { places, image } = fold::append(graph, &self.net.network.valid(), &extractor.taps, wanted(BAG));
        let map = wanted(INSTANCE).then(|| (INSTANCE, graph.softplus("instance", places)));
        map.into_iter().chain(image.map(|id| (BAG, id))).collect()
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.net.save(folder, FILES)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.net.load(folder, FILES)
    }
}

/// What the files of a checkpoint begin with.
const FILES: &str = "mil";
