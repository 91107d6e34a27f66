//! InvAD and InvAD-lite (Zhang et al. 2024, arXiv 2404.10760): reconstruction by feature inversion.
//!
//! A fuser brings the frozen features of all scales together and draws narrow style maps from them. A decoder starts from a constant that it has
//! learned and is told by the style maps alone, place by place, how to scale and move its features: so all that the reconstruction knows of an image
//! went through a few channels, and what they have not learned to say cannot be copied. No label teaches it. One model may be trained on
//! several kinds of parts.

mod fold;
mod method;
mod net;

pub use method::{Invad, InvadConfig, MapKind};
pub use net::{InvadNet, NetConfig, NormKind, Size};
