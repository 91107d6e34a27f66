//! A run: the folder in which `fit` keeps all that `export` and `--resume` need.
//!
//! ```text
//! RUN/config.toml          the config, every key resolved
//! RUN/run.json             data set, every training image with its fold, channel statistics, ranges of the backbone,
//!                          training-data digest
//! RUN/cache/*.f16          frozen features
//! RUN/fold-1/ ...          checkpoints of the model that never saw the images of a fold: methods, progress.json
//! RUN/fold-1.crack/ ...    of the methods that learn in a pass: without the fold, and without any defect of a kind
//! RUN/whole/               of the model that saw all
//! RUN/choice.json          which of the methods are exported, where the folds chose; `fit --method auto` writes it
//! RUN/judged.json          every training image with its score by a model that never saw it; `export` writes it
//! ```
//! Every file and every checkpoint is written beside its name and renamed, so that a run that is stopped at any instant
//! can be resumed.

use crate::datasets::{self, DataSet, Sample};
use crate::graph::{ChannelStatistics, Ranges};
use crate::methods::{Labelled, Losses, Model, Needs};
use ckaad_bundle::replace;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Why the folder of a run cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum RunFolderError {
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
    #[error("cannot read {path}: {cause}; is {run} a folder that ckaad-train fit wrote?")]
    Read { path: PathBuf, run: PathBuf, cause: std::io::Error },
    #[error("{path} is damaged: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("{0} holds a run already; give --resume to go on with it, or another --out")]
    Exists(PathBuf),
    #[error("{run} was made with another {what}; resume with the same, or give another --out")]
    Changed { run: PathBuf, what: &'static str },
    #[error(
        "no normal image of {data} can be held out: all {images} are of one part or patient; those of two are needed"
    )]
    OneGroup { data: PathBuf, images: usize },
}

/// `[validation]` of the training config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// The training images are dealt into so many folds. For each of them a model is trained without it and judges it:
    /// weights, score rule and threshold come from these verdicts.
    pub folds: usize,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { folds: 5 }
    }
}

/// `run.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The data set's folder.
    pub data: PathBuf,
    /// See [`DataSet::training_digest`].
    pub data_digest: String,
    /// Every training image, normal ones first; paths relative to the data set.
    pub images: Vec<Labelled>,
    /// How many folds there are.
    pub folds: usize,
    /// One a stream of the backbone; empty when features are not standardised.
    pub statistics: Vec<ChannelStatistics>,
    /// What the tensors of the backbone cover, where features are computed in int8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
    /// Whether the folds are to choose among the methods before anything is exported.
    #[serde(default)]
    pub choose: bool,
}

impl RunInfo {
    /// What features are standardised with; none where they are not.
    pub fn spread(&self) -> Option<&[ChannelStatistics]> {
        (!self.statistics.is_empty()).then_some(self.statistics.as_slice())
    }

    /// About `most` normal images and a quarter as many anomalous ones, evenly out of those that `may` be taken.
    pub fn typical(&self, most: usize, may: impl Fn(&Labelled) -> bool) -> Vec<Sample> {
        let placed = self.placed();
        let of_class = |anomalous: bool, most: usize| {
            let all: Vec<Sample> = placed
                .iter()
                .filter(|image| may(image) && image.sample.defect.is_some() == anomalous)
                .map(|image| image.sample.clone())
                .collect();
            datasets::evenly(all, most)
        };
        [of_class(false, most), of_class(true, most / 4)].concat()
    }

    /// As [`RunInfo::typical`], as parts with the views of these names; without names each image is one.
    pub fn typical_parts(&self, views: &[String], most: usize, may: impl Fn(&Labelled) -> bool) -> Vec<Vec<Sample>> {
        if views.is_empty() {
            return self.typical(most, may).into_iter().map(|sample| vec![sample]).collect();
        }
        let placed: Vec<Labelled> = self.placed().into_iter().filter(may).collect();
        let parts = datasets::Parts::of(placed.iter().map(|image| &image.sample), views).complete;
        let shows = |part: &Vec<usize>| part.iter().any(|&i| placed[i].sample.defect.is_some());
        let of_class = |anomalous: bool, most: usize| {
            let all: Vec<&Vec<usize>> = parts.iter().filter(|part| shows(part) == anomalous).collect();
            datasets::evenly(all, most.div_ceil(views.len()))
        };
        let chosen = [of_class(false, most), of_class(true, most / 4)].concat();
        chosen.into_iter().map(|part| part.iter().map(|&i| placed[i].sample.clone()).collect()).collect()
    }

    /// The images as they lie on disk.
    pub fn placed(&self) -> Vec<Labelled> {
        let placed = |image: &Labelled| Labelled { sample: placed(&self.data, &image.sample), fold: image.fold };
        self.images.iter().map(placed).collect()
    }

    /// The number of anomalous images.
    pub fn labels(&self) -> usize {
        self.images.iter().filter(|image| image.sample.defect.is_some()).count()
    }

    /// All anomalous images, and how many of them the model without a fold sees at least.
    pub fn label_counts(&self) -> LabelCounts {
        let all = self.labels();
        let held = |fold: usize| self.images.iter().filter(|i| i.fold == fold && i.sample.defect.is_some()).count();
        LabelCounts { all, seen: all - (0..self.folds).map(held).max().unwrap_or(0) }
    }

    /// The kinds of defects, by name.
    pub fn kinds(&self) -> BTreeSet<String> {
        self.images.iter().filter_map(|image| image.sample.defect.clone()).collect()
    }
}

/// How many anomalous images there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelCounts {
    /// All.
    pub all: usize,
    /// Those that the model of a fold sees, where these are fewest.
    pub seen: usize,
}

impl LabelCounts {
    /// Whether they are enough for a method.
    pub fn teach(self, needs: &Needs) -> bool {
        needs.labels <= self.all && needs.labels_a_fold <= self.seen
    }
}

/// One model of a run, by what it was trained without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nothing was left out.
    Whole,
    /// The images of one fold.
    Without(usize),
    /// The images of one fold, and all of one kind of defect.
    WithoutKind(usize, String),
}

impl Unit {
    /// Whether it may see an image.
    pub fn sees(&self, image: &Labelled) -> bool {
        match self {
            Unit::Whole => true,
            Unit::Without(fold) => image.fold != *fold,
            Unit::WithoutKind(fold, kind) => image.fold != *fold && image.sample.defect.as_ref() != Some(kind),
        }
    }

    /// The methods of `model` that are part of it, where so many images are anomalous: without those that so few cannot
    /// teach; and of one that leaves out a kind, those that labels teach in a pass. Steps are too dear to be taken once
    /// more for each kind.
    pub fn keep(&self, mut model: Model, labels: LabelCounts) -> Model {
        model.methods.retain(|method| {
            let needs = method.needs();
            let by_kind = !needs.steps && needs.labels > 0;
            labels.teach(&needs) && (by_kind || !matches!(self, Unit::WithoutKind(..)))
        });
        model
    }

    /// The name of its checkpoint.
    pub fn checkpoint(&self) -> String {
        match self {
            Unit::Whole => "whole".into(),
            Unit::Without(fold) => format!("fold-{}", fold + 1),
            // A slash in a kind's name must not become a path, and two kinds not one name.
            Unit::WithoutKind(fold, kind) => {
                let name = kind.replace('_', "__").replace('/', "_s").replace('\\', "_b");
                format!("fold-{}.{name}", fold + 1)
            }
        }
    }
}

/// One entry of `judged.json`: a training image, judged by a model that never saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutScore {
    /// Relative to the data set.
    pub path: String,
    /// Its kind of defect; none of a normal image.
    #[serde(default)]
    pub defect: Option<String>,
    /// The fold that it is in: the model that judged it is the one without.
    pub fold: usize,
    /// The image score: the larger, the more anomalous.
    pub score: f32,
}

/// Name of the file of a run that holds a [`HeldOutScore`] a training image.
pub const VERDICTS: &str = "judged.json";

/// Name of the file of a run that says which of its methods are exported.
const CHOICE: &str = "choice.json";

/// The mean losses of one epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochLosses {
    /// Counted from 1.
    pub epoch: usize,
    /// Over its steps.
    pub losses: Losses,
}

/// `progress.json` of a checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunProgress {
    /// Epochs that are done.
    pub epochs_done: usize,
    /// Whether nothing is left to be learned.
    pub finished: bool,
    /// Time that it took.
    pub seconds: f64,
    /// In their order.
    pub history: Vec<EpochLosses>,
    /// What is wrong with the training, as far as it can be seen from its losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Name of the config in a run.
const CONFIG: &str = "config.toml";

/// The folder of one run.
pub struct RunFolder {
    /// Where it lies.
    pub folder: PathBuf,
}

impl RunFolder {
    /// The run in `folder`, which need not be there yet.
    pub fn at(folder: &Path) -> RunFolder {
        RunFolder { folder: folder.to_owned() }
    }

    /// A file of the run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether a run was started here.
    pub fn exists(&self) -> bool {
        self.path("run.json").exists()
    }

    /// Where the config lies.
    pub fn config_path(&self) -> PathBuf {
        self.path(CONFIG)
    }

    /// The text of the config that the run was started with.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn config(&self) -> Result<String, RunFolderError> {
        self.text(&self.config_path())
    }

    /// What the run knows of its data.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn info(&self) -> Result<RunInfo, RunFolderError> {
        self.json("run.json")
    }

    /// What the checkpoint `name` says of its run.
    pub fn progress(&self, name: &str) -> Result<RunProgress, RunFolderError> {
        self.json(&format!("{name}/progress.json"))
    }

    /// The folder of the checkpoint `name`; the one before it when a replacement was cut short between its two renames.
    pub fn checkpoint(&self, name: &str) -> Result<Option<PathBuf>, RunFolderError> {
        let (path, old) = (self.path(name), self.path(&format!("{name}.old")));
        if !path.is_dir() && old.is_dir() {
            rename(&old, &path)?;
        }
        Ok(path.is_dir().then_some(path))
    }

    /// Replaces the checkpoint `name` by what `write` puts into a new folder, whole or not at all.
    pub fn replace_checkpoint<E: From<RunFolderError>>(
        &self,
        name: &str,
        progress: &RunProgress,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let [path, partial, old] = ["", ".partial", ".old"].map(|suffix| self.path(&format!("{name}{suffix}")));
        for leftover in [&partial, &old] {
            if leftover.is_dir() {
                std::fs::remove_dir_all(leftover)
                    .map_err(|cause| RunFolderError::Write { path: leftover.clone(), cause })?;
            }
        }
        std::fs::create_dir_all(&partial).map_err(|cause| RunFolderError::Write { path: partial.clone(), cause })?;
        write(&partial)?;
        self.write_json(&format!("{name}.partial/progress.json"), progress)?;
        if path.is_dir() {
            rename(&path, &old)?;
        }
        Ok(rename(&partial, &path)?)
    }

    /// Makes the folder of a run and writes its config and what it knows of its data.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn start(&self, config: &impl Serialize, info: &RunInfo) -> Result<(), RunFolderError> {
        let folder = self.path("cache");
        std::fs::create_dir_all(&folder).map_err(|cause| RunFolderError::Write { path: folder, cause })?;
        let text = toml::to_string_pretty(config)
            .map_err(|e| RunFolderError::Malformed { path: self.config_path(), reason: e.to_string() })?;
        self.write(CONFIG, text.as_bytes())?;
        self.write_json("run.json", info)
    }

    /// Keeps what the models of the folds said of the training images.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_verdicts(&self, verdicts: &[HeldOutScore]) -> Result<(), RunFolderError> {
        self.write_json(VERDICTS, verdicts)
    }

    /// Keeps which methods were chosen.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_choice(&self, choice: &impl Serialize) -> Result<(), RunFolderError> {
        self.write_json(CHOICE, choice)
    }

    /// Takes back what [`RunFolder::keep_choice`] kept.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_choice(&self) -> Result<(), RunFolderError> {
        let path = self.choice_path();
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(RunFolderError::Write { path, cause }),
            _ => Ok(()),
        }
    }

    /// Where the choice lies.
    pub fn choice_path(&self) -> PathBuf {
        self.path(CHOICE)
    }

    /// What [`RunFolder::keep_choice`] kept; `None` where nothing was chosen.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn choice<T: DeserializeOwned>(&self) -> Result<Option<T>, RunFolderError> {
        if self.path(CHOICE).exists() { self.json(CHOICE).map(Some) } else { Ok(None) }
    }

    fn write_json<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), RunFolderError> {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|e| RunFolderError::Malformed { path: self.path(name), reason: e.to_string() })?;
        self.write(name, &text)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunFolderError> {
        let path = self.path(name);
        replace(&path, |file| file.write_all(bytes)).map_err(|cause| RunFolderError::Write { path, cause })
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, RunFolderError> {
        let path = self.path(name);
        let text = self.text(&path)?;
        serde_json::from_str(&text).map_err(|e| RunFolderError::Malformed { path, reason: e.to_string() })
    }

    fn text(&self, path: &Path) -> Result<String, RunFolderError> {
        let run = self.folder.clone();
        std::fs::read_to_string(path).map_err(|cause| RunFolderError::Read { path: path.to_owned(), run, cause })
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), RunFolderError> {
    std::fs::rename(from, to).map_err(|cause| RunFolderError::Write { path: to.to_owned(), cause })
}

/// What is spread evenly over the folds: of one of several sets, normal images or those of one kind of defect.
type Class<'a> = (Option<&'a str>, Option<&'a str>);

fn class(sample: &Sample) -> Class<'_> {
    (sample.category.as_deref(), sample.defect.as_deref())
}

/// Deals the training images of `data` into at most `folds` folds; the same seed deals alike. Normal images come first.
///
/// Whole groups are dealt: no part or patient is in two folds. Each class, the normal images of every set and every kind of defect, is
/// spread as evenly as its groups allow. A set's own validation images are normal images like the others.
///
/// # Errors
/// All normal images, or those of one of several sets, are of one group.
pub fn deal(data: &DataSet, folds: usize, seed: u64) -> Result<Vec<Labelled>, RunFolderError> {
    let all = || data.train_normal.iter().chain(&data.validation_normal).chain(&data.train_anomalous);
    let mut groups: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    all().for_each(|s| groups.entry(datasets::key(s, &data.root)).or_default().push(s));
    // Of several sets each: judged by models that all lack it, a set would say nothing of itself.
    let mut normal: BTreeMap<Option<&str>, BTreeSet<&String>> = BTreeMap::new();
    for (key, members) in &groups {
        for sample in members.iter().filter(|s| s.defect.is_none()) {
            normal.entry(sample.category.as_deref()).or_default().insert(key);
        }
    }
    let fewest = normal.iter().min_by_key(|(_, keys)| keys.len());
    let folds = folds.min(fewest.map_or(0, |(_, keys)| keys.len()));
    if folds < 2 {
        let category = fewest.and_then(|(category, _)| *category);
        let images = data.train_normal.iter().filter(|s| s.category.as_deref() == category).count();
        return Err(RunFolderError::OneGroup {
            data: category.map_or_else(|| data.root.clone(), PathBuf::from),
            images,
        });
    }
    let mut order: Vec<(String, Vec<&Sample>)> = groups.into_iter().collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    // Large groups first: the small ones can still even out what they leave.
    order.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    let mut sizes: Vec<BTreeMap<Class, usize>> = vec![BTreeMap::new(); folds];
    let mut fold_of: BTreeMap<String, usize> = BTreeMap::new();
    for (key, members) in &order {
        let fullness = |fold: &usize| {
            let alike: usize = members.iter().map(|s| sizes[*fold].get(&class(s)).copied().unwrap_or(0)).sum();
            (alike, sizes[*fold].values().sum::<usize>())
        };
        let fold = (0..folds).min_by_key(fullness).unwrap_or(0);
        for sample in members {
            *sizes[fold].entry(class(sample)).or_default() += 1;
        }
        fold_of.insert(key.clone(), fold);
    }
    let labelled =
        |s: &Sample| Labelled { fold: fold_of[&datasets::key(s, &data.root)], sample: relative(s, &data.root) };
    Ok(all().map(labelled).collect())
}

fn relative(sample: &Sample, root: &Path) -> Sample {
    let below = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    Sample { path: below(&sample.path), mask: sample.mask.as_ref().map(|m| m.moved(below)), ..sample.clone() }
}

fn placed(root: &Path, sample: &Sample) -> Sample {
    Sample {
        path: root.join(&sample.path),
        mask: sample.mask.as_ref().map(|m| m.moved(|path| root.join(path))),
        ..sample.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where all labels are of one part, a fold's model sees none of them.
    #[test]
    fn labels_are_counted_as_the_models_of_the_folds_see_them() {
        let image = |fold: usize, defect: Option<&str>| Labelled {
            sample: Sample { defect: defect.map(str::to_owned), ..Sample::default() },
            fold,
        };
        let counts = |images: Vec<Labelled>| RunInfo { images, folds: 2, ..RunInfo::default() }.label_counts();
        let spread = counts(vec![image(0, None), image(0, Some("a")), image(1, Some("a")), image(1, Some("b"))]);
        assert_eq!(spread, LabelCounts { all: 3, seen: 1 });
        let together = counts(vec![image(0, None), image(1, Some("a")), image(1, Some("b"))]);
        assert_eq!(together, LabelCounts { all: 2, seen: 0 });
        let needs = |labels, labels_a_fold| Needs { labels, labels_a_fold, ..Needs::default() };
        assert!(together.teach(&needs(2, 0)) && !together.teach(&needs(1, 1)) && !spread.teach(&needs(5, 0)));
    }
}
