//! Models that change while the line runs: what judges, what is tried beside it, and the task that fetches new ones.
//!
//! Responsible for: which bundle is in force, and how another one takes its place. Not responsible for: what a repository may say and how
//! bundles are kept (`ckaad-update`), how frames are judged (`judge`), nor for who asks (`agent` hands commands over).
//!
//! ```text
//!                     ┌──────────── Updater (a task) ────────────┐
//!  repository ──────► │ believe ► fetch ► stage ► trial ► commit │──► model/<name>/state
//!                     └───────────────┬──────────────┬───────────┘
//!  camera's thread: frame ─► ModelSlot.current ─► verdict, published ─► Tap
//!                                                                       └─ Trial.shadow: the new one judges the same frame, nobody hears of it
//! ```
//!
//! A swap is one pointer: a camera's thread takes the model in force anew for each frame, so every frame is judged by exactly one model, loaded
//! and warm, and none waits.

mod trial;
mod updater;

pub use trial::{Trial, TrialConfig};
pub use updater::{
    MODELS, ManagedModel, Say, Surroundings, UpdateCommand, UpdateSettings, Updater, UpdaterError, Updates, lock, probe,
};
