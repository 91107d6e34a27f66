//! Choosing on held-out training images: how much the patch energy weighs in the map, and how a map becomes an image
//! score. The test set is never seen here.

mod config;
mod logistic;

pub use config::{Rule, ScoreConfig};

use crate::graph::{MapWeights, Term};
use crate::metrics;
use ckaad_bundle::{ScoreRule, ScoreTerm};
use logistic::Logistic;
use ndarray::Array2;
use rayon::prelude::*;

/// Maps of held-out images, smoothed, at input size: normal images first, then anomalous ones.
pub struct HeldOut<'a> {
    /// The maps of each term that there is.
    pub terms: Vec<(Term, &'a [Array2<f32>])>,
    /// So many of the maps are of normal images.
    pub normal: usize,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Of the terms in the map.
    pub weights: MapWeights,
    /// From the map to the image score.
    pub rule: ScoreRule,
    /// Image AUROC on the held-out images; `None` where one class is missing.
    pub auroc: Option<f64>,
}

/// Divisors of the number of pixels: the top-k rules between maximum and mean.
const TOP_SHARES: [usize; 4] = [500, 100, 20, 4];

/// Smooths the maps of one kind, to `size` = (height, width).
pub fn smoothed(maps: &[Array2<f32>], size: (usize, usize), sigma_px: f32) -> Vec<Array2<f32>> {
    maps.par_iter().map(|m| ckaad_inspect::smooth(m.view(), size, sigma_px)).collect()
}

impl HeldOut<'_> {
    /// The best weights and rule of those that `config` leaves open. Where no anomalies are held out, what needs none:
    /// equal parts of error and distance, and 1/500 of the pixels (the paper's 100 of 224x224).
    pub fn choose(&self, config: &ScoreConfig) -> Choice {
        let images = self.terms[0].1.len();
        let pixels = self.terms[0].1.first().map_or(1, Array2::len);
        let labels: Vec<bool> = (0..images).map(|i| i >= self.normal).collect();
        let mut best: Option<Choice> = None;
        for weights in self.candidates(config) {
            let statistics = Statistics::of(&self.combined(weights), &top_ks(config, pixels));
            for (rule, auroc) in statistics.rules(config, &labels) {
                // A later candidate must be better, not as good: the earlier ones are simpler.
                if best.as_ref().is_none_or(|b| auroc > b.auroc) {
                    best = Some(Choice { weights, rule, auroc });
                }
            }
        }
        best.expect("there is at least one map and one rule")
    }

    /// The maps under `weights`.
    pub fn combined(&self, weights: MapWeights) -> Vec<Array2<f32>> {
        let used: Vec<(&[Array2<f32>], f32)> =
            self.terms.iter().map(|(term, maps)| (*maps, weights.of(*term))).filter(|(_, w)| *w != 0.0).collect();
        let image = |i: usize| {
            let mut sum = Array2::zeros(self.terms[0].1[i].dim());
            used.iter().for_each(|(maps, weight)| sum.scaled_add(*weight, &maps[i]));
            sum
        };
        (0..self.terms[0].1.len()).into_par_iter().map(image).collect()
    }

    /// Every mixture to try, the simplest first. Weights are in units of a term's mean over the normal images; one term
    /// alone keeps its own.
    fn candidates(&self, config: &ScoreConfig) -> Vec<MapWeights> {
        let labelled = self.terms[0].1.len() > self.normal;
        let mut mixtures = vec![MapWeights::default()];
        for (term, maps) in &self.terms {
            let options: &[f32] = match (config.weight(*term), term) {
                (Some(weight), _) => &[weight],
                // What nobody checked against an anomaly must not decide: the energy may be about anything.
                (None, Term::Energy) if !labelled => &[0.0],
                (None, _) if !labelled => &[1.0],
                // The energy's scale is the margin's, not the features': it may be needed in small doses.
                (None, Term::Energy) => &[0.0, 0.1, 0.3, 1.0],
                (None, _) => &[0.0, 1.0],
            };
            let unit = 1.0 / mean(&maps[..self.normal]).max(1e-9);
            let with = |mixture: &MapWeights, weight: f32| {
                let mut next = *mixture;
                *next.of_mut(*term) = weight * unit;
                next
            };
            mixtures = options.iter().flat_map(|&w| mixtures.iter().map(move |m| with(m, w))).collect();
        }
        mixtures.retain(|m| *m != MapWeights::default());
        let mut mixtures: Vec<MapWeights> = mixtures.iter().map(|m| m.alone().map_or(*m, MapWeights::only)).collect();
        mixtures.sort_by_key(|m| m.alone().is_none());
        mixtures.dedup();
        // Everything was weighed with 0: the error is what is always there.
        if mixtures.is_empty() { vec![MapWeights::only(self.terms[0].0)] } else { mixtures }
    }
}

fn mean(maps: &[Array2<f32>]) -> f32 {
    let values = maps.iter().flatten().map(|&v| f64::from(v));
    (values.sum::<f64>() / maps.iter().map(Array2::len).sum::<usize>().max(1) as f64) as f32
}

/// The top-k means that rules are made of, the default first.
fn top_ks(config: &ScoreConfig, pixels: usize) -> Vec<u32> {
    let share = |d: usize| (pixels / d).max(1) as u32;
    let pixels_k = pixels as u32;
    match config.rule {
        Rule::Maximum => vec![1],
        Rule::Mean => vec![pixels_k],
        Rule::TopK => vec![config.top_k.min(pixels_k)],
        Rule::Auto | Rule::Combined => TOP_SHARES.map(share).into_iter().chain([1, pixels_k]).collect(),
    }
}

/// Top-k means of every map.
struct Statistics {
    ks: Vec<u32>,
    /// One row a map, one column a k.
    rows: Vec<Vec<f64>>,
}

impl Statistics {
    fn of(maps: &[Array2<f32>], ks: &[u32]) -> Statistics {
        let statistic = |map: &Array2<f32>, k: u32| f64::from(ckaad_inspect::top_k_mean(map.view(), k as usize));
        let row = |map: &Array2<f32>| ks.iter().map(|&k| statistic(map, k)).collect();
        Statistics { ks: ks.to_vec(), rows: maps.par_iter().map(row).collect() }
    }

    /// Every rule that `config` allows with its AUROC, the simplest first.
    fn rules(&self, config: &ScoreConfig, labels: &[bool]) -> Vec<(ScoreRule, Option<f64>)> {
        let mut rules = vec![];
        if config.rule != Rule::Combined {
            for (column, &top_k) in self.ks.iter().enumerate() {
                let scores: Vec<f32> = self.rows.iter().map(|row| row[column] as f32).collect();
                let rule = ScoreRule::TopK { top_k };
                rules.push((rule, metrics::auroc(&scores, labels)));
            }
        }
        let asked = config.rule == Rule::Combined;
        let enough = labels.iter().filter(|&&l| l).count() >= FOLDS;
        if (asked || config.rule == Rule::Auto) && enough {
            let scores = self.out_of_fold(labels);
            rules.push((self.combined_rule(labels), metrics::auroc(&scores, labels)));
        } else if asked {
            // Nothing to fit to.
            let rule = ScoreRule::TopK { top_k: self.ks[0] };
            rules.push((rule, None));
        }
        rules
    }

    /// Scores of every map by a combination that was fitted without it, so that the combination can be compared with
    /// the plain rules.
    fn out_of_fold(&self, labels: &[bool]) -> Vec<f32> {
        let mut scores = vec![0.0; labels.len()];
        for fold in 0..FOLDS {
            let (rows, held): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|i| i % FOLDS != fold);
            let fitted = Logistic::fit(rows.iter().map(|&i| (self.rows[i].as_slice(), labels[i])));
            for i in held {
                scores[i] = fitted.score(&self.rows[i]) as f32;
            }
        }
        scores
    }

    fn combined_rule(&self, labels: &[bool]) -> ScoreRule {
        let fitted = Logistic::fit(self.rows.iter().map(Vec::as_slice).zip(labels.iter().copied()));
        let pairs = self.ks.iter().zip(&fitted.weights);
        let terms = pairs.map(|(&top_k, &weight)| ScoreTerm { top_k, weight: weight as f32 }).collect();
        ScoreRule::Combined { terms }
    }
}

const FOLDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 normal and 10 anomalous maps of 100 pixels; `defect` paints the anomalous ones.
    fn held_out(defect: impl Fn(usize, &mut [f32])) -> Vec<Array2<f32>> {
        let noise = |i: usize, p: usize| ((i * 7919 + p * 104_729) % 1000) as f32 / 1000.0;
        let map = |i: usize| {
            let mut map: Vec<f32> = (0..100).map(|p| noise(i, p)).collect();
            if i >= 40 {
                defect(i, &mut map);
            }
            Array2::from_shape_vec((10, 10), map).unwrap()
        };
        (0..50).map(map).collect()
    }

    /// Pixels in the one mean that a rule is.
    fn top_k(choice: &Choice) -> Option<u32> {
        match choice.rule {
            ScoreRule::TopK { top_k } => Some(top_k),
            _ => None,
        }
    }

    /// What is chosen of these maps of the error, 40 of them of normal images.
    fn choose(maps: &[Array2<f32>], config: ScoreConfig) -> Choice {
        HeldOut { terms: vec![(Term::Error, maps)], normal: 40 }.choose(&config)
    }

    #[test]
    fn a_small_peak_is_found_by_few_pixels_and_a_raised_part_by_all() {
        let peak = choose(&held_out(|_, map| map[3] = 5.0), ScoreConfig::default());
        assert!(top_k(&peak).is_some_and(|k| k <= 5) && peak.auroc == Some(1.0), "{peak:?}");
        let raised = held_out(|_, map| map.iter_mut().for_each(|v| *v = *v * 0.1 + 0.6));
        let raised = choose(&raised, ScoreConfig::default());
        assert!(top_k(&raised) == Some(100) && raised.auroc == Some(1.0), "{raised:?}");
    }

    #[test]
    fn two_kinds_of_defect_need_both_rules_together() {
        // Half of the parts are raised a little everywhere but lose their peaks, half have one peak.
        let both = held_out(|i, map| match i % 2 {
            0 => map.iter_mut().for_each(|v| *v = *v * 0.2 + 0.5),
            _ => map[3] = 1.6,
        });
        let combined = choose(&both, ScoreConfig { rule: Rule::Combined, ..Default::default() });
        let maximum = choose(&both, ScoreConfig { rule: Rule::Maximum, ..Default::default() });
        assert!(matches!(combined.rule, ScoreRule::Combined { .. }));
        assert!(combined.auroc > maximum.auroc, "{combined:?} {maximum:?}");
    }

    #[test]
    fn the_energy_is_taken_where_it_helps_and_left_where_it_does_not() {
        let (flat, telling) = (held_out(|_, _| {}), held_out(|_, map| map[3] = 5.0));
        let choose = |error, energy| {
            let terms = vec![(Term::Error, error), (Term::Energy, energy)];
            HeldOut { terms, normal: 40 }.choose(&ScoreConfig::default()).weights
        };
        assert!(choose(&flat, &telling).energy > 0.0);
        assert_eq!(choose(&telling, &flat), MapWeights::only(Term::Error));
    }

    #[test]
    fn what_the_config_fixes_is_not_chosen() {
        let maps = held_out(|_, map| map[3] = 5.0);
        let both = HeldOut { terms: vec![(Term::Error, &maps), (Term::Energy, &maps)], normal: 40 };
        let paper = both.choose(&ScoreConfig { error: Some(1.0), energy: Some(0.0), ..Default::default() });
        assert_eq!(paper.weights, MapWeights::only(Term::Error));
    }

    #[test]
    fn without_labels_the_choice_needs_none() {
        let maps = held_out(|_, _| {});
        let unlabelled = HeldOut { terms: vec![(Term::Error, &maps)], normal: 50 };
        let choice = unlabelled.choose(&ScoreConfig::default());
        assert_eq!((top_k(&choice), choice.auroc), (Some(1), None));
        let with_energy = HeldOut { terms: vec![(Term::Error, &maps), (Term::Energy, &maps)], normal: 50 };
        assert_eq!(with_energy.choose(&ScoreConfig::default()).weights, MapWeights::only(Term::Error));
        let combined = unlabelled.choose(&ScoreConfig { rule: Rule::Combined, ..Default::default() });
        assert!(matches!(combined.rule, ScoreRule::TopK { .. }));
    }
}
