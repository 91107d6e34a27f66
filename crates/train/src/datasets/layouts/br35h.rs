//! Br35H, brain MRI: `no/no 123.jpg` is normal, `yes/y123.jpg` shows a tumour; no split, so ours. File names do not
//! tell the patient.

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::groups;
use std::path::Path;

pub const EXPECTED: &str = "the folders yes and no";

pub fn fits(root: &Path) -> bool {
    root.join("yes").is_dir() && root.join("no").is_dir()
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    listing::no_category(source)?;
    let root = &source.root;
    let mut samples = listing::class(&root.join("no"), None)?;
    samples.extend(listing::class(&root.join("yes"), Some("tumour"))?);
    let mut data = DataSet::empty(root, Layout::Br35h);
    let (training, test) = groups::split_unsplit(samples, root);
    data.add_training(training);
    data.test = test;
    Ok(data)
}
