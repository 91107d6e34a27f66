//! ISIC 2018, task 3 (Codella et al., arXiv 1902.03368), as papers on anomaly detection use it: nevi (NV) are normal,
//! the other six diagnoses anomalous.
//!
//! ```text
//! ISIC2018_Task3_Training_Input/ISIC_*.jpg
//! ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv     image,MEL,NV,BCC,AKIEC,BKL,DF,VASC, one of them 1
//! ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_LesionGroupings.csv  optional: image,lesion_id
//! the same with Validation, or with Test
//! ```

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::Sample;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub const EXPECTED: &str = "ISIC2018_Task3_Training_Input and ISIC2018_Task3_Training_GroundTruth with its CSV file";
const DIAGNOSES: [&str; 7] = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"];
const NORMAL: &str = "NV";

pub fn fits(root: &Path) -> bool {
    is_there(root, "Training")
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    listing::no_category(source)?;
    let root = &source.root;
    let mut data = DataSet::empty(root, Layout::Isic2018);
    let lesions = lesions(root)?;
    for mut sample in part(root, "Training")? {
        sample.group = sample.path.file_stem().and_then(|stem| lesions.get(stem.to_str()?)).cloned();
        data.add_training([sample]);
    }
    if let Some(test) = ["Validation", "Test"].into_iter().find(|part| is_there(root, part)) {
        data.test = part(root, test)?;
    }
    Ok(data)
}

fn images(root: &Path, part: &str) -> PathBuf {
    root.join(format!("ISIC2018_Task3_{part}_Input"))
}

fn table(root: &Path, part: &str, what: &str) -> PathBuf {
    root.join(format!("ISIC2018_Task3_{part}_GroundTruth/ISIC2018_Task3_{part}_{what}.csv"))
}

fn is_there(root: &Path, part: &str) -> bool {
    images(root, part).is_dir() && table(root, part, "GroundTruth").is_file()
}

fn part(root: &Path, part: &str) -> Result<Vec<Sample>, DataError> {
    let table = table(root, part, "GroundTruth");
    let [mel, nv, bcc, akiec, bkl, df, vasc] = DIAGNOSES;
    let rows = listing::table(&table, ["image", mel, nv, bcc, akiec, bkl, df, vasc])?;
    let sample = |(i, row): (usize, &[String; 8])| {
        let diagnosis = diagnosis(&row[1..]).ok_or_else(|| DataError::Listing {
            path: table.clone(),
            reason: format!("row {}: one diagnosis of 1 among zeros expected, {} found", i + 1, row[1..].join(",")),
        })?;
        let path = listing::below(&images(root, part), &row[0], &table)?;
        let there = listing::image_named(&images(root, part), &row[0]);
        let path = there.ok_or_else(|| DataError::Missing { listing: table.clone(), path })?;
        Ok(Sample::new(path, (diagnosis != NORMAL).then(|| diagnosis.to_owned())))
    };
    rows.iter().enumerate().map(sample).collect()
}

/// The one diagnosis that is 1 where the others are 0.
fn diagnosis(values: &[String]) -> Option<&'static str> {
    let values = values.iter().map(|v| v.parse::<f32>().ok()).collect::<Option<Vec<f32>>>()?;
    let one_hot = values.iter().all(|&v| v == 0.0 || v == 1.0) && values.iter().sum::<f32>() == 1.0;
    let at = values.iter().position(|&v| v == 1.0)?;
    one_hot.then(|| DIAGNOSES[at])
}

/// The lesion of each training image, where the organisers' grouping was downloaded too.
fn lesions(root: &Path) -> Result<HashMap<String, String>, DataError> {
    let grouping = table(root, "Training", "LesionGroupings");
    if !grouping.is_file() {
        return Ok(HashMap::new());
    }
    let rows = listing::table(&grouping, ["image", "lesion_id"])?;
    Ok(rows.into_iter().map(|[image, lesion]| (image, lesion)).collect())
}
