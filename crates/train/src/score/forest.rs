//! The score rule `forest` (after SegAD, arXiv 2405.04953): boosted trees over what the map shows in each segment. It uses
//! exactly what there is, labels of images, and can learn that one segment matters more than another; so it is also asked
//! what it makes of kinds of defects that it was never shown.

use super::rules::Scored;
use super::{Judged, labels, median, of_normal};
use crate::boosting;
use ckaad_bundle::ScoreRule;
use ckaad_inspect::{Forest, segment_features};
use ndarray::{Array2, Axis};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Segments of the network's input, the same for every image.
#[derive(Clone, Debug, PartialEq)]
pub struct Segments {
    /// A label below `count` for each pixel, `[H,W]`.
    pub labels: Array2<u8>,
    /// How many there are.
    pub count: u32,
}

/// Fewer anomalous images cannot be fitted to.
const LABELS: usize = 10;

/// How much the plain score may say where trees say the same, in units of its spread: less than any leaf.
const TIE: f32 = 1e-4;

/// The trees are drawn from it: the same images give the same trees.
const SEED: u64 = 1;

/// The rule, with its scores by trees that never saw the image, nor, for `unseen`, any of its kind. `plain` holds the
/// scores of the plain rule that breaks ties; `map(i)` gives the smoothed map of image i. `None` where there are too few
/// labels.
pub fn scored(
    judged: &Judged,
    segments: &Segments,
    plain: &[f32],
    map: impl Fn(usize) -> Array2<f32> + Sync,
) -> Option<Scored> {
    let positive = &judged.positive;
    if labels(positive) < LABELS {
        return None;
    }
    let row = |i: usize| segment_features(map(i).view(), segments.labels.view(), segments.count);
    let values: Vec<f32> = (0..positive.len()).into_par_iter().flat_map_iter(row).collect();
    let rows = Array2::from_shape_vec((positive.len(), values.len() / positive.len()), values).ok()?;
    let trees = Trees { judged, rows, plain, tie_break: TIE / spread(plain, positive) };
    let whole = trees.fit(&(0..positive.len()).collect::<Vec<_>>())?;
    let scores = trees.out_of_fold()?;
    let unseen = trees.without_kinds(&scores)?;
    let rule = ScoreRule::Forest { segments: segments.count, tie_break: trees.tie_break };
    Some(Scored { rule, scores, unseen, forest: Some(whole) })
}

struct Trees<'a> {
    judged: &'a Judged,
    /// `[images, features]`.
    rows: Array2<f32>,
    plain: &'a [f32],
    tie_break: f32,
}

impl Trees<'_> {
    fn fit(&self, kept: &[usize]) -> Option<Forest> {
        let labels: Vec<bool> = kept.iter().map(|&i| self.judged.positive[i]).collect();
        let trees = boosting::fit(self.rows.select(Axis(0), kept).view(), &labels, SEED);
        Forest::new(self.medians(), trees).ok()
    }

    fn score(&self, forest: &Forest, i: usize) -> f32 {
        forest.score(&self.rows.row(i).to_vec()) + self.tie_break * self.plain[i]
    }

    /// The scores of the images that are `held`, by trees over those that are `kept`.
    fn judge(&self, held: &[usize], kept: &[usize]) -> Option<Vec<(usize, f32)>> {
        let forest = self.fit(kept)?;
        Some(held.iter().map(|&i| (i, self.score(&forest, i))).collect())
    }

    fn folds(&self) -> Vec<usize> {
        self.judged.folds.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn out_of_fold(&self) -> Option<Vec<f32>> {
        let one = |&fold: &usize| {
            let (held, kept): (Vec<usize>, Vec<usize>) =
                (0..self.plain.len()).partition(|&i| self.judged.folds[i] == fold);
            self.judge(&held, &kept)
        };
        let answers: Vec<Vec<(usize, f32)>> = self.folds().par_iter().map(one).collect::<Option<_>>()?;
        let mut scores = vec![0.0; self.plain.len()];
        answers.into_iter().flatten().for_each(|(i, score)| scores[i] = score);
        Some(scores)
    }

    /// `scores` with those of anomalous images by trees that saw no image of their kind; `None` inside where there are not
    /// two kinds.
    fn without_kinds(&self, scores: &[f32]) -> Option<Option<Vec<f32>>> {
        let kinds: BTreeSet<&String> = self.judged.kinds.iter().flatten().collect();
        if kinds.len() < 2 {
            return Some(None);
        }
        let pairs: Vec<(usize, &String)> =
            self.folds().into_iter().flat_map(|fold| kinds.iter().map(move |&kind| (fold, kind))).collect();
        let one = |&(fold, kind): &(usize, &String)| {
            let of_kind = |i: usize| self.judged.kinds[i].as_ref() == Some(kind);
            let images = || 0..self.plain.len();
            let held: Vec<usize> = images().filter(|&i| self.judged.folds[i] == fold && of_kind(i)).collect();
            let kept: Vec<usize> = images().filter(|&i| self.judged.folds[i] != fold && !of_kind(i)).collect();
            self.judge(&held, &kept)
        };
        let answers: Vec<Vec<(usize, f32)>> = pairs.par_iter().map(one).collect::<Option<_>>()?;
        let mut unseen = scores.to_vec();
        answers.into_iter().flatten().for_each(|(i, score)| unseen[i] = score);
        Some(Some(unseen))
    }

    /// Of each feature over the normal images.
    fn medians(&self) -> Vec<f32> {
        let normal = |column: usize| median(of_normal(&self.rows.column(column).to_vec(), &self.judged.positive));
        (0..self.rows.ncols()).map(normal).collect()
    }
}

/// Standard deviation of the normal images' scores, above 0.
fn spread(scores: &[f32], positive: &[bool]) -> f32 {
    let normal = of_normal(scores, positive);
    let count = normal.len().max(1) as f32;
    let mean = normal.iter().sum::<f32>() / count;
    (normal.iter().map(|s| (s - mean).powi(2)).sum::<f32>() / count).sqrt().max(1e-6)
}
