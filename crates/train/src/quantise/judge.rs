//! What int8 costs: maps of held-out images through the agent's engine, compared with those of the f32 model.

use super::QuantiseError;
use crate::datasets::Sample;
use crate::graph::TermWeights;
use crate::metrics::{self, Pixels};
use crate::progress::ProgressDisplay;
use crate::score::{Judged, ScoreConfig};
use crate::views::Seen;
use ckaad_bundle::{Input, ScoreRule};
use ckaad_inspect::engine::{Engine, Outputs};
use ckaad_inspect::imaging;
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use std::fmt;

/// Held-out images, normal ones first, and how maps of them become scores.
pub struct HeldOutSet<'a> {
    /// All of them.
    pub samples: Vec<Sample>,
    /// So many of the samples are normal.
    pub normal: usize,
    /// What the network takes.
    pub input: Input,
    /// Names of a part's views, of which a network may take all at once.
    pub views: &'a [String],
    /// What is left open of the way from map to score.
    pub score: &'a ScoreConfig,
    /// Where the judging is shown.
    pub progress: &'a ProgressDisplay,
}

impl HeldOutSet<'_> {
    /// Smoothed maps `[H,W]` of all samples through an ONNX model: what `inspect` makes of an image, several images at
    /// a time.
    pub fn maps(&self, model: &[u8], what: &str) -> Result<Vec<Array2<f32>>, QuantiseError> {
        self.maps_of(model, &(0..self.samples.len()).collect::<Vec<_>>(), what)
    }

    /// As [`HeldOutSet::maps`], of some of the samples.
    pub fn maps_of(&self, model: &[u8], samples: &[usize], what: &str) -> Result<Vec<Array2<f32>>, QuantiseError> {
        let engine = Engine::load(model, 1)?;
        let size = (self.input.height as usize, self.input.width as usize);
        // A fold holds all views of a part, as it is dealt by parts.
        let views = if engine.views() > 1 { self.views } else { &[] };
        let seen = Seen { samples: self.samples.iter().collect(), views, input: self.input };
        seen.each(samples, what, self.progress, |pixels| {
            let smooth = |output: &Outputs| ckaad_inspect::smooth(output.map.view(), size, self.score.sigma_px);
            Ok(engine.run(pixels)?.iter().map(smooth).collect())
        })
    }

    /// The best score rule for finished maps.
    fn rule(&self, maps: &[Array2<f32>]) -> ScoreRule {
        let positive = (0..maps.len()).map(|i| i >= self.normal).collect();
        let folds = (0..maps.len()).map(|i| i % FOLDS).collect();
        let kinds = vec![None; maps.len()];
        let judged = Judged { positive, folds, kinds, segments: None, maps: vec![], branches: vec![] };
        judged.choose_rule(&TermWeights::default(), |i| maps[i].clone(), self.score).score.rule
    }
}

/// In which a fitted rule is cross-validated.
const FOLDS: usize = 5;

/// Where a map should be high, by which localisation is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regions {
    /// Masks of held-out images.
    Masks,
    /// Nobody outlined the held-out defects: where the f32 map of each is highest.
    Anomalous,
    /// No anomalies are held out: where the f32 map of each normal image is highest.
    Normal,
}

impl fmt::Display for Regions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Regions::Masks => "the masks",
            Regions::Anomalous => "the f32 map's highest 1 % of every anomalous image (no masks are held out)",
            Regions::Normal => "the f32 map's highest 1 % of every normal image (no anomalies are held out)",
        })
    }
}

impl Serialize for Regions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How good the maps of one model are. Both numbers are `None` where a class is missing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Under the score rule that is best for the f32 maps: rules chosen for each model would differ by more than the
    /// maps.
    pub image_auroc: Option<f64>,
    /// Up to a false-positive rate of 0.3.
    pub aupro: Option<f64>,
}

impl Quality {
    /// What `self` loses against `reference`: image AUROC and AUPRO; nothing where it cannot be told.
    pub fn loss(&self, reference: &Quality) -> (f64, f64) {
        let loss = |a: Option<f64>, b: Option<f64>| a.zip(b).map_or(0.0, |(a, b)| a - b);
        (loss(reference.image_auroc, self.image_auroc), loss(reference.aupro, self.aupro))
    }
}

/// Share of an image's pixels that stand for a mask where there is none.
const TOP_SHARE: usize = 100;

/// The f32 model's verdict, which others are held against.
pub struct Reference {
    pub regions: Regions,
    pub quality: Quality,
    rule: ScoreRule,
    /// Of every sample: whether its pixels count, and which of them should be high (`None`: none).
    masks: Vec<Option<Option<Array2<bool>>>>,
}

impl Reference {
    pub fn of(held_out: &HeldOutSet, maps: &[Array2<f32>]) -> Result<Reference, QuantiseError> {
        let anomalous = &held_out.samples[held_out.normal..];
        let regions = match () {
            () if anomalous.iter().any(|s| s.mask.is_some()) => Regions::Masks,
            () if !anomalous.is_empty() => Regions::Anomalous,
            () => Regions::Normal,
        };
        let mask = |(i, sample): (usize, &Sample)| -> Result<Option<Option<Array2<bool>>>, QuantiseError> {
            Ok(match (regions, &sample.mask) {
                (Regions::Masks, Some(mask)) => {
                    Some(Some(mask.at_input(&imaging::load(&sample.path)?, &held_out.input)?))
                }
                // Nobody knows which of its pixels are defective.
                (Regions::Masks, None) if i >= held_out.normal => None,
                (Regions::Masks | Regions::Anomalous, _) if i < held_out.normal => Some(None),
                _ => Some(Some(highest(&maps[i]))),
            })
        };
        let masks = held_out.samples.iter().enumerate().map(mask).collect::<Result<_, _>>()?;
        let empty = Quality { image_auroc: None, aupro: None };
        let rule = held_out.rule(maps);
        let mut reference = Reference { regions, quality: empty, rule, masks };
        reference.quality = reference.judge(held_out, maps)?;
        Ok(reference)
    }

    /// `maps` are of the held-out set's samples.
    pub fn judge(&self, held_out: &HeldOutSet, maps: &[Array2<f32>]) -> Result<Quality, QuantiseError> {
        let mut pixels = Pixels::default();
        for (map, mask) in maps.iter().zip(&self.masks) {
            if let Some(mask) = mask {
                pixels.add(map.view(), mask.as_ref().map(|mask| mask.view()))?;
            }
        }
        let scores: Vec<f32> = maps.par_iter().map(|m| ckaad_inspect::map_score(m.view(), &self.rule, None)).collect();
        let labels: Vec<bool> = (0..maps.len()).map(|i| i >= held_out.normal).collect();
        Ok(Quality { image_auroc: metrics::auroc(&scores, &labels), aupro: pixels.metrics()?.aupro_30 })
    }
}

fn highest(map: &Array2<f32>) -> Array2<bool> {
    let count = (map.len() / TOP_SHARE).max(1);
    let mut values: Vec<f32> = map.iter().copied().collect();
    let at = values.len() - count;
    let least = *values.select_nth_unstable_by(at, f32::total_cmp).1;
    map.map(|&v| v >= least)
}

/// How far `maps` are from `reference`: the mean absolute difference in units of the reference's standard deviation.
pub fn movement(maps: &[Array2<f32>], reference: &[&Array2<f32>]) -> f64 {
    let values = || reference.iter().flat_map(|m| m.iter()).map(|&v| f64::from(v));
    let count = values().count().max(1) as f64;
    let mean = values().sum::<f64>() / count;
    let spread = (values().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt().max(1e-12);
    let pairs = maps.iter().flatten().zip(reference.iter().flat_map(|m| m.iter()));
    pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / count / spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn movement_is_in_units_of_the_reference_maps_spread() {
        let reference = [arr2(&[[0.0, 2.0]]), arr2(&[[0.0, 2.0]])];
        let moved = [arr2(&[[0.5, 2.0]]), arr2(&[[0.0, 1.5]])];
        let against: Vec<&Array2<f32>> = reference.iter().collect();
        assert_eq!(movement(&moved, &against), 0.25);
        assert_eq!(movement(&reference, &against), 0.0);
    }

    #[test]
    fn a_hundredth_of_the_pixels_stands_for_a_mask() {
        let map = Array2::from_shape_fn((20, 20), |(y, x)| (((20 * y + x) * 37) % 400) as f32);
        let mask = highest(&map);
        assert!(map.iter().zip(&mask).all(|(&v, &m)| m == (v >= 396.0)));
    }

    #[test]
    fn a_loss_that_cannot_be_told_is_none() {
        let all = Quality { image_auroc: Some(0.9), aupro: Some(0.8) };
        let (auroc, aupro) = Quality { image_auroc: Some(0.85), aupro: None }.loss(&all);
        assert!((auroc - 0.05).abs() < 1e-12 && aupro == 0.0);
    }
}
