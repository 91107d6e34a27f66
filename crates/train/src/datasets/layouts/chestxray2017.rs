//! ChestXRay2017, children's chest radiographs (Kermany et al., Cell 2018): `{train,test}/{NORMAL,PNEUMONIA}`, often
//! below `chest_xray`. File names tell the patient.

use super::{DataError, DataLocation, DataSet, Layout, oct2017};
use std::path::Path;

pub const EXPECTED: &str = "NORMAL and PNEUMONIA in train or in test, in it or in one folder of it";

pub fn is_set(folder: &Path) -> bool {
    ["train", "test"].iter().any(|part| ["NORMAL", "PNEUMONIA"].iter().all(|c| folder.join(part).join(c).is_dir()))
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let root = super::category(source, Layout::ChestXray2017, is_set)?;
    oct2017::read_set(&root, Layout::ChestXray2017, patient)
}

/// person123 of `person123_bacteria_45`, IM-0115 of `IM-0115-0001` and of `NORMAL2-IM-0115-0001`.
fn patient(stem: &str) -> Option<String> {
    if let Some((person, _)) = stem.split_once('_') {
        return person.starts_with("person").then(|| person.to_owned());
    }
    let (_, number) = stem.split_once("IM-")?;
    let number: String = number.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then(|| format!("IM-{number}"))
}
