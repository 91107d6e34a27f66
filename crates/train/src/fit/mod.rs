//! `ckaad-train fit`: data set → run. The model is trained once without each fold, so that every training image is judged
//! by a model that never saw it, and once with all images.

mod budget;
mod images;
mod outlined;
mod prepare;
mod set;

use crate::config::{Build, ConfigError, MethodChoice, TrainConfig};
use crate::datasets::{DataError, DataLocation};
use crate::device::{self, DeviceChoice, DeviceError};
use crate::features::{Extractor, FeatureError};
use crate::graph::TermWeights;
use crate::methods::{Labelled, Library, Losses, MeanLosses, MethodError, Model, TrainingImages};
use crate::progress::{ProgressBar, ProgressDisplay};
use crate::run::{EpochLosses, RunFolder, RunFolderError, RunInfo, RunProgress, Unit};
use burn::prelude::Device;
use images::{Images, UnitImages};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    Method(#[from] MethodError),
    #[error(transparent)]
    Weights(#[from] crate::backbones::WeightError),
    #[error("nothing of {methods} gives a map here{needed}; list the method bank too, which needs no label")]
    NoMap { methods: String, needed: String },
    #[error(
        "{data} has {normal} parts in its training images that are there, and normal, from all of views ({views}); at least {needed} are needed"
    )]
    FewParts { data: PathBuf, views: String, normal: usize, needed: usize },
    #[error("budget.ms is {ms}: the smallest input that was tried takes {least:.1} ms")]
    Budget { ms: f64, least: f64 },
    #[error("the {loss} loss became {value} in epoch {epoch}; a smaller learning rate helps")]
    Diverged { loss: String, value: f32, epoch: usize },
}

/// The command line, resolved.
pub struct FitOptions {
    /// What is trained.
    pub config: TrainConfig,
    /// What it is trained on: one set, or several as one.
    pub data: Vec<DataLocation>,
    /// The folder of the run.
    pub out: PathBuf,
    /// What it is trained with.
    pub device: DeviceChoice,
    /// Methods in place of the config's.
    pub method: Option<MethodChoice>,
    /// Go on with the run that is there.
    pub resume: bool,
}

/// What came of it.
pub struct Fitted {
    /// Models that were trained: one a fold, those that also leave out a kind of defect, and the whole one.
    pub models: usize,
    /// How many folds there are.
    pub folds: usize,
    /// Time that all of them took, over all sittings.
    pub seconds: f64,
}

/// What every step of a fit reads.
#[derive(Clone, Copy)]
struct FitContext<'a> {
    config: &'a TrainConfig,
    run: &'a RunFolder,
    extractor: &'a Extractor,
    info: &'a RunInfo,
    /// Every training image, with its whole path.
    placed: &'a [Labelled],
    progress: &'a ProgressDisplay,
    device: &'a Device,
    build: Build<'a>,
}

/// Trains on a data set and keeps what came of it in the folder of the run.
///
/// # Errors
/// The data set or the config is of no use, the run is another one's, a file cannot be read or written, or training
/// diverges.
pub fn fit(options: &FitOptions) -> Result<Fitted, FitError> {
    fit_with(options, &TrainConfig::model)
}

/// As [`fit`], of the methods that `build` makes of the config.
///
/// # Errors
/// As [`fit`].
pub fn fit_with(options: &FitOptions, build: Build) -> Result<Fitted, FitError> {
    let progress = ProgressDisplay::detect();
    let run = RunFolder::at(&options.out);
    let (device, device_name) = options.device.open()?;
    let prepare::Prepared { config, extractor, info } = prepare::prepare(options, &run, build, &progress)?;
    let placed = info.placed();
    let context = FitContext {
        config: &config,
        run: &run,
        extractor: &extractor,
        info: &info,
        placed: &placed,
        progress: &progress,
        device: &device,
        build,
    };
    let units = units(&context);
    let images = Images::open(&context)?;
    prepare::describe(&context, &images, &device_name);
    let library = Library::new(&placed, &extractor, &progress, config.seed);
    let steps = |unit: &Unit| {
        let steps = images.of(&context, unit).steps(&config);
        steps * config.train.epochs_of(steps)
    };
    let bar = progress.bar("fit", units.iter().map(steps).sum::<usize>() + units.len());
    let mut seconds = 0.0;
    for (i, unit) in units.iter().enumerate() {
        let name = format!("model {} of {}", i + 1, units.len());
        let done = UnitFit { context: &context, unit, name, bar: &bar }.train(&library, &images)?;
        seconds += done.seconds;
    }
    Ok(Fitted { models: units.len(), folds: info.folds, seconds })
}

/// The models of a run, in the order in which they are trained.
fn units(context: &FitContext) -> Vec<Unit> {
    let FitContext { info, .. } = *context;
    let kinds = info.kinds();
    let mut units = vec![];
    for fold in 0..info.folds {
        units.push(Unit::Without(fold));
        // Leaving out the only kind would leave nothing to learn from.
        if kinds.len() > 1 {
            units.extend(kinds.iter().map(|kind| Unit::WithoutKind(fold, kind.clone())));
        }
    }
    units.push(Unit::Whole);
    units.retain(|unit| !model(context, unit).methods.is_empty() && teaches(info, unit));
    units
}

/// Whether a unit without a kind is of use: it judges anomalous images of that kind, and has others to learn from.
fn teaches(info: &RunInfo, unit: &Unit) -> bool {
    let Unit::WithoutKind(fold, kind) = unit else { return true };
    let judges = info.images.iter().any(|i| i.fold == *fold && i.sample.defect.as_ref() == Some(kind));
    judges && info.images.iter().any(|i| i.sample.defect.is_some() && unit.sees(i))
}

/// The methods of a unit, untrained.
fn model(context: &FitContext, unit: &Unit) -> Model {
    let model = (context.build)(context.config, context.extractor, context.device);
    unit.keep(model, context.info.label_counts())
}

/// To read losses, a GPU has to be waited for: that is done in one step of so many.
const TOLD_EVERY: usize = 10;

/// The training of one unit.
struct UnitFit<'a> {
    context: &'a FitContext<'a>,
    unit: &'a Unit,
    /// For the log.
    name: String,
    bar: &'a ProgressBar,
}

impl UnitFit<'_> {
    /// Trains the unit to its end, from its last checkpoint if there is one.
    fn train(&self, library: &Library, images: &Images) -> Result<RunProgress, FitError> {
        let FitContext { config, run, progress, .. } = *self.context;
        let checkpoint = self.unit.checkpoint();
        let images = images.of(self.context, self.unit);
        // Weights are drawn when a network is made.
        device::seed(config.seed);
        let mut model = model(self.context, self.unit);
        let mut done = RunProgress::default();
        let steps = images.steps(config);
        let epochs = if model.needs().steps { config.train.epochs_of(steps) } else { 0 };
        let started = Instant::now();
        let seen = TrainingImages::new(library, |image| self.unit.sees(image));
        if let Some(last) = run.checkpoint(&checkpoint)? {
            done = run.progress(&checkpoint)?;
            self.bar.advance(done.epochs_done.min(epochs) * steps);
            if done.finished && done.epochs_done >= epochs {
                self.bar.advance(1);
                return Ok(done);
            }
            model.load(&last)?;
            // With more epochs than before it goes on, and until then nothing may be exported.
            done.finished = false;
            progress.say(&format!("{}: resuming after epoch {}", self.name, done.epochs_done));
        } else {
            model.learn(&seen, false)?;
        }
        let before = done.seconds;
        while done.epochs_done < epochs {
            let epoch = done.epochs_done;
            // Noise is drawn anew from here, so that a resumed run draws what an unbroken one would.
            device::seed(config.seed.wrapping_add(1 + epoch as u64));
            let epoch_started = Instant::now();
            let (losses, waited) = self.epoch(&mut model, &images, epoch, steps)?;
            let took = epoch_started.elapsed().as_secs_f64();
            let (rate, idle) = (steps as f64 / took, 100.0 * waited.as_secs_f64() / took);
            done.epochs_done = epoch + 1;
            done.seconds = before + started.elapsed().as_secs_f64();
            done.warning = model.methods.iter().find_map(|method| method.doubt(&losses));
            progress.say(&format!(
                "{}, epoch {:>3}: {losses}; {rate:.2} steps/s, {idle:.0} % of the time waiting for images",
                self.name,
                epoch + 1
            ));
            if let Some(warning) = &done.warning {
                progress.say(&format!("warning: {warning}"));
            }
            done.history.push(EpochLosses { epoch: epoch + 1, losses });
            if done.epochs_done < epochs && done.epochs_done.is_multiple_of(config.train.checkpoint_every) {
                self.keep(&model, &done)?;
            }
        }
        model.learn(&seen, true)?;
        done.finished = true;
        done.seconds = before + started.elapsed().as_secs_f64();
        self.keep(&model, &done)?;
        self.bar.advance(1);
        Ok(done)
    }

    /// Whether a step, counted from 1, tells its losses: every one on the CPU; of a GPU's the last of so many, and the last of all, by which time a
    /// loss that is no number has spread.
    fn tells(&self, step: usize, steps: usize) -> bool {
        *self.context.device == device::cpu() || step.is_multiple_of(TOLD_EVERY) || step == steps
    }

    fn keep(&self, model: &Model, done: &RunProgress) -> Result<(), FitError> {
        let checkpoint = self.unit.checkpoint();
        self.context.run.replace_checkpoint::<FitError>(&checkpoint, done, |folder| Ok(model.save(folder)?))
    }

    /// All steps of one epoch, with the next batch read meanwhile; returns the mean losses of those that tell them, and how long no batch was
    /// there.
    fn epoch(
        &self,
        model: &mut Model,
        images: &UnitImages,
        epoch: usize,
        steps: usize,
    ) -> Result<(Losses, Duration), FitError> {
        let config = self.context.config;
        let (mut mean, mut waited) = (MeanLosses::default(), Duration::ZERO);
        std::thread::scope(|scope| {
            let batches = images.epoch(scope, config, epoch);
            for step in 0.. {
                let asked = Instant::now();
                let Ok(batch) = batches.recv() else { break };
                waited += asked.elapsed();
                let progress = (epoch * steps + step) as f64 / (config.train.epochs_of(steps) * steps) as f64;
                let mut batch = batch?;
                batch.tell = self.tells(step + 1, steps);
                let losses = model.step(&batch, progress);
                if let Some((loss, value)) = losses.not_finite() {
                    return Err(FitError::Diverged { loss: loss.to_owned(), value, epoch: epoch + 1 });
                }
                if batch.tell {
                    mean.add(&losses);
                }
                self.bar.message(format!("{}, epoch {}", self.name, epoch + 1));
                self.bar.advance(1);
            }
            Ok((mean.losses(), waited))
        })
    }
}

/// All terms of a model alike, for its size.
fn everything(model: &Model) -> TermWeights {
    TermWeights::equal(&model.terms())
}
