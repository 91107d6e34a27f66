//! The bundle: the one file that travels from the trainer to the device.
//!
//! Responsible for its format: packing, bounded reading, digests, and the sanity of every number in the manifest. Not
//! for what the network in it computes (`engine`), nor for how it reaches the device.
//!
//! # Format 1 (`NAME.ckaad`)
//!
//! One uncompressed POSIX tar of regular files, in exactly this order:
//!
//! ```text
//! manifest.json     format version, model, input, score rule, calibration, and of every member below: path, size, SHA-256
//! model.onnx        input `image` u8 [1,H,W,3] RGB; output `anomaly_map` f32 [1,1,H/s,W/s]
//! golden/00.png     pictures with ...
//! golden/00.json    ... the answers that the model gave when it was packed: {"score": s, "grid": [64 numbers]}
//! ...               at most 16 pairs
//! report.json       the evaluation; may be absent
//! (two zero blocks) the end: not a byte behind them
//! ```
//!
//! Packing is deterministic: the same content gives the same bytes, with time and owner 0. Reading trusts nothing, and
//! every length, count and depth has a bound ([`limits`]).
//!
//! Only the paths above are known; links, folders, duplicates, unlisted members, another order, sizes or digests that
//! differ, numbers that are not finite, and a format newer than [`FORMAT`] are refused, each with its own sentence
//! ([`Problem`]). A declared size is compared with what is there before it is used; nothing is allocated by it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod check;
mod error;
pub mod limits;
mod manifest;
mod read;
mod replace;
mod summary;
mod write;

pub use error::{BundleError, Problem};
pub use limits::{MAX_BYTES, MAX_GOLDEN};
pub use manifest::*;
pub use replace::replace;
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

/// `golden/NN.json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenAnswer {
    /// The image score.
    pub score: f32,
    /// Means of the smoothed map over an 8x8 grid, row by row.
    pub grid: Vec<f32>,
}

const MANIFEST: &str = "manifest.json";
const MODEL: &str = "model.onnx";
const REPORT: &str = "report.json";

fn golden_png(index: usize) -> String {
    format!("golden/{index:02}.png")
}

fn golden_json(index: usize) -> String {
    format!("golden/{index:02}.json")
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}
