//! The trainer: data set → run → bundle → evaluation.
//!
//! | stage | module |
//! |---|---|
//! | list images, read labels and masks | [`datasets`] |
//! | frozen features, once an image, on disk | [`backbones`], [`features`] |
//! | flip, turn, make anomalies | [`augment`] |
//! | train, validate, checkpoint | [`methods`], [`fit`], [`run`] |
//! | weigh the maps, choose the score rule | `select` |
//! | int8 ranges, layers that stay in float | [`quantise`] |
//! | fold, write ONNX, calibrate, pack | [`export`] |
//! | judge a test set *through the bundle* | [`evaluate`], [`metrics`], [`report`] |
//!
//! burn appears in [`methods`], [`device`] and nowhere else.

pub mod augment;
pub mod backbones;
pub mod config;
pub mod datasets;
pub mod device;
pub mod evaluate;
pub mod export;
pub mod features;
pub mod fit;
pub mod methods;
pub mod metrics;
mod progress;
pub mod quantise;
pub mod report;
pub mod run;
pub mod select;
