//! CKAAD: coarse-knowledge-aware adversarial learning (AAAI 2025, arXiv 2412.12850).
//!
//! An auto-encoder reconstructs frozen features of normal images; a patch discriminator, taught with coarse-labelled
//! anomalies, pushes whatever it reconstructs towards the distribution of normal features.

mod discriminator;
mod fold;
mod loss;
mod method;
mod net;
mod step;

pub use discriminator::{DiscriminatorConfig, DiscriminatorKind, PatchDiscriminator};
pub use fold::Fold;
pub use loss::{Cosine, LossConfig, errors, reconstruction};
pub use method::{Ckaad, CkaadConfig};
pub(super) use net::ConvNorm;
pub use net::{AutoEncoder, NetConfig, NormKind, Size};
pub(super) use step::adam;
pub use step::{Parts, Rates, Trainer};
