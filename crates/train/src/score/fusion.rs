//! The score of the map and that of the image branch as one.

use super::{few_labels, median, of_normal};
use crate::graph::{Term, TermWeights};
use crate::metrics::Placements;
use ckaad_bundle::{Fusion, ImageBranch, Score, Standard};

/// What one term of the image branch says of every image. An image of the first list was judged by a model that saw
/// other images with the same kind of defect.
#[derive(Clone, Debug)]
pub struct ImageTerm {
    /// Which it is.
    pub term: Term,
    /// By models that never saw the image.
    pub seen: Vec<f32>,
    /// By models that never saw the image nor any with the same kind of defect; as `seen` where an image is normal, or
    /// where kinds are not known. `None` of a method that is too slow to be trained without each kind.
    pub unseen: Option<Vec<f32>>,
}

/// The image branch: a weighted sum of image terms.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Of its terms.
    pub weights: TermWeights,
    /// As [`ImageTerm::seen`].
    pub seen: Vec<f32>,
    /// As [`ImageTerm::unseen`]; `None` where it is not known of one of the terms.
    pub unseen: Option<Vec<f32>>,
}

impl Branch {
    /// Every branch that `terms` can make, the default first: each in units of its spread over normal images, times what it
    /// is [`worth`]; then each alone. What few labels taught is no part of any.
    pub fn of(terms: &[ImageTerm], positive: &[bool]) -> Vec<Branch> {
        let few = few_labels(positive);
        let terms: Vec<ImageTerm> = terms.iter().filter(|term| !(few && term.term.taught)).cloned().collect();
        let terms = terms.as_slice();
        let weights = |terms: &[ImageTerm]| {
            let worths: Vec<f32> = terms.iter().map(|term| worth(&term.seen, term.unseen.as_ref(), positive)).collect();
            let nothing = worths.iter().all(|w| *w == 0.0);
            let weight = |worth: f32, term: &ImageTerm| {
                (if nothing { 1.0 } else { worth }) / standard(&term.seen, positive).spread
            };
            let pairs = terms.iter().zip(&worths);
            pairs.fold(TermWeights::default(), |all, (term, w)| all.with(term.term, weight(*w, term)))
        };
        let mut sets: Vec<&[ImageTerm]> = vec![];
        if !terms.is_empty() {
            sets.push(terms);
        }
        if terms.len() > 1 {
            sets.extend(terms.chunks(1));
        }
        sets.into_iter().map(|set| Branch::mixed(set, weights(set))).collect()
    }

    /// The sum of `terms` under `weights`.
    pub fn mixed(terms: &[ImageTerm], weights: TermWeights) -> Branch {
        let sum = |values: Vec<&Vec<f32>>| {
            let images = values.first().map_or(0, |of_term| of_term.len());
            let one = |i: usize| terms.iter().zip(&values).map(|(term, v)| weights.of(term.term) * v[i]).sum();
            (0..images).map(one).collect()
        };
        let seen = sum(terms.iter().map(|term| &term.seen).collect());
        let unseen: Option<Vec<&Vec<f32>>> = terms.iter().map(|term| term.unseen.as_ref()).collect();
        Branch { seen, unseen: unseen.map(sum), weights }
    }

    /// The same branch after `seen` was computed anew, by networks in other numbers; what was judged without its kind moves
    /// as far as what was judged with it.
    pub fn again(&self, seen: Vec<f32>) -> Branch {
        let moved = |((s, before), u): ((&f32, &f32), &f32)| u + (s - before);
        let unseen = self.unseen.as_ref().map(|unseen| seen.iter().zip(&self.seen).zip(unseen).map(moved).collect());
        Branch { weights: self.weights.clone(), seen, unseen }
    }

    /// The scores of all images, had the branch never been shown any of the same kind of defect.
    pub fn unseen_scores(&self, map: &[f32], score: &Score) -> Option<Vec<f32>> {
        Some(fused(map, self.unseen.as_ref()?, score))
    }

    /// The scores of all images, known kinds of defects being known.
    pub(super) fn scores(&self, map: &[f32], score: &Score) -> Vec<f32> {
        fused(map, &self.seen, score)
    }

    /// Every way to join the branch with the map's `scores`, which come by `score`; the default first: each as much as it
    /// is [`worth`]. The branch may speak alone only where `kinds` are left out to see what it makes of an unknown one:
    /// elsewhere the map keeps a voice for what nobody has shown yet.
    pub(super) fn ways(&self, scores: &[f32], score: &Score, positive: &[bool], kinds: bool) -> Vec<Score> {
        let alone = Score { image: None, ..score.clone() };
        let (map, image) = (standard(scores, positive), standard(&self.seen, positive));
        let way = |weight, fusion| Score { image: Some(ImageBranch { map, image, weight, fusion }), ..alone.clone() };
        // Of fewer nobody could say what the branch is worth: both count alike.
        if few_labels(positive) {
            return vec![way(0.5, Fusion::Sum)];
        }
        let unseen = self.unseen.as_ref().filter(|_| kinds);
        let (of_map, of_image) = (worth(scores, None, positive), worth(&self.seen, unseen, positive));
        let share = of_image / (of_map + of_image);
        let default = if share.is_finite() { share.clamp(0.1, 0.9) } else { 0.5 };
        let sums = [default, 0.5, 0.25, 0.75].map(|weight| way(weight, Fusion::Sum));
        let branch_alone = kinds.then(|| way(1.0, Fusion::Sum));
        sums.into_iter().chain(branch_alone).chain([way(0.5, Fusion::Larger), alone.clone()]).collect()
    }

    /// How good a way is on known kinds of defects; with `kinds` on known and on unknown ones alike: every anomalous image
    /// then counts twice, as the branch sees it knowing its kind and not knowing it.
    pub(super) fn placements(&self, map: &[f32], score: &Score, positive: &[bool], kinds: bool) -> Option<Placements> {
        let by = |image: &[f32]| Placements::of(&fused(map, image, score), positive);
        let seen = by(&self.seen)?;
        if kinds { Some(seen.mean_with(&by(self.unseen.as_ref()?)?)) } else { Some(seen) }
    }
}

/// What scores are worth beside others: the logit of their AUROC, on known and unknown kinds of defects alike where those
/// are known, and 0 where they tell nothing. Of scores that do not depend on each other, each normal with the same spread
/// in both classes, the sum in which each weighs so much, in units of that spread, tells the classes best (the distance of
/// the means, but for a factor).
fn worth(seen: &[f32], unseen: Option<&Vec<f32>>, positive: &[bool]) -> f32 {
    let auroc = |scores: &[f32]| Placements::of(scores, positive).map_or(0.5, |p| p.auroc());
    let seen = auroc(seen);
    let mean = unseen.map_or(seen, |unseen| (seen + auroc(unseen)) / 2.0);
    // So many images do not tell 1 from a little less.
    let most = 1.0 - 0.5 / positive.len().max(2) as f64;
    let auroc = mean.clamp(0.5, most);
    (auroc / (1.0 - auroc)).ln() as f32
}

fn fused(map: &[f32], image: &[f32], score: &Score) -> Vec<f32> {
    map.iter().zip(image).map(|(&m, &i)| ckaad_inspect::fuse(m, Some(i), score)).collect()
}

/// Median and spread of the normal images; the spread is the median absolute deviation, in units of a standard
/// deviation.
fn standard(scores: &[f32], positive: &[bool]) -> Standard {
    let normal = of_normal(scores, positive);
    let centre = median(normal.clone());
    let deviations = normal.iter().map(|s| (s - centre).abs()).collect();
    Standard { centre, spread: (1.4826 * median(deviations)).max(1e-6) }
}
