//! The bundle: the one file that travels from the trainer to the device.
//!
//! Responsible for its format: packing, bounded reading, digests, and the sanity of every number in the manifest. Not
//! for what the network in it computes (`engine`), nor for how it reaches the device.
//!
//! # Format 2 (`NAME.ckaad`)
//!
//! One uncompressed POSIX tar of regular files, in exactly this order:
//!
//! ```text
//! manifest.json       format version, model, input, score, calibration, and of every member below: path, size, SHA-256
//! model.onnx          input `image` u8 [V,H,W,3] RGB, V views of one part, 1 as a rule (`views`, `view_names`); output `anomaly_map`
//!                     f32 [V,1,H/s,W/s]; where the manifest has `score.image`, also `image_score`, one f32 a view
//! model-gpu.onnx      the same network in numbers for a GPU; may be absent
//! score/forest.json   with the score rule `forest`: its trees ...
//! score/segments.png  ... and the segments that their features are of: 8-bit grey at input size, a label a pixel
//! golden/00.png       pictures with ...
//! golden/00.json      ... the answers that the model gave when it was packed: {"score": s, "grid": [64 numbers]}, and
//! ...                 "image_score" where it has one; at most 16 pairs, of several views whole parts, one view behind the other
//! golden-gpu/00.json  with model-gpu.onnx: its answers to the same pictures
//! ...
//! report.json         the evaluation; may be absent
//! (two zero blocks)   the end: not a byte behind them
//! ```
//!
//! What stands in `score/` is decoded by `inspect`; here only its length and its digest are looked at, and the levels
//! of its brackets.
//!
//! Format 1 is still read. It has one method in place of a list, a score rule with `top_k` and `terms` at once, an
//! exponential tail in place of rank and interval, and none of `model-gpu.onnx`, `score/` and `golden-gpu/`. A value
//! of it that cannot be used is named by today's key.
//!
//! Packing is deterministic: the same content gives the same bytes, with time and owner 0. Reading trusts nothing, and
//! every length, count and depth has a bound ([`limits`]).
//!
//! Only the paths above are known; links, folders, duplicates, unlisted members, another order, sizes or digests that
//! differ, numbers that are not finite, and a format newer than [`FORMAT`] are refused, each with its own sentence
//! ([`Problem`]). A declared size is compared with what is there before it is used; nothing is allocated by it.
//!
//! ```
//! use ckaad_bundle::{Bundle, Draft};
//! # use std::path::Path;
//! # let folder = tempfile::tempdir()?;
//! let bundle = Bundle::read(Path::new("../../models/demo.ckaad"))?;
//! assert!(bundle.manifest.calibration.threshold > 0.0);
//! // Packed anew under another version: the same network, another file.
//! let mut draft = Draft::from(bundle.clone());
//! draft.manifest.version = "7.0.0".parse()?;
//! let path = folder.path().join("seven.ckaad");
//! let digest = draft.write(&path)?;
//! assert_ne!(digest, bundle.digest);
//! assert_eq!(Bundle::read(&path)?.digest, digest);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod check;
mod error;
mod format1;
pub mod limits;
mod manifest;
mod read;
mod replace;
mod summary;
mod write;

pub use error::{BundleError, Problem};
pub use limits::{MAX_BYTES, MAX_GOLDEN, MAX_VIEWS};
pub use manifest::*;
pub use replace::replace;
pub use summary::promise;
pub use write::Draft;

/// A bundle in memory, every digest checked.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What the agent must know besides the network's weights.
    pub manifest: Manifest,
    /// `model.onnx`, as it stands in the archive.
    pub model: Vec<u8>,
    /// At most [`MAX_GOLDEN`] samples, by which another machine can check that it judges as the one that packed them.
    pub golden: Vec<Golden>,
    /// `score/forest.json`, as it stands in the archive: there exactly where the score rule is a forest.
    pub forest: Option<Vec<u8>>,
    /// `score/segments.png`, as it stands in the archive: there exactly where the score rule is a forest.
    pub segments: Option<Vec<u8>>,
    /// The network for a GPU, if one came with the model.
    pub gpu: Option<GpuModel>,
    /// `report.json`: the evaluation that came with the model.
    pub report: Option<serde_json::Value>,
    /// SHA-256 of the whole file, lower-case hexadecimal.
    pub digest: String,
}

/// A picture with the answer that the model gave when it was packed.
#[derive(Clone, Debug)]
pub struct Golden {
    /// `golden/NN.png` at the network's input size. Only its first bytes are looked at when a bundle is read; it is
    /// decoded by whoever uses it.
    pub png: Vec<u8>,
    /// The answer to it.
    pub expected: GoldenAnswer,
}

/// The same network in numbers for a GPU.
#[derive(Clone, Debug)]
pub struct GpuModel {
    /// `model-gpu.onnx`, as it stands in the archive.
    pub model: Vec<u8>,
    /// Its answers to the pictures of [`Bundle::golden`], one each, in their order.
    pub golden: Vec<GoldenAnswer>,
}

/// `golden/NN.json` and `golden-gpu/NN.json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenAnswer {
    /// The image score.
    pub score: f32,
    /// Means of the smoothed map over an 8x8 grid, row by row.
    pub grid: Vec<f32>,
    /// The network's output of this name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_score: Option<f32>,
}

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.onnx";
const GPU_MODEL: &str = "model-gpu.onnx";
const FOREST: &str = "score/forest.json";
const SEGMENTS: &str = "score/segments.png";
const REPORT: &str = "report.json";

fn golden_png(index: usize) -> String {
    format!("golden/{index:02}.png")
}

fn golden_json(index: usize) -> String {
    format!("golden/{index:02}.json")
}

fn golden_gpu(index: usize) -> String {
    format!("golden-gpu/{index:02}.json")
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
