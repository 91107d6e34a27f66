//! What places and images are taught.

use crate::methods::folding::largest;
use burn::prelude::*;
use burn::tensor::activation::{relu, sigmoid};

/// How far on its side of 0 a place's logit is to be.
const PLACE_MARGIN: f64 = 0.5;
/// The same of the mean of an image's largest.
const BAG_MARGIN: f64 = 1.0;

/// As SuperSimpleNet's.
pub const GAMMA: i32 = 4;

/// `logit > 0` where `target` is 1, below where it is 0, with the less said about what is clear already the larger `gamma` is (Lin et al. 2017):
/// the loss of each.
pub fn focal<const D: usize>(logits: Tensor<D>, target: Tensor<D>, gamma: i32) -> Tensor<D> {
    // The logit of the right answer.
    let right = logits * (target.mul_scalar(2.0).sub_scalar(1.0));
    let wrong = sigmoid(right.clone().neg());
    // -ln of the right answer's probability, finite however wrong it is.
    let cross = relu(right.clone().neg()) + right.abs().neg().exp().add_scalar(1.0).log();
    wrong.powi_scalar(gamma) * cross
}

/// Of places with known answers: `mean [x + m]+` over normal ones, `mean [m - x]+` over anomalous ones, and the mean
/// focal loss of all. `anomalous` and `known` are 1 or 0 a place, of the shape of `logits`.
pub fn places(logits: Tensor<4>, anomalous: Tensor<4>, known: Tensor<4>) -> Tensor<1> {
    let normal = known.clone() - anomalous.clone();
    let mean = |values: Tensor<4>, of: Tensor<4>| (values * of.clone()).sum() / of.sum().clamp_min(1.0);
    let down = mean(relu(logits.clone().add_scalar(PLACE_MARGIN)), normal);
    let up = mean(relu(logits.clone().neg().add_scalar(PLACE_MARGIN)), anomalous.clone());
    down + up + mean(focal(logits, anomalous, GAMMA), known)
}

/// Of images as a whole, outlined or not: the mean of the `count` largest of a normal one is held down, that of an
/// anomalous one lifted. The same number on both sides: a head that is only lifted fires everywhere.
pub fn instances(normal: Tensor<4>, anomalous: Tensor<4>, count: usize) -> Tensor<1> {
    let top = |logits: Tensor<4>| largest(logits.flatten(2, 3), count);
    let down = relu(top(normal).add_scalar(BAG_MARGIN)).mean();
    down + relu(top(anomalous).neg().add_scalar(BAG_MARGIN)).mean()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, 1, values.len()]), &Device::flex())
    }

    fn is(loss: Tensor<1>, expected: f32) {
        let found: f32 = loss.into_scalar();
        assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
    }

    #[test]
    fn what_is_clear_weighs_nothing_and_what_is_wrong_stays_finite() {
        let loss = |logit: f32, target: f32| focal(map(&[logit]), map(&[target]), GAMMA).sum();
        // Undecided: a half to the power of 4, times ln 2.
        is(loss(0.0, 1.0), 0.0625 * 2f32.ln());
        is(loss(9.0, 1.0), 0.0);
        is(loss(-200.0, 1.0), 200.0);
        is(loss(200.0, 0.0), 200.0);
    }

    #[test]
    fn places_that_are_neither_are_not_taught() {
        // Normal -0.3, anomalous 0.1, neither 7.
        let logits = map(&[-0.3, 0.1, 7.0]);
        let (anomalous, known) = (map(&[0.0, 1.0, 0.0]), map(&[1.0, 1.0, 0.0]));
        let focal_of = |x: f32| (1.0 / (1.0 + x.exp())).powi(4) * (1.0 + (-x).exp()).ln();
        is(places(logits, anomalous, known), 0.2 + 0.4 + (focal_of(0.3) + focal_of(0.1)) / 2.0);
        // Nothing is anomalous: no division by nothing.
        is(places(map(&[-9.0]), map(&[0.0]), map(&[1.0])), 0.0);
    }

    #[test]
    fn the_largest_instances_speak_for_an_image() {
        let (normal, anomalous) = (map(&[-3.0, -0.5, -0.5, -4.0]), map(&[2.0, -1.0, -5.0, -5.0]));
        // Of two: [-0.5 + 1]+ and [1 - 0.5]+.
        is(instances(normal, anomalous, 2), 0.5 + 0.5);
    }
}
