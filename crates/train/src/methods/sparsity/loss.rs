//! What the head is taught: a defect is where the residual is, and it is small.

use burn::prelude::*;

/// How much larger than the expected share a defect may be before that costs anything.
const FREE: f32 = 5.0;
/// Of the borders' length: masks are of one piece.
const BORDERS: f64 = 0.1;
/// Of the undecided places.
const UNDECIDED: f64 = 0.05;

/// The losses of a step.
pub struct Masked {
    /// Residuals of defective images that the masks leave out.
    pub residual: Tensor<1>,
    /// How far the masks' sizes are from what they may be.
    pub size: Tensor<1>,
    /// Borders and undecided places.
    pub shape: Tensor<1>,
}

/// Of `shares` p and `residuals` r in 0..=1, `[N,1,h,w]`, of which the first `normal` images show no defect: over the others
/// `mean (1 - p)·r`; over each class by itself `mean KL(ρ ‖ mean p)`, with ρ = 0 for normal images, and for the others whatever is nearest to the
/// mean between `share` and [`most`]; over all `0.1 mean |∇p| + 0.05 mean p(1 - p)`.
pub fn masked(shares: Tensor<4>, residuals: Tensor<4>, normal: usize, share: f32) -> Masked {
    let images = shares.dims()[0];
    let defective = images - normal;
    let of_defective = |x: &Tensor<4>| x.clone().narrow(0, normal, defective);
    let left_out = of_defective(&shares).neg().add_scalar(1.0) * of_defective(&residuals);
    let means: Tensor<2> = shares.clone().flatten::<2>(1, 3).mean_dim(1);
    let size = |from: usize, count: usize, share: f32| sizes(means.clone().narrow(0, from, count), share).mean();
    let size = size(0, normal, 0.0) + size(normal, defective, share);
    let undecided = (shares.clone() * shares.clone().neg().add_scalar(1.0)).mean();
    Masked {
        residual: left_out.mean(),
        size,
        shape: borders(&shares).mul_scalar(BORDERS) + undecided.mul_scalar(UNDECIDED),
    }
}

/// The largest part of an image that a defect may cover at no cost.
pub fn most(share: f32) -> f32 {
    (FREE * share).min(0.5)
}

/// `KL(ρ ‖ mean)` of each mean, `[N,1]`.
fn sizes(means: Tensor<2>, share: f32) -> Tensor<2> {
    let means = means.clamp(1e-6, 1.0 - 1e-6);
    let normal = means.clone().neg().add_scalar(1.0);
    if share == 0.0 {
        return normal.log().neg();
    }
    let wanted = means.clone().detach().clamp(share, most(share));
    let rest = wanted.clone().neg().add_scalar(1.0);
    wanted.clone() * (wanted.log() - means.log()) + rest.clone() * (rest.log() - normal.log())
}

/// Mean difference of neighbours, down and across.
fn borders(x: &Tensor<4>) -> Tensor<1> {
    let along = |axis: usize| {
        let last = x.dims()[axis] - 1;
        (x.clone().narrow(axis, 1, last) - x.clone().narrow(axis, 0, last)).abs().mean()
    };
    along(2) + along(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps<const N: usize>(values: [[f32; 4]; N]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.concat(), [N, 1, 2, 2]), &Device::flex())
    }

    fn is(loss: Tensor<1>, expected: f32) {
        let found: f32 = loss.into_scalar();
        assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
    }

    #[test]
    fn a_mask_is_to_hold_the_residuals_of_defective_images_alone() {
        // A normal image with residuals, and a defective one.
        let shares = maps([[0.0, 0.5, 0.0, 0.5], [1.0, 0.5, 0.0, 0.0]]);
        let residuals = maps([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.25, 0.0]]);
        let losses = masked(shares, residuals, 1, 0.1);
        is(losses.residual, (0.0 + 0.5 + 0.25) / 4.0);
        // A quarter of the normal image is masked: -ln 0.75. Of the other three eighths, which lies between a tenth and five tenths.
        is(losses.size, -(0.75f32.ln()));
        // Down 0, 0 and 1, 0.5; across 0.5, 0.5 and 0.5, 0.
        let borders = (0.0 + 0.0 + 1.0 + 0.5) / 4.0 + (0.5 + 0.5 + 0.5 + 0.0) / 4.0;
        is(losses.shape, 0.1 * borders + 0.05 * (3.0 * 0.25) / 8.0);
    }

    #[test]
    fn a_mask_of_a_defective_image_may_be_neither_empty_nor_large() {
        // Behind a normal image without a mask, which costs nothing.
        let size = |share: f32| masked(maps([[0.0; 4], [share; 4]]), maps([[0.0; 4]; 2]), 1, 0.01).size;
        is(size(0.01), 0.0);
        is(size(0.05), 0.0);
        let divergence = |wanted: f32, found: f32| {
            wanted * (wanted / found).ln() + (1.0 - wanted) * ((1.0 - wanted) / (1.0 - found)).ln()
        };
        is(size(0.001), divergence(0.01, 0.001));
        is(size(0.3), divergence(0.05, 0.3));
        let empty: f32 = size(0.0).into_scalar();
        assert!(empty.is_finite() && empty > 0.08, "{empty}");
    }
}
