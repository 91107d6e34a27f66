//! The quantiser: which range each int8 tensor covers, and which layers stay in float.
//!
//! ```text
//! training images ─► histograms ─► ranges ─► int8 model ─agent's engine on held-out images─► losses against f32
//!   percentile, minmax, entropy, mse            ▲                                              │ too large
//!                                               └── worst blocks in float ◄── sensitivities ◄──┘
//! ```
//!
//! Not here: how int8 is written down (`onnx::int8`).

mod clip;
mod config;
mod histogram;
mod judge;
mod mixed;
mod ranges;

pub use config::{Calibration, QuantiseConfig};
pub use judge::{HeldOutSet, Quality, Regions};
pub use mixed::{Int8Graph, MixedPrecision, Report, Round, Sensitivity, check_names, named};
pub use ranges::measure;

use crate::datasets::DataError;
use crate::metrics::PixelError;
use crate::views::NoView;
use ckaad_inspect::engine::EngineError;
use ckaad_inspect::imaging::DecodeError;

/// Why a network cannot be quantised.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum QuantiseError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error(transparent)]
    NoView(#[from] NoView),
    #[error("mask of a held-out image: {0}")]
    Mask(DataError),
    #[error("comparing int8 with f32 on held-out images: {0}")]
    Pixels(PixelError),
    #[error("quantise.float_layers names {name}, which is no layer of this network; its layers are {known}")]
    UnknownLayer { name: String, known: String },
}

impl From<DataError> for QuantiseError {
    fn from(cause: DataError) -> QuantiseError {
        QuantiseError::Mask(cause)
    }
}

impl From<PixelError> for QuantiseError {
    fn from(cause: PixelError) -> QuantiseError {
        QuantiseError::Pixels(cause)
    }
}
