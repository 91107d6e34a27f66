//! Starting a run, or finding the one that is to go on; and what can be said before anything is trained.

use super::images::Images;
use super::{FitContext, FitError, FitOptions, budget, everything, model};
use crate::augment::AnomalySource;
use crate::config::{Build, MethodChoice, MethodKind, TrainConfig};
use crate::datasets::{Classes, DataError, DataSet, LabelledShare, Parts, Sample, coarse_labels, evenly};
use crate::device;
use crate::doctor;
use crate::features::{Extractor, FeatureError};
use crate::graph::{ChannelStatistics, Ranges};
use crate::methods::{Labelled, Model, Needs};
use crate::progress::ProgressDisplay;
use crate::quantise;
use crate::run::{self, RunFolder, RunFolderError, RunInfo, Unit};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Images that the channel statistics are taken from.
const STATISTICS_IMAGES: usize = 200;
/// A shorter training set can teach neither the net nor a threshold.
const MIN_TRAINING_IMAGES: usize = 40;
/// Parts of which all views are normal, where a method learns from whole ones; each fold's model sees most of them.
const MIN_NORMAL_PARTS: usize = 10;
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
    let asked = asked(options, &data)?;
    let resumes = run.exists();
    if resumes && !options.resume {
        return Err(RunFolderError::Exists(run.folder.clone()).into());
    }
    let config = match &options.method {
        _ if resumes => settled(&asked, run)?,
        Some(MethodChoice::Auto) => budget::resolved_for(&lists(&asked), &asked, &data, build, progress)?,
        _ => budget::resolved(&asked, &data, build, progress)?,
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
    let plain = extractor(None, None)?;
    let untrained = build(&config, &plain, &device::cpu());
    if untrained.needs().views > 1 {
        whole_parts(&mut data, &config.views, progress)?;
    }
    let images = run::deal(&data, config.validation.folds, config.seed)?;
    let folds = images.iter().map(|image| image.fold + 1).max().unwrap_or(0);
    let choose = options.method == Some(MethodChoice::Auto);
    let mut info =
        RunInfo { data: data.root.clone(), data_digest, images, folds, statistics: vec![], ranges: None, choose };
    needs_a_map(untrained, &info)?;
    if config.features.standardise {
        progress.say("measuring the feature channels");
        info.statistics = measure(&plain, &info.placed())?;
    }
    if config.features.int8 {
        let exact = extractor(info.spread(), None)?;
        let (samples, calibration) =
            (info.typical_parts(&[], config.quantise.images, |_| true), config.quantise.calibration);
        info.ranges = Some(quantise::measure(&exact.graph, &exact, &samples, calibration, progress)?);
    }
    let extractor = extractor(info.spread(), info.ranges.as_ref())?;
    run.start(&config, &info)?;
    Ok(Prepared { config, extractor, info })
}

/// The config with the methods that the command line asks for.
fn asked(options: &FitOptions, data: &DataSet) -> Result<TrainConfig, FitError> {
    let mut config = options.config.clone();
    config.methods = match &options.method {
        None => return Ok(config),
        Some(MethodChoice::These(methods)) => methods.clone(),
        Some(MethodChoice::Auto) => {
            let labels = labelled(&config, data.train_anomalous.clone(), data.train_normal.len())?.len();
            [MethodKind::BASE.to_vec(), MethodKind::extras(&config, labels)].concat()
        }
    };
    // Keys of methods that the file does not list were not looked at.
    config.check(Path::new("--method"))?;
    if options.method == Some(MethodChoice::Auto) {
        TrainConfig { methods: MethodKind::BASE.to_vec(), ..config.clone() }.check(Path::new("--method auto"))?;
    }
    Ok(config)
}

/// What is always tried, with each of the others.
fn lists(config: &TrainConfig) -> Vec<Vec<MethodKind>> {
    let (base, extras) = MethodKind::apart(&config.methods);
    let with = |kind: &MethodKind| [&base[..], &[*kind]].concat();
    [vec![base.clone()], extras.iter().map(with).collect()].concat()
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
    if info.data_digest != data.training_digest()? {
        return Err(changed("training data set"));
    }
    // More epochs are the one change that a resumed run may ask for; what only `export` reads does not count.
    let mut earlier = TrainConfig::of_run(run)?;
    earlier.train.epochs = config.train.epochs;
    earlier.quantise = config.quantise.clone();
    if earlier != *config {
        let methods = earlier.methods == config.methods;
        return Err(changed(if methods { "config" } else { "list of methods (methods, or --method)" }));
    }
    // What is trained now may be worth something else.
    run.forget_choice()?;
    Ok(info)
}

/// Leaves out what is no view of a part that is there from all of them.
fn whole_parts(data: &mut DataSet, views: &[String], progress: &ProgressDisplay) -> Result<(), FitError> {
    let all = || data.train_normal.iter().chain(&data.validation_normal).chain(&data.train_anomalous);
    let parts = Parts::of(all(), views);
    let kept: BTreeSet<PathBuf> = {
        let samples: Vec<&Sample> = all().collect();
        parts.complete.iter().flatten().map(|&i| samples[i].path.clone()).collect()
    };
    let left_out = all().count() - kept.len();
    for samples in [&mut data.train_normal, &mut data.validation_normal, &mut data.train_anomalous] {
        samples.retain(|sample| kept.contains(&sample.path));
    }
    let normal = Parts::of(data.train_normal.iter().chain(&data.validation_normal), views).complete.len();
    if normal < MIN_NORMAL_PARTS {
        let (data, views) = (data.root.clone(), views.join(", "));
        return Err(FitError::FewParts { data, views, normal, needed: MIN_NORMAL_PARTS });
    }
    if let Some(first) = parts.incomplete.first() {
        progress.say(&format!(
            "{left_out} images are left out, of parts that are not there from all views, or double ({first} first)"
        ));
    }
    Ok(data.need_training_images(MIN_TRAINING_IMAGES)?)
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
    for (name, why) in left_out(&(context.build)(config, extractor, context.device), info) {
        progress.say(&format!("{name} is left out: {why}"));
    }
    progress.say(&prospect(normals, labels, config.false_alarm_budget));
}

/// The methods that the labels cannot teach, and why.
fn left_out(model: &Model, info: &RunInfo) -> Vec<(String, String)> {
    let counts = info.label_counts();
    let why = |needs: &Needs| match needs.labels > counts.all {
        true => format!("it needs {} labelled anomalies, there are {}", needs.labels, counts.all),
        false => format!(
            "the models of all folds need {} labelled anomalies, and one sees {}",
            needs.labels_a_fold, counts.seen
        ),
    };
    let untaught = model.methods.iter().filter(|method| !counts.teach(&method.needs()));
    untaught.map(|method| (method.name(), why(&method.needs()))).collect()
}

/// Refuses a run whose model would have no map.
fn needs_a_map(model: Model, info: &RunInfo) -> Result<(), FitError> {
    let methods = model.methods.iter().map(|method| method.name()).collect::<Vec<_>>().join(", ");
    let needed = left_out(&model, info).into_iter().map(|(name, why)| format!("{name} is left out, for {why}"));
    let needed: Vec<String> = needed.collect();
    let needed = if needed.is_empty() { String::new() } else { format!(": {}", needed.join("; ")) };
    let kept = Unit::Whole.keep(model, info.label_counts());
    if kept.terms().iter().any(|term| term.is_map()) {
        return Ok(());
    }
    Err(FitError::NoMap { methods, needed })
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
