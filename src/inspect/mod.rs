//! Bundle + image → [`Verdict`]: the one way from pixels to a decision, the same for the agent and for the trainer's
//! evaluation.
//!
//! ```text
//! image ─fit─► u8 [1,H,W,3] ─engine─► map [H/s,W/s] ─bilinear─► [H,W] ─Gaussian─► smoothed map ─top-k mean─► score ≥ threshold?
//!                                                                                   └─ ≥ pixel threshold ─► regions
//! ```
mod verdict;
pub use verdict::{Region, StageTimes, Verdict};
