use crate::train::export::graph::{Activation, Conv};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;

#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    #[error("{origin} is not a safetensors file: {reason}")]
    Malformed { origin: String, reason: String },
    #[error("{origin} has no tensor {key:?}: is it another network's?")]
    Missing { origin: String, key: String },
    #[error("{origin}: tensor {key:?} has the shape {found:?}, expected {expected:?}")]
    Shape { origin: String, key: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{origin}: tensor {key:?} is {found:?}, expected F32 or F16")]
    Type { origin: String, key: String, found: Dtype },
    #[error("{origin}: tensor {key:?} holds a value that is not finite")]
    NotFinite { origin: String, key: String },
}

/// Named tensors in f32.
pub struct Weights {
    origin: String,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

/// A convolution behind a batch norm, by its place in a network.
pub struct ConvSpec {
    pub input: usize,
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    pub activation: Activation,
}

impl Weights {
    /// `origin` names the source in errors.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Weights, WeightError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| WeightError::Malformed { origin: origin.into(), reason: e.to_string() })?;
        let mut tensors = HashMap::new();
        for (key, view) in file.tensors() {
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => {
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
                }
                Dtype::F16 => {
                    view.data().chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
                }
                found => return Err(WeightError::Type { origin: origin.into(), key, found }),
            };
            if values.iter().any(|v| !v.is_finite()) {
                return Err(WeightError::NotFinite { origin: origin.into(), key });
            }
            tensors.insert(key, (view.shape().to_vec(), values));
        }
        Ok(Weights { origin: origin.into(), tensors })
    }

    /// The tensor `key`, which must have the shape `expected`.
    pub fn get(&self, key: &str, expected: &[usize]) -> Result<&[f32], WeightError> {
        let origin = || self.origin.clone();
        let Some((found, values)) = self.tensors.get(key) else {
            return Err(WeightError::Missing { origin: origin(), key: key.into() });
        };
        if found != expected {
            let (found, expected) = (found.clone(), expected.to_vec());
            return Err(WeightError::Shape { origin: origin(), key: key.into(), found, expected });
        }
        Ok(values)
    }

    /// Convolution `PREFIX.conv.weight` with the batch norm `PREFIX.bn.*` folded in. `size` is the input's height and
    /// width, from which the padding follows: TensorFlow's "same", which puts the odd zero behind.
    pub fn conv_bn(
        &self,
        prefix: &str,
        spec: ConvSpec,
        size: (usize, usize),
        epsilon: f32,
    ) -> Result<Conv, WeightError> {
        let ConvSpec { input, out, kernel, stride, groups, activation } = spec;
        let weight = self.get(&format!("{prefix}.conv.weight"), &[out, input / groups, kernel, kernel])?;
        let norm = |what: &str| self.get(&format!("{prefix}.bn.{what}"), &[out]);
        let (gamma, beta) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        let (weight, bias) = fold_batch_norm(weight, None, gamma, beta, mean, variance, epsilon);
        let (top, bottom) = same_padding(size.0, kernel, stride);
        let (left, right) = same_padding(size.1, kernel, stride);
        Ok(Conv { weight, bias, out, kernel, stride, pads: [top, left, bottom, right], groups, activation })
    }
}

/// Folds a batch norm into the convolution before it; returns weight and bias.
pub fn fold_batch_norm(
    weight: &[f32],
    bias: Option<&[f32]>,
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let row = weight.len() / gamma.len();
    let mut folded = Vec::with_capacity(weight.len());
    let mut biases = Vec::with_capacity(gamma.len());
    for (c, channel) in weight.chunks_exact(row).enumerate() {
        let factor = gamma[c] / (variance[c] + epsilon).sqrt();
        folded.extend(channel.iter().map(|w| w * factor));
        biases.push(beta[c] + (bias.map_or(0.0, |b| b[c]) - mean[c]) * factor);
    }
    (folded, biases)
}

fn same_padding(length: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((length.div_ceil(stride) - 1) * stride + kernel).saturating_sub(length);
    (total / 2, total - total / 2)
}
