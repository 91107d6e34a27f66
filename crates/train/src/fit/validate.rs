//! One validation: how good the networks are on held-out training images, and whether the discriminator learns at all.

use super::images::{Images, SplitImages};
use crate::config::TrainConfig;
use crate::features::FeatureError;
use crate::graph::Term;
use crate::methods::ckaad::{TermMaps, Trainer};
use crate::run::Validation;
use crate::score::{self, HeldOut};
use ndarray::Array2;

/// A line of the log.
pub fn line(v: &Validation) -> String {
    let l = &v.losses;
    format!(
        "epoch {:>4}: reconstruction {:.4}, discriminator {:.4} (energy {:.3} normal, {:.3} anomalous), adversarial {:.4}",
        v.epoch, l.reconstruction, l.discriminator, l.energy_normal, l.energy_anomalous, l.adversarial
    )
}

/// Energies that differ by less than this share of the margin say nothing.
const TELLING: f32 = 0.02;

/// A discriminator that sees anomalies but gives them the energy of normal images does not help, and nobody would
/// notice.
pub fn not_learning(config: &TrainConfig, parts: &SplitImages, v: &Validation) -> Option<String> {
    if parts.train_anomalous.is_empty() {
        return None;
    }
    let (normal, anomalous) = (v.losses.energy_normal, v.losses.energy_anomalous);
    (anomalous - normal < TELLING * config.loss.margin as f32).then(|| {
        format!(
            "the discriminator does not tell anomalies from normal images: mean energies {anomalous:.3} and {normal:.3} at a margin of {}; \
             a higher train.discriminator_learning_rate (now {}) or more epochs help",
            config.loss.margin, config.train.discriminator_learning_rate
        )
    })
}

/// Image AUROC of the held-out training images under the best map and score rule that the config leaves open; without
/// held-out anomalies the negative mean of the normal maps.
pub fn quality(parts: &SplitImages, trainer: &Trainer, config: &TrainConfig) -> Result<f64, FeatureError> {
    let mut all = maps(&parts.validation_normal, trainer, config)?;
    let normal = all.errors.len();
    if parts.validation_anomalous.is_empty() {
        let mean = |m: &Array2<f32>| m.iter().sum::<f32>() / m.len() as f32;
        return Ok(-f64::from(all.errors.iter().map(mean).sum::<f32>() / normal.max(1) as f32));
    }
    all.extend(maps(&parts.validation_anomalous, trainer, config)?);
    let size = (config.input.height as usize, config.input.width as usize);
    let smoothed = |maps: &[Array2<f32>]| score::smoothed(maps, size, config.score.sigma_px);
    let (errors, energies) = (smoothed(&all.errors), smoothed(&all.energies));
    let mut terms = vec![(Term::Error, errors.as_slice())];
    if !energies.is_empty() {
        terms.push((Term::Energy, &energies));
    }
    // The bank's distances are the same in every epoch and are left out of the comparison.
    let held_out = HeldOut { terms, normal };
    Ok(held_out.choose(&config.score).auroc.unwrap_or(0.0))
}

/// The maps of every image.
fn maps(images: &Images, trainer: &Trainer, config: &TrainConfig) -> Result<TermMaps, FeatureError> {
    let mut maps = TermMaps::default();
    for batch in images.all(config) {
        maps.extend(trainer.maps(&batch?));
    }
    Ok(maps)
}
