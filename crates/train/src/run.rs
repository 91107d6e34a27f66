//! A run: the folder in which `fit` keeps all that `export` and `--resume` need.
//!
//! ```text
//! RUN/config.toml          the config, every key resolved
//! RUN/run.json             data set, split, channel statistics, training-data digest
//! RUN/cache/*.f16          frozen features
//! RUN/last/  RUN/best/     checkpoints: networks, optimisers, progress.json (epochs done, validations, the best one)
//! ```
//! Every file and every checkpoint is written beside its name and renamed, so that a run that is stopped at any instant
//! can be resumed.

use crate::datasets::{self, DataSet, Sample};
use crate::graph::ChannelStatistics;
use crate::methods::ckaad::Losses;
use ckaad_bundle::replace;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
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

/// What is held out of the training images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Share of the normal training images that are held out: they choose the epoch and calibrate the threshold.
    pub normal_share: f64,
    /// Share of the coarse-labelled anomalies that are held out: they choose the epoch and the score rule.
    pub anomalous_share: f64,
    /// Epochs between two validations.
    pub every: usize,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { normal_share: 0.12, anomalous_share: 0.25, every: 5 }
    }
}

/// Which training image is used for what; paths relative to the data set. [`samples`] gives them as they lie on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Normal images to learn from.
    pub train_normal: Vec<Sample>,
    /// Coarse-labelled anomalies to learn from.
    pub train_anomalous: Vec<Sample>,
    /// Held-out normal images.
    pub validation_normal: Vec<Sample>,
    /// Held-out anomalies.
    pub validation_anomalous: Vec<Sample>,
}

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The data set's folder.
    pub data: PathBuf,
    /// See [`DataSet::training_digest`].
    pub data_digest: String,
    /// Which image is used for what.
    pub split: Split,
    /// One a stream of the backbone; empty when features are not standardised.
    pub statistics: Vec<ChannelStatistics>,
}

/// One validation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Validation {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean losses of the epoch.
    pub losses: Losses,
    /// The larger, the better: image AUROC where anomalies are held out, else the negative reconstruction error.
    pub quality: f64,
}

/// `progress.json` of a checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunProgress {
    /// Epochs that are done.
    pub epochs_done: usize,
    /// Time that they took.
    pub seconds: f64,
    /// In their order.
    pub validations: Vec<Validation>,
    /// The best of them; `None` before the first, and for a method that has none.
    pub best: Option<Validation>,
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

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RunFolderError> {
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

impl Split {
    /// Draws the validation images; the same seed draws the same ones.
    ///
    /// Whole groups are held out: no part or patient is on both sides. A set's own validation images are taken as they
    /// are; of the anomalies each kind of defect gives its share, as far as it has more than one group.
    ///
    /// # Errors
    /// All normal images are of one group.
    pub fn draw(data: &DataSet, config: &ValidationConfig, seed: u64) -> Result<Split, RunFolderError> {
        let keyed = |s| (datasets::key(s, &data.root), s);
        let mut held: BTreeSet<String> = data.validation_normal.iter().map(|s| keyed(s).0).collect();
        let own_validation = !held.is_empty();
        let samples: Vec<(String, &Sample)> =
            data.train_normal.iter().chain(&data.train_anomalous).map(keyed).collect();
        let keys: BTreeSet<&String> = samples.iter().map(|(key, _)| key).collect();
        let mut order: Vec<String> = keys.into_iter().cloned().collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        datasets::hold_out(&samples, &order, &mut held, |sample| match sample.defect {
            Some(_) => config.anomalous_share,
            None if own_validation => 0.0,
            None => config.normal_share,
        });
        let is_held = |s: &&Sample| held.contains(&datasets::key(s, &data.root));
        let part = |samples: &[Sample], on_hold: bool| -> Vec<Sample> {
            samples.iter().filter(|s| is_held(s) == on_hold).map(|s| relative(s, &data.root)).collect()
        };
        let own = data.validation_normal.iter().map(|s| relative(s, &data.root));
        let split = Split {
            train_normal: part(&data.train_normal, false),
            train_anomalous: part(&data.train_anomalous, false),
            validation_normal: own.chain(part(&data.train_normal, true)).collect(),
            validation_anomalous: part(&data.train_anomalous, true),
        };
        if split.validation_normal.is_empty() || split.train_normal.is_empty() {
            return Err(RunFolderError::OneGroup { data: data.root.clone(), images: data.train_normal.len() });
        }
        Ok(split)
    }
}

fn relative(sample: &Sample, root: &Path) -> Sample {
    let below = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    Sample { path: below(&sample.path), mask: sample.mask.as_deref().map(below), ..sample.clone() }
}

/// The samples of a split as they lie below `root`.
pub fn samples(root: &Path, split: &[Sample]) -> Vec<Sample> {
    let placed =
        |s: &Sample| Sample { path: root.join(&s.path), mask: s.mask.as_ref().map(|m| root.join(m)), ..s.clone() };
    split.iter().map(placed).collect()
}
