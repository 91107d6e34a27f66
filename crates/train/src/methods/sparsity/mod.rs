//! Defects as sparse masks, learned from images that are known to be defective and from nothing else (after the sparsity prior of Electronic
//! Research Archive 32(6), 2024): no outlines, no painted defects.
//!
//! ```text
//! features f ──auto-encoder──► f' ─ 1 - cos ─ min(· / τ, 1) = r ───┐
//!    │                         │                              │   │
//!    └─────1x1────── + ────────┴──1x1───── + ────────1x1──────┘   │
//!                    └─ 3x3, 3x3, 1x1 ─ logit ─ sigmoid = p ──── p·r ─► term `mask`
//! ```
//! First the auto-encoder learns to reconstruct normal features. Then it stands still, and a head learns which residuals are a defect's: in a
//! normal image none is, in a defective one those of a small part of it are. So what cannot be reconstructed but is found in normal images too, a
//! machining mark for instance, is left out, and what remains has sharp borders and an area.
//!
//! The paper reconstructs images by a GAN; here features are reconstructed, as CKAAD does.

mod loss;
mod method;

pub use method::{Sparsity, SparsityConfig};

#[cfg(test)]
mod tests;
