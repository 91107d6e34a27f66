//! Starting a run, or finding the one that is to go on.

use super::{FitError, FitOptions};
use crate::augment::AnomalySource;
use crate::config::TrainConfig;
use crate::datasets::{Classes, DataError, DataSet, LabelledShare, Sample, coarse_labels};
use crate::features::{Extractor, FeatureError};
use crate::graph::ChannelStatistics;
use crate::progress::ProgressDisplay;
use crate::run::{self, RunFolder, RunFolderError, RunInfo, Split};

/// Images that the channel statistics are taken from.
const STATISTICS_IMAGES: usize = 200;
/// A shorter training set can teach neither the net nor a threshold.
const MIN_TRAINING_IMAGES: usize = 40;

/// Loads or starts the run: split, digest, channel statistics.
pub fn prepare(
    options: &FitOptions,
    run: &RunFolder,
    progress: &ProgressDisplay,
) -> Result<(Extractor, RunInfo), FitError> {
    let config = &options.config;
    let mut data = DataSet::open(&options.data)?;
    data.need_training_images(MIN_TRAINING_IMAGES)?;
    let weights = config.backbone.weights(config.weights.as_deref())?;
    if let Some(doubt) = weights.doubt() {
        progress.say(&format!("warning: {doubt}"));
    }
    let extractor = |statistics: Option<&[ChannelStatistics]>| {
        Extractor::new(config.backbone, &config.features.strides, config.input.into(), &weights, statistics)
    };
    if run.exists() {
        if !options.resume {
            return Err(RunFolderError::Exists(run.folder.clone()).into());
        }
        let info = resumed(config, run, &data)?;
        let statistics = config.features.standardise.then_some(info.statistics.as_slice());
        return Ok((extractor(statistics)?, info));
    }
    let data_digest = data.training_digest()?;
    data.train_anomalous = labelled(config, std::mem::take(&mut data.train_anomalous), data.train_normal.len())?;
    let split = Split::draw(&data, &config.validation, config.seed)?;
    let plain = extractor(None)?;
    let (extractor, statistics) = if config.features.standardise {
        progress.say("measuring the feature channels");
        let statistics = measure(&plain, &data, &split)?;
        (extractor(Some(&statistics))?, statistics)
    } else {
        (plain, vec![])
    };
    let info = RunInfo { data: data.root.clone(), data_digest, split, statistics };
    run.start(config, &info)?;
    Ok((extractor, info))
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

/// Channel statistics over some of the normal training images.
fn measure(extractor: &Extractor, data: &DataSet, split: &Split) -> Result<Vec<ChannelStatistics>, FeatureError> {
    let mut normal = run::samples(&data.root, &split.train_normal);
    normal.truncate(STATISTICS_IMAGES);
    extractor.statistics(&normal)
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
