//! The parameters of convolutions, as a file gives them.

use crate::shape::Activation;

/// A quantised convolution as the ONNX file says it, activations already as u8.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// `[out, in / groups, height, width]`.
    pub values: Vec<i8>,
    /// Of `values`.
    pub dims: [usize; 4],
    /// Of each output channel.
    pub bias: Vec<i32>,
    /// `x_scale * w_scale / y_scale` of each output channel.
    pub multipliers: Vec<f32>,
    /// Zero point of the input.
    pub x_zero: u8,
    /// Zero point of the result.
    pub y_zero: u8,
}

impl Weights {
    /// Whether every sum can be requantised without overflow of the conversion to i32: what the kernels rely on.
    pub fn bounded(&self) -> bool {
        let mut sums = self.largest_sums().zip(&self.multipliers);
        self.exact() && sums.all(|(sum, scale)| scale.is_finite() && (sum as f32 * scale).abs() < (1 << 30) as f32)
    }

    /// Whether every sum is an i32, in whatever order it is made.
    pub fn exact(&self) -> bool {
        self.largest_sums().all(|sum| sum < 1 << 31)
    }

    /// What no sum of each output channel exceeds, as it is and as it was before what its zero points add was taken off.
    fn largest_sums(&self) -> impl Iterator<Item = u64> {
        let row = self.values.len() / self.dims[0].max(1);
        let largest = |channel: &[i8]| channel.iter().map(|w| u64::from(w.unsigned_abs()) * 255).sum::<u64>();
        let channels = self.values.chunks_exact(row.max(1)).zip(&self.bias);
        channels.map(move |(channel, bias)| 2 * largest(channel) + u64::from(bias.unsigned_abs()))
    }
}

/// A convolution of floats, and what is done to its sums.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatWeights {
    /// `[out, in / groups, height, width]`.
    pub values: Vec<f32>,
    /// Of `values`.
    pub dims: [usize; 4],
    /// Of each output channel.
    pub bias: Vec<f32>,
    /// Of each sum, its bias added.
    pub activation: Activation,
    /// The largest value that comes out; infinity where there is none.
    pub ceiling: f32,
}

impl Weights {
    /// Whether there are as many values as the shape says.
    pub fn sound(&self) -> bool {
        let counts = [self.bias.len(), self.multipliers.len()];
        product(self.dims) == Some(self.values.len()) && counts == [self.dims[0]; 2]
    }
}

impl FloatWeights {
    /// Whether there are as many values as the shape says.
    pub fn sound(&self) -> bool {
        product(self.dims) == Some(self.values.len()) && self.bias.len() == self.dims[0]
    }
}

/// How many values there are; none where a side is 0.
fn product(dims: [usize; 4]) -> Option<usize> {
    dims.into_iter().try_fold(1usize, |product, side| product.checked_mul(side)).filter(|&product| product > 0)
}
