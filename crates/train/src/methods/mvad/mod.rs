//! MVAD (He et al., IEEE TMM 2025, arXiv 2407.11935): every view of a part is reconstructed from what it shows and from what the other views show of
//! the same part.
//!
//! At each scale every window of a view looks at those windows of the other views that are most like it; what they answer joins its features, a fuser
//! brings the scales together, and a student draws the features again. No label teaches it. A view is judged beside the others alone: the network takes
//! all views of a part at once.

mod fold;
mod method;
mod net;
mod windows;

pub use method::{Mvad, MvadConfig};
pub use net::Size;
