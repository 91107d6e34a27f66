//! Frozen features: computed once an image by the engine that the device runs, kept on disk in f16.

use super::backbones::{Backbone, ChannelStatistics, Extracted, Scale, WeightError};
use super::datasets::{DataError, Sample};
use super::export::graph::{Graph, Id, Op};
use super::export::onnx;
use super::progress::Progress;
use crate::bundle::Input;
use crate::engine::{EngineError, Plan};
use crate::imaging::{self, DecodeError};
use crate::inspect;
use half::f16;
use rayon::prelude::*;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    #[error(transparent)]
    Weights(#[from] WeightError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error("feature cache {path}: {source}")]
    Cache { path: PathBuf, source: std::io::Error },
}

/// The frozen extractor as a graph, and running.
pub struct Extractor {
    pub graph: Graph,
    /// The nodes that the method reconstructs, the finest scale first.
    pub taps: Vec<Id>,
    /// The nodes that channel statistics are taken of.
    streams: Vec<Id>,
    pub scales: Vec<Scale>,
    plan: Plan,
    input: Input,
}

impl Extractor {
    /// `strides` chooses the scales that are tapped. With `statistics` every stream of the backbone is standardised, and so are the features. That keeps any channel from
    /// outweighing the others in the cosine, and gives all channels of a tensor the same use of its one int8 range.
    /// The backbone's weights are rounded to int8 in either case.
    pub fn new(
        backbone: Backbone,
        strides: &[usize],
        input: Input,
        statistics: Option<&[ChannelStatistics]>,
    ) -> Result<Extractor, FeatureError> {
        let mut graph = Graph::new(input.width as usize, input.height as usize);
        let Extracted { mut taps, streams } = backbone.append(&mut graph, &backbone.weights()?, statistics)?;
        let mut scales = backbone.scales();
        let wanted: Vec<bool> = scales.iter().map(|s| strides.contains(&s.stride)).collect();
        let mut keep = wanted.iter();
        taps.retain(|_| *keep.next().unwrap_or(&false));
        scales.retain(|s| strides.contains(&s.stride));
        // The net learns from the weights that the device will have: rounding them later would shift every feature.
        for node in &mut graph.nodes {
            if let Op::Conv(conv) = &mut node.op {
                onnx::round_weights(conv);
            }
        }
        let plan = Plan::load(&onnx::emit_f32(&graph, Some(&taps)), 1)?;
        Ok(Extractor { graph, taps, streams, scales, plan, input })
    }

    /// Channels, height and width of each scale.
    pub fn shapes(&self) -> Vec<[usize; 3]> {
        self.taps.iter().map(|&t| self.graph.shape(t)).collect()
    }

    /// Features of one image, one vector an output of `plan`; mirrored first if asked.
    fn features(
        &self,
        plan: &Plan,
        path: &Path,
        (left_right, top_bottom): (bool, bool),
    ) -> Result<Vec<Vec<f32>>, FeatureError> {
        let mut image = imaging::load(path)?;
        if left_right {
            image::imageops::flip_horizontal_in_place(&mut image);
        }
        if top_bottom {
            image::imageops::flip_vertical_in_place(&mut image);
        }
        Ok(plan.run(&inspect::fit(&image, &self.input).0)?)
    }

    /// Channel statistics of every stream over `samples`.
    pub fn statistics(&self, samples: &[Sample]) -> Result<Vec<ChannelStatistics>, FeatureError> {
        let plan = Plan::load(&onnx::emit_f32(&self.graph, Some(&self.streams)), 1)?;
        let shapes = plan.outputs();
        let per_image: Vec<Vec<Vec<[f64; 2]>>> = samples
            .par_iter()
            .map(|sample| {
                let features = self.features(&plan, &sample.path, (false, false))?;
                let sums = features.iter().zip(shapes).map(|(values, [_, h, w])| {
                    let channel = |c: &[f32]| {
                        let sum = c.iter().map(|&v| f64::from(v)).sum::<f64>();
                        [sum, c.iter().map(|&v| f64::from(v).powi(2)).sum()]
                    };
                    values.chunks_exact(h * w).map(channel).collect()
                });
                Ok(sums.collect())
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

/// Features of a list of images on disk, each image's scales behind one another, in f16; memory use does not grow with the set.
pub struct FeatureCache {
    file: File,
    path: PathBuf,
    pub images: usize,
    variants: usize,
    shapes: Vec<[usize; 3]>,
}

impl FeatureCache {
    /// Opens `path` when it has the right size, else computes it. The caller puts everything that the features depend on
    /// into the file's name.
    pub fn open(
        path: &Path,
        extractor: &Extractor,
        samples: &[Sample],
        variants: &[(bool, bool)],
        progress: &Progress,
    ) -> Result<FeatureCache, FeatureError> {
        let failed = |source| FeatureError::Cache { path: path.to_owned(), source };
        let shapes = extractor.shapes();
        let size = (samples.len() * variants.len() * record(&shapes) * 2) as u64;
        if !std::fs::metadata(path).is_ok_and(|m| m.len() == size) {
            let partial = path.with_extension("partial");
            let mut out = BufWriter::new(File::create(&partial).map_err(failed)?);
            let jobs: Vec<_> = samples.iter().flat_map(|s| variants.iter().map(move |v| (s, *v))).collect();
            let bar = progress.bar("features", jobs.len());
            for chunk in jobs.chunks(32) {
                let computed: Vec<_> = chunk
                    .par_iter()
                    .map(|(sample, variant)| extractor.features(&extractor.plan, &sample.path, *variant))
                    .collect::<Result<_, _>>()?;
                for values in computed.iter().flatten() {
                    let bytes: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
                    out.write_all(&bytes).map_err(failed)?;
                }
                bar.advance(chunk.len());
            }
            out.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
            std::fs::rename(&partial, path).map_err(failed)?;
        }
        let file = File::open(path).map_err(failed)?;
        Ok(FeatureCache { file, path: path.to_owned(), images: samples.len(), variants: variants.len(), shapes })
    }

    pub fn variants(&self) -> usize {
        self.variants
    }

    /// Channels, height and width of each scale.
    pub fn shapes(&self) -> &[[usize; 3]] {
        &self.shapes
    }

    /// Features of the `(image, variant)` pairs, one vector `[N,C,h,w]` a scale.
    pub fn read(&self, picks: &[(usize, usize)]) -> Result<Vec<Vec<f32>>, FeatureError> {
        let record = record(&self.shapes);
        let mut scales: Vec<Vec<f32>> =
            self.shapes.iter().map(|s| Vec::with_capacity(picks.len() * s.iter().product::<usize>())).collect();
        let mut bytes = vec![0u8; record * 2];
        for (image, variant) in picks {
            let at = ((image * self.variants + variant) * record * 2) as u64;
            self.file
                .read_exact_at(&mut bytes, at)
                .map_err(|source| FeatureError::Cache { path: self.path.clone(), source })?;
            let mut values = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
            for (scale, shape) in scales.iter_mut().zip(&self.shapes) {
                scale.extend(values.by_ref().take(shape.iter().product()));
            }
        }
        Ok(scales)
    }
}

/// Values an image.
fn record(shapes: &[[usize; 3]]) -> usize {
    shapes.iter().map(|s| s.iter().product::<usize>()).sum()
}
