//! `ckaad-train fit`: data set → run.

use super::config::{ConfigError, TrainConfig};
use super::datasets::{DataError, DataSet, Sample, Source};
use super::device::{DeviceChoice, DeviceError};
use super::export::graph::Graph;
use super::export::network;
use super::features::{Extractor, FeatureCache, FeatureError};
use super::methods::ckaad::{Batch, Losses, Rates, StepError, Trainer};
use super::metrics;
use super::progress::Progress;
use super::run::{self, Run, RunError, RunInfo, RunProgress, Split, Validation};
use crate::engine::AnomalyMap;
use crate::inspect;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
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
    let config = &options.config;
    let (device, device_name) = options.device.open()?;
    let (extractor, info) = prepare(options, &run, &progress)?;
    let caches = Caches::open(&run, config, &info, &extractor, &progress)?;

    device.seed(config.seed);
    let mut trainer = Trainer::new(&config.net, config.loss, config.train.discriminator, &extractor.scales, &device);
    let mut done = RunProgress::default();
    if let Some(last) = run.checkpoint("last")? {
        done = run.progress("last")?;
        trainer = trainer.load(&last)?;
        progress.say(&format!("resuming after epoch {}", done.epochs_done));
    }
    describe(config, &extractor, &trainer, &caches, &device_name, &progress);

    let steps = caches.train_normal.images.div_ceil(config.train.batch);
    let bar = progress.bar("fit", (config.train.epochs - done.epochs_done.min(config.train.epochs)) * steps);
    let started = Instant::now();
    let before = done.seconds;
    for epoch in done.epochs_done..config.train.epochs {
        let mut sum = Losses::default();
        let epoch_started = Instant::now();
        for (step, picks) in Schedule::draw(config, &caches, epoch).into_iter().enumerate() {
            let normal = caches.train_normal.batch(&picks.normal)?;
            let anomalous = (!picks.anomalous.is_empty()).then(|| caches.train_anomalous.batch(&picks.anomalous));
            let factor = cosine_decay(epoch * steps + step, config.train.epochs * steps);
            let rates = Rates {
                auto_encoder: config.train.learning_rate * factor,
                discriminator: config.train.discriminator_learning_rate * factor,
            };
            let (next, losses) = trainer.step(&normal, anomalous.transpose()?.as_ref(), rates);
            trainer = next;
            check_finite(losses, epoch)?;
            sum.reconstruction += losses.reconstruction / steps as f32;
            sum.discriminator += losses.discriminator / steps as f32;
            sum.adversarial += losses.adversarial / steps as f32;
            bar.message(format!("epoch {epoch}, reconstruction {:.4}", losses.reconstruction));
            bar.advance(1);
        }
        let rate = caches.train_normal.images as f64 / epoch_started.elapsed().as_secs_f64();
        done.epochs_done = epoch + 1;
        done.seconds = before + started.elapsed().as_secs_f64();
        let last = done.epochs_done == config.train.epochs;
        if last || done.epochs_done.is_multiple_of(config.validation.every) {
            let quality = caches.quality(&trainer, config)?;
            let validation = Validation { epoch: done.epochs_done, losses: sum, quality };
            done.validations.push(validation);
            // The later of two equals: it has seen more.
            if done.best.is_none_or(|best| quality >= best.quality) {
                done.best = Some(validation);
                run.replace_checkpoint::<FitError>("best", &done, |folder| Ok(trainer.save(folder)?))?;
            }
            progress.say(&format!(
                "epoch {:>4}: reconstruction {:.4}, discriminator {:.4}, adversarial {:.4}, validation {quality:.4}, {rate:.1} images/s",
                done.epochs_done, sum.reconstruction, sum.discriminator, sum.adversarial
            ));
            run.replace_checkpoint::<FitError>("last", &done, |folder| Ok(trainer.save(folder)?))?;
        }
    }
    Ok(done)
}

/// Loads or starts the run: split, digest, channel statistics.
fn prepare(options: &FitOptions, run: &Run, progress: &Progress) -> Result<(Extractor, RunInfo), FitError> {
    let config = &options.config;
    let data = DataSet::open(&options.data)?;
    data.need_training_images(MIN_TRAINING_IMAGES)?;
    let input = config.input.into();
    if run.exists() {
        if !options.resume {
            return Err(RunError::Exists(run.folder.clone()).into());
        }
        let changed = |what| RunError::Changed { run: run.folder.clone(), what };
        let info = run.info()?;
        // More epochs are the one change that a resumed run may ask for.
        let mut earlier = run.config()?;
        earlier.train.epochs = config.train.epochs;
        if earlier != *config {
            return Err(changed("config").into());
        }
        if info.data_digest != data.training_digest()? {
            return Err(changed("training data set").into());
        }
        let statistics = config.features.standardise.then_some(info.statistics.as_slice());
        return Ok((Extractor::new(config.backbone, &config.features.strides, input, statistics)?, info));
    }
    let split = Split::draw(&data, config)?;
    let mut statistics = vec![];
    let mut extractor = Extractor::new(config.backbone, &config.features.strides, input, None)?;
    if config.features.standardise {
        progress.say("measuring the feature channels");
        let mut normal = run::samples(&data.root, &split.train_normal);
        normal.truncate(STATISTICS_IMAGES);
        statistics = extractor.statistics(&normal)?;
        extractor = Extractor::new(config.backbone, &config.features.strides, input, Some(&statistics))?;
    }
    let info = RunInfo { data: data.root.clone(), data_digest: data.training_digest()?, split, statistics };
    run.start(config, &info)?;
    Ok((extractor, info))
}

fn describe(
    config: &TrainConfig,
    extractor: &Extractor,
    trainer: &Trainer,
    caches: &Caches,
    device: &str,
    progress: &Progress,
) {
    let whole: Graph = network(extractor, &trainer.auto_encoder());
    progress.say(&format!(
        "{}: {} + {:.2} M auto-encoder, {:.2} GMAC at {}x{}; {} normal and {} anomalous images to train on, {} and {} to validate; device {device}",
        config.name,
        config.backbone.name(),
        (whole.parameters() - extractor.graph.parameters()) as f64 / 1e6,
        whole.macs() as f64 / 1e9,
        config.input.width,
        config.input.height,
        caches.train_normal.images,
        caches.train_anomalous.images,
        caches.validation_normal.images,
        caches.validation_anomalous.images,
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

/// The frozen features of each part of the split.
struct Caches {
    train_normal: FeatureCache,
    train_anomalous: FeatureCache,
    validation_normal: FeatureCache,
    validation_anomalous: FeatureCache,
}

impl Caches {
    fn open(
        run: &Run,
        config: &TrainConfig,
        info: &RunInfo,
        extractor: &Extractor,
        progress: &Progress,
    ) -> Result<Caches, FeatureError> {
        let open = |name: &str, split: &[Sample], augmented: bool| {
            let samples = run::samples(&info.data, split);
            let variants = if augmented { config.features.flips.variants() } else { &[(false, false)][..] };
            let path = run.path("cache").join(format!("{name}.f16"));
            FeatureCache::open(&path, extractor, &samples, variants, progress)
        };
        Ok(Caches {
            train_normal: open("train-normal", &info.split.train_normal, true)?,
            train_anomalous: open("train-anomalous", &info.split.train_anomalous, true)?,
            validation_normal: open("validation-normal", &info.split.validation_normal, false)?,
            validation_anomalous: open("validation-anomalous", &info.split.validation_anomalous, false)?,
        })
    }

    /// Image AUROC of the held-out training images under the best score rule; without held-out anomalies the
    /// negative mean of the normal maps.
    fn quality(&self, trainer: &Trainer, config: &TrainConfig) -> Result<f64, FeatureError> {
        let normal = self.validation_normal.maps(trainer)?;
        let anomalous = self.validation_anomalous.maps(trainer)?;
        if anomalous.is_empty() {
            let mean = |m: &AnomalyMap| m.values.iter().sum::<f32>() / m.values.len() as f32;
            return Ok(-f64::from(normal.iter().map(mean).sum::<f32>() / normal.len().max(1) as f32));
        }
        let (width, height) = (config.input.width as usize, config.input.height as usize);
        let labels: Vec<bool> = (0..normal.len() + anomalous.len()).map(|i| i >= normal.len()).collect();
        let maps: Vec<Vec<f32>> =
            normal.iter().chain(&anomalous).map(|m| inspect::smooth(m, width, height, config.score.sigma_px)).collect();
        let auroc = |k: u32| {
            let scores: Vec<f32> = maps.iter().map(|m| inspect::top_k_mean(m, k as usize)).collect();
            metrics::auroc(&scores, &labels).unwrap_or(0.0)
        };
        Ok(super::export::score_rules(config).into_iter().map(auroc).fold(0.0, f64::max))
    }
}

impl FeatureCache {
    fn batch(&self, picks: &[(usize, usize)]) -> Result<Batch, FeatureError> {
        Ok(Batch { count: picks.len(), shapes: self.shapes().to_vec(), values: self.read(picks)? })
    }

    /// Anomaly maps of every image.
    fn maps(&self, trainer: &Trainer) -> Result<Vec<AnomalyMap>, FeatureError> {
        let all: Vec<(usize, usize)> = (0..self.images).map(|i| (i, 0)).collect();
        let mut maps = vec![];
        for picks in all.chunks(16) {
            maps.extend(trainer.maps(&self.batch(picks)?));
        }
        Ok(maps)
    }
}

/// The images of one step: (image, mirrored variant).
struct Picks {
    normal: Vec<(usize, usize)>,
    anomalous: Vec<(usize, usize)>,
}

struct Schedule;

impl Schedule {
    /// The steps of one epoch, the same for the same seed and epoch: each normal image once (the last batch is filled up
    /// from the first), the anomalies cycled.
    fn draw(config: &TrainConfig, caches: &Caches, epoch: usize) -> Vec<Picks> {
        let mut rng = StdRng::seed_from_u64(config.seed ^ (epoch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut shuffled = |cache: &FeatureCache| -> Vec<(usize, usize)> {
            let mut order: Vec<usize> = (0..cache.images).collect();
            order.shuffle(&mut rng);
            order.into_iter().map(|i| (i, rng.random_range(0..cache.variants()))).collect()
        };
        let normal = shuffled(&caches.train_normal);
        let batch = config.train.batch.min(normal.len());
        let use_anomalies = config.train.discriminator && caches.train_anomalous.images > 0;
        let mut anomalous = vec![];
        let steps = normal.len().div_ceil(batch);
        let wanted = if use_anomalies { steps * config.train.anomalous_batch } else { 0 };
        while anomalous.len() < wanted {
            anomalous.extend(shuffled(&caches.train_anomalous));
        }
        (0..steps)
            .map(|step| Picks {
                normal: normal.iter().cycle().skip(step * batch).take(batch).copied().collect(),
                anomalous: anomalous
                    .iter()
                    .skip(step * config.train.anomalous_batch)
                    .take(if use_anomalies { config.train.anomalous_batch } else { 0 })
                    .copied()
                    .collect(),
            })
            .collect()
    }
}
