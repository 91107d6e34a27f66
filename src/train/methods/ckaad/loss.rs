//! The losses (paper: equations of section 3.3 and 3.4; constants from the authors' code).

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Share of the discriminator's margin loss that falls on reconstructions; the rest falls on coarse anomalies.
    pub gamma: f64,
    /// Energy that the discriminator lifts anomalous patches to.
    pub margin: f64,
    /// Weight of the adversarial term against the reconstruction.
    pub lambda: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig { gamma: 0.5, margin: 5.0, lambda: 0.02 }
    }
}

/// `Σ_scales mean over images (1 - cos)`, the cosine over an image's whole flattened map.
pub fn reconstruction(features: &[Tensor<4>], outputs: &[Tensor<4>]) -> Tensor<1> {
    let per_scale = features.iter().zip(outputs).map(|(f, g)| {
        let (f, g): (Tensor<2>, Tensor<2>) = (f.clone().flatten(1, 3), g.clone().flatten(1, 3));
        let dot = (f.clone() * g.clone()).sum_dim(1);
        let norms = (f.square().sum_dim(1) * g.square().sum_dim(1) + 1e-12).sqrt();
        (dot / norms).neg().add_scalar(1.0).mean()
    });
    sum(per_scale)
}

/// `mean E(F+) + (1-γ)·mean [m - E(F-)]+ + γ·mean [m - E(G)]+`, averaged over scales. `anomalous` is `None` when no coarse
/// labels are there; reconstructions then carry the whole margin loss.
pub fn discriminator(
    config: &LossConfig,
    normal: &[Tensor<4>],
    anomalous: Option<&[Tensor<4>]>,
    reconstructed: &[Tensor<4>],
) -> Tensor<1> {
    let lift = |e: &Tensor<4>| e.clone().neg().add_scalar(config.margin).clamp_min(0.0).mean();
    let scales = normal.len() as f64;
    let per_scale = (0..normal.len()).map(|i| {
        let gamma = if anomalous.is_some() { config.gamma } else { 1.0 };
        let mut loss = normal[i].clone().mean() + lift(&reconstructed[i]).mul_scalar(gamma);
        if let Some(anomalous) = anomalous {
            loss = loss + lift(&anomalous[i]).mul_scalar(1.0 - gamma);
        }
        loss
    });
    sum(per_scale).div_scalar(scales)
}

/// `mean E(G)`, averaged over scales: what the auto-encoder wants low.
pub fn adversarial(reconstructed: &[Tensor<4>]) -> Tensor<1> {
    let scales = reconstructed.len() as f64;
    sum(reconstructed.iter().map(|e| e.clone().mean())).div_scalar(scales)
}

fn sum(terms: impl Iterator<Item = Tensor<1>>) -> Tensor<1> {
    terms.reduce(|a, b| a + b).expect("a backbone has at least one scale")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: &[f32], shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn value(loss: Tensor<1>) -> f32 {
        loss.into_scalar()
    }

    #[test]
    fn reconstruction_is_one_minus_the_cosine_of_the_flattened_maps() {
        let f = map(&[1.0, 0.0, 0.0, 1.0], [2, 2, 1, 1]);
        let g = map(&[2.0, 0.0, 1.0, 1.0], [2, 2, 1, 1]);
        // Image 1: parallel, 0. Image 2: cos = 1/sqrt(2).
        let expected = (1.0 - 1.0 / 2f32.sqrt()) / 2.0;
        assert!((value(reconstruction(&[f], &[g])) - expected).abs() < 1e-6);
    }

    #[test]
    fn discriminator_loss_by_hand() {
        let config = LossConfig { gamma: 0.25, margin: 5.0, lambda: 0.02 };
        let e = |v: f32| vec![map(&[v; 4], [1, 1, 2, 2])];
        let (normal, anomalous, reconstructed) = (e(0.5), e(6.0), e(1.0));
        // 0.5 + 0.75 * max(5-6, 0) + 0.25 * (5-1)
        assert!((value(discriminator(&config, &normal, Some(&anomalous), &reconstructed)) - 1.5).abs() < 1e-6);
        // Without coarse labels: 0.5 + (5-1)
        assert!((value(discriminator(&config, &normal, None, &reconstructed)) - 4.5).abs() < 1e-6);
        assert!((value(adversarial(&reconstructed)) - 1.0).abs() < 1e-6);
    }
}
