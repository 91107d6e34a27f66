//! Folders of images, one a class, as whoever sorts pictures makes them: `good` (or `ok`, `normal`) and any other names
//! for defects. No split, so ours. Images in a sub-folder of a class are of one part.

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::{Sample, groups};
use std::path::Path;

pub const EXPECTED: &str = "a folder good, ok or normal";
const NORMAL: [&str; 3] = ["good", "ok", "normal"];
/// Not classes.
const MASKS: [&str; 2] = ["masks", "ground_truth"];

fn is_normal(class: &str) -> bool {
    NORMAL.contains(&class.to_lowercase().as_str())
}

pub fn fits(root: &Path) -> bool {
    listing::folders(root).is_ok_and(|f| f.iter().any(|p| is_normal(&listing::name(p))))
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    listing::no_category(source)?;
    let root = &source.root;
    let mut samples = listing::classes(root, is_normal)?;
    samples.retain(|s| s.defect.as_deref().is_none_or(|d| !MASKS.contains(&d)));
    groups::group_exposures(&mut samples.iter_mut().collect::<Vec<&mut Sample>>());
    let mut data = DataSet::empty(root, Layout::Folder);
    let (training, test) = groups::split_unsplit(samples, root);
    data.add_training(training);
    data.test = test;
    Ok(data)
}
