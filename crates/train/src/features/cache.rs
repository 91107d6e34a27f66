//! Features on disk.

use super::{Extractor, FeatureError};
use crate::augment::View;
use crate::datasets::Sample;
use crate::progress::ProgressDisplay;
use ckaad_bundle::replace;
use half::f16;
use ndarray::{Array4, Axis};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Features of a list of images on disk, each image's scales behind one another, in f16; memory use does not grow with
/// the set.
pub struct FeatureCache {
    file: File,
    path: PathBuf,
    /// Images whose features it holds.
    pub images: usize,
    variants: usize,
    shapes: Vec<[usize; 3]>,
}

impl FeatureCache {
    /// Opens `path` when it has the right size, else computes it: `variants` views of every sample, `view` gives each.
    ///
    /// Nothing else is compared: the file must lie in the folder of a run, whose config, data and channel statistics do
    /// not change once it was started.
    ///
    /// # Errors
    /// An image cannot be read, or the file not written.
    pub fn open(
        path: &Path,
        extractor: &Extractor,
        samples: &[Sample],
        variants: usize,
        view: impl Fn(usize, usize) -> View,
        progress: &ProgressDisplay,
    ) -> Result<FeatureCache, FeatureError> {
        let failed = |cause| FeatureError::Cache { path: path.to_owned(), cause };
        let shapes = extractor.shapes();
        let size = (samples.len() * variants * record(&shapes) * 2) as u64;
        if !std::fs::metadata(path).is_ok_and(|m| m.len() == size) {
            let written = replace(path, |file| fill(file, extractor, samples, variants, view, progress));
            written.map_err(|stopped| match stopped {
                Stopped::Disk(cause) => failed(cause),
                Stopped::Features(error) => error,
            })?;
        }
        let file = File::open(path).map_err(failed)?;
        Ok(FeatureCache { file, path: path.to_owned(), images: samples.len(), variants, shapes })
    }

    /// Views of every image.
    pub fn variants(&self) -> usize {
        self.variants
    }

    /// Channels, height and width of each scale.
    pub fn shapes(&self) -> &[[usize; 3]] {
        &self.shapes
    }

    /// Features of the `(image, variant)` pairs, one `[N,C,h,w]` a scale.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, picks: &[(usize, usize)]) -> Result<Vec<Array4<f32>>, FeatureError> {
        let record = record(&self.shapes);
        let mut scales: Vec<Array4<f32>> =
            self.shapes.iter().map(|&[c, h, w]| Array4::zeros((picks.len(), c, h, w))).collect();
        let mut bytes = vec![0u8; record * 2];
        for (row, (image, variant)) in picks.iter().enumerate() {
            let at = ((image * self.variants + variant) * record * 2) as u64;
            self.file
                .read_exact_at(&mut bytes, at)
                .map_err(|cause| FeatureError::Cache { path: self.path.clone(), cause })?;
            let mut values = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
            for scale in &mut scales {
                scale.index_axis_mut(Axis(0), row).iter_mut().zip(&mut values).for_each(|(cell, value)| *cell = value);
            }
        }
        Ok(scales)
    }
}

/// What ends the filling of a cache early.
enum Stopped {
    Disk(io::Error),
    Features(FeatureError),
}

impl From<io::Error> for Stopped {
    fn from(cause: io::Error) -> Stopped {
        Stopped::Disk(cause)
    }
}

/// Writes the features of every variant of every sample, in this order.
fn fill(
    file: &mut File,
    extractor: &Extractor,
    samples: &[Sample],
    variants: usize,
    view: impl Fn(usize, usize) -> View,
    progress: &ProgressDisplay,
) -> Result<(), Stopped> {
    let mut out = BufWriter::new(file);
    let jobs: Vec<(usize, usize)> = (0..samples.len()).flat_map(|i| (0..variants).map(move |v| (i, v))).collect();
    let bar = progress.bar("features", jobs.len());
    for chunk in jobs.chunks(32) {
        let chunk: Vec<(&Path, View)> = chunk.iter().map(|&(i, v)| (samples[i].path.as_path(), view(i, v))).collect();
        for values in extractor.compute(&chunk).map_err(Stopped::Features)?.iter().flatten() {
            let bytes: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
            out.write_all(&bytes)?;
        }
        bar.advance(chunk.len());
    }
    Ok(out.flush()?)
}

/// Values an image.
fn record(shapes: &[[usize; 3]]) -> usize {
    shapes.iter().map(|s| s.iter().product::<usize>()).sum()
}
