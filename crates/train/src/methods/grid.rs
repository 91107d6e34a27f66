//! Maps of one stride on the grid of another, as the exported graph brings them there.

use crate::graph::{Regrid, regrid};
use burn::prelude::*;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;

/// `[N,C,h,w]` on a grid that is `width` cells wide.
pub fn to_grid(x: Tensor<4>, width: usize) -> Tensor<4> {
    let [_, _, _, w] = x.dims();
    match regrid(w, width) {
        Regrid::Same => x,
        Regrid::Pool(k) => avg_pool2d(x, AvgPoolOptions::new([k, k]).with_stride([k, k])),
        Regrid::Enlarge(k) => enlarged(x, k),
    }
}

/// `k` times as high and as wide, bilinear, half-pixel, by a matrix product along each axis: burn has no gradient of its own interpolation on
/// a GPU.
fn enlarged(x: Tensor<4>, k: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let device = x.device();
    let along = |length: usize| -> Tensor<2> {
        let wide = length * k;
        let mut weights = vec![0f32; length * wide];
        for to in 0..wide {
            let at = ((to as f32 + 0.5) / k as f32 - 0.5).clamp(0.0, (length - 1) as f32);
            let (low, share) = (at as usize, at.fract());
            weights[low * wide + to] += 1.0 - share;
            weights[(low + 1).min(length - 1) * wide + to] += share;
        }
        Tensor::from_data(TensorData::new(weights, [length, wide]), &device)
    };
    let wide: Tensor<4> = x.reshape([n * c * h, w]).matmul(along(w)).reshape([n, c, h, w * k]);
    let turned: Tensor<2> = wide.swap_dims(2, 3).reshape([n * c * w * k, h]);
    let high: Tensor<4> = turned.matmul(along(h)).reshape([n, c, w * k, h * k]);
    high.swap_dims(2, 3)
}
