//! Data sets on disk → lists of labelled images. Nothing is decoded here but masks.
//!
//! ```text
//! DataLocation (folder, --layout, --category) ─detect─► Layout ─read─► DataSet (of several: one that holds all): train_normal, train_anomalous (coarse labels),
//!                                                                        validation_normal, test
//! ```
//! The layouts and what counts as normal in each are tabled in `docs/data.md`. Which fold a training image
//! is held out with is decided in `run`, how many of the coarse labels are used by [`coarse_labels`].

mod coarse;
mod each;
mod error;
mod groups;
mod joined;
mod layouts;
mod listing;
mod mask;
mod outlines;
mod parts;
mod polygon;

pub use coarse::{Classes, LabelledShare, coarse_labels};
pub use error::DataError;
pub(super) use groups::key;
pub use layouts::Layout;
pub use mask::Mask;
pub use outlines::{Outlines, RunLengths, Segmentation};
pub use parts::Parts;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One image and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sample {
    /// The image file.
    pub path: PathBuf,
    /// The kind of defect; `None` for a normal image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defect: Option<String>,
    /// Pixel mask, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
    /// Images of one part or patient share it; `None` when nothing shows which image belongs to which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Which of several sets or categories it is of, where they are one set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The part that this image is one view of, where the set is judged by parts (Real-IAD's sample level).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

impl Sample {
    /// An image of which only the class is known.
    pub fn new(path: PathBuf, defect: Option<String>) -> Sample {
        Sample { path, defect, ..Sample::default() }
    }
}

/// At most `most` of `all`, evenly: of a list by path, the first alone may be of one kind, or of one of several sets.
pub fn evenly<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let every = all.len().div_ceil(most.max(1)).max(1);
    all.into_iter().step_by(every).collect()
}

/// Where a data set lies, and what the command line says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataLocation {
    /// Its folder.
    pub root: PathBuf,
    /// `None` is found out from what lies on disk.
    pub layout: Option<Layout>,
    /// Needed where `root` holds several.
    pub category: Option<String>,
}

impl DataLocation {
    /// A folder whose layout is to be found out.
    pub fn new(root: impl Into<PathBuf>) -> DataLocation {
        DataLocation { root: root.into(), layout: None, category: None }
    }
}

/// The images of a data set, by what they are for.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Paths in reports and runs are relative to it.
    pub root: PathBuf,
    /// How it lies on disk.
    pub layout: Layout,
    /// Which of several it is; `None` where the layout has none.
    pub category: Option<String>,
    /// Normal training images.
    pub train_normal: Vec<Sample>,
    /// Coarse-labelled training anomalies.
    pub train_anomalous: Vec<Sample>,
    /// The set's own held-out normal images; empty when it has none and some are to be drawn from the training images.
    pub validation_normal: Vec<Sample>,
    /// Test images of both classes.
    pub test: Vec<Sample>,
}

impl DataSet {
    /// Lists the images of `source`, each list sorted by path; none is decoded.
    ///
    /// # Errors
    /// The folder has no known layout, or not the one asked for; it holds several categories and none is chosen; a CSV
    /// or JSON file in it is malformed, too long or names files that are not below it.
    pub fn open(source: &DataLocation) -> Result<DataSet, DataError> {
        let layout = match source.layout {
            Some(layout) => layout,
            None => Layout::detect(&source.root)?,
        };
        let mut data = layout.read(source)?;
        for samples in [&mut data.train_normal, &mut data.train_anomalous, &mut data.validation_normal, &mut data.test]
        {
            samples.sort();
        }
        Ok(data)
    }

    /// A set of no images.
    fn empty(root: &Path, layout: Layout) -> DataSet {
        DataSet {
            root: root.to_owned(),
            layout,
            category: None,
            train_normal: vec![],
            train_anomalous: vec![],
            validation_normal: vec![],
            test: vec![],
        }
    }

    fn add_training(&mut self, samples: impl IntoIterator<Item = Sample>) {
        for sample in samples {
            if sample.defect.is_none() { &mut self.train_normal } else { &mut self.train_anomalous }.push(sample);
        }
    }

    /// The category's name, else the folder's.
    pub fn name(&self) -> String {
        self.category.clone().unwrap_or_else(|| listing::name(&self.root))
    }

    /// What it is made of, where it is several; else `None` alone.
    fn categories(&self) -> BTreeSet<Option<&str>> {
        let lists = [&self.train_normal, &self.train_anomalous, &self.validation_normal, &self.test];
        let found: BTreeSet<Option<&str>> = lists.into_iter().flatten().map(|s| s.category.as_deref()).collect();
        if found.is_empty() { BTreeSet::from([None]) } else { found }
    }

    /// Refuses a set that is too small to train on, or holds one that is.
    ///
    /// # Errors
    /// When there are fewer normal training images than `needed`.
    pub fn need_training_images(&self, needed: usize) -> Result<(), DataError> {
        for category in self.categories() {
            let found = self.train_normal.iter().filter(|s| s.category.as_deref() == category).count();
            if found < needed {
                let root = category.map_or_else(|| self.root.clone(), PathBuf::from);
                return Err(DataError::TooFew { root, found, needed });
            }
        }
        Ok(())
    }

    /// SHA-256 over the relative paths and contents of all training images, of their masks, and of the set's own validation images.
    pub fn training_digest(&self) -> Result<String, DataError> {
        let mut all = Sha256::new();
        let mut add = |path: &Path| -> Result<(), DataError> {
            let bytes = std::fs::read(path).map_err(|cause| DataError::Read { path: path.to_owned(), cause })?;
            all.update(self.relative(path).as_bytes());
            all.update(Sha256::digest(&bytes));
            Ok(())
        };
        for sample in self.train_normal.iter().chain(&self.train_anomalous).chain(&self.validation_normal) {
            add(&sample.path)?;
            match &sample.mask {
                Some(Mask::File(folder)) if folder.is_dir() => {
                    listing::entries(folder)?.iter().try_for_each(|file| add(file))?;
                }
                // Of outlines the whole file counts, once an image.
                Some(mask) => add(mask.file())?,
                None => {}
            }
        }
        Ok(hex::encode(all.finalize()))
    }

    /// A path as it stands in reports.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}
