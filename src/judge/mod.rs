//! What judges, for all cameras: the models in force, the threads that networks have, whose turn it is, and who looks on.
//!
//! Responsible for: the way from a frame to the model that judges it, and from its verdict to whoever only looks. Not responsible for: where frames come
//! from (`capture`), what follows from a verdict (`events`, `agent`), nor which model is in force (`ota`, or the configuration).
//!
//! ```text
//!  camera's thread: frame ─► EnginePool.turn ─► ModelSlot.current ─► verdict ─► events
//!                                                                       └─► Taps: bounded, lossy; a slow one keeps nobody waiting
//! ```

mod accelerator;
mod engine;
mod gather;
mod model;
mod picture;
mod slot;
mod taps;

pub use accelerator::AcceleratorSettings;
pub use engine::{EnginePool, EngineSettings, Turn};
pub use gather::{Gathered, Gatherer};
pub use model::{Model, ModelError};
pub use picture::{grey_picture, sample_picture};
pub use slot::ModelSlot;
pub use taps::{Judged, Tap, Taps};
