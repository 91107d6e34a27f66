//! Statistics of the map's segments, and a forest with the segments that it is about.

use super::trees::{Forest, ForestError};
use crate::imaging;
use ckaad_bundle::{Bundle, ScoreRule};
use ndarray::{Array2, ArrayView2};
use std::path::Path;

/// Features of each segment.
const OF_SEGMENT: usize = 4;
/// Nearly the largest value: a few wild pixels do not decide.
const HIGH: f64 = 0.995;

/// What a forest is asked about a smoothed map `[H,W]`: of each segment in turn its 0.995 quantile (linear between two
/// values), skewness, kurtosis (0 for a normal distribution; both from the biased moments) and mean, then the map's
/// maximum: `4 * count + 1` numbers. `segments` holds a label a pixel; a label from `count` on is in no segment. A
/// segment without pixels gives four zeros, one whose pixels are all the same 0 as skewness and kurtosis.
pub fn segment_features(map: ArrayView2<f32>, segments: ArrayView2<u8>, count: u32) -> Vec<f32> {
    let mut values: Vec<Vec<f32>> = vec![vec![]; count as usize];
    for (value, label) in map.iter().zip(segments) {
        if let Some(of_segment) = values.get_mut(usize::from(*label)) {
            of_segment.push(*value);
        }
    }
    let mut features: Vec<f32> = values.into_iter().flat_map(statistics).collect();
    let largest = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    features.push(if map.is_empty() { 0.0 } else { largest });
    features
}

fn statistics(mut values: Vec<f32>) -> [f32; OF_SEGMENT] {
    let Some(last) = values.len().checked_sub(1) else { return [0.0; OF_SEGMENT] };
    let count = values.len() as f64;
    // Sums in the order of the pixels, before the values are moved for the quantile.
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let (mut second, mut third, mut fourth) = (0.0, 0.0, 0.0);
    for &value in &values {
        let distance = f64::from(value) - mean;
        let square = distance * distance;
        second += square;
        third += square * distance;
        fourth += square * square;
    }
    let [second, third, fourth] = [second, third, fourth].map(|sum| sum / count);
    // A sum of equal values, divided, need not be that value, and what is left would be noise over noise.
    let constant = values.iter().all(|v| *v == values[0]);
    let (skewness, kurtosis) =
        if constant { (0.0, 0.0) } else { (third / second.powf(1.5), fourth / (second * second) - 3.0) };

    let place = HIGH * last as f64;
    let low = place.floor() as usize;
    let (_, below, behind) = values.select_nth_unstable_by(low, f32::total_cmp);
    let below = f64::from(*below);
    let above = behind.iter().copied().min_by(f32::total_cmp).map_or(below, f64::from);
    let high = below + (above - below) * (place - low as f64);
    [high, skewness, kurtosis, mean].map(|v| v as f32)
}

/// A forest and the segments that its features are of.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentForest {
    forest: Forest,
    segments: Array2<u8>,
    count: u32,
}

impl SegmentForest {
    /// `segments` holds a label below `count` for each pixel of the network's input, `[H,W]`.
    ///
    /// # Errors
    /// [`ForestError::Features`] when the forest has not `4 * count + 1` features, [`ForestError::Label`] when a label
    /// is not below `count`.
    pub fn new(forest: Forest, segments: Array2<u8>, count: u32) -> Result<SegmentForest, ForestError> {
        let (found, expected) = (forest.features(), OF_SEGMENT * count as usize + 1);
        if found != expected {
            return Err(ForestError::Features { found, expected, segments: count });
        }
        match segments.iter().find(|&&label| u32::from(label) >= count) {
            Some(&found) => Err(ForestError::Label { found, segments: count }),
            None => Ok(SegmentForest { forest, segments, count }),
        }
    }

    /// What the score rule of `bundle` needs: `None` where it is no forest.
    ///
    /// # Errors
    /// A member is missing, damaged, or does not fit the manifest.
    pub fn of(bundle: &Bundle) -> Result<Option<SegmentForest>, ForestError> {
        let ScoreRule::Forest { segments: count, .. } = bundle.manifest.score.rule else { return Ok(None) };
        let forest = bundle.forest.as_ref().ok_or(ForestError::Missing("score/forest.json"))?;
        let picture = bundle.segments.as_ref().ok_or(ForestError::Missing("score/segments.png"))?;
        let picture = imaging::decode_labels(picture, Path::new("score/segments.png"))
            .map_err(|e| ForestError::Segments(e.to_string()))?;
        let found = (picture.width() as usize, picture.height() as usize);
        let expected = (bundle.manifest.input.width as usize, bundle.manifest.input.height as usize);
        if found != expected {
            return Err(ForestError::Size { found, expected });
        }
        let labels = Array2::from_shape_vec((found.1, found.0), picture.into_raw());
        let labels = labels.map_err(|e| ForestError::Segments(e.to_string()))?;
        SegmentForest::new(Forest::from_json(forest)?, labels, count).map(Some)
    }

    /// [`segment_features`] of a smoothed map at the network's input size.
    pub fn features(&self, map: ArrayView2<f32>) -> Vec<f32> {
        segment_features(map, self.segments.view(), self.count)
    }

    /// [`Forest::score`].
    pub fn margin(&self, features: &[f32]) -> f32 {
        self.forest.score(features)
    }

    /// The segment that an image with these features owes its margin to: the one whose features, with the medians of
    /// normal images in their place, take most off it. The first of several; `None` when none takes anything off.
    pub fn deciding(&self, features: &[f32]) -> Option<u32> {
        let margin = self.forest.sum(features);
        let mut best = (None, 0.0);
        for segment in 0..self.count {
            let of_segment = segment as usize * OF_SEGMENT..(segment as usize + 1) * OF_SEGMENT;
            let mut without = features.to_vec();
            if let (Some(here), Some(normal)) =
                (without.get_mut(of_segment.clone()), self.forest.normal().get(of_segment))
            {
                here.copy_from_slice(normal);
            }
            let drop = margin - self.forest.sum(&without);
            if drop > best.1 {
                best = (Some(segment), drop);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[track_caller]
    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert!(found.iter().zip(expected).all(near), "{found:?}, not {expected:?}");
    }

    #[test]
    fn statistics_of_known_values() {
        // Segment 0 holds 1 to 5 in some order, segment 1 four zeros and a ten, segment 2 nothing, segment 3 equals.
        let map = arr2(&[[3.0, 0.0, 1.0, 0.0, 0.1], [10.0, 5.0, 0.0, 2.0, 0.1], [0.0, 4.0, 0.1, 0.1, 0.1]]);
        let segments = arr2(&[[0, 1, 0, 1, 3], [1, 0, 1, 0, 3], [1, 0, 3, 3, 3]]);
        let features = segment_features(map.view(), segments.view(), 4);
        close(&features[..4], &[4.98, 0.0, -1.3, 3.0]);
        close(&features[4..8], &[9.8, 1.5, 0.25, 2.0]);
        close(&features[8..12], &[0.0; 4]);
        assert_eq!(features[12..16], [0.1, 0.0, 0.0, 0.1], "exactly");
        assert_eq!(features[16..], [10.0]);
    }

    #[test]
    fn no_pixels_are_defined_and_a_strange_label_counts_for_the_maximum_only() {
        assert_eq!(segment_features(Array2::zeros((0, 0)).view(), Array2::zeros((0, 0)).view(), 1), [0.0; 5]);
        let features = segment_features(arr2(&[[1.0, 7.0]]).view(), arr2(&[[0, 9]]).view(), 1);
        assert_eq!(features, [1.0, 0.0, 0.0, 1.0, 7.0]);
    }

    #[test]
    fn a_large_offset_costs_the_moments_little() {
        let value = |i: usize| ((i * 37) % 101) as f32 / 128.0;
        let (map, moved) = (
            Array2::from_shape_fn((60, 70), |(y, x)| value(70 * y + x)),
            Array2::from_shape_fn((60, 70), |(y, x)| 1000.0 + value(70 * y + x)),
        );
        let segments = Array2::zeros((60, 70));
        let (a, b) =
            (segment_features(map.view(), segments.view(), 1), segment_features(moved.view(), segments.view(), 1));
        assert!((a[1] - b[1]).abs() < 1e-4 && (a[2] - b[2]).abs() < 1e-3, "{a:?} {b:?}");
    }
}
