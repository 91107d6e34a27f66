//! Why suspicious labels or a contact sheet cannot be had.

use std::path::PathBuf;

/// Why suspicious labels cannot be ranked, or a contact sheet not be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum DoctorError {
    #[error("cannot read {path}: {cause}; was {run} exported? ckaad-train export writes it")]
    Read { path: PathBuf, run: PathBuf, cause: std::io::Error },
    #[error("{path} is longer than the {most} bytes that are accepted")]
    TooLong { path: PathBuf, most: u64 },
    #[error(
        "{path} is no list of judged images (each with path, fold, score and, where anomalous, defect expected): {cause}"
    )]
    Malformed { path: PathBuf, cause: serde_json::Error },
    #[error("{path} judges {image:?} with {score}; a finite score expected")]
    Score { path: PathBuf, image: String, score: f32 },
    #[error("none of the {judged} images that {path} judges is a training image of {root}: was the run trained on it?")]
    OtherSet { path: PathBuf, judged: usize, root: PathBuf },
    #[error("cannot encode the contact sheet: {0}")]
    Encode(image::ImageError),
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
}
