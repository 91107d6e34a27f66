//! The quantiser: which range each int8 tensor covers, and which layers stay in float.
//!
//! ```text
//! training images ─► histograms ─► ranges ─► int8 model ─agent's engine on held-out images─► losses against f32
//!   percentile, minmax, entropy, mse            ▲                                              │ too large
//!                                               └── worst blocks in float ◄── sensitivities ◄──┘
//! ```
//!
//! Not here: how int8 is written down (`export::int8`).

mod clip;
mod config;
mod histogram;
mod judge;
mod mixed;
mod ranges;

pub use config::{Calibration, QuantiseConfig};
pub use judge::{Jury, Quality, Regions};
pub use mixed::{Mixed, Report, Round, Sensitivity, Subject, check_names};
pub use ranges::Ranges;

use super::evaluate::EvaluateError;
use super::metrics::PixelError;
use ckaad_inspect::engine::EngineError;
use ckaad_inspect::imaging::DecodeError;

#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error("mask of a held-out image: {0}")]
    Mask(#[from] EvaluateError),
    #[error("comparing int8 with f32 on held-out images: {0}")]
    Pixels(#[from] PixelError),
    #[error("quantise.float_layers names {name}, which is no layer of this network; its layers are {known}")]
    UnknownLayer { name: String, known: String },
}
