//! What `ckaad-agent` and `ckaad-train` share: the one way from a bundle and an image to a verdict.
//!
//! # Layout
//!
//! Floors, ground first. A module uses only floors below its own; `tests/it/floors.rs` of the workspace holds this.
//!
//! | floor | module | what it answers for |
//! |---|---|---|
//! | 1 | [`console`] | standard output of both programs, and how they end |
//! | 1 | [`keys`] | which key of a configuration file nobody reads, and which was meant |
//! | 1 | [`imaging`] | pixels: [`imaging::Frame`], decoding with bounds, resize and letterbox, colour maps, heatmaps |
//! | 2 | [`engine`] | ONNX → runnable plan on tract, quantised parts on `ckaad-int8`'s kernels, or a session of ONNX Runtime by a library of the device; u8 image in, anomaly map and image score out |
//! | 2 | [`synthetic`] | the synthetic line: parts, textures, defects with masks; strips with thin cracks |
//! | 3 | [`inspect`] | bundle + image → [`Verdict`]: smoothing, scores by rule, forest and image branch, calibration, regions |
//!
//! # Judging an image
//!
//! ```
//! use ckaad_bundle::Bundle;
//! use ckaad_inspect::{InspectOptions, Inspector, imaging};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
//! let bundle = Bundle::read(Path::new("models/demo.ckaad"))?;
//! let inspector = Inspector::new(&bundle, &InspectOptions::default())?;
//! // Or a picture of one's own, by `imaging::load`.
//! let image = imaging::decode(&bundle.golden[0].png, Path::new("golden/00.png"))?;
//! let verdict = inspector.inspect(&image)?;
//! println!("score {} against {}: defective? {}", verdict.score, verdict.threshold, verdict.is_defective());
//! for region in &verdict.regions {
//!     println!("{}x{} pixels at {},{}", region.width, region.height, region.x, region.y);
//! }
//! # assert_eq!(verdict.is_defective(), bundle.golden[0].expected.score >= verdict.threshold);
//! # assert_eq!(verdict.map.dim(), (bundle.manifest.input.height as usize, bundle.manifest.input.width as usize));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod console;
pub mod engine;
pub mod imaging;
mod inspect;
pub mod keys;
#[cfg(feature = "synthetic")]
pub mod synthetic;

pub use inspect::*;
