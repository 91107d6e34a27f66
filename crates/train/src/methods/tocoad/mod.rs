//! A bank of normal patches whose features have learned what a defect looks like (after ToCoAD, arXiv 2407.01312).
//!
//! ```text
//! 1  features of images with painted defects ──► places, taught by what was painted
//! 2  normal image, once as it is and once in another light ──► x + Wx ──► projected ──► alike
//!    the same with a defect painted in ──► x + Wx ──► projected ──► unlike, where 1 sees the defect
//! 3  normal images ──► x + Wx ──► bank of patches ─► term `adapted`
//! ```
//! The backbone stays as it is; what learns in 2 is one 1x1 convolution a scale, which costs the device next to nothing. All else of 1 and 2 is
//! dropped behind the last step.

mod loss;
mod method;
mod net;

pub use method::{Tocoad, TocoadConfig};

#[cfg(test)]
mod tests;
