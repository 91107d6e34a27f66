//! Weight files: safetensors, and torch's `.pth` state dicts.

use crate::graph::{Activation, Conv};
use pytorch_reader::{DType, PytorchReader};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum WeightError {
    #[error("cannot read the weights {origin}: {cause}")]
    Read { origin: String, cause: std::io::Error },
    #[error("{origin} is {size} bytes; weights of at most {MAX_BYTES} are expected")]
    TooLarge { origin: String, size: u64 },
    #[error("{origin} is neither a safetensors file nor a PyTorch state dict: {reason}")]
    Malformed { origin: String, reason: String },
    #[error(
        "the backbone {0} does not come with this program: set the key weights to a torchvision state dict (.pth or .safetensors)"
    )]
    NoneBuiltIn(&'static str),
    #[error("{origin} has no tensor {key:?}: is it another network's?")]
    Missing { origin: String, key: String },
    #[error("{origin}: tensor {key:?} has the shape {found:?}, expected {expected:?}")]
    Shape { origin: String, key: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{origin}: tensor {key:?} is {found}, expected f32 or f16")]
    Type { origin: String, key: String, found: String },
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

/// WideResNet101-2 has 508 MB.
const MAX_BYTES: u64 = 1 << 30;

impl Weights {
    /// Reads a safetensors file or, by its ending `.pth` or `.pt`, a PyTorch state dict (nothing in it is executed).
    pub fn load(path: &Path) -> Result<Weights, WeightError> {
        let origin = path.display().to_string();
        let read = |cause| WeightError::Read { origin: origin.clone(), cause };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_BYTES {
            return Err(WeightError::TooLarge { origin, size });
        }
        let torch = path.extension().is_some_and(|e| e == "pth" || e == "pt");
        if torch {
            Weights::from_torch(path, &origin)
        } else {
            Weights::from_bytes(&std::fs::read(path).map_err(read)?, &origin)
        }
    }

    fn from_torch(path: &Path, origin: &str) -> Result<Weights, WeightError> {
        let malformed = |reason: String| WeightError::Malformed { origin: origin.into(), reason };
        let file = PytorchReader::new(path).map_err(|e| malformed(e.to_string()))?;
        let mut weights = Weights { origin: origin.into(), tensors: HashMap::new() };
        for (key, tensor) in file.tensors() {
            let bytes = tensor.read().map_err(|e| malformed(format!("tensor {key:?}: {e}")))?;
            let values = match tensor.dtype() {
                DType::F32 => f32_values(&bytes),
                DType::F16 => f16_values(&bytes),
                // Counters beside a batch norm; a weight of such a type is missed by name.
                _ => continue,
            };
            weights.insert(key.clone(), tensor.shape().to_vec(), values)?;
        }
        Ok(weights)
    }

    /// `origin` names the source in errors.
    pub fn from_bytes(bytes: &[u8], origin: &str) -> Result<Weights, WeightError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| WeightError::Malformed { origin: origin.into(), reason: e.to_string() })?;
        let mut weights = Weights { origin: origin.into(), tensors: HashMap::new() };
        for (key, view) in file.tensors() {
            let values = match view.dtype() {
                Dtype::F32 => f32_values(view.data()),
                Dtype::F16 => f16_values(view.data()),
                Dtype::I64 => continue,
                found => return Err(WeightError::Type { origin: origin.into(), key, found: format!("{found:?}") }),
            };
            weights.insert(key, view.shape().to_vec(), values)?;
        }
        Ok(weights)
    }

    fn insert(&mut self, key: String, shape: Vec<usize>, values: Vec<f32>) -> Result<(), WeightError> {
        if values.iter().any(|v| !v.is_finite()) {
            return Err(WeightError::NotFinite { origin: self.origin.clone(), key });
        }
        self.tensors.insert(key, (shape, values));
        Ok(())
    }

    /// These tensors and those of `more`.
    pub fn and(mut self, more: Weights) -> Weights {
        self.tensors.extend(more.tensors);
        self
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Why these weights may be no trained ones: batch norms whose running statistics still are what they start with.
    pub fn doubt(&self) -> Option<String> {
        let start = |suffix: &str, value: f32| {
            let of_kind = self.tensors.iter().filter(|(key, _)| key.ends_with(suffix));
            of_kind.fold((0, 0), |(all, fresh), (_, (_, values))| {
                (all + 1, fresh + usize::from(values.iter().all(|v| (v - value).abs() < 1e-3)))
            })
        };
        let (norms, fresh) = start("running_var", 1.0);
        let fresh = fresh.min(start("running_mean", 0.0).1);
        (fresh > 0).then(|| {
            format!(
                "{}: {fresh} of {norms} batch norms have the statistics of an untrained network (mean 0, variance 1); random weights give poor features",
                self.origin
            )
        })
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
        let (weight, bias) = self.fold_stored_norm(weight, &format!("{prefix}.bn"), out, epsilon)?;
        let (top, bottom) = same_padding(size.0, kernel, stride);
        let (left, right) = same_padding(size.1, kernel, stride);
        Ok(Conv { weight, bias, out, kernel, stride, pads: [top, left, bottom, right], groups, activation })
    }

    /// Convolution `CONV.weight`, with the batch norm `NORM.*` folded in; or,
    /// where a file holds folded weights, with its `CONV.bias`. Padding as in torchvision: `kernel / 2` on every side.
    pub fn conv_norm(&self, conv: &str, norm: &str, spec: ConvSpec, epsilon: f32) -> Result<Conv, WeightError> {
        let ConvSpec { input, out, kernel, stride, groups, activation } = spec;
        let weight = self.get(&format!("{conv}.weight"), &[out, input / groups, kernel, kernel])?;
        let folded = format!("{conv}.bias");
        let (weight, bias) = if self.has(&folded) {
            (weight.to_vec(), self.get(&folded, &[out])?.to_vec())
        } else {
            self.fold_stored_norm(weight, norm, out, epsilon)?
        };
        Ok(Conv { weight, bias, out, kernel, stride, pads: [kernel / 2; 4], groups, activation })
    }

    /// Folds the batch norm `NORM.*` into `weight`; returns weight and bias.
    fn fold_stored_norm(
        &self,
        weight: &[f32],
        norm: &str,
        out: usize,
        epsilon: f32,
    ) -> Result<(Vec<f32>, Vec<f32>), WeightError> {
        let part = |what: &str| self.get(&format!("{norm}.{what}"), &[out]);
        let (gamma, beta) = (part("weight")?, part("bias")?);
        Ok(fold_batch_norm(weight, gamma, beta, part("running_mean")?, part("running_var")?, epsilon))
    }
}

fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn f16_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

/// Folds a batch norm into the convolution before it, which has no bias; returns weight and bias.
pub fn fold_batch_norm(
    weight: &[f32],
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
        biases.push(beta[c] - mean[c] * factor);
    }
    (folded, biases)
}

fn same_padding(length: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((length.div_ceil(stride) - 1) * stride + kernel).saturating_sub(length);
    (total / 2, total - total / 2)
}
