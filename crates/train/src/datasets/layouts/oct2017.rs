//! OCT2017, retinal tomography (Kermany et al., Cell 2018):
//! `{train,test}/{NORMAL,CNV,DME,DRUSEN}/CLASS-PATIENT-NN.jpeg`.

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::Sample;
use std::path::Path;

pub const EXPECTED: &str = "train/NORMAL or test/NORMAL beside CNV, DME or DRUSEN, in it or in one folder of it";
const DISEASES: [&str; 3] = ["CNV", "DME", "DRUSEN"];

pub fn is_set(folder: &Path) -> bool {
    ["train", "test"]
        .map(|part| folder.join(part))
        .iter()
        .any(|part| part.join("NORMAL").is_dir() && DISEASES.iter().any(|d| part.join(d).is_dir()))
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let root = super::category(source, Layout::Oct2017, is_set)?;
    read_set(&root, Layout::Oct2017, patient)
}

/// Training and test folders with NORMAL and others. The optional `val` holds 16 or 32 images, too few to calibrate a
/// threshold on: they are training images here.
pub fn read_set(root: &Path, layout: Layout, group: fn(&str) -> Option<String>) -> Result<DataSet, DataError> {
    let list = |part: &str| -> Result<Vec<Sample>, DataError> {
        let mut samples = listing::classes(&root.join(part), |class| class == "NORMAL")?;
        for sample in &mut samples {
            let named = sample.path.file_stem().and_then(|stem| group(&stem.to_string_lossy()));
            sample.group = named.or(sample.group.take());
        }
        Ok(samples)
    };
    let mut data = DataSet::empty(root, layout);
    data.add_training(list("train")?);
    data.add_training(list("val")?);
    data.test = list("test")?;
    Ok(data)
}

/// PATIENT of `CLASS-PATIENT-NN`; one patient may have images of several classes.
fn patient(stem: &str) -> Option<String> {
    let mut parts = stem.split('-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(patient), Some(_), None) if !patient.is_empty() => Some(patient.to_owned()),
        _ => None,
    }
}
