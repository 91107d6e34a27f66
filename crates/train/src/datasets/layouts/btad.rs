//! BTAD, beanTech anomaly detection (Mishra et al., ISIE 2021): as MVTec AD, with ok and ko for good and defective, and
//! masks `ground_truth/ko/NAME.png` or `.bmp`.

use super::{DataError, DataLocation, DataSet, Layout, listing, mvtec};
use crate::datasets::Sample;
use std::path::{Path, PathBuf};

pub const EXPECTED: &str = "train/ok and test/ok or test/ko, in it or in the folders 01, 02, 03";

pub fn is_category(folder: &Path) -> bool {
    folder.join("train/ok").is_dir() && ["test/ok", "test/ko"].iter().any(|k| folder.join(k).is_dir())
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let root = super::category(source, Layout::Btad, is_category)?;
    mvtec::read_category(&root, Layout::Btad, "ok", mask)
}

fn mask(root: &Path, sample: &Sample) -> Option<PathBuf> {
    let folder = root.join("ground_truth").join(sample.defect.as_ref()?);
    listing::mask_named(&folder, sample.path.file_stem()?.to_str()?)
}
