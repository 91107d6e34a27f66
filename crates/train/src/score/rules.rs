//! From a map to one number: the rules that can be chosen from, and their scores.

use super::config::{Rule, ScoreConfig};
use super::few_labels;
use crate::logistic::Logistic;
use ckaad_bundle::{ScoreRule, ScoreTerm};
use ckaad_inspect::Forest;
use ndarray::{Array2, ArrayView1, Axis};
use rayon::prelude::*;

/// Divisors of the number of pixels: the top-k rules between maximum and mean. The first is the paper's 100 of 224x224.
const TOP_SHARES: [usize; 4] = [500, 100, 20, 4];

/// Holds the weights of a combined rule back; the few labels must not be learned by heart.
const RIDGE: f64 = 0.05;

/// A rule, and the score of every image under it. A rule that is fitted scores each image by a fit without its fold.
pub struct Scored {
    /// The rule, fitted to all images.
    pub rule: ScoreRule,
    /// One an image.
    pub scores: Vec<f32>,
    /// The same by fits that also had no image with the same kind of defect; `None` where it makes no difference.
    pub unseen: Option<Vec<f32>>,
    /// What the rule `forest` needs besides.
    pub forest: Option<Forest>,
}

impl Scored {
    fn plain(rule: ScoreRule, scores: Vec<f32>) -> Scored {
        Scored { rule, scores, unseen: None, forest: None }
    }
}

/// Top-k means of every map.
pub struct Statistics {
    ks: Vec<u32>,
    /// `[images, ks]`.
    rows: Array2<f64>,
}

impl Statistics {
    /// Of smoothed maps of one size; `map(i)` gives that of image i.
    pub fn of(images: usize, config: &ScoreConfig, map: impl Fn(usize) -> Array2<f32> + Sync) -> Statistics {
        let row = |i: usize| {
            let map = map(i);
            let ks = top_ks(config, map.len());
            let mean = |&k: &u32| f64::from(ckaad_inspect::top_k_mean(map.view(), k as usize));
            let row: Vec<f64> = ks.iter().map(mean).collect();
            (ks, row)
        };
        let rows: Vec<(Vec<u32>, Vec<f64>)> = (0..images).into_par_iter().map(row).collect();
        let ks = rows.first().map(|(ks, _)| ks.clone()).unwrap_or_default();
        let values: Vec<f64> = rows.into_iter().flat_map(|(_, row)| row).collect();
        let rows = Array2::from_shape_vec((images, ks.len()), values).expect("every map has the same size");
        Statistics { ks, rows }
    }

    /// Every rule that the config allows, the default first. `folds[i]` is the fold that image i was held out with.
    pub fn rules(&self, config: &ScoreConfig, positive: &[bool], folds: &[usize]) -> Vec<Scored> {
        let mut rules = vec![];
        let fitted = matches!(config.rule, Rule::Combined | Rule::Auto) && !few_labels(positive);
        if config.rule != Rule::Combined || !fitted {
            let plain = |(column, &top_k): (usize, &u32)| {
                let scores = self.rows.column(column).iter().map(|&v| v as f32).collect();
                Scored::plain(ScoreRule::TopK { top_k }, scores)
            };
            rules.extend(self.ks.iter().enumerate().map(plain));
        }
        if fitted {
            rules.push(self.combined(positive, folds));
        }
        rules
    }

    fn combined(&self, positive: &[bool], folds: &[usize]) -> Scored {
        let fit = |kept: &[usize]| {
            let positive: Vec<bool> = kept.iter().map(|&i| positive[i]).collect();
            Logistic::fit(self.rows.select(Axis(0), kept).view(), &positive, RIDGE)
        };
        // Without the intercept, which does not matter to a ranking.
        let score = |fitted: &Logistic, row: ArrayView1<f64>| (fitted.score(row) - fitted.bias) as f32;
        let mut scores = vec![0.0; positive.len()];
        for fold in 0..=folds.iter().copied().max().unwrap_or(0) {
            let (held, kept): (Vec<usize>, Vec<usize>) = (0..folds.len()).partition(|&i| folds[i] == fold);
            let fitted = fit(&kept);
            held.into_iter().for_each(|i| scores[i] = score(&fitted, self.rows.row(i)));
        }
        let whole = fit(&(0..folds.len()).collect::<Vec<_>>());
        let pairs = self.ks.iter().zip(&whole.weights);
        let terms = pairs.map(|(&top_k, &weight)| ScoreTerm { top_k, weight: weight as f32 }).collect();
        Scored::plain(ScoreRule::Combined { terms }, scores)
    }
}

/// Pixels in the mean that is the default.
pub fn default_top_k(pixels: usize) -> u32 {
    (pixels / TOP_SHARES[0]).max(1) as u32
}

/// The top-k means that rules are made of, the default first.
fn top_ks(config: &ScoreConfig, pixels: usize) -> Vec<u32> {
    let share = |d: usize| (pixels / d).max(1) as u32;
    let pixels_k = pixels as u32;
    match config.rule {
        Rule::Maximum => vec![1],
        Rule::Mean => vec![pixels_k],
        Rule::TopK => vec![config.top_k.min(pixels_k)],
        Rule::Auto | Rule::Combined | Rule::Forest => TOP_SHARES.map(share).into_iter().chain([1, pixels_k]).collect(),
    }
}
