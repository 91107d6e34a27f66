//! `ckaad-train fit`: data set → run.

mod bank;
mod images;
mod prepare;
mod validate;

use crate::config::{ConfigError, TrainConfig};
use crate::datasets::{DataError, DataLocation};
use crate::device::{DeviceChoice, DeviceError};
use crate::features::{Extractor, FeatureError};
use crate::graph::MapWeights;
use crate::methods::ckaad::{Losses, Rates, StepError, Trainer};
use crate::methods::nearest::{BankError, PatchBank};
use crate::methods::{Method, Network};
use crate::progress::{ProgressBar, ProgressDisplay};
use crate::run::{RunFolder, RunFolderError, RunInfo, RunProgress, Validation};
use std::path::PathBuf;
use std::time::Instant;

/// Why training cannot start, or stops.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum FitError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error(transparent)]
    Run(#[from] RunFolderError),
    #[error(transparent)]
    Checkpoint(#[from] StepError),
    #[error(transparent)]
    Bank(#[from] BankError),
    #[error(transparent)]
    Weights(#[from] crate::backbones::WeightError),
    #[error("the {loss} loss became {value} in epoch {epoch}; a smaller learning rate helps")]
    Diverged { loss: &'static str, value: f32, epoch: usize },
}

/// The command line, resolved.
pub struct FitOptions {
    /// What is trained.
    pub config: TrainConfig,
    /// What it is trained on.
    pub data: DataLocation,
    /// The folder of the run.
    pub out: PathBuf,
    /// What it is trained with.
    pub device: DeviceChoice,
    /// Go on with the run that is there.
    pub resume: bool,
}

/// What came of it.
pub enum Fitted {
    /// Networks, epoch by epoch; one at least was validated.
    Trained(RunProgress),
    /// The baseline's bank: there are no epochs, and nothing is validated before `export` does it.
    Bank {
        /// Patches in it.
        vectors: usize,
        /// Time that it took to choose them.
        seconds: f64,
    },
}

/// What every step of a fit reads.
#[derive(Clone, Copy)]
struct FitContext<'a> {
    config: &'a TrainConfig,
    run: &'a RunFolder,
    extractor: &'a Extractor,
    info: &'a RunInfo,
    progress: &'a ProgressDisplay,
}

/// Trains on a data set and keeps what came of it in the folder of the run.
///
/// # Errors
/// The data set or the config is of no use, the run is another one's, a file cannot be read or written, or training
/// diverges.
pub fn fit(options: &FitOptions) -> Result<Fitted, FitError> {
    let progress = ProgressDisplay::detect();
    let run = RunFolder::at(&options.out);
    let started = Instant::now();
    let (extractor, info) = prepare::prepare(options, &run, &progress)?;
    let config = &options.config;
    let context = FitContext { config, run: &run, extractor: &extractor, info: &info, progress: &progress };
    let bank = bank::fill(&context)?;
    match config.method {
        Method::Ckaad => Ok(Fitted::Trained(train(&context, options.device, bank)?)),
        Method::NearestNeighbour => {
            let vectors = bank.map_or(0, |patches| patches.bank.count());
            let seconds = started.elapsed().as_secs_f64();
            baseline(&run, seconds)?;
            Ok(Fitted::Bank { vectors, seconds })
        }
    }
}

fn train(context: &FitContext, device: DeviceChoice, bank: Option<PatchBank>) -> Result<RunProgress, FitError> {
    let FitContext { config, run, extractor, progress, .. } = *context;
    let (device, device_name) = device.open()?;
    let parts = images::SplitImages::open(context)?;
    device.seed(config.seed);
    let mut trainer = Trainer::new(config.parts(extractor), &device);
    let mut done = RunProgress::default();
    if let Some(last) = run.checkpoint("last")? {
        done = run.progress("last")?;
        trainer = trainer.load(&last)?;
        progress.say(&format!("resuming after epoch {}", done.epochs_done));
    }
    describe(context, &Network::ckaad(&trainer, config.parts(extractor).spread, bank), &parts, &device_name);

    let steps = parts.train_normal.len().div_ceil(config.train.batch.min(parts.train_normal.len()));
    let bar = progress.bar("fit", (config.train.epochs - done.epochs_done.min(config.train.epochs)) * steps);
    let started = Instant::now();
    let before = done.seconds;
    while done.epochs_done < config.train.epochs && !out_of_patience(config, &done) {
        let epoch = done.epochs_done;
        // Noise is drawn anew from here, so that a resumed run draws what an unbroken one would.
        device.seed(config.seed.wrapping_add(1 + epoch as u64));
        let epoch_started = Instant::now();
        let (next, losses) = one_epoch(trainer, &parts, config, epoch, steps, &bar)?;
        trainer = next;
        let steps_a_second = steps as f64 / epoch_started.elapsed().as_secs_f64();
        done.epochs_done = epoch + 1;
        done.seconds = before + started.elapsed().as_secs_f64();
        let last = done.epochs_done == config.train.epochs;
        if last || done.epochs_done.is_multiple_of(config.validation.every) {
            let validated = validate(context, &parts, &trainer, losses, &mut done)?;
            let images_a_second = steps_a_second / steps as f64 * parts.train_normal.len() as f64;
            progress.say(&format!("{validated}, {steps_a_second:.2} steps/s, {images_a_second:.1} images/s"));
            if let Some(warning) = &done.warning {
                progress.say(&format!("warning: {warning}"));
            }
        }
    }
    Ok(done)
}

/// Validates the networks after an epoch and keeps them, as the best where they are; gives a line of the log.
fn validate(
    context: &FitContext,
    parts: &images::SplitImages,
    trainer: &Trainer,
    losses: Losses,
    done: &mut RunProgress,
) -> Result<String, FitError> {
    let FitContext { config, run, .. } = *context;
    let quality = validate::quality(parts, trainer, config)?;
    let validation = Validation { epoch: done.epochs_done, losses, quality };
    done.validations.push(validation);
    done.warning = validate::not_learning(config, parts, &validation);
    // The later of two equals: it has seen more.
    if done.best.is_none_or(|best| quality >= best.quality) {
        done.best = Some(validation);
        run.replace_checkpoint::<FitError>("best", done, |folder| Ok(trainer.save(folder)?))?;
    }
    run.replace_checkpoint::<FitError>("last", done, |folder| Ok(trainer.save(folder)?))?;
    Ok(format!("{}, validation {quality:.4}", validate::line(&validation)))
}

/// All steps of one epoch, with the next batch read meanwhile; returns the mean losses.
fn one_epoch(
    mut trainer: Trainer,
    parts: &images::SplitImages,
    config: &TrainConfig,
    epoch: usize,
    steps: usize,
    bar: &ProgressBar,
) -> Result<(Trainer, Losses), FitError> {
    let mut mean = Losses::default();
    std::thread::scope(|scope| {
        for (step, batches) in parts.epoch(scope, config, epoch).iter().enumerate() {
            let (normal, anomalous) = batches?;
            let factor = cosine_decay(epoch * steps + step, config.train.epochs * steps);
            let rates = Rates {
                auto_encoder: config.train.learning_rate * factor,
                discriminator: config.train.discriminator_learning_rate * factor,
            };
            let losses;
            (trainer, losses) = trainer.step(&normal, anomalous.as_ref(), rates);
            check_finite(losses, epoch)?;
            mean.add(losses, 1.0 / steps as f32);
            bar.message(format!("epoch {epoch}, reconstruction {:.4}", losses.reconstruction));
            bar.advance(1);
        }
        Ok((trainer, mean))
    })
}

/// Whether the last `train.patience` validations were all worse than the best one.
fn out_of_patience(config: &TrainConfig, done: &RunProgress) -> bool {
    let since = |best: Validation| done.validations.iter().filter(|v| v.epoch > best.epoch).count();
    config.train.patience > 0 && done.best.is_some_and(|best| since(best) >= config.train.patience)
}

/// The baseline has no epochs and no validation: its bank is the model, and its checkpoint says only that the run is
/// whole.
fn baseline(run: &RunFolder, seconds: f64) -> Result<(), FitError> {
    let done = RunProgress { seconds, ..RunProgress::default() };
    run.replace_checkpoint::<FitError>("best", &done, |_| Ok(()))
}

fn describe(context: &FitContext, network: &Network, parts: &images::SplitImages, device: &str) {
    let FitContext { config, extractor, progress, .. } = *context;
    let everything = MapWeights { error: 1.0, energy: 1.0, distance: 1.0 };
    let whole = network.graph(extractor, everything);
    let own = |all: u64, extractor: u64| (all - extractor) as f64;
    progress.say(&format!(
        "{}: {} {:.2} M parameters, {:.3} GMAC; all behind it {:.2} M, {:.3} GMAC at {}x{}; {} normal and {} anomalous images to train on, {} and {} to validate; device {device}",
        config.name,
        config.backbone.name(),
        extractor.graph.parameters() as f64 / 1e6,
        extractor.graph.macs() as f64 / 1e9,
        own(whole.parameters(), extractor.graph.parameters()) / 1e6,
        own(whole.macs(), extractor.graph.macs()) / 1e9,
        config.input.width,
        config.input.height,
        parts.train_normal.len(),
        parts.train_anomalous.len(),
        parts.validation_normal.len(),
        parts.validation_anomalous.len(),
    ));
}

fn check_finite(losses: Losses, epoch: usize) -> Result<(), FitError> {
    for (loss, value) in [("reconstruction", losses.reconstruction), ("discriminator", losses.discriminator)] {
        if !value.is_finite() {
            return Err(FitError::Diverged { loss, value, epoch: epoch + 1 });
        }
    }
    Ok(())
}

/// 1 at the start, 0 at the end.
fn cosine_decay(step: usize, steps: usize) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(qualities: &[f64]) -> RunProgress {
        let validation = |(i, &quality): (usize, &f64)| Validation { epoch: i + 1, losses: Losses::default(), quality };
        let validations: Vec<Validation> = qualities.iter().enumerate().map(validation).collect();
        let best = validations.iter().copied().reduce(|a, b| if b.quality >= a.quality { b } else { a });
        RunProgress { validations, best, ..Default::default() }
    }

    #[test]
    fn patience_ends_only_after_so_many_worse_validations() {
        let mut config = TrainConfig::default();
        config.train.patience = 2;
        assert!(!out_of_patience(&config, &after(&[])));
        assert!(!out_of_patience(&config, &after(&[0.8, 0.9, 0.85])));
        assert!(out_of_patience(&config, &after(&[0.8, 0.9, 0.85, 0.89])));
        assert!(!out_of_patience(&config, &after(&[0.8, 0.9, 0.85, 0.9])));
        config.train.patience = 0;
        assert!(!out_of_patience(&config, &after(&[0.9, 0.8, 0.7, 0.6])));
    }
}
