//! Which mixtures of the map's terms are tried.

use super::ScoreConfig;
use crate::graph::{Term, TermWeights};
use ndarray::Array2;

/// Weights that a term is tried with, in units of its mean over normal images, the default first.
const PLAIN: [f32; 2] = [1.0, 0.0];
/// The same of a term that learned from labels: its unit is the margin's, so it may be needed in small doses.
const TAUGHT: [f32; 4] = [0.3, 0.0, 1.0, 0.1];

/// Every mixture to try, the default first: all terms alike, as far as `config` leaves them open. Each is scaled so that
/// its terms' weights are in units of the term's mean over the normal images; one term alone keeps its own unit.
///
/// Without anomalous images nothing can be compared, and what learned from none must not decide: the energy may be about
/// anything. So the default is then what needs no label.
pub fn candidates(maps: &[(Term, Vec<Array2<f32>>)], positive: &[bool], config: &ScoreConfig) -> Vec<TermWeights> {
    let labelled = positive.contains(&true);
    let mut mixtures = vec![TermWeights::default()];
    for (term, maps) in maps {
        let options: &[f32] = match config.weight(*term) {
            Some(weight) => &[weight],
            None if labelled && term.taught => &TAUGHT,
            None if labelled => &PLAIN,
            None if term.taught => &[0.0],
            None => &[1.0],
        };
        let unit = 1.0 / mean_of_normal(maps, positive).max(1e-9);
        let with = |mixture: &TermWeights, weight: f32| mixture.clone().with(*term, weight * unit);
        mixtures = options.iter().flat_map(|&w| mixtures.iter().map(move |m| with(m, w))).collect();
    }
    mixtures.retain(|m| !m.is_empty());
    // Everything was weighed with 0: the first term is what is always there.
    if mixtures.is_empty() {
        return maps.first().map(|(term, _)| vec![TermWeights::only(*term)]).unwrap_or_default();
    }
    let mut distinct: Vec<TermWeights> = vec![];
    for mixture in mixtures {
        let mixture = mixture.alone().map_or(mixture, TermWeights::only);
        if !distinct.contains(&mixture) {
            distinct.push(mixture);
        }
    }
    distinct
}

fn mean_of_normal(maps: &[Array2<f32>], positive: &[bool]) -> f32 {
    let normal = || maps.iter().zip(positive).filter(|(_, p)| !**p).map(|(map, _)| map);
    let sum: f64 = normal().flatten().map(|&v| f64::from(v)).sum();
    (sum / normal().map(Array2::len).sum::<usize>().max(1) as f64) as f32
}
