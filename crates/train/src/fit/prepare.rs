//! Starting a run, or finding the one that is to go on; and what can be said before anything is trained.

use super::images::Images;
use super::{FitContext, FitError, FitOptions, budget, everything, model};
use crate::augment::AnomalySource;
use crate::config::{Build, TrainConfig};
use crate::datasets::{Classes, DataError, DataSet, LabelledShare, Sample, coarse_labels, evenly};
use crate::doctor;
use crate::features::{Extractor, FeatureError};
use crate::graph::{ChannelStatistics, Ranges};
use crate::methods::Labelled;
use crate::progress::ProgressDisplay;
use crate::quantise;
use crate::run::{self, RunFolder, RunFolderError, RunInfo, Unit};

/// Images that the channel statistics are taken from.
const STATISTICS_IMAGES: usize = 200;
/// A shorter training set can teach neither the net nor a threshold.
const MIN_TRAINING_IMAGES: usize = 40;
/// With fewer anomalous images no number says much.
const FEW_LABELS: usize = 10;

/// What a fit starts from.
pub struct Prepared {
    /// With the input's size, if a budget was given.
    pub config: TrainConfig,
    pub extractor: Extractor,
    pub info: RunInfo,
}

/// Loads or starts the run: the input's size, folds, digest, channel statistics.
pub fn prepare(
    options: &FitOptions,
    run: &RunFolder,
    build: Build,
    progress: &ProgressDisplay,
) -> Result<Prepared, FitError> {
    let mut data = DataSet::open_all(&options.data)?;
    data.need_training_images(MIN_TRAINING_IMAGES)?;
    let resumes = run.exists();
    if resumes && !options.resume {
        return Err(RunFolderError::Exists(run.folder.clone()).into());
    }
    let config = if resumes {
        settled(&options.config, run)?
    } else {
        budget::resolved(&options.config, &data, build, progress)?
    };
    let weights = config.backbone.weights(config.weights.as_deref())?;
    if let Some(doubt) = weights.doubt() {
        progress.say(&format!("warning: {doubt}"));
    }
    let extractor = |statistics: Option<&[ChannelStatistics]>, ranges: Option<&Ranges>| {
        Extractor::new(config.reading(), &weights, statistics, ranges)
    };
    if resumes {
        let info = resumed(&config, run, &data)?;
        let extractor = extractor(info.spread(), info.ranges.as_ref())?;
        return Ok(Prepared { config, extractor, info });
    }
    for line in doctor::warning_lines(&doctor::examine(&data, progress)?) {
        progress.say(&line);
    }
    let data_digest = data.training_digest()?;
    data.train_anomalous = labelled(&config, std::mem::take(&mut data.train_anomalous), data.train_normal.len())?;
    let images = run::deal(&data, config.validation.folds, config.seed)?;
    let folds = images.iter().map(|image| image.fold + 1).max().unwrap_or(0);
    let mut info = RunInfo { data: data.root.clone(), data_digest, images, folds, statistics: vec![], ranges: None };
    if config.features.standardise {
        progress.say("measuring the feature channels");
        info.statistics = measure(&extractor(None, None)?, &info.placed())?;
    }
    if config.features.int8 {
        let exact = extractor(info.spread(), None)?;
        let (samples, calibration) = (info.typical(config.quantise.images, |_| true), config.quantise.calibration);
        info.ranges = Some(quantise::measure(&exact.graph, &exact, &samples, calibration, progress)?);
    }
    let extractor = extractor(info.spread(), info.ranges.as_ref())?;
    run.start(&config, &info)?;
    Ok(Prepared { config, extractor, info })
}

/// The config with the input's size that the run has settled on.
fn settled(config: &TrainConfig, run: &RunFolder) -> Result<TrainConfig, FitError> {
    let mut config = config.clone();
    if config.budget.is_some() {
        config.input = TrainConfig::of_run(run)?.input;
    }
    Ok(config)
}

/// The run's own account, if it was made with this config and these images.
fn resumed(config: &TrainConfig, run: &RunFolder, data: &DataSet) -> Result<RunInfo, FitError> {
    let changed = |what| FitError::from(RunFolderError::Changed { run: run.folder.clone(), what });
    let info = run.info()?;
    // More epochs are the one change that a resumed run may ask for; what only `export` reads does not count.
    let mut earlier = TrainConfig::of_run(run)?;
    earlier.train.epochs = config.train.epochs;
    earlier.quantise = config.quantise.clone();
    if earlier != *config {
        return Err(changed("config"));
    }
    if info.data_digest != data.training_digest()? {
        return Err(changed("training data set"));
    }
    Ok(info)
}

/// Channel statistics over at most [`STATISTICS_IMAGES`] of the normal training images.
fn measure(extractor: &Extractor, images: &[Labelled]) -> Result<Vec<ChannelStatistics>, FeatureError> {
    let normal: Vec<&Sample> = images.iter().map(|image| &image.sample).filter(|s| s.defect.is_none()).collect();
    extractor.statistics(&evenly(normal, STATISTICS_IMAGES).into_iter().cloned().collect::<Vec<_>>())
}

/// The coarse-labelled anomalies that this run may know of.
fn labelled(config: &TrainConfig, all: Vec<Sample>, normals: usize) -> Result<Vec<Sample>, DataError> {
    let wanted = &config.anomalies;
    if wanted.source == AnomalySource::None || all.is_empty() {
        return Ok(vec![]);
    }
    let share = if wanted.share == 0.0 { LabelledShare::All } else { LabelledShare::OfTrainingSet(wanted.share) };
    let classes = if wanted.classes == 0 { Classes::All } else { Classes::Drawn(wanted.classes) };
    coarse_labels(all, share, classes, normals, config.seed)
}

/// Says what will be trained on what, and what such data cannot show.
pub fn describe(context: &FitContext, images: &Images, device: &str) {
    let FitContext { config, extractor, info, progress, .. } = *context;
    let whole = model(context, &Unit::Whole);
    let graph = whole.graph(extractor, &everything(&whole));
    let backbone = crate::graph::Graph { map: None, ..extractor.graph.clone() };
    let own = |all: u64, extractor: u64| all.saturating_sub(extractor) as f64;
    let labels = info.labels();
    let normals = info.images.len() - labels;
    let names: Vec<String> = whole.methods.iter().map(|method| method.name()).collect();
    progress.say(&format!(
        "{}: {} on {} ({:.2} M parameters, {:.3} GMAC), all behind it {:.2} M, {:.3} GMAC at {}x{}; {normals} normal and {labels} anomalous \
         images in {} folds, {} anomalies to train on; device {device}",
        config.name,
        names.join(", "),
        config.backbone.name(),
        backbone.parameters() as f64 / 1e6,
        backbone.macs() as f64 / 1e9,
        own(graph.parameters(), backbone.parameters()) / 1e6,
        own(graph.macs(), backbone.macs()) / 1e9,
        config.input.width,
        config.input.height,
        info.folds,
        images.anomalous(),
    ));
    for method in &(context.build)(config, extractor, context.device).methods {
        if method.needs().labels > labels {
            let (name, needed) = (method.name(), method.needs().labels);
            progress.say(&format!("{name} is left out: it needs {needed} labelled anomalies, there are {labels}"));
        }
    }
    progress.say(&prospect(normals, labels, config.false_alarm_budget));
}

/// What so many images can show at all.
fn prospect(normals: usize, labels: usize, budget: f32) -> String {
    let ckaad_inspect::Prospect { rank, expected_rate, interval } = ckaad_inspect::expected(normals, budget);
    let few = if labels == 0 {
        "; without labelled anomalies nothing tells how many defects are found".into()
    } else if labels < FEW_LABELS {
        format!("; {labels} labelled anomalies say little of how many defects are found")
    } else {
        String::new()
    };
    let budget = f64::from(budget) * 100.0;
    let promise = ckaad_bundle::promise(normals as u32, rank, expected_rate, interval);
    format!("for a false-alarm budget of {budget:.2} % the threshold will be {promise}{few}")
}
