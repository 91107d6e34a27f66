//! What is taught: in step 1 which places were painted, in step 2 which views are alike.

use burn::prelude::*;
use burn::tensor::activation::relu;

/// Cosine that a normal place and a defect may have.
const ALLOWED: f64 = 0.5;
/// Of what is unlike, against what is alike.
const UNLIKE: f64 = 0.5;
/// Weights of normal and of anomalous places.
const NORMAL: f64 = 0.25;
const ANOMALOUS: f64 = 0.75;
/// What is clear already counts by this power of its error.
const CLEAR: i32 = 2;

/// Mean focal loss of the places that are `known`, `anomalous` or not: `[N,1,h,w]`, 0 or 1.
pub fn painted(logits: Tensor<4>, anomalous: Tensor<4>, known: Tensor<4>) -> Tensor<1> {
    let weights = anomalous.clone().mul_scalar(ANOMALOUS - NORMAL).add_scalar(NORMAL) * known.clone();
    let losses = crate::methods::mil::focal(logits, anomalous, CLEAR);
    (losses * weights).sum() / known.sum().clamp_min(1.0)
}

/// Cosine of each column of `[C,P]`: `[1,P]`.
fn cosine(a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
    let dot = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() * b.clone()).sum_dim(0);
    dot(a, b) / (dot(a, a) * dot(b, b)).add_scalar(1e-12).sqrt()
}

/// `-½ [cos(q1, z2) + cos(q2, z1)]`, the mean over places; no gradient comes through z.
pub fn alike(predicted: [&Tensor<2>; 2], projected: [&Tensor<2>; 2]) -> Tensor<1> {
    let [z1, z2] = projected.map(|z| z.clone().detach());
    (cosine(predicted[0], &z2) + cosine(predicted[1], &z1)).mean().mul_scalar(-0.5)
}

/// `½ Σ m [cos(q, z) - ½]+ / Σ m`, where z are defects by the weight m, `[1,P]`; no gradient comes through z.
pub fn unlike(predicted: &Tensor<2>, projected: &Tensor<2>, weight: Tensor<2>) -> Tensor<1> {
    let near = relu(cosine(predicted, &projected.clone().detach()).sub_scalar(ALLOWED));
    ((near * weight.clone()).sum() / weight.sum().clamp_min(1e-6)).mul_scalar(UNLIKE)
}

/// How much the places of `[C,P]` differ: the deviation of unit vectors over places, in units of what those of evenly spread ones have. It falls to
/// 0 where all become one.
pub fn spread(places: &Tensor<2>) -> Tensor<1> {
    let z = places.clone().detach();
    let [channels, places] = places.dims();
    let length = z.clone().square().sum_dim(0).add_scalar(1e-12).sqrt();
    let unit = z / length;
    let mean = unit.clone().mean_dim(1);
    let variance = (unit - mean.expand([channels as i64, places as i64])).square().mean_dim(1);
    variance.sqrt().mean().mul_scalar((channels as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(rows: &[[f32; 2]]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), 2]), &Device::flex())
    }

    fn is(loss: Tensor<1>, expected: f32) {
        let found: f32 = loss.into_scalar();
        assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
    }

    #[test]
    fn views_of_one_place_are_to_be_parallel() {
        // Two places: parallel, and at a right angle.
        let (q, z) = (columns(&[[1.0, 1.0], [0.0, 0.0]]), columns(&[[3.0, 0.0], [0.0, 2.0]]));
        is(alike([&q, &q], [&z, &z]), -0.5);
        // Each view is compared with what is predicted of it from the other one.
        is(alike([&q, &z], [&z, &q]), -1.0);
    }

    #[test]
    fn a_defect_is_to_be_unlike_the_normal_place_where_it_is_seen() {
        let (q, z) = (columns(&[[1.0, 1.0], [0.0, 0.0]]), columns(&[[1.0, 0.0], [0.0, 1.0]]));
        // Cosines 1 and 0: half too near at the first place, far enough at the second.
        is(unlike(&q, &z, columns(&[[1.0, 1.0]])), 0.5 * 0.25);
        is(unlike(&q, &z, columns(&[[0.5, 0.0]])), 0.5 * 0.5);
        is(unlike(&q, &z, columns(&[[0.0, 0.0]])), 0.0);
    }

    #[test]
    fn places_that_became_one_have_no_spread() {
        is(spread(&columns(&[[2.0, 1.0], [2.0, 1.0]])), 0.0);
        // Unit vectors (1,0) and (0,1): each channel deviates by a half, times the root of two channels.
        is(spread(&columns(&[[5.0, 0.0], [0.0, 1.0]])), 0.5 * 2f32.sqrt());
    }
}
