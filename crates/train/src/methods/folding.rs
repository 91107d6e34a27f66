//! Between burn and what graphs and batches hold: features as tensors, trained modules as plain convolutions with batch
//! norms folded.

use crate::backbones::fold_batch_norm;
use crate::graph::{Activation, Conv};
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use burn::tensor::activation::relu;
use ndarray::Array4;
use std::cell::Cell;

/// A convolution without bias and the batch norm behind it.
pub fn with_batch_norm(module: &Conv2d, norm: &BatchNorm, activation: Activation) -> Conv {
    let (beta, mean) = (values(norm.beta.val()).0, values(norm.running_mean.value_sync()).0);
    normalised(module, norm, &beta, &mean, activation)
}

/// The same for one summand of what the norm normalises: it is scaled, and some other summand moves the sum.
pub fn scaled_by_batch_norm(module: &Conv2d, norm: &BatchNorm) -> Conv {
    let zeros = vec![0.0; norm.beta.dims()[0]];
    normalised(module, norm, &zeros, &zeros, Activation::Linear)
}

fn normalised(module: &Conv2d, norm: &BatchNorm, beta: &[f32], mean: &[f32], activation: Activation) -> Conv {
    let (weight, dims) = values(module.weight.val());
    let (gamma, variance) = (values(norm.gamma.val()).0, values(norm.running_var.value_sync()).0);
    let (weight, bias) = fold_batch_norm(&weight, &gamma, beta, mean, &variance, norm.epsilon as f32);
    padded(weight, bias, &dims, module.stride[0], activation)
}

/// A plain convolution with its bias, or with zeros.
pub fn with_bias(module: &Conv2d, activation: Activation) -> Conv {
    let (weight, dims) = values(module.weight.val());
    let bias = module.bias.as_ref().map_or_else(|| vec![0.0; dims[0]], |b| values(b.val()).0);
    padded(weight, bias, &dims, module.stride[0], activation)
}

/// A convolution whose weights have the dimensions `dims`, with zeros around the input so that stride 1 keeps its size.
pub fn padded(weight: Vec<f32>, bias: Vec<f32>, dims: &[usize], stride: usize, activation: Activation) -> Conv {
    let (out, kernel) = (dims[0], dims[2]);
    Conv { weight, bias, out, kernel, stride, pads: [kernel / 2; 4], groups: 1, activation }
}

thread_local! {
    static READ_BACKS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has read a tensor back, or had one sorted: each time, a GPU is waited for.
#[cfg(test)]
pub fn read_backs() -> u64 {
    READ_BACKS.get()
}

/// A tensor's values, row by row, and its shape. But for sorting and checkpoints, nothing else in the methods reads from a device.
pub fn values<const D: usize>(tensor: Tensor<D>) -> (Vec<f32>, Vec<usize>) {
    READ_BACKS.set(READ_BACKS.get() + 1);
    let dims = tensor.dims().to_vec();
    let values = tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32 the line before");
    (values, dims)
}

/// The values along the last axis, the largest first. burn 0.22's `topk` gives wrong values on wgpu where a row has 2,048 or more; this it does in
/// the CPU's memory.
pub fn sorted<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    READ_BACKS.set(READ_BACKS.get() + 1);
    x.sort_descending(D - 1)
}

/// The mean of the `count` largest values along the last axis.
pub fn largest(x: Tensor<3>, count: usize) -> Tensor<3> {
    let [_, _, cells] = x.dims();
    match count.min(cells) {
        1 => x.max_dim(2),
        count => sorted(x).narrow(2, 0, count).mean_dim(2),
    }
}

/// `x` above 0 and `slope` times `x` below, by ReLUs: burn's own goes through a mask and back, several times the passes over memory.
pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f64) -> Tensor<D> {
    relu(x.clone()) - relu(x.neg()).mul_scalar(slope)
}

/// `[N,4·C,h,w]` → `[N,C,2h,2w]`, see [`crate::graph::Op::DepthToSpace2`].
pub fn depth_to_space(x: Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let blocks: Tensor<6> = x.reshape([n, 2, 2, c / 4, h, w]);
    blocks.permute([0, 3, 4, 1, 5, 2]).reshape([n, c / 4, 2 * h, 2 * w])
}

/// Features as tensors on `device`.
pub fn tensors(scales: &[Array4<f32>], device: &Device) -> Vec<Tensor<4>> {
    scales.iter().map(|scale| tensor(scale, device)).collect()
}

/// The same of one scale.
pub fn tensor(features: &Array4<f32>, device: &Device) -> Tensor<4> {
    let (n, c, h, w) = features.dim();
    Tensor::from_data(TensorData::new(features.iter().copied().collect(), [n, c, h, w]), device)
}
