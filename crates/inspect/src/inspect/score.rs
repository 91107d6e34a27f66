//! From the smoothed map, and the network's image score where it has one, to the image score.

use super::forest::SegmentForest;
use super::verdict::DecidedBy;
use ckaad_bundle::{Fusion, ImageBranch, Score, ScoreRule, ScoreTerm};
use ndarray::ArrayView2;

/// One of so many pixels is in the mean that breaks a forest's ties.
const TIE_PIXELS: usize = 500;

/// The number that `rule` makes of a smoothed map `[H,W]`. `forest` is what the rule `forest` needs besides, as
/// [`SegmentForest::of`] takes it from a bundle; not a number where it is missing. Other rules need none.
pub fn map_score(map: ArrayView2<f32>, rule: &ScoreRule, forest: Option<&SegmentForest>) -> f32 {
    match (rule, forest) {
        (ScoreRule::TopK { top_k }, _) => top_k_mean(map, *top_k as usize),
        (ScoreRule::Combined { terms }, _) => combined(map, terms),
        (ScoreRule::Forest { tie_break, .. }, Some(forest)) => {
            forest_score(map, forest, &forest.features(map), *tie_break)
        }
        (ScoreRule::Forest { .. }, None) => f32::NAN,
    }
}

/// [`map_score`] with a forest, whose features of the map are known.
pub(super) fn forest_score(map: ArrayView2<f32>, forest: &SegmentForest, features: &[f32], tie_break: f32) -> f32 {
    forest.margin(features) + tie_break * top_k_mean(map, map.len() / TIE_PIXELS)
}

/// The image score: what `score` makes of the map's score and of the network's `image_score`. Not a number where
/// `score` has an image branch and there is no `image_score`; without a branch the map's score as it is.
pub fn fuse(map_score: f32, image_score: Option<f32>, score: &Score) -> f32 {
    let Some(branch) = &score.image else { return map_score };
    let (map, image) = terms(map_score, image_score.unwrap_or(f32::NAN), branch);
    match branch.fusion {
        Fusion::Sum => map + image,
        // `f32::max` would pass over what is not a number.
        Fusion::Larger if map.is_nan() || image.is_nan() => f32::NAN,
        Fusion::Larger => 2.0 * map.max(image),
    }
}

/// Which of the two decides, where there are two.
pub(super) fn larger(map_score: f32, image_score: Option<f32>, score: &Score) -> DecidedBy {
    match (&score.image, image_score) {
        (Some(branch), Some(image_score)) => {
            let (map, image) = terms(map_score, image_score, branch);
            if image > map { DecidedBy::Image } else { DecidedBy::Map }
        }
        _ => DecidedBy::Map,
    }
}

/// The weighted standardised scores of map and image.
fn terms(map: f32, image: f32, branch: &ImageBranch) -> (f32, f32) {
    let z = |value: f32, of: &ckaad_bundle::Standard| (value - of.centre) / of.spread;
    ((1.0 - branch.weight) * z(map, &branch.map), branch.weight * z(image, &branch.image))
}

fn combined(map: ArrayView2<f32>, terms: &[ScoreTerm]) -> f32 {
    let mut terms: Vec<&ScoreTerm> = terms.iter().collect();
    terms.sort_by_key(|t| std::cmp::Reverse(t.top_k));
    // The largest few are among the largest many.
    let mut values = largest(map, terms.first().map_or(1, |t| t.top_k as usize));
    let term = |t: &ScoreTerm| {
        keep_largest(&mut values, t.top_k as usize);
        f64::from(t.weight) * mean(&values)
    };
    terms.into_iter().map(term).sum::<f64>() as f32
}

/// Mean of the `k` largest values of a map, of one at least; of all when there are fewer.
pub fn top_k_mean(map: ArrayView2<f32>, k: usize) -> f32 {
    mean(&largest(map, k)) as f32
}

/// The `k` largest values of a map, one at least, in no order; what is no number counts as the largest. A map has many values and few of them
/// are among these: only what is not below the k-th largest so far is looked at twice.
fn largest(map: ArrayView2<f32>, k: usize) -> Vec<f32> {
    let k = k.max(1);
    let room = 2 * k.max(512);
    let (mut kept, mut least) = (Vec::with_capacity(room), f32::NEG_INFINITY);
    for &value in map {
        if value >= least || value.is_nan() {
            // Of either sign: the negative one, which is what CPUs make of 0/0, is the least in the total order.
            kept.push(if value.is_nan() { f32::NAN } else { value });
            if kept.len() == room {
                keep_largest(&mut kept, k);
                least = kept.last().copied().unwrap_or(least);
            }
        }
    }
    keep_largest(&mut kept, k);
    kept
}

/// Where there are more than `k`, the last of what is kept is the smallest.
fn keep_largest(values: &mut Vec<f32>, k: usize) {
    let k = k.max(1);
    if k < values.len() {
        values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        values.truncate(k);
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckaad_bundle::Standard;
    use ndarray::{Array2, arr2};

    #[test]
    fn a_combined_score_is_the_weighted_sum_of_its_terms() {
        let terms = vec![ScoreTerm { top_k: 1, weight: 2.0 }, ScoreTerm { top_k: 5, weight: -1.0 }];
        let map = arr2(&[[1.0, 5.0, 3.0, 4.0, 2.0]]);
        assert_eq!(map_score(map.view(), &ScoreRule::Combined { terms }, None), 2.0 * 5.0 - 3.0);
        assert_eq!(map_score(map.view(), &ScoreRule::TopK { top_k: 2 }, None), 4.5);
        assert!(map_score(map.view(), &ScoreRule::Forest { segments: 1, tie_break: 0.0 }, None).is_nan());
    }

    #[test]
    fn top_k_is_the_mean_of_the_largest() {
        let map = arr2(&[[1.0, 5.0, 3.0], [4.0, 2.0, 3.0]]);
        assert_eq!(top_k_mean(map.view(), 1), 5.0);
        assert_eq!(top_k_mean(map.view(), 2), 4.5);
        assert_eq!(top_k_mean(map.view(), 99), 3.0);
    }

    /// Whatever the order of the values, as sorting all of them says.
    #[test]
    fn the_largest_are_those_of_a_sorted_map() {
        let noise = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 4001) as f32 / 100.0 - 20.0;
        let maps: [fn(usize) -> f32; 4] = [|i| i as f32, |i| -(i as f32), |_| f32::NEG_INFINITY, |i| (i % 3) as f32];
        for k in [1, 7, 512, 900, 4999, 5000, 6000] {
            for of in maps.iter().copied().chain([noise as fn(usize) -> f32]) {
                let map = Array2::from_shape_fn((50, 100), |(y, x)| of(100 * y + x));
                let mut found = largest(map.view(), k);
                let mut sorted: Vec<f32> = map.iter().copied().collect();
                for values in [&mut found, &mut sorted] {
                    values.sort_by(|a, b| b.total_cmp(a));
                }
                sorted.truncate(k);
                assert_eq!(found, sorted, "{k}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_not_passed_over() {
        for at in [0, 2600, 4999] {
            for nan in [f32::NAN, -f32::NAN] {
                let map = Array2::from_shape_fn((50, 100), |(y, x)| if 100 * y + x == at { nan } else { x as f32 });
                assert!(top_k_mean(map.view(), 300).is_nan(), "{at}");
            }
        }
    }

    fn branch(fusion: Fusion, weight: f32) -> Score {
        let (map, image) = (Standard { centre: 10.0, spread: 2.0 }, Standard { centre: -1.0, spread: 0.5 });
        let image = Some(ImageBranch { map, image, weight, fusion });
        Score { sigma_px: 1.0, rule: ScoreRule::TopK { top_k: 1 }, image }
    }

    #[test]
    fn map_and_image_come_together_in_units_of_their_own_spread() {
        // 1.5 spreads above the centre, and 4.
        let (map, image) = (13.0, Some(1.0));
        assert_eq!(fuse(map, image, &branch(Fusion::Sum, 0.25)), 0.75 * 1.5 + 0.25 * 4.0);
        assert_eq!(fuse(map, image, &branch(Fusion::Larger, 0.5)), 4.0);
        assert_eq!(fuse(map, image, &branch(Fusion::Larger, 0.25)), 2.0 * 0.75 * 1.5);
        assert_eq!(fuse(map, image, &branch(Fusion::Sum, 0.0)), 1.5);
        assert_eq!(fuse(map, image, &branch(Fusion::Sum, 1.0)), 4.0);
        let alone = Score { image: None, ..branch(Fusion::Sum, 0.5) };
        assert_eq!((fuse(map, image, &alone), fuse(map, None, &alone)), (map, map));
        for fusion in [Fusion::Sum, Fusion::Larger] {
            assert!(fuse(map, None, &branch(fusion, 0.5)).is_nan());
            assert!(fuse(f32::NAN, image, &branch(fusion, 0.5)).is_nan());
        }
    }

    #[test]
    fn the_larger_weighted_score_decides() {
        let decided = |map, image, weight| larger(map, image, &branch(Fusion::Sum, weight));
        assert_eq!(decided(13.0, Some(1.0), 0.5), DecidedBy::Image);
        assert_eq!(decided(13.0, Some(1.0), 0.25), DecidedBy::Map);
        assert_eq!(decided(10.0, Some(-1.0), 0.5), DecidedBy::Map, "as large as each other");
        assert_eq!(larger(13.0, Some(1.0), &Score { image: None, ..branch(Fusion::Sum, 0.5) }), DecidedBy::Map);
    }
}
