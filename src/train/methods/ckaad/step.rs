//! One optimiser step of auto-encoder and discriminator, and what a run must keep to go on later.

use super::discriminator::PatchDiscriminator;
use super::loss::{self, LossConfig};
use super::net::{AutoEncoder, NetConfig};
use crate::engine::AnomalyMap;
use crate::train::backbones::Scale;
use crate::train::export::onnx::COSINE_EPSILON;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("checkpoint {path}: {reason}")]
pub struct StepError {
    path: PathBuf,
    reason: String,
}

/// Losses of one step.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Losses {
    pub reconstruction: f32,
    /// 0 without a discriminator.
    pub discriminator: f32,
    pub adversarial: f32,
}

/// Learning rates of one step.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub auto_encoder: f64,
    pub discriminator: f64,
}

/// Both networks with their optimisers.
pub struct Trainer {
    auto_encoder: AutoEncoder,
    discriminator: Option<PatchDiscriminator>,
    optimiser: ModuleOptimizer,
    discriminator_optimiser: ModuleOptimizer,
    loss: LossConfig,
    device: Device,
}

const AUTO_ENCODER: &str = "auto-encoder.bpk";
const DISCRIMINATOR: &str = "discriminator.bpk";
const OPTIMISER: &str = "optimiser.bpk";
const DISCRIMINATOR_OPTIMISER: &str = "discriminator-optimiser.bpk";

impl Trainer {
    /// `device` is a plain one; `adversarial` switches the discriminator on.
    pub fn new(net: &NetConfig, loss: LossConfig, adversarial: bool, scales: &[Scale], device: &Device) -> Trainer {
        let device = device.clone().autodiff();
        let adam = AdamConfig::new().with_beta_1(0.5).with_beta_2(0.999).with_epsilon(1e-8);
        let clipped = adam.clone().with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)));
        Trainer {
            auto_encoder: AutoEncoder::new(net, scales, &device),
            discriminator: adversarial.then(|| PatchDiscriminator::new(scales, &device)),
            optimiser: adam.init(),
            discriminator_optimiser: clipped.init(),
            loss,
            device,
        }
    }

    /// `normal[i]` and `anomalous[i]` hold `[N,C_i,h_i,w_i]` values of scale i.
    pub fn step(mut self, normal: &Batch, anomalous: Option<&Batch>, rates: Rates) -> (Trainer, Losses) {
        let device = self.device.clone();
        let count = normal.count;
        let normal = normal.tensors(&device);
        let anomalous = anomalous.map(|a| a.tensors(&device));
        let all: Vec<Tensor<4>> = match &anomalous {
            Some(a) => normal.iter().zip(a).map(|(n, a)| Tensor::cat(vec![n.clone(), a.clone()], 0)).collect(),
            None => normal.clone(),
        };
        let outputs = self.auto_encoder.forward(&all);
        let mut losses = Losses::default();

        if let Some(discriminator) = self.discriminator.take() {
            let detached: Vec<Tensor<4>> = outputs.iter().map(|g| g.clone().detach()).collect();
            let loss = loss::discriminator(
                &self.loss,
                &discriminator.energies(&normal),
                anomalous.map(|a| discriminator.energies(&a)).as_deref(),
                &discriminator.energies(&detached),
            );
            losses.discriminator = loss.clone().into_scalar();
            let gradients = GradientsParams::from_grads(loss.backward(), &discriminator);
            self.discriminator = Some(self.discriminator_optimiser.step(rates.discriminator, discriminator, gradients));
        }

        let own: Vec<Tensor<4>> = outputs.iter().map(|g| g.clone().narrow(0, 0, count)).collect();
        let mut loss = loss::reconstruction(&normal, &own);
        losses.reconstruction = loss.clone().into_scalar();
        if let Some(discriminator) = &self.discriminator {
            let adversarial = loss::adversarial(&discriminator.energies(&outputs));
            losses.adversarial = adversarial.clone().into_scalar();
            loss = loss + adversarial.mul_scalar(self.loss.lambda);
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &self.auto_encoder);
        self.auto_encoder = self.optimiser.step(rates.auto_encoder, self.auto_encoder, gradients);
        (self, losses)
    }

    /// Anomaly maps of a batch, as the exported graph gives them: cosine errors summed at the finest scale.
    pub fn maps(&self, batch: &Batch) -> Vec<AnomalyMap> {
        let device = self.device.clone().inner();
        let features = batch.tensors(&device);
        let outputs = self.auto_encoder.valid().forward(&features);
        map_of(&features, &outputs)
    }

    /// The auto-encoder in inference form.
    pub fn auto_encoder(&self) -> AutoEncoder {
        self.auto_encoder.valid()
    }

    /// Writes the whole state into the folder `to`.
    pub fn save(&self, to: &Path) -> Result<(), StepError> {
        let failed = |reason: String| StepError { path: to.to_owned(), reason };
        let at = |name: &str| to.join(name);
        self.auto_encoder.clone().save_file(at(AUTO_ENCODER)).map_err(|e| failed(e.to_string()))?;
        self.optimiser.save(at(OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        if let Some(discriminator) = &self.discriminator {
            discriminator.clone().save_file(at(DISCRIMINATOR)).map_err(|e| failed(e.to_string()))?;
            self.discriminator_optimiser.save(at(DISCRIMINATOR_OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        }
        Ok(())
    }

    /// The auto-encoder of a checkpoint, without what further training needs.
    pub fn load_weights(mut self, from: &Path) -> Result<Trainer, StepError> {
        let failed = |reason: String| StepError { path: from.to_owned(), reason };
        self.auto_encoder =
            self.auto_encoder.try_load_file(from.join(AUTO_ENCODER)).map_err(|e| failed(e.to_string()))?;
        Ok(self)
    }

    /// Goes on from what [`Trainer::save`] wrote.
    pub fn load(mut self, from: &Path) -> Result<Trainer, StepError> {
        let failed = |reason: String| StepError { path: from.to_owned(), reason };
        let at = |name: &str| from.join(name);
        self = self.load_weights(from)?;
        self.optimiser = self.optimiser.load(at(OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        if let Some(discriminator) = self.discriminator.take() {
            self.discriminator =
                Some(discriminator.try_load_file(at(DISCRIMINATOR)).map_err(|e| failed(e.to_string()))?);
            self.discriminator_optimiser =
                self.discriminator_optimiser.load(at(DISCRIMINATOR_OPTIMISER)).map_err(|e| failed(e.to_string()))?;
        }
        Ok(self)
    }
}

/// Features of some images, one `[count,C,h,w]` a scale.
pub struct Batch {
    pub count: usize,
    pub shapes: Vec<[usize; 3]>,
    pub values: Vec<Vec<f32>>,
}

impl Batch {
    fn tensors(&self, device: &Device) -> Vec<Tensor<4>> {
        let tensor = |(values, [c, h, w]): (&Vec<f32>, &[usize; 3])| {
            Tensor::from_data(TensorData::new(values.clone(), [self.count, *c, *h, *w]), device)
        };
        self.values.iter().zip(&self.shapes).map(tensor).collect()
    }
}

/// `Σ_scales (1 - cos)` along the channels at every position, at the finest scale's resolution.
pub fn map_of(features: &[Tensor<4>], outputs: &[Tensor<4>]) -> Vec<AnomalyMap> {
    let [count, _, height, width] = features[0].dims();
    let errors = features.iter().zip(outputs).map(|(f, g)| {
        let dot = (f.clone() * g.clone()).sum_dim(1);
        let norms = (f.clone().square().sum_dim(1) * g.clone().square().sum_dim(1) + COSINE_EPSILON).sqrt();
        let error = (dot / norms).neg().add_scalar(1.0);
        let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_align_corners(false);
        interpolate(error, options.with_output_size([height, width]))
    });
    let sum = errors.reduce(|a, b| a + b).expect("a backbone has at least one scale");
    let values: Vec<f32> = sum.into_data().convert::<f32>().try_into_vec().expect("converted to f32 just before");
    debug_assert_eq!(values.len(), count * height * width);
    values.chunks_exact(height * width).map(|v| AnomalyMap { width, height, values: v.to_vec() }).collect()
}
