//! MVTec AD (Bergmann et al., CVPR 2019), one folder a category:
//!
//! ```text
//! train/good/*             normal images
//! train/<defect>/*         our extension: anomalous images, known as such (coarse labels)
//! validation/good/*        optional: the set's own held-out normal images
//! test/good/*  test/<defect>/*
//! ground_truth/<defect>/NAME_mask.png or NAME.png     optional: pixel masks
//! ground_truth_train/<defect>/NAME_mask.png or NAME.png   our extension, optional: masks of training images, also in folders as those
//! ```

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::{Sample, groups};
use std::path::{Path, PathBuf};

pub const EXPECTED: &str = "train/good or test/good, in it or in a folder of each category";

pub fn is_category(folder: &Path) -> bool {
    folder.join("train/good").is_dir() || folder.join("test/good").is_dir()
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let root = super::category(source, Layout::Mvtec, is_category)?;
    let mut data = read_category(&root, Layout::Mvtec, "good", mask)?;
    for sample in &mut data.train_anomalous {
        if let Some(own) = own_mask(&root, sample) {
            sample.mask = Some(own.into());
        }
    }
    Ok(data)
}

/// A category in MVTec AD's manner, with its own name for the normal class and its own place for masks.
pub fn read_category(
    root: &Path,
    layout: Layout,
    normal: &str,
    mask: fn(&Path, &Sample) -> Option<PathBuf>,
) -> Result<DataSet, DataError> {
    // The masks are the test images': a training image has none of them where a test image has its name in its class.
    let is_test = |sample: &Sample| {
        let below = sample.path.strip_prefix(root.join("train")).unwrap_or(&sample.path);
        let stem = below.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = root.join("test").join(below.parent().unwrap_or(below));
        listing::image_named(&folder, stem).is_some()
    };
    let list = |part: &str| -> Result<Vec<Sample>, DataError> {
        let mut samples = listing::classes(&root.join(part), |class| class == normal)?;
        for sample in samples.iter_mut().filter(|s| part == "test" || !is_test(s)) {
            sample.mask = mask(root, sample).map(Into::into);
        }
        Ok(samples)
    };
    let mut data = DataSet::empty(root, layout);
    data.add_training(list("train")?);
    data.validation_normal = list("validation")?.into_iter().filter(|s| s.defect.is_none()).collect();
    data.test = list("test")?;
    let lists = [&mut data.train_normal, &mut data.train_anomalous, &mut data.validation_normal, &mut data.test];
    groups::group_exposures(&mut lists.into_iter().flatten().collect::<Vec<_>>());
    Ok(data)
}

fn mask(root: &Path, sample: &Sample) -> Option<PathBuf> {
    mask_in(&root.join("ground_truth").join(sample.defect.as_ref()?), sample)
}

/// The mask of a training image, which lies below `ground_truth_train` as the image lies below `train`.
fn own_mask(root: &Path, sample: &Sample) -> Option<PathBuf> {
    let below = sample.path.strip_prefix(root.join("train")).ok()?;
    mask_in(&root.join("ground_truth_train").join(below.parent()?), sample)
}

fn mask_in(folder: &Path, sample: &Sample) -> Option<PathBuf> {
    let stem = sample.path.file_stem()?.to_str()?;
    listing::mask_named(folder, &format!("{stem}_mask")).or_else(|| listing::mask_named(folder, stem))
}
