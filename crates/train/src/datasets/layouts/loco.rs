//! MVTec LOCO AD (Bergmann et al., IJCV 2022): as MVTec AD, with its own validation split and a folder of masks an
//! image, `ground_truth/<kind>/NAME/000.png` ..., whose values tell the kind of defect.

use super::{DataError, DataLocation, DataSet, Layout, mvtec};
use crate::datasets::Sample;
use std::path::{Path, PathBuf};

pub const EXPECTED: &str =
    "train/good and test/logical_anomalies or test/structural_anomalies, in it or in a folder of each category";

pub fn is_category(folder: &Path) -> bool {
    let kinds = ["test/logical_anomalies", "test/structural_anomalies"];
    folder.join("train/good").is_dir() && kinds.iter().any(|k| folder.join(k).is_dir())
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let root = super::category(source, Layout::Loco, is_category)?;
    mvtec::read_category(&root, Layout::Loco, "good", masks)
}

fn masks(root: &Path, sample: &Sample) -> Option<PathBuf> {
    let folder = root.join("ground_truth").join(sample.defect.as_ref()?).join(sample.path.file_stem()?);
    folder.is_dir().then_some(folder)
}
