//! One optimiser step of auto-encoder and discriminator, and what a run must keep to go on later.

use super::discriminator::{DiscriminatorConfig, Discriminators, Energies, PatchDiscriminator};
use super::loss::{self, LossConfig};
use super::net::{AutoEncoder, NetConfig};
use crate::backbones::Scale;
use crate::device::{drawn, random};
use crate::graph::ChannelStatistics;
use crate::methods::clip::clip;
use crate::methods::folding::tensors;
use crate::methods::raw::Raw;
use crate::methods::{Batch, MethodError, UnreadLosses};
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::Distribution;
use std::path::Path;

/// Cosine distance of what was reconstructed.
pub const RECONSTRUCTION: &str = "reconstruction";
/// What the discriminators learn by.
pub const DISCRIMINATOR: &str = "discriminator";
/// The energies of what was reconstructed.
pub const ADVERSARIAL: &str = "adversarial";
/// Mean energy of normal images.
pub const ENERGY_NORMAL: &str = "energy of normal images";
/// The same of anomalous ones.
pub const ENERGY_ANOMALOUS: &str = "energy of anomalies";

/// Learning rates of one step.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Of the auto-encoder.
    pub auto_encoder: f64,
    /// Of the discriminators.
    pub discriminator: f64,
}

/// Both networks with their optimisers.
pub struct Trainer {
    auto_encoder: AutoEncoder,
    discriminators: Option<Discriminators>,
    optimiser: ModuleOptimizer,
    discriminator_optimiser: ModuleOptimizer,
    loss: LossConfig,
    discriminator: DiscriminatorConfig,
    raw: Raw,
    device: Device,
}

/// What a [`Trainer`] is made from.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The auto-encoder's section.
    pub net: &'a NetConfig,
    /// The discriminators' section.
    pub discriminator: &'a DiscriminatorConfig,
    /// The losses' section.
    pub loss: LossConfig,
    /// What the extractor gives.
    pub scales: &'a [Scale],
    /// What the features of each scale were standardised with, where the reconstruction error is to be measured on raw
    /// ones.
    pub spread: Option<&'a [ChannelStatistics]>,
}

const AUTO_ENCODER: &str = "auto-encoder.bpk";
const DISCRIMINATORS: &str = "discriminator.bpk";
const OPTIMISER: &str = "optimiser.bpk";
const DISCRIMINATOR_OPTIMISER: &str = "discriminator-optimiser.bpk";

/// As the paper's networks are moved.
pub fn adam() -> ModuleOptimizer {
    AdamConfig::new().with_beta_1(0.5).with_beta_2(0.999).with_epsilon(1e-8).init()
}

impl Trainer {
    /// `device` is a plain one.
    pub fn new(parts: Parts, device: &Device) -> Trainer {
        Trainer {
            auto_encoder: drawn(device, |device| AutoEncoder::new(parts.net, parts.scales, device)),
            discriminators: drawn(device, |device| Discriminators::new(parts.discriminator, parts.scales, device)),
            optimiser: adam(),
            discriminator_optimiser: adam(),
            loss: parts.loss,
            discriminator: *parts.discriminator,
            raw: Raw::new(parts.spread.unwrap_or_default(), device),
            device: device.clone().autodiff(),
        }
    }

    /// Both batches hold features.
    pub fn step(mut self, normal: &Batch, anomalous: Option<&Batch>, rates: Rates) -> (Trainer, UnreadLosses) {
        let device = self.device.clone();
        let count = normal.len();
        let normal = tensors(&normal.features, &device);
        let anomalous = anomalous.map(|a| tensors(&a.features, &device));
        let all: Vec<Tensor<4>> = match &anomalous {
            Some(a) => normal.iter().zip(a).map(|(n, a)| Tensor::cat(vec![n.clone(), a.clone()], 0)).collect(),
            None => normal.clone(),
        };
        let outputs = self.auto_encoder.forward(&all);
        let mut losses = UnreadLosses::default();

        if let Some(discriminators) = self.discriminators.take() {
            let detached: Vec<Tensor<4>> = outputs.iter().map(|g| g.clone().detach()).collect();
            let of_normal = discriminators.energies(&normal);
            let of_anomalous = anomalous.map(|a| discriminators.energies(&a));
            let of_outputs = discriminators.energies(&detached);
            losses = losses.with(ENERGY_NORMAL, &of_normal.mean());
            if let Some(of_anomalous) = &of_anomalous {
                losses = losses.with(ENERGY_ANOMALOUS, &of_anomalous.mean());
            }
            let mut loss = self.discriminator_loss(&of_normal, of_anomalous.as_ref(), &of_outputs);
            if let Some(noisy) = self.noisy(&normal, &discriminators) {
                loss = loss + noisy;
            }
            losses = losses.with(DISCRIMINATOR, &loss);
            let gradients = GradientsParams::from_grads(loss.backward(), &discriminators);
            let gradients = clip(gradients, &discriminators, self.loss.clip);
            self.discriminators =
                Some(self.discriminator_optimiser.step(rates.discriminator, discriminators, gradients));
        }

        let own: Vec<Tensor<4>> = outputs.iter().map(|g| g.clone().narrow(0, 0, count)).collect();
        let mut loss = loss::reconstruction(self.loss.cosine, &self.raw.of(&normal), &self.raw.of(&own));
        losses = losses.with(RECONSTRUCTION, &loss);
        if let Some(discriminators) = &self.discriminators {
            let energies = discriminators.energies(&outputs);
            let terms = energies.kinds().map(loss::adversarial);
            let adversarial = terms.reduce(|a, b| a + b).expect("a discriminator is of one kind or of both");
            losses = losses.with(ADVERSARIAL, &adversarial);
            loss = loss + adversarial.mul_scalar(self.loss.lambda);
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.auto_encoder);
        self.auto_encoder = self.optimiser.step(rates.auto_encoder, self.auto_encoder, gradients);
        (self, losses)
    }

    /// The loss of normal features made anomalous by noise, whose strength differs from image to image.
    fn noisy(&self, normal: &[Tensor<4>], discriminators: &Discriminators) -> Option<Tensor<1>> {
        let config = &self.discriminator;
        let patch = discriminators.patch.as_ref().filter(|_| config.noise > 0.0 && config.noise_weight > 0.0)?;
        let device = self.device.clone();
        let strength: Tensor<4> = random([normal[0].dims()[0], 1, 1, 1], Distribution::Uniform(0.0, 2.0), &device);
        let noisy: Vec<Tensor<4>> = normal
            .iter()
            .map(|x| {
                let noise: Tensor<4> = random(x.dims(), Distribution::Normal(0.0, config.noise), &device);
                x.clone() + noise * strength.clone()
            })
            .collect();
        Some(loss::lift(self.loss.margin, &patch.energies(&noisy)).mul_scalar(config.noise_weight))
    }

    /// The sum over the kinds of discriminators; patches of an image can be looked for, an image is one.
    fn discriminator_loss(
        &self,
        normal: &Energies,
        anomalous: Option<&Energies>,
        reconstructed: &Energies,
    ) -> Tensor<1> {
        let one = |places: usize, kind: fn(&Energies) -> &Vec<Tensor<4>>| {
            (!kind(normal).is_empty()).then(|| {
                let anomalous = anomalous.map(|a| kind(a).as_slice());
                loss::discriminator(&self.loss, places, kind(normal), anomalous, kind(reconstructed))
            })
        };
        let terms = [one(self.discriminator.places, |e| &e.patch), one(0, |e| &e.image)];
        terms.into_iter().flatten().reduce(|a, b| a + b).expect("a discriminator is of one kind or of both")
    }

    /// The auto-encoder and the patch discriminator in inference form.
    pub fn networks(&self) -> (AutoEncoder, Option<PatchDiscriminator>) {
        (self.auto_encoder.valid(), self.discriminators.as_ref().and_then(|d| d.valid().patch))
    }

    /// Writes the whole state into the folder `to`.
    pub fn save(&self, to: &Path) -> Result<(), MethodError> {
        let failed = |cause: String| MethodError::checkpoint(to, cause);
        let at = |name: &str| to.join(name);
        self.auto_encoder.clone().save_file(at(AUTO_ENCODER)).map_err(|e| failed(e.to_string()))?;
        self.optimiser.save(at(OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        if let Some(discriminators) = &self.discriminators {
            discriminators.clone().save_file(at(DISCRIMINATORS)).map_err(|e| failed(e.to_string()))?;
            self.discriminator_optimiser.save(at(DISCRIMINATOR_OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        }
        Ok(())
    }

    /// Goes on from what [`Trainer::save`] wrote.
    pub fn load(mut self, from: &Path) -> Result<Trainer, MethodError> {
        let failed = |cause: String| MethodError::checkpoint(from, cause);
        let at = |name: &str| from.join(name);
        self.auto_encoder = self.auto_encoder.try_load_file(at(AUTO_ENCODER)).map_err(|e| failed(e.to_string()))?;
        self.optimiser = self.optimiser.load(at(OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        if let Some(discriminators) = self.discriminators.take() {
            let loaded = discriminators.try_load_file(at(DISCRIMINATORS)).map_err(|e| failed(e.to_string()))?;
            self.discriminators = Some(loaded);
            self.discriminator_optimiser =
                self.discriminator_optimiser.load(at(DISCRIMINATOR_OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        }
        Ok(self)
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
