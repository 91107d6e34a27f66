//! Boosted random forests for few samples: each round is a small forest of trees on random samples and columns, fitted to
//! the gradient of the logistic loss (Chen and Guestrin 2016, arXiv 1603.02754). What SegAD (arXiv 2405.04953) judges by.

use ckaad_inspect::Node;
use ndarray::ArrayView2;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

/// Rounds, each of which adds the mean of its trees.
const ROUNDS: usize = 10;
/// Trees a round.
const TREES: usize = 20;
/// Splits on the longest way through a tree.
const DEPTH: usize = 5;
/// Of each round's step.
const RATE: f64 = 0.3;
/// Share of the samples that a tree sees.
const ROWS: f64 = 0.6;
/// Share of the columns that a tree sees, and again of those that each of its splits sees.
const COLUMNS: f64 = 0.6;
/// A leaf's gradient is brought this much towards 0.
const L1: f64 = 1.0;
/// A leaf's curvature is raised by this much.
const L2: f64 = 1.0;
/// Least curvature of a leaf.
const LEAST: f64 = 1.0;

/// Trees whose leaves add up to the log-odds that a sample is positive; `rows` is `[n, columns]`. Positive samples weigh as
/// much as negative ones together. The same seed gives the same trees.
pub fn fit(rows: ArrayView2<f32>, positive: &[bool], seed: u64) -> Vec<Vec<Node>> {
    let positives = positive.iter().filter(|&&p| p).count();
    let heavier = (positive.len() - positives) as f64 / positives.max(1) as f64;
    let weights: Vec<f64> = positive.iter().map(|&p| if p { heavier } else { 1.0 }).collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut margins = vec![0.0f64; positive.len()];
    let mut trees = vec![];
    for _ in 0..ROUNDS {
        let chance = |m: &f64| 1.0 / (1.0 + (-m).exp());
        let gradients: Vec<Slope> = margins
            .iter()
            .zip(positive)
            .zip(&weights)
            .map(|((m, &p), w)| {
                let chance = chance(m);
                Slope { gradient: w * (chance - f64::from(u8::from(p))), curvature: w * chance * (1.0 - chance) }
            })
            .collect();
        for _ in 0..TREES {
            let tree = grow(rows, &gradients, &mut rng);
            margins.iter_mut().zip(rows.rows()).for_each(|(m, row)| *m += leaf_of(&tree, &row.to_vec()));
            trees.push(tree);
        }
    }
    trees
}

/// First and second derivative of a sample's loss.
#[derive(Clone, Copy, Default)]
struct Slope {
    gradient: f64,
    curvature: f64,
}

impl Slope {
    fn plus(self, other: Slope) -> Slope {
        Slope { gradient: self.gradient + other.gradient, curvature: self.curvature + other.curvature }
    }

    fn minus(self, other: Slope) -> Slope {
        Slope { gradient: self.gradient - other.gradient, curvature: self.curvature - other.curvature }
    }

    /// The gradient, brought towards 0.
    fn held(self) -> f64 {
        self.gradient.signum() * (self.gradient.abs() - L1).max(0.0)
    }

    /// By how much a leaf over these samples lowers the loss, twice.
    fn worth(self) -> f64 {
        self.held().powi(2) / (self.curvature + L2)
    }

    fn leaf(self) -> f32 {
        // The round adds the mean of its trees.
        (-RATE / TREES as f64 * self.held() / (self.curvature + L2)) as f32
    }
}

fn grow(rows: ArrayView2<f32>, slopes: &[Slope], rng: &mut StdRng) -> Vec<Node> {
    let mut samples: Vec<usize> = (0..slopes.len()).collect();
    let (kept, _) = samples.partial_shuffle(rng, share(slopes.len(), ROWS));
    let mut columns: Vec<usize> = (0..rows.ncols()).collect();
    let (seen, _) = columns.partial_shuffle(rng, share(rows.ncols(), COLUMNS));
    let mut tree = Tree { rows, slopes, columns: seen.to_vec(), nodes: vec![] };
    tree.branch(kept.to_vec(), 0, rng);
    tree.nodes
}

/// At least one.
fn share(of: usize, share: f64) -> usize {
    ((of as f64 * share).round() as usize).clamp(1, of.max(1))
}

struct Tree<'a> {
    rows: ArrayView2<'a, f32>,
    slopes: &'a [Slope],
    columns: Vec<usize>,
    nodes: Vec<Node>,
}

struct Split {
    column: usize,
    /// A value at or below it goes left.
    threshold: f32,
    gain: f64,
}

impl Tree<'_> {
    /// Appends the node over `samples` and all below it; gives its place.
    fn branch(&mut self, samples: Vec<usize>, depth: usize, rng: &mut StdRng) -> u32 {
        let at = self.nodes.len();
        let total = samples.iter().fold(Slope::default(), |sum, &i| sum.plus(self.slopes[i]));
        self.nodes.push(Node::Leaf(total.leaf()));
        if depth < DEPTH {
            let columns: Vec<usize> = {
                let mut columns = self.columns.clone();
                let (kept, _) = columns.partial_shuffle(rng, share(self.columns.len(), COLUMNS));
                kept.to_vec()
            };
            if let Some(Split { column, threshold, .. }) = self.best(&samples, &columns, total) {
                let (left, right): (Vec<usize>, Vec<usize>) =
                    samples.into_iter().partition(|&i| self.rows[[i, column]] <= threshold);
                let left = self.branch(left, depth + 1, rng);
                let right = self.branch(right, depth + 1, rng);
                self.nodes[at] = Node::Split { feature: column as u16, threshold, left, right };
            }
        }
        at as u32
    }

    /// The split that lowers the loss most, if any does.
    fn best(&self, samples: &[usize], columns: &[usize], total: Slope) -> Option<Split> {
        let mut best: Option<Split> = None;
        for &column in columns {
            let mut order: Vec<usize> = samples.to_vec();
            order.sort_by(|&a, &b| self.rows[[a, column]].total_cmp(&self.rows[[b, column]]));
            let mut left = Slope::default();
            for pair in order.windows(2) {
                left = left.plus(self.slopes[pair[0]]);
                let (value, next) = (self.rows[[pair[0], column]], self.rows[[pair[1], column]]);
                let right = total.minus(left);
                if value == next || left.curvature < LEAST || right.curvature < LEAST {
                    continue;
                }
                let gain = left.worth() + right.worth() - total.worth();
                if gain > best.as_ref().map_or(1e-12, |b| b.gain) {
                    // Half-way between two neighbours of single precision may be the upper one.
                    let middle = value + (next - value) / 2.0;
                    let threshold = if middle < next { middle } else { value };
                    best = Some(Split { column, threshold, gain });
                }
            }
        }
        best
    }
}

/// The leaf that a sample falls into.
fn leaf_of(tree: &[Node], row: &[f32]) -> f64 {
    let mut at = 0;
    loop {
        match tree[at] {
            Node::Leaf(value) => return f64::from(value),
            Node::Split { feature, threshold, left, right } => {
                let below = row.get(feature as usize).is_some_and(|&v| v <= threshold);
                at = if below { left } else { right } as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckaad_inspect::Forest;
    use ndarray::Array2;

    /// Two columns decide together, one is noise.
    fn samples() -> (Array2<f32>, Vec<bool>) {
        let noise = |i: usize, m: usize| ((i * m) % 101) as f32 / 101.0;
        let rows = Array2::from_shape_fn((200, 3), |(i, c)| noise(i + 1, [37, 53, 71][c]));
        let positive = rows.rows().into_iter().map(|row| row[0] > 0.6 && row[1] > 0.4).collect();
        (rows, positive)
    }

    #[test]
    fn a_forest_learns_what_two_columns_say_together() {
        let (rows, positive) = samples();
        let trees = fit(rows.view(), &positive, 1);
        assert_eq!(trees.len(), ROUNDS * TREES);
        let forest = Forest::new(vec![0.0; 3], trees.clone()).unwrap();
        let scores: Vec<f32> = rows.rows().into_iter().map(|row| forest.score(row.as_slice().unwrap())).collect();
        let auroc = crate::metrics::auroc(&scores, &positive).unwrap();
        assert!(auroc > 0.98, "{auroc}");
        // The margins that it was grown by are those that the device computes.
        let by_trees: f64 = trees.iter().map(|tree| leaf_of(tree, rows.row(7).as_slice().unwrap())).sum();
        assert!((by_trees as f32 - scores[7]).abs() < 1e-4);
    }

    #[test]
    fn the_seed_decides_and_nothing_to_learn_gives_leaves() {
        let (rows, positive) = samples();
        assert_eq!(fit(rows.view(), &positive, 3), fit(rows.view(), &positive, 3));
        assert_ne!(fit(rows.view(), &positive, 3), fit(rows.view(), &positive, 4));
        let flat = Array2::zeros((50, 2));
        let trees = fit(flat.view(), &positive[..50], 1);
        assert!(trees.iter().all(|tree| matches!(tree.as_slice(), [Node::Leaf(value)] if value.is_finite())));
    }
}
