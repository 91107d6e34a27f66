//! The score of the map and that of the image branch as one.

use crate::graph::Term;
use crate::metrics::Placements;
use ckaad_bundle::{Fusion, ImageBranch, Score, Standard};

/// What the image branch says of every image. An image of the first list was judged by a model that saw other images
/// with the same kind of defect.
pub struct Branch {
    /// Its terms, which are summed.
    pub terms: Vec<Term>,
    /// By models that never saw the image.
    pub seen: Vec<f32>,
    /// By models that never saw the image nor any with the same kind of defect; as `seen` where an image is normal, or
    /// where kinds are not known.
    pub unseen: Vec<f32>,
}

/// With fewer anomalous images the branch is left out: nobody could say what it is worth.
const LABELS: usize = 5;

impl Branch {
    /// The same branch after `seen` was computed anew, by networks in other numbers; what was judged without its kind moves
    /// as far as what was judged with it.
    pub fn again(&self, seen: Vec<f32>) -> Branch {
        let moved = |((s, before), u): ((&f32, &f32), &f32)| u + (s - before);
        let unseen = seen.iter().zip(&self.seen).zip(&self.unseen).map(moved).collect();
        Branch { terms: self.terms.clone(), seen, unseen }
    }

    /// The score of image `i` with the map's score `map`, had its kind of defect never been shown.
    pub fn unseen_score(&self, map: f32, i: usize, score: &Score) -> f32 {
        ckaad_inspect::fuse(map, Some(self.unseen[i]), score)
    }

    /// The scores of all images, known kinds of defects being known.
    pub(super) fn scores(&self, map: &[f32], score: &Score) -> Vec<f32> {
        fused(map, &self.seen, score)
    }

    /// Every way to join the branch with the map's `scores`, which come by `score`; the default first: both alike.
    pub(super) fn ways(&self, scores: &[f32], score: &Score, positive: &[bool]) -> Vec<Score> {
        let alone = Score { image: None, ..score.clone() };
        if positive.iter().filter(|&&p| p).count() < LABELS {
            return vec![alone];
        }
        let (map, image) = (standard(scores, positive), standard(&self.seen, positive));
        let way = |weight, fusion| Score { image: Some(ImageBranch { map, image, weight, fusion }), ..alone.clone() };
        let sums = [0.5, 0.25, 0.75, 0.9].map(|weight| way(weight, Fusion::Sum));
        sums.into_iter().chain([way(0.5, Fusion::Larger), alone.clone()]).collect()
    }

    /// How good a way is on known and on unknown kinds of defects alike: every anomalous image counts twice, as the
    /// branch sees it knowing its kind and not knowing it. So the map keeps its voice for what nobody has shown yet.
    pub(super) fn placements(&self, map: &[f32], score: &Score, positive: &[bool]) -> Option<Placements> {
        let by = |image: &[f32]| Placements::of(&fused(map, image, score), positive);
        Some(by(&self.seen)?.mean_with(&by(&self.unseen)?))
    }
}

fn fused(map: &[f32], image: &[f32], score: &Score) -> Vec<f32> {
    map.iter().zip(image).map(|(&m, &i)| ckaad_inspect::fuse(m, Some(i), score)).collect()
}

/// Median and spread of the normal images; the spread is the median absolute deviation, in units of a standard
/// deviation.
fn standard(scores: &[f32], positive: &[bool]) -> Standard {
    let of_normal = scores.iter().zip(positive).filter(|(_, p)| !**p).map(|(s, _)| *s);
    let mut normal: Vec<f32> = of_normal.collect();
    let centre = median(&mut normal);
    let mut deviations: Vec<f32> = normal.iter().map(|s| (s - centre).abs()).collect();
    Standard { centre, spread: (1.4826 * median(&mut deviations)).max(1e-6) }
}

fn median(values: &mut [f32]) -> f32 {
    values.sort_by(f32::total_cmp);
    ckaad_inspect::quantile(values, 0.5).unwrap_or_default()
}
