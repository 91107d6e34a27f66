//! How the terms of a model become one map and one score, chosen by training images, each judged by a model that never
//! saw it. The test set is never seen here.
//!
//! ```text
//! maps of each term ─► mixtures × rules ─► map score ─┬─► one score
//! image branch ───────────────────────────────────────┘
//! ```
//!
//! What is chosen is the default, unless something else is better by more than one standard error of the difference:
//! few labels tell few things apart.

mod config;
mod forest;
mod fusion;
mod mixtures;
mod rules;

pub use config::{ImageRule, Rule, ScoreConfig, SegmentsKind};
pub use forest::Segments;
pub use fusion::{Branch, ImageTerm};
pub use rules::{Scored, Statistics};

use crate::graph::{Term, TermWeights};
use crate::metrics::Placements;
use ckaad_bundle::Score;
use ckaad_inspect::Forest;
use ndarray::Array2;

/// What the models of all folds say of the images that they never saw, one value an image in every list.
pub struct Judged {
    /// Whether an image is anomalous.
    pub positive: Vec<bool>,
    /// The fold with which it was held out.
    pub folds: Vec<usize>,
    /// The kind of defect that an image shows.
    pub kinds: Vec<Option<String>>,
    /// For the rule `forest`, which is left out without them.
    pub segments: Option<Segments>,
    /// `[h,w]` maps of each term as the network gives them, not smoothed.
    pub maps: Vec<(Term, Vec<Array2<f32>>)>,
    /// What the image branch can be made of, the default first; none where no term speaks of whole images.
    pub branches: Vec<Branch>,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Of the terms in the map; of the image branch's terms where it takes part.
    pub weights: TermWeights,
    /// From map and image branch to the score.
    pub score: Score,
    /// The scores of the images under it.
    pub scores: Vec<f32>,
    /// What the rule `forest` needs besides.
    pub forest: Option<Forest>,
    /// `None` where one class is missing.
    pub placements: Option<Placements>,
}

impl Judged {
    /// The images' labels and folds, without any verdict.
    pub fn labels(&self) -> Judged {
        Judged {
            positive: self.positive.clone(),
            folds: self.folds.clone(),
            kinds: self.kinds.clone(),
            segments: self.segments.clone(),
            maps: vec![],
            branches: vec![],
        }
    }

    /// Each term of the map alone, by its name, and the scores of the images by the mean of its largest pixels; `size`
    /// is the height and width of the network's input.
    pub fn alone(&self, config: &ScoreConfig, size: (usize, usize)) -> Vec<(&'static str, Vec<f32>)> {
        let config = ScoreConfig { rule: Rule::TopK, top_k: rules::default_top_k(size.0 * size.1), ..config.clone() };
        let scores = |(term, _): &(Term, Vec<Array2<f32>>)| {
            let weights = TermWeights::only(*term);
            let map = |i: usize| self.mixed(&weights, i, size, &config);
            let statistics = Statistics::of(self.positive.len(), &config, map);
            let scored = statistics.rules(&config, &self.positive, &self.folds).swap_remove(0);
            (term.name, scored.scores)
        };
        self.maps.iter().map(scores).collect()
    }

    /// The weights of the map's terms that `config` leaves open, with the best rule of each mixture; `size` is the
    /// height and width of the network's input.
    pub fn choose_map(&self, config: &ScoreConfig, size: (usize, usize)) -> Choice {
        let candidates = mixtures::candidates(&self.maps, &self.positive, config);
        let mut choices = vec![];
        for weights in candidates {
            let statistics = Statistics::of(self.positive.len(), config, |i| self.mixed(&weights, i, size, config));
            choices.extend(self.choices(&weights, &statistics, config));
        }
        best(choices)
    }

    /// The best rule for finished maps, of which `map(i)` gives that of image i, smoothed and at the input's size; their
    /// mixture is `weights`.
    pub fn choose_rule(
        &self,
        weights: &TermWeights,
        map: impl Fn(usize) -> Array2<f32> + Sync,
        config: &ScoreConfig,
    ) -> Choice {
        let statistics = Statistics::of(self.positive.len(), config, &map);
        let mut choices = self.choices(weights, &statistics, config);
        let tried = matches!(config.rule, Rule::Auto | Rule::Forest);
        if let Some(segments) = self.segments.as_ref().filter(|_| tried) {
            let scored = forest::scored(self, segments, &choices[0].scores, map);
            let forest = scored.map(|scored| self.choice(weights, config, scored));
            match forest {
                Some(forest) if config.rule == Rule::Forest => return forest,
                forest => choices.extend(forest),
            }
        }
        best(choices)
    }

    /// `map` joined with the image branch, as far as it is better so.
    ///
    /// Kinds of defects that no model saw count only where it is known what both make of them. A map that learned from
    /// labels was never tried without a kind: held against a branch that was, it would win by what it was spared.
    pub fn choose_fusion(&self, map: Choice, config: &ScoreConfig) -> Choice {
        if self.branches.is_empty() || config.image == ImageRule::Off {
            return map;
        }
        let taught = map.weights.iter().any(|(term, _)| term.is_map() && term.taught);
        let kinds = !taught && self.branches.iter().all(|branch| branch.unseen.is_some());
        let mut ways: Vec<(&Branch, Score)> = vec![];
        for branch in &self.branches {
            let all = branch.ways(&map.scores, &map.score, &self.positive, kinds);
            ways.extend(all.into_iter().map(|way| (branch, way)));
        }
        let judge = |(branch, way): &(&Branch, Score)| branch.placements(&map.scores, way, &self.positive, kinds);
        let judged: Vec<Option<Placements>> = ways.iter().map(judge).collect();
        let (branch, score) = ways.swap_remove(pick(&judged.iter().map(Option::as_ref).collect::<Vec<_>>()));
        if score.image.is_none() {
            return map;
        }
        let scores = branch.scores(&map.scores, &score);
        let placements = Placements::of(&scores, &self.positive);
        let weights = branch.weights.iter().fold(map.weights, |all, (term, weight)| all.with(term, weight));
        Choice { weights, score, scores, forest: map.forest, placements }
    }

    fn choices(&self, weights: &TermWeights, statistics: &Statistics, config: &ScoreConfig) -> Vec<Choice> {
        let rules = statistics.rules(config, &self.positive, &self.folds);
        rules.into_iter().map(|scored| self.choice(weights, config, scored)).collect()
    }

    /// A rule that learned from kinds of defects is judged on known and unknown ones alike.
    fn choice(&self, weights: &TermWeights, config: &ScoreConfig, scored: Scored) -> Choice {
        let Scored { rule, scores, unseen, forest } = scored;
        let placed = |scores: &[f32]| Placements::of(scores, &self.positive);
        let placements = match (placed(&scores), unseen.and_then(|unseen| placed(&unseen))) {
            (Some(seen), Some(unseen)) => Some(seen.mean_with(&unseen)),
            (seen, _) => seen,
        };
        let score = Score { sigma_px: config.sigma_px, rule, image: None };
        Choice { weights: weights.clone(), score, scores, forest, placements }
    }

    /// The smoothed map of one image under `weights`. Smoothing is linear, so the sum is smoothed once.
    fn mixed(&self, weights: &TermWeights, image: usize, size: (usize, usize), config: &ScoreConfig) -> Array2<f32> {
        let mut sum: Option<Array2<f32>> = None;
        for (term, maps) in self.maps.iter().filter(|(term, _)| weights.of(*term) != 0.0) {
            let map = &maps[image] * weights.of(*term);
            sum = Some(match sum {
                None => map,
                // Another grid is brought to the first one's, as the exported graph does it.
                Some(sum) => sum.clone() + ckaad_inspect::smooth(map.view(), sum.dim(), 0.0),
            });
        }
        let sum = sum.unwrap_or_else(|| Array2::zeros(size));
        ckaad_inspect::smooth(sum.view(), size, config.sigma_px)
    }
}

/// The default, or the best of the others where it is better by more than a standard error.
fn best(mut choices: Vec<Choice>) -> Choice {
    let chosen = pick(&choices.iter().map(|c| c.placements.as_ref()).collect::<Vec<_>>());
    choices.swap_remove(chosen)
}

/// Which of the candidates, the default first, is to be taken.
fn pick(candidates: &[Option<&Placements>]) -> usize {
    let Some(Some(default)) = candidates.first() else { return 0 };
    let mut best = (0, 0.0);
    for (i, candidate) in candidates.iter().enumerate() {
        let Some((gain, error)) = candidate.map(|c| c.gain_over(default)) else { continue };
        if gain > error && gain > best.1 {
            best = (i, gain);
        }
    }
    best.0
}

/// Fewer anomalous images in all folds together cannot be fitted to, nor tell two models apart.
pub const FEW_LABELS: usize = 5;

/// Whether there are fewer than [`FEW_LABELS`].
fn few_labels(positive: &[bool]) -> bool {
    labels(positive) < FEW_LABELS
}

/// The number of anomalous images.
fn labels(positive: &[bool]) -> usize {
    positive.iter().filter(|&&p| p).count()
}

/// The values of normal images.
fn of_normal(values: &[f32], positive: &[bool]) -> Vec<f32> {
    values.iter().zip(positive).filter(|(_, p)| !**p).map(|(v, _)| *v).collect()
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    ckaad_inspect::quantile(&values, 0.5).unwrap_or_default()
}

#[cfg(test)]
mod tests;
