//! What `ckaad-agent` and `ckaad-train` share: the one way from a bundle and an image to a verdict.
//!
//! # Layout
//!
//! Floors, ground first. A module uses only floors below its own; `tests/it/floors.rs` of the workspace holds this.
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | [`console`] | standard output of both programs, and how they end |
//! | 1 | [`imaging`] | pixels: [`imaging::Frame`], decoding with bounds, resize and letterbox, colour maps, heatmaps |
//! | 2 | [`engine`] | ONNX → runnable plan on tract, quantised parts on `ckaad-int8`'s kernels; u8 image in, anomaly map out |
//! | 2 | [`synthetic`] | the synthetic line: parts, textures, defects with masks |
//! | 3 | [`inspect`] | bundle + image → [`Verdict`]: smoothing, image score, calibration, regions |
#![forbid(unsafe_code)]

pub mod console;
pub mod engine;
pub mod imaging;
mod inspect;
#[cfg(feature = "synthetic")]
pub mod synthetic;

pub use inspect::*;
