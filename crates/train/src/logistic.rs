//! Ridge logistic regression, exactly: Newton's method with conjugate gradients.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

/// What was fitted: `bias + weights · row` is the logit of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// One a column.
    pub weights: Vec<f64>,
    /// Added to the sum.
    pub bias: f64,
}

/// Newton steps; the function is convex and smooth, five are usual.
const NEWTON: usize = 30;
/// Steps of conjugate gradients in each.
const CONJUGATE: usize = 200;
/// The gradient's length, against its first, at which a solution is exact enough for single precision.
const EXACT: f64 = 1e-7;

impl Logistic {
    /// Minimises the mean loss, both classes weighing the same, plus `ridge / 2` times the squared length of the weights
    /// of the *standardised* columns; the weights that are given are of the columns as they are.
    ///
    /// `rows` is `[n, columns]`. A column without spread has the weight 0; where a class is missing, all have, and the
    /// bias is 0: nothing was learned.
    pub fn fit(rows: ArrayView2<f64>, positive: &[bool], ridge: f64) -> Logistic {
        let mean = rows.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(rows.ncols()));
        let deviation = rows.std_axis(Axis(0), 0.0).mapv(|d| if d > 1e-12 { d } else { f64::INFINITY });
        let standard = (&rows - &mean) / &deviation;
        let Logistic { weights, bias } = Logistic::fit_as_is(standard, positive, ridge);
        let scaled = &Array1::from(weights) / &deviation;
        Logistic { bias: bias - scaled.dot(&mean), weights: scaled.to_vec() }
    }

    /// As [`Logistic::fit`], with the ridge on the weights of the columns as they are.
    pub fn fit_as_is(rows: Array2<f64>, positive: &[bool], ridge: f64) -> Logistic {
        let columns = rows.ncols();
        let positives = positive.iter().filter(|&&p| p).count();
        if positives == 0 || positives == positive.len() {
            return Logistic { weights: vec![0.0; columns], bias: 0.0 };
        }
        let share = |of: usize| 0.5 / of.max(1) as f64;
        let (each_positive, each_negative) = (share(positives), share(positive.len() - positives));
        let weight = positive.iter().map(|&p| if p { each_positive } else { each_negative }).collect();
        let target = positive.iter().map(|&p| f64::from(u8::from(p))).collect();
        let mut weights = Problem { rows, target, weight, ridge }.solve().to_vec();
        let bias = weights.pop().unwrap_or_default();
        Logistic { weights, bias }
    }

    /// The logit of one row.
    pub fn score(&self, row: ArrayView1<f64>) -> f64 {
        self.bias + row.iter().zip(&self.weights).map(|(v, w)| v * w).sum::<f64>()
    }

    /// The mean of several, whose logit is the mean of their logits.
    pub fn mean(all: &[Logistic]) -> Logistic {
        let count = all.len().max(1) as f64;
        let columns = all.first().map_or(0, |one| one.weights.len());
        Logistic {
            weights: (0..columns).map(|c| all.iter().map(|one| one.weights[c]).sum::<f64>() / count).collect(),
            bias: all.iter().map(|one| one.bias).sum::<f64>() / count,
        }
    }
}

/// The last of the parameters is the bias, which no ridge holds back.
struct Problem {
    rows: Array2<f64>,
    target: Array1<f64>,
    weight: Array1<f64>,
    ridge: f64,
}

impl Problem {
    fn solve(&self) -> Array1<f64> {
        let mut at: Array1<f64> = Array1::zeros(self.rows.ncols() + 1);
        let mut first = None;
        for _ in 0..NEWTON {
            let logits = self.times(&at);
            let chance = logits.mapv(|l| 1.0 / (1.0 + (-l).exp()));
            let gradient = self.back(&((&chance - &self.target) * &self.weight)) + self.held(&at);
            let length = gradient.dot(&gradient).sqrt();
            if length <= EXACT * *first.get_or_insert(length) {
                break;
            }
            let curvature = chance.mapv(|p| (p * (1.0 - p)).max(1e-10)) * &self.weight;
            let step = self.newton_step(&gradient, &curvature);
            at -= &self.shortened(&at, &step);
        }
        at
    }

    /// Solves `H step = gradient` by conjugate gradients.
    fn newton_step(&self, gradient: &Array1<f64>, curvature: &Array1<f64>) -> Array1<f64> {
        let hessian = |v: &Array1<f64>| self.back(&(self.times(v) * curvature)) + self.held(v);
        let mut step = Array1::zeros(gradient.len());
        let mut residual = gradient.clone();
        let mut direction = residual.clone();
        let mut square = residual.dot(&residual);
        let enough = square * 1e-12;
        for _ in 0..CONJUGATE {
            if square <= enough {
                break;
            }
            let image = hessian(&direction);
            let along = square / direction.dot(&image);
            step.scaled_add(along, &direction);
            residual.scaled_add(-along, &image);
            let next = residual.dot(&residual);
            direction = &residual + &(direction * (next / square));
            square = next;
        }
        step
    }

    /// The step, halved until it makes the loss smaller.
    fn shortened(&self, at: &Array1<f64>, step: &Array1<f64>) -> Array1<f64> {
        let before = self.loss(at);
        let mut step = step.clone();
        for _ in 0..20 {
            if self.loss(&(at - &step)) <= before {
                break;
            }
            step *= 0.5;
        }
        step
    }

    fn loss(&self, at: &Array1<f64>) -> f64 {
        let logits = self.times(at);
        let one = |(l, t): (&f64, &f64)| l.max(0.0) - l * t + (-l.abs()).exp().ln_1p();
        let each: Array1<f64> = logits.iter().zip(&self.target).map(one).collect();
        each.dot(&self.weight) + 0.5 * self.held(at).dot(at)
    }

    fn times(&self, at: &Array1<f64>) -> Array1<f64> {
        let (weights, bias) = at.view().split_at(Axis(0), self.rows.ncols());
        self.rows.dot(&weights) + bias[0]
    }

    fn back(&self, of_rows: &Array1<f64>) -> Array1<f64> {
        let mut sums = Array1::zeros(self.rows.ncols() + 1);
        let (mut columns, mut bias) = sums.view_mut().split_at(Axis(0), self.rows.ncols());
        // Row by row, as they lie in memory.
        self.rows.outer_iter().zip(of_rows).for_each(|(row, &v)| columns.scaled_add(v, &row));
        bias[0] = of_rows.sum();
        sums
    }

    /// The gradient of the ridge.
    fn held(&self, at: &Array1<f64>) -> Array1<f64> {
        let mut held = at * self.ridge;
        held[at.len() - 1] = 0.0;
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    /// scikit-learn 1.9.1: `LogisticRegression(C=0.5, class_weight="balanced", tol=1e-12)` behind a `StandardScaler`.
    #[test]
    fn it_finds_what_scikit_learn_finds() {
        let rows = arr2(&[[0.0, 1.0], [1.0, 0.5], [2.0, -1.0], [3.0, 0.0], [4.0, 2.0], [0.5, -2.0], [2.5, 1.5]]);
        let positive = [false, false, true, true, true, false, false];
        let found = Logistic::fit(rows.view(), &positive, 1.0 / (0.5 * 7.0));
        let scores: Vec<f64> = rows.rows().into_iter().map(|row| found.score(row)).collect();
        let expected = [-1.21286304, -0.59499503, 0.12510834, 0.5896233, 0.9519029, -0.62278178, 0.1528951];
        for (found, expected) in scores.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{scores:?}");
        }
    }

    #[test]
    fn a_column_without_spread_weighs_nothing_and_separable_classes_stay_finite() {
        let rows = arr2(&[[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]]);
        let found = Logistic::fit(rows.view(), &[false, false, true, true], 1e-3);
        assert_eq!(found.weights[1], 0.0);
        assert!(found.weights[0].is_finite() && found.weights[0] > 1.0, "{found:?}");
        let nothing = Logistic::fit(rows.view(), &[false; 4], 1e-3);
        assert_eq!(nothing, Logistic { weights: vec![0.0; 2], bias: 0.0 });
        let mean = Logistic::mean(&[found.clone(), Logistic { weights: vec![0.0, 2.0], bias: 1.0 }]);
        assert_eq!((mean.weights[0], mean.weights[1]), (found.weights[0] / 2.0, 1.0));
    }
}
