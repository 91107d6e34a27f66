//! [`Graph`](crate::graph::Graph) → ONNX: in f32, in f16 for GPUs, and in int8 in two dialects. Only writers; which graph is written is
//! decided elsewhere.
//!
//! | file | what it writes |
//! |---|---|
//! | `float` | the input `image` (u8), every operator in f32, or all but the tail in f16 |
//! | [`int8`] | quantised layers, as QOperator or QDQ |
//! | `tail` | cosine errors, energies, distances, their sum; pooled statistics: float in both, but for the products of a distance |
//! | `cross_view` | attention over the other views of a part: float in both |
//! | `proto` | the protobuf messages |

mod cross_view;
mod float;
pub mod int8;
mod proto;
mod tail;

pub use float::{IMAGE_SCORE, OUTPUT, emit_f32, emit_half};
