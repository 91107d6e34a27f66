//! Folders of images in MVTec AD's layout:
//!
//! ```text
//! train/good/*            normal images
//! train/<defect>/*        optional: anomalous images, known as such but not outlined (coarse labels)
//! test/good/*  test/<defect>/*
//! ground_truth/<defect>/NAME_mask.png     optional: pixel masks of test images
//! ```

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff"];

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{0} has no folder train/good or test/good: a data set in MVTec AD's layout is expected")]
    Layout(PathBuf),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{folder} holds {found} images; at least {needed} are needed")]
    TooFew { folder: PathBuf, found: usize, needed: usize },
}

/// One image and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    pub path: PathBuf,
    /// The kind of defect; `None` for a normal image.
    pub defect: Option<String>,
    /// Pixel mask, when there is one: not zero is anomalous.
    pub mask: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct DataSet {
    pub root: PathBuf,
    pub train_normal: Vec<Sample>,
    /// Coarse-labelled training anomalies.
    pub train_anomalous: Vec<Sample>,
    pub test: Vec<Sample>,
}

impl DataSet {
    /// Lists the images below `root`, sorted by path; none is decoded.
    pub fn open(root: &Path) -> Result<DataSet, DataError> {
        if !root.join("train/good").is_dir() && !root.join("test/good").is_dir() {
            return Err(DataError::Layout(root.to_owned()));
        }
        let (train_normal, train_anomalous) = split(root, "train")?;
        let (mut test, test_anomalous) = split(root, "test")?;
        test.extend(test_anomalous);
        Ok(DataSet { root: root.to_owned(), train_normal, train_anomalous, test })
    }

    /// # Errors
    /// When there are fewer normal training images than `needed`.
    pub fn need_training_images(&self, needed: usize) -> Result<(), DataError> {
        if self.train_normal.len() >= needed {
            return Ok(());
        }
        Err(DataError::TooFew { folder: self.root.join("train/good"), found: self.train_normal.len(), needed })
    }

    /// SHA-256 over the relative paths and contents of all training images.
    pub fn training_digest(&self) -> Result<String, DataError> {
        let mut all = Sha256::new();
        for sample in self.train_normal.iter().chain(&self.train_anomalous) {
            let bytes =
                std::fs::read(&sample.path).map_err(|source| DataError::Read { path: sample.path.clone(), source })?;
            all.update(self.relative(&sample.path).as_bytes());
            all.update(Sha256::digest(&bytes));
        }
        Ok(hex::encode(all.finalize()))
    }

    /// A path as it stands in reports.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }
}

/// The normal and the anomalous images of `root/part`.
fn split(root: &Path, part: &str) -> Result<(Vec<Sample>, Vec<Sample>), DataError> {
    let folder = root.join(part);
    let (mut normal, mut anomalous) = (vec![], vec![]);
    if !folder.is_dir() {
        return Ok((normal, anomalous));
    }
    for class in entries(&folder)?.into_iter().filter(|p| p.is_dir()) {
        let name = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in entries(&class)?.into_iter().filter(|p| is_image(p)) {
            if name == "good" {
                normal.push(Sample { path, defect: None, mask: None });
            } else {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let mask = root.join("ground_truth").join(&name).join(format!("{stem}_mask.png"));
                let mask = mask.is_file().then_some(mask);
                anomalous.push(Sample { path, defect: Some(name.clone()), mask });
            }
        }
    }
    Ok((normal, anomalous))
}

fn entries(folder: &Path) -> Result<BTreeSet<PathBuf>, DataError> {
    let read = |source| DataError::Read { path: folder.to_owned(), source };
    std::fs::read_dir(folder).map_err(read)?.map(|entry| entry.map(|e| e.path()).map_err(read)).collect()
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    path.is_file() && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}
