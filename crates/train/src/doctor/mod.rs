//! `ckaad-train data`: is this data set fit to be trained on, and what can it prove?
//!
//! ```text
//! DataSet ─each image once─► looks (size, digest, thumbnail, mask) ─► findings: counts, warnings, proof ─► lines, JSON
//! RUN/judged.json ─► suspects: labels that models which did not see the image doubt ─► lines, JSON, contact sheet
//! ```
//! Images are read one a thread and let go; about 1 KiB of each is kept. What is looked for is listed in `docs/data.md`.

mod error;
mod findings;
mod lines;
mod look;
mod near;
mod proof;
mod sheet;
mod suspects;
mod warnings;

pub use error::DoctorError;
pub use findings::{Findings, ImageCounts, Kind, NearDuplicate, Problem, Sizes, Warning};
pub use lines::{finding_lines, suspect_lines, warning_lines};
pub use proof::{FalseAlarms, Proof, Ranking};
pub use sheet::{near_duplicate_sheet, suspect_sheet};
pub use suspects::{Suspect, Suspects, suspects};

use crate::datasets::{DataError, DataSet, Sample};
use crate::progress::ProgressDisplay;
use look::Look;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use warnings::Examined;

/// Reads every image and mask of `data` once and says what is wrong with the set and what it can prove.
///
/// # Errors
/// The set has no image. An image that cannot be read is a finding.
pub fn examine(data: &DataSet, progress: &ProgressDisplay) -> Result<Findings, DataError> {
    let training = data.train_normal.iter().chain(&data.validation_normal).chain(&data.train_anomalous);
    let listed: Vec<(bool, &Sample)> =
        training.map(|sample| (false, sample)).chain(data.test.iter().map(|sample| (true, sample))).collect();
    if listed.is_empty() {
        return Err(DataError::TooFew { root: data.root.clone(), found: 0, needed: 1 });
    }
    let bar = progress.bar("images", listed.len());
    let images: Vec<Examined> = listed
        .into_par_iter()
        .map(|(test, sample)| {
            let look = Look::at(sample).map_err(|error| error.to_string());
            bar.advance(1);
            Examined { sample, test, name: data.relative(&sample.path), look }
        })
        .collect();
    drop(bar);
    let (near_duplicates, near) = warnings::near_duplicates(&images);
    let mut warnings = warnings::all(&images);
    warnings.extend(near);
    warnings.sort_by_key(|warning| warning.problem);
    Ok(Findings {
        name: data.name(),
        layout: data.layout.name(),
        counts: counts(data),
        sizes: sizes(&images),
        warnings,
        near_duplicates,
        proof: prove(data),
    })
}

fn counts(data: &DataSet) -> ImageCounts {
    let kinds = |samples: &[Sample]| {
        let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
        for sample in samples {
            if let Some(defect) = &sample.defect {
                let kind = kinds.entry(defect.clone()).or_default();
                kind.images += 1;
                kind.masks += usize::from(sample.mask.is_some());
            }
        }
        kinds
    };
    ImageCounts {
        train_normal: data.train_normal.len(),
        validation_normal: data.validation_normal.len(),
        train_anomalous: kinds(&data.train_anomalous),
        test_normal: data.test.iter().filter(|sample| sample.defect.is_none()).count(),
        test_anomalous: kinds(&data.test),
    }
}

fn sizes(images: &[Examined]) -> Option<Sizes> {
    let mut counted: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    images.iter().filter_map(|image| image.look.as_ref().ok()).for_each(|l| *counted.entry(l.size).or_default() += 1);
    let pixels = |&(width, height): &(u32, u32)| u64::from(width) * u64::from(height);
    let aspects = || counted.keys().map(|&(width, height)| f64::from(width) / f64::from(height.max(1)));
    let (most_frequent, most_frequent_images) =
        counted.iter().max_by_key(|(size, images)| (**images, pixels(size))).map(|(size, images)| (*size, *images))?;
    Some(Sizes {
        smallest: *counted.keys().min_by_key(|size| pixels(size))?,
        largest: *counted.keys().max_by_key(|size| pixels(size))?,
        most_frequent,
        most_frequent_images,
        aspect: (aspects().fold(f64::INFINITY, f64::min), aspects().fold(0.0, f64::max)),
        images: counted.values().sum(),
    })
}

fn prove(data: &DataSet) -> Proof {
    let training: Vec<&Sample> =
        data.train_normal.iter().chain(&data.validation_normal).chain(&data.train_anomalous).collect();
    let test: Vec<&Sample> = data.test.iter().collect();
    let count = |samples: &[&Sample], anomalous: bool| {
        samples.iter().filter(|sample| sample.defect.is_some() == anomalous).count()
    };
    let parts = |samples: &[&Sample], anomalous: bool| {
        let of_class = samples.iter().filter(|sample| sample.defect.is_some() == anomalous);
        of_class.map(|sample| crate::datasets::key(sample, &data.root)).collect::<BTreeSet<String>>().len()
    };
    let by_image = |samples: &[&Sample]| Ranking::of(count(samples, true), count(samples, false));
    let by_part = |samples: &[&Sample]| {
        let ranking = Ranking::of(parts(samples, true), parts(samples, false));
        ranking.filter(|parts| parts.anomalous + parts.normal < samples.len())
    };
    Proof {
        test: by_image(&test),
        training: by_image(&training),
        test_by_part: by_part(&test),
        training_by_part: by_part(&training),
        false_alarms: proof::false_alarms(count(&training, false)),
    }
}
