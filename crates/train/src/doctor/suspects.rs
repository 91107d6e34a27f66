//! Labels that may be wrong: training images whose score speaks against their label, by models that never saw them.

use super::DoctorError;
use crate::datasets::{DataSet, Sample};
use crate::run::{HeldOutScore, VERDICTS};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const MAX_BYTES: u64 = 64 << 20;
/// Suspects of each class.
const MOST: usize = 10;

/// A training image whose label is doubtful.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspect {
    /// Relative to the set's folder.
    pub path: String,
    /// As it is labelled now; none of a normal image.
    pub defect: Option<String>,
    /// By the model that never saw it.
    pub score: f32,
    /// Share of the images of the other class that it is further on their side than: of the anomalous images that a
    /// normal one scores above, of the normal images that an anomalous one scores below.
    pub beyond: f64,
}

/// The labels that are most worth a second look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspects {
    /// The ten normal images with the highest scores, highest first.
    pub normal: Vec<Suspect>,
    /// The ten anomalous images with the lowest scores, lowest first.
    pub anomalous: Vec<Suspect>,
    /// Images that were judged and are training images.
    pub judged: usize,
    /// Images that were judged and are no training images of the set any more.
    pub gone: usize,
}

/// Ranks the labels of `data`'s training images by the scores in `run`, a folder that `fit` and `export` made. Labels are
/// those of now.
///
/// # Errors
/// `judged.json` cannot be read, is longer than 64 MiB or malformed, or judges no training image of `data`.
pub fn suspects(run: &Path, data: &DataSet) -> Result<Suspects, DoctorError> {
    let path = run.join(VERDICTS);
    let scores = read(run, &path)?;
    let training = data.train_normal.iter().chain(&data.validation_normal).chain(&data.train_anomalous);
    let labels: BTreeMap<String, &Sample> = training.map(|sample| (data.relative(&sample.path), sample)).collect();
    let (mut normal, mut anomalous, mut gone) = (vec![], vec![], 0);
    for HeldOutScore { path: image, score, .. } in &scores {
        if !score.is_finite() {
            return Err(DoctorError::Score { path, image: image.clone(), score: *score });
        }
        match labels.get(image) {
            None => gone += 1,
            Some(sample) => {
                let class = if sample.defect.is_some() { &mut anomalous } else { &mut normal };
                class.push((image, sample.defect.clone(), *score));
            }
        }
    }
    let judged = normal.len() + anomalous.len();
    if judged == 0 {
        return Err(DoctorError::OtherSet { path, judged: scores.len(), root: data.root.clone() });
    }
    normal.sort_by(|a, b| b.2.total_cmp(&a.2));
    anomalous.sort_by(|a, b| a.2.total_cmp(&b.2));
    let share = |others: &[(&String, Option<String>, f32)], beaten: &dyn Fn(f32) -> bool| {
        others.iter().filter(|other| beaten(other.2)).count() as f64 / others.len().max(1) as f64
    };
    let suspect = |(path, defect, score): &(&String, Option<String>, f32), beyond| Suspect {
        path: (*path).clone(),
        defect: defect.clone(),
        score: *score,
        beyond,
    };
    Ok(Suspects {
        normal: normal.iter().take(MOST).map(|s| suspect(s, share(&anomalous, &|other| other < s.2))).collect(),
        anomalous: anomalous.iter().take(MOST).map(|s| suspect(s, share(&normal, &|other| other > s.2))).collect(),
        judged,
        gone,
    })
}

fn read(run: &Path, path: &Path) -> Result<Vec<HeldOutScore>, DoctorError> {
    let failed = |cause| DoctorError::Read { path: path.to_owned(), run: run.to_owned(), cause };
    let mut bytes = vec![];
    File::open(path).map_err(failed)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(DoctorError::TooLong { path: path.to_owned(), most: MAX_BYTES });
    }
    serde_json::from_slice(&bytes).map_err(|cause| DoctorError::Malformed { path: path.to_owned(), cause })
}
