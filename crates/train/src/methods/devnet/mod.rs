//! The backbone's last stages, taught by coarse labels from end to end (after DevNet, arXiv 2108.00462).
//!
//! ```text
//! stride 16 ─► stages of the backbone, copied, to stride 32 ─1x1─ |x| ─► term `deviation`
//!                                                                  └─ mean of the largest tenth ─► term `devnet`
//! ```
//! All else reads frozen features, which know what photographs show. Where "normal" is a matter of meaning rather than of texture that may not be enough: here
//! what is looked for is learned too. It costs the device these stages once more.

mod method;
mod stages;

pub use method::{Devnet, DevnetConfig};

#[cfg(test)]
mod tests;
