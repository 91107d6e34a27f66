//! Pixel metrics of a whole test set, exact, in memory that does not grow with the set.
//!
//! A pixel is kept as an integer whose order is that of falling scores: 4 bytes for a normal pixel, 8 for an anomalous
//! one, which also carries the size of its region. Beyond the limit they go to disk in sorted runs ([`super::runs`]).
//! At the end one descent over all distinct scores gives every metric; nothing is binned, so there is no error but
//! rounding of f64 sums.

use super::curve::{Above, Area, Curve};
use super::grid::{Grid, GridMetrics};
use super::runs::{Runs, Sorted};
use imageproc::region_labelling::{Connectivity, connected_components};
use ndarray::ArrayView2;
use serde::Serialize;

/// Memory for pixels: 100 million normal and 16 million anomalous ones, about 1,500 maps of 256x256; more are sorted on
/// disk.
pub const MEMORY_BYTES: usize = 512 << 20;

/// Why pixels cannot be ranked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum PixelError {
    #[error("cannot sort pixels in the temporary folder {folder}: {0}; TMPDIR names another one", folder = std::env::temp_dir().display())]
    Spill(std::io::Error),
    #[error("an anomaly map holds {0}; only finite values can be ranked")]
    NotFinite(f32),
    #[error("an anomaly map has {}x{} pixels, its mask {}x{}", map.1, map.0, mask.1, mask.0)]
    Shape { map: (usize, usize), mask: (usize, usize) },
}

impl From<std::io::Error> for PixelError {
    fn from(cause: std::io::Error) -> PixelError {
        PixelError::Spill(cause)
    }
}

/// How well maps show where; what needs both classes is `None` where one is empty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PixelMetrics {
    /// Images that were counted: normal ones, and anomalous ones with a mask.
    pub images: usize,
    /// 8-connected regions of their masks.
    pub regions: u64,
    /// Outside every mask.
    pub normal_pixels: u64,
    /// Inside a mask.
    pub anomalous_pixels: u64,
    /// Area under the ROC of all pixels.
    pub auroc: Option<f64>,
    /// As [`super::average_precision`], of all pixels.
    pub average_precision: Option<f64>,
    /// Over all thresholds.
    pub f1_max: Option<f64>,
    /// Of calling every pixel anomalous.
    pub f1_trivial: Option<f64>,
    /// Area under the mean overlap of all regions against the false-positive rate, up to 0.3 and to 0.05, as a share of
    /// that limit (Bergmann et al. 2021), over all thresholds.
    pub aupro_30: Option<f64>,
    /// Up to 0.05.
    pub aupro_05: Option<f64>,
    /// The same at ADer's coarser thresholds.
    pub ader: Option<GridMetrics>,
}

/// Gathers pixels.
pub struct Pixels {
    normal: Runs<u32>,
    /// Key in the upper half, size of the pixel's region in the lower.
    anomalous: Runs<u64>,
    /// The whole set; `overlap` is the number of regions.
    total: Above,
    low: f32,
    high: f32,
    images: usize,
}

impl Default for Pixels {
    fn default() -> Self {
        Pixels::within(MEMORY_BYTES)
    }
}

impl Pixels {
    /// Holds at most `bytes` of pixels in memory.
    pub fn within(bytes: usize) -> Pixels {
        Pixels {
            normal: Runs::new(bytes / 4 * 3 / size_of::<u32>()),
            anomalous: Runs::new(bytes / 4 / size_of::<u64>()),
            total: Above::default(),
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
            images: 0,
        }
    }

    /// Sorted runs on disk.
    pub fn spilled(&self) -> usize {
        self.normal.spilled() + self.anomalous.spilled()
    }

    /// Adds one image: its smoothed map, and its mask (`None`: all normal), both `[H,W]`.
    ///
    /// # Errors
    /// When the two do not fit each other, the map is not finite, or the disk is full. The set is of no use then.
    pub fn add(&mut self, map: ArrayView2<f32>, mask: Option<ArrayView2<bool>>) -> Result<(), PixelError> {
        if let Some(mask) = mask.filter(|mask| mask.dim() != map.dim()) {
            return Err(PixelError::Shape { map: map.dim(), mask: mask.dim() });
        }
        if let Some(bad) = map.iter().find(|v| !v.is_finite()) {
            return Err(PixelError::NotFinite(*bad));
        }
        self.images += 1;
        self.low = map.iter().copied().fold(self.low, f32::min);
        self.high = map.iter().copied().fold(self.high, f32::max);
        let Some(mask) = mask else { return self.add_normal(map.iter().copied()) };
        self.add_normal(map.iter().zip(&mask).filter(|(_, m)| !**m).map(|(v, _)| *v))?;
        self.add_anomalous(map, &regions(mask))
    }

    fn add_normal(&mut self, scores: impl Iterator<Item = f32>) -> Result<(), PixelError> {
        for score in scores {
            self.normal.push(falling(score))?;
            self.total.negatives += 1;
        }
        Ok(())
    }

    fn add_anomalous(&mut self, map: ArrayView2<f32>, regions: &[u32]) -> Result<(), PixelError> {
        let mut sizes = vec![0u32; regions.iter().max().map_or(0, |&last| last as usize + 1)];
        regions.iter().for_each(|&region| sizes[region as usize] += 1);
        for (&score, &region) in map.iter().zip(regions).filter(|(_, region)| **region > 0) {
            self.anomalous.push(u64::from(falling(score)) << 32 | u64::from(sizes[region as usize]))?;
            self.total.positives += 1;
        }
        self.total.overlap += sizes.len().saturating_sub(1) as f64;
        Ok(())
    }

    /// The metrics of everything that was added.
    ///
    /// # Errors
    /// When what went to disk cannot be read back.
    pub fn metrics(self) -> Result<PixelMetrics, PixelError> {
        let total = self.total;
        let mut curve = Curve::over(total);
        let mut grid = Grid::between(self.low, self.high);
        let mut pro = [0.3, 0.05].map(|limit| Area::from(0.0, limit));
        descend(self.normal.sorted()?, self.anomalous.sorted()?, |score, before, above| {
            grid.step(score, before);
            curve.step(score, above);
            let rate = above.negatives as f64 / total.negatives as f64;
            pro.iter_mut().for_each(|area| area.add(rate, above.overlap / total.overlap));
        })?;
        let both = total.negatives > 0 && total.positives > 0;
        let [aupro_30, aupro_05] = pro.map(|area| both.then(|| area.share()));
        Ok(PixelMetrics {
            images: self.images,
            regions: total.overlap as u64,
            normal_pixels: total.negatives,
            anomalous_pixels: total.positives,
            auroc: curve.auroc(),
            average_precision: curve.average_precision(),
            f1_max: curve.f1_max().map(|(f1, _)| f1),
            f1_trivial: curve.f1_trivial(),
            aupro_30,
            aupro_05,
            ader: grid.metrics(total),
        })
    }
}

/// Calls `step` with each distinct score, the highest first, and with what lies above it and at or above it.
fn descend(
    mut normal: Sorted<u32>,
    mut anomalous: Sorted<u64>,
    mut step: impl FnMut(f32, Above, Above),
) -> std::io::Result<()> {
    let mut above = Above::default();
    let key_of = |record: u64| (record >> 32) as u32;
    loop {
        let key = match (normal.peek(), anomalous.peek().map(key_of)) {
            (Some(n), Some(a)) => n.min(a),
            (Some(key), None) | (None, Some(key)) => key,
            (None, None) => return Ok(()),
        };
        let before = above;
        while normal.peek() == Some(key) {
            above.negatives += 1;
            normal.advance()?;
        }
        while let Some(record) = anomalous.peek().filter(|r| key_of(*r) == key) {
            above.positives += 1;
            above.overlap += 1.0 / f64::from(record as u32);
            anomalous.advance()?;
        }
        step(score_of(key), before, above);
    }
}

/// An integer that grows as the score falls. Both zeros are one score.
fn falling(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !bits ^ 0x8000_0000 }
}

fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key } else { !key ^ 0x8000_0000 })
}

/// The number of each pixel's 8-connected region, from 1; 0 is normal.
fn regions(mask: ArrayView2<bool>) -> Vec<u32> {
    let pixels = mask.iter().map(|&anomalous| u8::from(anomalous) * 255).collect();
    let (height, width) = mask.dim();
    let binary = image::GrayImage::from_raw(width as u32, height as u32, pixels).unwrap_or_default();
    connected_components(&binary, Connectivity::Eight, image::Luma([0])).into_raw()
}
