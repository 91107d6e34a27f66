//! Frozen features, computed by the engine that the device runs: once an image and kept on disk in f16
//! ([`FeatureCache`]), or, where images are augmented, anew for every batch.

mod cache;
mod config;

pub use cache::FeatureCache;
pub use config::{FeatureConfig, Flips};

use crate::augment::View;
use crate::backbones::{Backbone, Extracted, Scale, WeightError, Weights};
use crate::datasets::{DataError, Sample};
use crate::graph::{ChannelStatistics, Graph, Id, Op, Ranges};
use crate::onnx;
use crate::onnx::int8::{self, Dialect};
use ckaad_bundle::Input;
use ckaad_inspect::engine::{EngineError, Plan};
use ckaad_inspect::imaging::{self, DecodeError};
use ndarray::{Array3, Array4, ArrayView2};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Why features cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum FeatureError {
    #[error(transparent)]
    Weights(#[from] WeightError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error("feature cache {path}: {cause}")]
    Cache { path: PathBuf, cause: std::io::Error },
}

/// What an extractor is made of.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The frozen network.
    pub backbone: Backbone,
    /// Strides of the scales that are kept as features, the finest first.
    pub strides: &'a [usize],
    /// The largest stride that any method reads, be it kept or not.
    pub deepest: usize,
    /// The size of an image.
    pub input: Input,
}

/// The frozen extractor as a graph, and running.
pub struct Extractor {
    /// All nodes, the taps among them.
    pub graph: Graph,
    /// The nodes whose results are kept as features, the finest scale first.
    pub taps: Vec<Id>,
    /// Every tap of the backbone, by its stride.
    by_stride: Vec<(usize, Id)>,
    /// The nodes that channel statistics are taken of.
    streams: Vec<Id>,
    /// What the taps give, in their order.
    pub scales: Vec<Scale>,
    /// What the features of each scale were standardised with.
    pub spread: Option<Vec<ChannelStatistics>>,
    /// What the tensors of the backbone cover, where features are computed in int8 as the device will; `None` computes them
    /// in f32.
    pub ranges: Option<Ranges>,
    plan: Plan,
    input: Input,
}

impl Extractor {
    /// The backbone as `reading` asks for it. With `statistics` the features are standardised, and with EfficientNet
    /// every stream of the backbone. That keeps any channel from outweighing the others in the cosine, and gives all
    /// channels of a tensor the same use of its one int8 range. The backbone's weights are rounded to int8 in any case; with
    /// `ranges` so is all that it computes.
    ///
    /// # Errors
    /// The weights are another network's.
    pub fn new(
        reading: Reading,
        weights: &Weights,
        statistics: Option<&[ChannelStatistics]>,
        ranges: Option<&Ranges>,
    ) -> Result<Extractor, FeatureError> {
        let Reading { backbone, strides, input, .. } = reading;
        let mut graph = Graph::new(input.width as usize, input.height as usize);
        let Extracted { mut taps, streams, mut tap_streams } =
            backbone.append(&mut graph, weights, statistics, reading.deepest)?;
        let mut scales = backbone.scales();
        scales.truncate(taps.len());
        let by_stride = scales.iter().map(|s| s.stride).zip(taps.iter().copied()).collect();
        let wanted: Vec<bool> = scales.iter().map(|s| strides.contains(&s.stride)).collect();
        retain(&mut taps, &wanted);
        retain(&mut tap_streams, &wanted);
        scales.retain(|s| strides.contains(&s.stride));
        // The net learns from the weights that the device will have: rounding them later would shift every feature.
        for node in &mut graph.nodes {
            if let Op::Conv(conv) = &mut node.op {
                int8::round_weights(conv);
            }
        }
        let plan = Plan::load(&emit(&graph, &taps, ranges), 1)?;
        let spread = statistics.map(|all| tap_streams.iter().map(|&s| all[s].clone()).collect());
        Ok(Extractor { graph, taps, by_stride, streams, scales, spread, ranges: ranges.cloned(), plan, input })
    }

    /// The tap of a stride, of those that are read.
    pub fn tap(&self, stride: usize) -> Option<Id> {
        self.by_stride.iter().find(|(s, _)| *s == stride).map(|(_, id)| *id)
    }

    /// The coarsest tap that is read.
    pub fn deepest(&self) -> Id {
        self.by_stride.last().map_or(Graph::IMAGE, |(_, id)| *id)
    }

    /// The ONNX file that gives the nodes `ids` of `graph`, which begins with this extractor's: that in its numbers, all
    /// behind it in float.
    pub fn emit(&self, graph: &Graph, ids: &[Id]) -> Vec<u8> {
        emit(graph, ids, self.ranges.as_ref())
    }

    /// RGB of an image at the network's input size.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pixels(&self, path: &Path) -> Result<Vec<u8>, FeatureError> {
        self.seen(path, &View::default())
    }

    fn seen(&self, path: &Path, view: &View) -> Result<Vec<u8>, FeatureError> {
        Ok(imaging::resize(&view.apply(imaging::load(path)?), &self.input).0)
    }

    /// Channels, height and width of each scale.
    pub fn shapes(&self) -> Vec<[usize; 3]> {
        self.taps.iter().map(|&t| self.graph.shape(t)).collect()
    }

    /// Features of each of `jobs`, one `[C,h,w]` a scale.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn compute(&self, jobs: &[(&Path, View)]) -> Result<Vec<Vec<Array3<f32>>>, FeatureError> {
        jobs.par_iter().map(|(path, view)| self.through(&self.plan, path, view)).collect()
    }

    /// RGB of each of `jobs` at the network's input size, `[N,H,W,3]`.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn images(&self, jobs: &[(&Path, View)]) -> Result<Array4<u8>, FeatureError> {
        let (width, height) = (self.input.width as usize, self.input.height as usize);
        let bytes: Vec<Vec<u8>> =
            jobs.par_iter().map(|(path, view)| self.seen(path, view)).collect::<Result<_, _>>()?;
        let shape = (jobs.len(), height, width, 3);
        Ok(Array4::from_shape_vec(shape, bytes.concat()).expect("resize gives width x height x 3 bytes"))
    }

    /// What `plan` gives for each of `samples`, one `[C,h,w]` an output.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn compute_with(&self, plan: &Plan, samples: &[Sample]) -> Result<Vec<Vec<Array3<f32>>>, FeatureError> {
        samples.par_iter().map(|s| self.through(plan, &s.path, &View::default())).collect()
    }

    /// What `plan` gives for one image.
    fn through(&self, plan: &Plan, path: &Path, view: &View) -> Result<Vec<Array3<f32>>, FeatureError> {
        let outputs = plan.run(&self.seen(path, view)?)?;
        let shaped = |(values, &shape)| {
            Array3::from_shape_vec(shape, values).expect("a plan gives as many values as the shapes of its outputs say")
        };
        Ok(outputs.into_iter().zip(plan.outputs()).map(shaped).collect())
    }

    /// Channel statistics of every stream over `samples`.
    pub fn statistics(&self, samples: &[Sample]) -> Result<Vec<ChannelStatistics>, FeatureError> {
        let plan = Plan::load(&onnx::emit_f32(&self.graph, Some(&self.streams)), 1)?;
        let shapes = plan.outputs();
        let per_image: Vec<Vec<Vec<[f64; 2]>>> = samples
            .par_iter()
            .map(|sample| {
                let features = self.through(&plan, &sample.path, &View::default())?;
                let moments = |c: ArrayView2<f32>| {
                    let sum = c.iter().map(|&v| f64::from(v)).sum::<f64>();
                    [sum, c.iter().map(|&v| f64::from(v).powi(2)).sum()]
                };
                Ok(features.iter().map(|map| map.outer_iter().map(moments).collect()).collect())
            })
            .collect::<Result<_, FeatureError>>()?;
        let scale = |i: usize| {
            let [channels, h, w] = shapes[i];
            let count = (samples.len() * h * w) as f64;
            let moments = (0..channels).map(|c| {
                let [sum, squares] = per_image.iter().fold([0.0; 2], |a, p| [a[0] + p[i][c][0], a[1] + p[i][c][1]]);
                let mean = sum / count;
                (mean as f32, (squares / count - mean * mean).max(1e-6).sqrt() as f32)
            });
            let (mean, deviation) = moments.unzip();
            ChannelStatistics { mean, deviation }
        };
        Ok((0..shapes.len()).map(scale).collect())
    }
}

/// In int8 what `ranges` know, the rest in float; all in f32 without any.
fn emit(graph: &Graph, ids: &[Id], ranges: Option<&Ranges>) -> Vec<u8> {
    match ranges {
        None => onnx::emit_f32(graph, Some(ids)),
        Some(ranges) => {
            let float = |id: Id| !ranges.know(&graph.nodes[id]);
            int8::emit(graph, Some(ids), &ranges.of(graph), float, Dialect::QOperator)
        }
    }
}

/// Keeps the items that are wanted.
fn retain<T>(items: &mut Vec<T>, wanted: &[bool]) {
    let mut wanted = wanted.iter();
    items.retain(|_| *wanted.next().unwrap_or(&false));
}
