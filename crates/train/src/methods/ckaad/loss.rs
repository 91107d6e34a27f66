//! The losses (paper: equations of section 3.3 and 3.4; constants from the authors' code).

use crate::methods::folding::sorted;
use burn::prelude::*;
use burn::tensor::activation::relu;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Share of the discriminator's margin loss that falls on reconstructions; the rest falls on coarse anomalies. The
    /// paper has 0.5; but a good reconstruction of a normal image looks normal, and the more it counts the less the
    /// discriminator learns of defects.
    pub gamma: f64,
    /// Energy that the discriminator lifts anomalous patches to.
    pub margin: f64,
    /// Weight of the adversarial term against the reconstruction.
    pub lambda: f64,
    /// The discriminators' gradient is scaled down to this length; 0 leaves it.
    pub clip: f64,
    /// What the reconstruction is compared by.
    pub cosine: Cosine,
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig { gamma: 0.05, margin: 5.0, lambda: 0.02, clip: 1.0, cosine: Cosine::Position }
    }
}

/// What the reconstruction's cosine is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cosine {
    /// An image's whole map of one scale (the paper): places with strong features weigh more.
    Flattened,
    /// Every position by itself.
    Position,
}

/// `Σ_scales mean (1 - cos)` over images, or over positions.
pub fn reconstruction(cosine: Cosine, features: &[Tensor<4>], outputs: &[Tensor<4>]) -> Tensor<1> {
    let per_scale = features.iter().zip(outputs).map(|(f, g)| match cosine {
        Cosine::Position => errors(f, g).mean(),
        Cosine::Flattened => {
            let one = |x: &Tensor<4>| -> Tensor<4> { x.clone().flatten::<2>(1, 3).unsqueeze_dims(&[2, 3]) };
            errors(&one(f), &one(g)).mean()
        }
    });
    sum(per_scale)
}

/// `1 - cos` along the channels at every position: of two `[N,C,h,w]`, `[N,1,h,w]`.
pub fn errors(features: &Tensor<4>, outputs: &Tensor<4>) -> Tensor<4> {
    let [n, c, h, w] = features.dims();
    let rows = |x: &Tensor<4>| -> Tensor<3> { x.clone().reshape([n, c, h * w]) };
    let (f, g) = (rows(features), rows(outputs));
    let dot = (f.clone() * g.clone()).sum_dim(1);
    let norms = (f.square().sum_dim(1) * g.square().sum_dim(1) + 1e-12).sqrt();
    (dot / norms).neg().add_scalar(1.0).reshape([n, 1, h, w])
}

/// `mean E(F+) + (1-γ)·mean [m - E(F-)]+ + γ·mean [m - E(G)]+`, averaged over heads. `anomalous` is `None` when no
/// coarse labels are there; reconstructions then carry the whole margin loss. Unless `places` is 0, only so many
/// of an anomalous image's patches count, those of the highest energy, and the mean over as many of normal images is
/// added.
pub fn discriminator(
    config: &LossConfig,
    places: usize,
    normal: &[Tensor<4>],
    anomalous: Option<&[Tensor<4>]>,
    reconstructed: &[Tensor<4>],
) -> Tensor<1> {
    let lift = |e: Tensor<2>| hinge(config.margin, e).mean();
    let flat = |e: &Tensor<4>| -> Tensor<2> { e.clone().flatten(1, 3) };
    let heads = normal.len() as f64;
    let per_head = (0..normal.len()).map(|i| {
        let gamma = if anomalous.is_some() { config.gamma } else { 1.0 };
        let mut loss = normal[i].clone().mean() + lift(flat(&reconstructed[i])).mul_scalar(gamma);
        if let Some(hardest) = hardest(flat(&normal[i]), places) {
            loss = loss + hardest.mean();
        }
        if let Some(anomalous) = anomalous {
            let all = flat(&anomalous[i]);
            loss = loss + lift(hardest(all.clone(), places).unwrap_or(all)).mul_scalar(1.0 - gamma);
        }
        loss
    });
    sum(per_head).div_scalar(heads)
}

/// `mean [m - E]+` over all patches, averaged over heads: for what is known to be anomalous everywhere.
pub fn lift(margin: f64, energies: &[Tensor<4>]) -> Tensor<1> {
    let one = |e: &Tensor<4>| hinge(margin, e.clone()).mean();
    sum(energies.iter().map(one)).div_scalar(energies.len() as f64)
}

/// `[m - E]+`. A ReLU's gradient takes one pass, a clamp's goes through a mask.
fn hinge<const D: usize>(margin: f64, energy: Tensor<D>) -> Tensor<D> {
    relu(energy.neg().add_scalar(margin))
}

/// The `places` largest of each row; `None` where all count.
fn hardest(energies: Tensor<2>, places: usize) -> Option<Tensor<2>> {
    let [_, patches] = energies.dims();
    (0 < places && places < patches).then(|| sorted(energies).narrow(1, 0, places))
}

/// `mean E(G)`, averaged over heads: what the auto-encoder wants low.
pub fn adversarial(reconstructed: &[Tensor<4>]) -> Tensor<1> {
    let heads = reconstructed.len() as f64;
    sum(reconstructed.iter().map(|e| e.clone().mean())).div_scalar(heads)
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

    fn is(loss: Tensor<1>, expected: f32) {
        let found: f32 = loss.into_scalar();
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn the_flattened_cosine_sees_an_image_as_one_vector() {
        let f = map(&[1.0, 0.0, 0.0, 1.0], [2, 2, 1, 1]);
        let g = map(&[2.0, 0.0, 1.0, 1.0], [2, 2, 1, 1]);
        // Image 1: parallel, 0. Image 2: cos = 1/sqrt(2).
        is(reconstruction(Cosine::Flattened, &[f], &[g]), (1.0 - 1.0 / 2f32.sqrt()) / 2.0);
    }

    #[test]
    fn the_cosine_of_positions_weighs_weak_places_as_strong_ones() {
        // Two positions of two channels: (3,0) against (3,0), and (0,1) against (1,0).
        let f = [map(&[3.0, 0.0, 0.0, 1.0], [1, 2, 1, 2])];
        let g = [map(&[3.0, 1.0, 0.0, 0.0], [1, 2, 1, 2])];
        is(reconstruction(Cosine::Position, &f, &g), (0.0 + 1.0) / 2.0);
        is(reconstruction(Cosine::Flattened, &f, &g), 1.0 - 9.0 / 10.0);
    }

    #[test]
    fn discriminator_loss_by_hand() {
        let config = LossConfig { gamma: 0.25, ..Default::default() };
        let e = |v: f32| vec![map(&[v; 4], [1, 1, 2, 2])];
        let (normal, anomalous, reconstructed) = (e(0.5), e(6.0), e(1.0));
        // 0.5 + 0.75 * max(5-6, 0) + 0.25 * (5-1)
        is(discriminator(&config, 0, &normal, Some(&anomalous), &reconstructed), 1.5);
        // Without coarse labels: 0.5 + (5-1)
        is(discriminator(&config, 0, &normal, None, &reconstructed), 4.5);
        is(adversarial(&reconstructed), 1.0);
    }

    #[test]
    fn few_places_are_those_of_the_highest_energies() {
        let config = LossConfig { gamma: 0.5, ..Default::default() };
        let normal = vec![map(&[0.0, 0.0, 0.0, 2.0], [1, 1, 2, 2])];
        let anomalous = vec![map(&[0.0, 1.0, 4.0, 3.0], [1, 1, 2, 2])];
        let reconstructed = vec![map(&[5.0; 4], [1, 1, 2, 2])];
        // All: 0.5 + 0.5 * mean(5, 4, 1, 2).
        is(discriminator(&config, 0, &normal, Some(&anomalous), &reconstructed), 2.0);
        // Two: 0.5 + mean(2, 0) + 0.5 * mean(1, 2).
        is(discriminator(&config, 2, &normal, Some(&anomalous), &reconstructed), 2.25);
    }
}
