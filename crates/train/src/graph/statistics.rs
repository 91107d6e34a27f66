//! What features are standardised with.

use super::{Activation, Conv};

/// Mean and standard deviation of every channel of one stream, over normal images.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ChannelStatistics {
    /// One a channel.
    pub mean: Vec<f32>,
    /// One a channel, above 0.
    pub deviation: Vec<f32>,
}

impl ChannelStatistics {
    /// Makes `conv` give `(y - mean) / deviation` for `y`; without `centre` only `y / deviation`, for a term that is
    /// added to a centred one.
    pub fn fold_into_output(&self, conv: &mut Conv, centre: bool) {
        let row = conv.weight.len() / conv.out;
        for (c, weights) in conv.weight.chunks_exact_mut(row).enumerate() {
            let mean = if centre { self.mean[c] } else { 0.0 };
            weights.iter_mut().for_each(|w| *w /= self.deviation[c]);
            conv.bias[c] = (conv.bias[c] - mean) / self.deviation[c];
        }
    }

    /// `(x - mean) / deviation` as a convolution of its own, one channel a group.
    pub fn as_conv(&self) -> Conv {
        let weight: Vec<f32> = self.deviation.iter().map(|d| 1.0 / d).collect();
        let bias = self.mean.iter().zip(&weight).map(|(m, w)| -m * w).collect();
        let out = weight.len();
        Conv { weight, bias, out, kernel: 1, stride: 1, pads: [0; 4], groups: out, activation: Activation::Linear }
    }

    /// Makes a 1x1 `conv` read `(x - mean) / deviation` and give what it gave for `x`.
    pub fn fold_into_input(&self, conv: &mut Conv) {
        let channels = self.mean.len();
        for (weights, bias) in conv.weight.chunks_exact_mut(channels).zip(&mut conv.bias) {
            for (c, w) in weights.iter_mut().enumerate() {
                *bias += *w * self.mean[c];
                *w *= self.deviation[c];
            }
        }
    }
}
