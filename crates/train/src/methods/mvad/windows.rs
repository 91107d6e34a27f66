//! Windows of feature maps, and which of the other views' windows each of them looks at: from frozen features, so that nothing of it is learned.

use crate::graph::CrossView;
use burn::prelude::*;
use ndarray::{Array2, Array4, ArrayView3};

/// What every window of every view looks at.
pub struct LookedAt {
    /// `[views·windows,heads,cells,C/heads]`, the views behind one another.
    pub keys: Tensor<4>,
    /// `[views·windows,1,1,cells]`: 0 for cells, and much below it for what lies beyond the map.
    pub mask: Tensor<4>,
}

/// `features` are `[N,C,h,w]`, N a multiple of the views.
pub fn looked_at(features: &Array4<f32>, how: CrossView, device: &Device) -> LookedAt {
    let (images, channels, h, w) = features.dim();
    let (on_map, cells) = (how.on_map([h, w]), how.window.pow(2));
    let windows = on_map.len() / cells;
    let chosen = how.looked_at([h, w]);
    let rows: Vec<Vec<f32>> = features.outer_iter().map(|image| in_windows(image, how)).collect();
    let means: Vec<Array2<f32>> = rows.iter().map(|rows| means(rows, &on_map, cells, channels)).collect();
    let mut keys = Vec::with_capacity(images * windows * chosen * cells * channels);
    let mut mask = Vec::with_capacity(images * windows * chosen * cells);
    for image in 0..images {
        let first = image - image % how.views;
        let others: Vec<usize> = (first..first + how.views).filter(|&other| other != image).collect();
        let alike: Vec<Array2<f32>> = others.iter().map(|&other| means[image].dot(&means[other].t())).collect();
        for window in 0..windows {
            let mut all: Vec<(usize, usize)> =
                others.iter().enumerate().flat_map(|(o, _)| (0..windows).map(move |w| (o, w))).collect();
            // Of equals the first, as TopK takes them.
            all.sort_by(|&(a, i), &(b, j)| alike[b][[window, j]].total_cmp(&alike[a][[window, i]]));
            for &(other, w) in &all[..chosen] {
                keys.extend_from_slice(&rows[others[other]][w * cells * channels..(w + 1) * cells * channels]);
                mask.extend(
                    on_map[w * cells..(w + 1) * cells].iter().map(|&on| if on { 0.0 } else { CrossView::NEVER }),
                );
            }
        }
    }
    let keys = Tensor::<3>::from_data(TensorData::new(keys, [images * windows, chosen * cells, channels]), device);
    let mask = TensorData::new(mask, [images * windows, 1, 1, chosen * cells]);
    LookedAt { keys: heads(keys, how.heads), mask: Tensor::from_data(mask, device) }
}

/// `[windows,cells,C]`, row by row, with zeros beyond the map.
fn in_windows(image: ArrayView3<f32>, how: CrossView) -> Vec<f32> {
    let (channels, h, w) = image.dim();
    let [down, across] = how.windows([h, w]);
    let mut rows = Vec::with_capacity(down * across * how.window.pow(2) * channels);
    for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y * how.window, x * how.window))) {
        for (v, u) in (0..how.window).flat_map(|v| (0..how.window).map(move |u| (y + v, x + u))) {
            if v < h && u < w {
                rows.extend((0..channels).map(|c| image[[c, v, u]]));
            } else {
                rows.resize(rows.len() + channels, 0.0);
            }
        }
    }
    rows
}

/// Of every window the mean of its cells that lie on the map.
fn means(rows: &[f32], on_map: &[bool], cells: usize, channels: usize) -> Array2<f32> {
    let mut means = Array2::zeros((on_map.len() / cells, channels));
    for ((mut mean, rows), on) in
        means.rows_mut().into_iter().zip(rows.chunks_exact(cells * channels)).zip(on_map.chunks(cells))
    {
        for row in rows.chunks_exact(channels) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let count = on.iter().filter(|on| **on).count().max(1) as f32;
        mean.mapv_inplace(|sum| sum / count);
    }
    means
}

/// `[N,C,h,w]` → `[N·windows,cells,C]`.
pub fn windows(x: Tensor<4>, how: CrossView) -> Tensor<3> {
    let [n, c, h, w] = x.dims();
    let ([down, across], side) = (how.windows([h, w]), how.window);
    let x = beyond(x, 2, down * side - h);
    let x = beyond(x, 3, across * side - w);
    let blocks: Tensor<6> = x.reshape([n, c, down, side, across, side]);
    blocks.permute([0, 2, 4, 3, 5, 1]).reshape([n * down * across, side * side, c])
}

/// Zeros behind the end of an axis.
fn beyond(x: Tensor<4>, axis: usize, more: usize) -> Tensor<4> {
    if more == 0 {
        return x;
    }
    let mut dims = x.dims();
    dims[axis] = more;
    let zeros = Tensor::zeros(dims, &x.device());
    Tensor::cat(vec![x, zeros], axis)
}

/// `[N·windows,cells,C]` → `[N,C,h,w]`, which is `shape`.
pub fn map(x: Tensor<3>, how: CrossView, shape: [usize; 4]) -> Tensor<4> {
    let [n, c, h, w] = shape;
    let ([down, across], side) = (how.windows([h, w]), how.window);
    let blocks: Tensor<6> = x.reshape([n, down, across, side, side, c]);
    let whole: Tensor<4> = blocks.permute([0, 5, 1, 3, 2, 4]).reshape([n, c, down * side, across * side]);
    whole.narrow(2, 0, h).narrow(3, 0, w)
}

/// `[windows,cells,C]` → `[windows,heads,cells,C/heads]`.
pub fn heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [windows, cells, channels] = x.dims();
    x.reshape([windows, cells, heads, channels / heads]).permute([0, 2, 1, 3])
}
