//! A head on frozen features that learns from coarse labels as multiple-instance learning does, and from painted defects
//! with their masks. It gives both: a map, whose places are the instances, and a score of the image, the bag.
//!
//! ```text
//! stride 8  ─1x1─┐                            ┌─► ln(1 + e^x) ─► term `instance`
//! stride 16 ─1x1─up─ + ─BN ReLU─1x1 BN ReLU─1x1 ── mean, k largest, k smallest ─┐
//! stride 8  ─3x3/2─┐                                                            ├─► linear ─► term `bag`
//! stride 16 ─3x3───── + ─BN ReLU───────────────── mean, largest, smallest ──────┘
//! ```
//! After SuperSimpleNet (arXiv 2408.03143) and DevNet (arXiv 2108.00462), made small and of operators that int8 chains
//! have. A normal image's largest instances are held down, as many of a defective image's are lifted: so nobody has to
//! outline anything; where somebody did, those places are taught as well.

mod fold;
mod loss;
mod method;
mod net;

pub(super) use loss::focal;
pub use method::{Mil, MilConfig};

#[cfg(test)]
mod tests;
