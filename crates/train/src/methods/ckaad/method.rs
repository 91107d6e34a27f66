//! CKAAD as one of the methods of a model.

use super::discriminator::{DiscriminatorConfig, DiscriminatorKind};
use super::fold::Fold;
use super::loss::LossConfig;
use super::net::NetConfig;
use super::step::{ENERGY_ANOMALOUS, ENERGY_NORMAL, Parts, Rates, Trainer};
use crate::features::Extractor;
use crate::graph::{ChannelStatistics, Graph, Id, Term};
use crate::methods::raw::ErrorSpace;
use crate::methods::{Losses, Method, MethodError, Needs, StepBatch, cosine_decay};
use burn::prelude::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[ckaad]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CkaadConfig {
    /// Where the reconstruction error is measured: on features as the backbone gives them, or on standardised ones.
    pub error: ErrorSpace,
    /// Of the auto-encoder, at the start; it falls to 0 along a cosine.
    pub learning_rate: f64,
    /// The same of the discriminators.
    pub discriminator_learning_rate: f64,
    /// The auto-encoder.
    pub net: NetConfig,
    /// The discriminators.
    pub discriminator: DiscriminatorConfig,
    /// The losses.
    pub loss: LossConfig,
}

impl Default for CkaadConfig {
    fn default() -> Self {
        CkaadConfig {
            error: ErrorSpace::Raw,
            learning_rate: 2e-3,
            discriminator_learning_rate: 5e-3,
            net: NetConfig::default(),
            discriminator: DiscriminatorConfig::default(),
            loss: LossConfig::default(),
        }
    }
}

/// Cosine error of the reconstruction, summed over the scales.
const ERROR: Term = Term::map("error");
/// The patch discriminator's energy.
const ENERGY: Term = Term::map("energy").taught();

/// Energies that differ by less than this share of the margin say nothing.
const TELLING: f32 = 0.02;

/// The method.
pub struct Ckaad {
    config: CkaadConfig,
    /// Only a step takes it out, and puts the next one in.
    trainer: Option<Trainer>,
    /// What brings the features of each tap back from standardised to raw ones before errors are measured; `None`
    /// measures them as they are.
    raw: Option<Vec<ChannelStatistics>>,
}

impl Ckaad {
    /// Untrained networks for the features of `extractor`.
    pub fn new(config: &CkaadConfig, extractor: &Extractor, device: &Device) -> Ckaad {
        let raw = extractor.spread.clone().filter(|_| config.error == ErrorSpace::Raw);
        let parts = Parts {
            net: &config.net,
            discriminator: &config.discriminator,
            loss: config.loss,
            scales: &extractor.scales,
            spread: raw.as_deref(),
        };
        Ckaad { config: config.clone(), trainer: Some(Trainer::new(parts, device)), raw }
    }
}

impl Method for Ckaad {
    fn name(&self) -> String {
        match self.config.discriminator.kind {
            DiscriminatorKind::None => "ckaad-reconstruction",
            DiscriminatorKind::Patch => "ckaad-patch",
            DiscriminatorKind::Image => "ckaad-image",
            DiscriminatorKind::Both => "ckaad-both",
        }
        .into()
    }

    fn terms(&self) -> Vec<Term> {
        if self.config.discriminator.kind.patch() { vec![ERROR, ENERGY] } else { vec![ERROR] }
    }

    fn needs(&self) -> Needs {
        let anomalous = self.config.discriminator.kind.learns();
        Needs { steps: true, features: true, anomalous, ..Needs::default() }
    }

    fn step(&mut self, batch: &StepBatch, progress: f64) -> Losses {
        let factor = cosine_decay(progress);
        let rates = Rates {
            auto_encoder: self.config.learning_rate * factor,
            discriminator: self.config.discriminator_learning_rate * factor,
        };
        let Some(trainer) = self.trainer.take() else { return Losses::default() };
        let (trainer, losses) = trainer.step(&batch.normal, batch.anomalous.as_ref(), rates);
        self.trainer = Some(trainer);
        if batch.tell { losses.read() } else { Losses::default() }
    }

    /// A discriminator that sees anomalies but gives them the energy of normal images does not help, and nobody would
    /// notice.
    fn doubt(&self, losses: &Losses) -> Option<String> {
        let (normal, anomalous) = (losses.of(ENERGY_NORMAL)?, losses.of(ENERGY_ANOMALOUS)?);
        let margin = self.config.loss.margin;
        (anomalous - normal < TELLING * margin as f32).then(|| {
            format!(
                "the discriminator does not tell anomalies from normal images: mean energies {anomalous:.3} and {normal:.3} at a margin of {margin}; \
                 a higher ckaad.discriminator_learning_rate (now {}) or more epochs help",
                self.config.discriminator_learning_rate
            )
        })
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, wanted: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let Some(trainer) = &self.trainer else { return vec![] };
        let (auto_encoder, patch) = trainer.networks();
        let taps = &extractor.taps;
        let mut nodes = vec![];
        if wanted(ERROR) {
            let outputs = Fold { graph, prefix: "" }.auto_encoder(&auto_encoder, taps);
            for (i, (&tap, output)) in taps.iter().zip(outputs).enumerate() {
                let raw = self.raw.as_ref().map(|all| all[i].clone());
                nodes.push((ERROR, graph.cosine_error(format!("error.{i}"), tap, output, raw)));
            }
        }
        if let Some(patch) = patch.filter(|_| wanted(ENERGY)) {
            nodes.extend(Fold { graph, prefix: "" }.energies(&patch, taps).into_iter().map(|id| (ENERGY, id)));
        }
        nodes
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.trainer.as_ref().map_or(Ok(()), |trainer| trainer.save(folder))
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.trainer = self.trainer.take().map(|trainer| trainer.load(folder)).transpose()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::methods::specimens::extractor;

    #[test]
    fn a_discriminator_that_tells_nothing_apart_is_spoken_of() {
        let extractor = extractor([64, 64], &[8, 16], 16);
        let method = Ckaad::new(&CkaadConfig::default(), &extractor, &device::cpu());
        let losses = |anomalous| Losses::default().with(ENERGY_NORMAL, 1.0).with(ENERGY_ANOMALOUS, anomalous);
        assert_eq!(method.doubt(&losses(1.2)), None);
        assert!(method.doubt(&losses(1.05)).unwrap().contains("mean energies 1.050 and 1.000 at a margin of 5"));
        assert_eq!(method.doubt(&Losses::default()), None);
    }
}
