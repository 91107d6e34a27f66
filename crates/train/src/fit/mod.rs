//! `ckaad-train fit`: data set → run.

mod bank;
mod images;
mod validate;

use super::augment::Source as AnomalySource;
use super::config::{ConfigError, ErrorSpace, Method, TrainConfig};
use super::datasets::{Classes, DataError, DataSet, LabelledShare, Sample, Source, coarse_labels};
use super::device::{DeviceChoice, DeviceError};
use super::export::graph::{Bank, Graph};
use super::export::{Network, network};
use super::features::{Extractor, FeatureError};
use super::methods::ckaad::{Losses, Parts, Rates, StepError, Trainer};
use super::methods::nearest::BankError;
use super::progress::{Bar, Progress};
use super::run::{self, Run, RunError, RunInfo, RunProgress, Split, Validation};
use super::select::MapWeights;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, thiserror::Error)]
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
    Run(#[from] RunError),
    #[error(transparent)]
    Checkpoint(#[from] StepError),
    #[error(transparent)]
    Bank(#[from] BankError),
    #[error(transparent)]
    Weights(#[from] super::backbones::WeightError),
    #[error("the {loss} loss became {value} in epoch {epoch}; a smaller learning rate helps")]
    Diverged { loss: &'static str, value: f32, epoch: usize },
}

/// The command line, resolved.
pub struct FitOptions {
    pub config: TrainConfig,
    pub data: Source,
    pub out: PathBuf,
    pub device: DeviceChoice,
    pub resume: bool,
}

/// Images that the channel statistics are taken from.
const STATISTICS_IMAGES: usize = 200;
/// A shorter training set can teach neither the net nor a threshold.
const MIN_TRAINING_IMAGES: usize = 40;

pub fn fit(options: &FitOptions) -> Result<RunProgress, FitError> {
    let progress = Progress::detect();
    let run = Run::at(&options.out);
    let started = Instant::now();
    let (extractor, info) = prepare(options, &run, &progress)?;
    let bank = bank::fill(&options.config, &run, &extractor, &info, &progress)?;
    match options.config.method {
        Method::Ckaad => train(options, &run, &extractor, &info, bank, &progress),
        Method::NearestNeighbour => baseline(&run, started),
    }
}

fn train(
    options: &FitOptions,
    run: &Run,
    extractor: &Extractor,
    info: &RunInfo,
    bank: Option<Bank>,
    progress: &Progress,
) -> Result<RunProgress, FitError> {
    let config = &options.config;
    let (device, device_name) = options.device.open()?;
    let parts = images::SplitImages::open(run, config, info, extractor, progress)?;
    device.seed(config.seed);
    let mut trainer = Trainer::new(networks(config, extractor), &device);
    let mut done = RunProgress::default();
    if let Some(last) = run.checkpoint("last")? {
        done = run.progress("last")?;
        trainer = trainer.load(&last)?;
        progress.say(&format!("resuming after epoch {}", done.epochs_done));
    }
    describe(config, extractor, &trainer, bank, &parts, &device_name, progress);

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
        let seconds = epoch_started.elapsed().as_secs_f64();
        done.epochs_done = epoch + 1;
        done.seconds = before + started.elapsed().as_secs_f64();
        let last = done.epochs_done == config.train.epochs;
        if last || done.epochs_done.is_multiple_of(config.validation.every) {
            let quality = validate::quality(&parts, &trainer, config)?;
            let validation = Validation { epoch: done.epochs_done, losses, quality };
            done.validations.push(validation);
            done.warning = validate::not_learning(config, &parts, &validation);
            // The later of two equals: it has seen more.
            if done.best.is_none_or(|best| quality >= best.quality) {
                done.best = Some(validation);
                run.replace_checkpoint::<FitError>("best", &done, |folder| Ok(trainer.save(folder)?))?;
            }
            progress.say(&format!(
                "{}, validation {quality:.4}, {:.2} steps/s, {:.1} images/s",
                validate::line(&validation),
                steps as f64 / seconds,
                parts.train_normal.len() as f64 / seconds
            ));
            if let Some(warning) = &done.warning {
                progress.say(&format!("warning: {warning}"));
            }
            run.replace_checkpoint::<FitError>("last", &done, |folder| Ok(trainer.save(folder)?))?;
        }
    }
    Ok(done)
}

/// All steps of one epoch, with the next batch read meanwhile; returns the mean losses.
fn one_epoch(
    mut trainer: Trainer,
    parts: &images::SplitImages,
    config: &TrainConfig,
    epoch: usize,
    steps: usize,
    bar: &Bar,
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

/// What the networks are made from.
pub(super) fn networks<'a>(config: &'a TrainConfig, extractor: &'a Extractor) -> Parts<'a> {
    let raw = config.features.error == ErrorSpace::Raw;
    Parts {
        net: &config.net,
        discriminator: &config.discriminator,
        loss: config.loss,
        scales: &extractor.scales,
        spread: extractor.spread.as_deref().filter(|_| raw),
    }
}

/// Whether the last `train.patience` validations were all worse than the best one.
fn out_of_patience(config: &TrainConfig, done: &RunProgress) -> bool {
    let since = |best: Validation| done.validations.iter().filter(|v| v.epoch > best.epoch).count();
    config.train.patience > 0 && done.best.is_some_and(|best| since(best) >= config.train.patience)
}

/// The baseline has no epochs: its bank is the model.
fn baseline(run: &Run, started: Instant) -> Result<RunProgress, FitError> {
    let best = Validation { epoch: 1, losses: Losses::default(), quality: 0.0 };
    let done = RunProgress {
        epochs_done: 1,
        seconds: started.elapsed().as_secs_f64(),
        validations: vec![],
        best: Some(best),
        warning: None,
    };
    run.replace_checkpoint::<FitError>("best", &done, |_| Ok(()))?;
    Ok(done)
}

/// Loads or starts the run: split, digest, channel statistics.
fn prepare(options: &FitOptions, run: &Run, progress: &Progress) -> Result<(Extractor, RunInfo), FitError> {
    let config = &options.config;
    let mut data = DataSet::open(&options.data)?;
    data.need_training_images(MIN_TRAINING_IMAGES)?;
    let weights = config.backbone.weights(config.weights.as_deref())?;
    if let Some(doubt) = weights.doubt() {
        progress.say(&format!("warning: {doubt}"));
    }
    if run.exists() {
        if !options.resume {
            return Err(RunError::Exists(run.folder.clone()).into());
        }
        let changed = |what| RunError::Changed { run: run.folder.clone(), what };
        let info = run.info()?;
        // More epochs are the one change that a resumed run may ask for; what only `export` reads does not count.
        let mut earlier = run.config()?;
        earlier.train.epochs = config.train.epochs;
        earlier.quantise = config.quantise.clone();
        if earlier != *config {
            return Err(changed("config").into());
        }
        if info.data_digest != data.training_digest()? {
            return Err(changed("training data set").into());
        }
        let statistics = config.features.standardise.then_some(info.statistics.as_slice());
        return Ok((Extractor::new(config, &weights, statistics)?, info));
    }
    let data_digest = data.training_digest()?;
    data.train_anomalous = labelled(config, std::mem::take(&mut data.train_anomalous), data.train_normal.len())?;
    let split = Split::draw(&data, config)?;
    let mut statistics = vec![];
    let mut extractor = Extractor::new(config, &weights, None)?;
    if config.features.standardise {
        progress.say("measuring the feature channels");
        let mut normal = run::samples(&data.root, &split.train_normal);
        normal.truncate(STATISTICS_IMAGES);
        statistics = extractor.statistics(&normal)?;
        extractor = Extractor::new(config, &weights, Some(&statistics))?;
    }
    let info = RunInfo { data: data.root.clone(), data_digest, split, statistics };
    run.start(config, &info)?;
    Ok((extractor, info))
}

/// The coarse-labelled anomalies that this run may know of, held-out ones among them.
fn labelled(config: &TrainConfig, all: Vec<Sample>, normals: usize) -> Result<Vec<Sample>, DataError> {
    let wanted = &config.anomalies;
    if wanted.source == AnomalySource::None || all.is_empty() {
        return Ok(vec![]);
    }
    let share = if wanted.share == 0.0 { LabelledShare::All } else { LabelledShare::OfTrainingSet(wanted.share) };
    let classes = if wanted.classes == 0 { Classes::All } else { Classes::Drawn(wanted.classes) };
    coarse_labels(all, share, classes, normals, config.seed)
}

fn describe(
    config: &TrainConfig,
    extractor: &Extractor,
    trainer: &Trainer,
    bank: Option<Bank>,
    parts: &images::SplitImages,
    device: &str,
    progress: &Progress,
) {
    let everything = MapWeights { error: 1.0, energy: 1.0, distance: 1.0 };
    let whole: Graph = network(config, extractor, &Network::of(trainer, bank), everything);
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
