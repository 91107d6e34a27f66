//! The operators, a file for each kind: parameters, what they read and give, their step, and the kernels that no
//! instruction set is written out for.

pub mod add;
pub mod constant;
pub mod conv;
mod convolution;
pub mod cosine;
pub mod distance;
pub mod float_conv;
pub mod layer_norm;
pub mod layout;
pub mod lookup;
pub mod modulate;
pub mod nearest;
pub mod norm;
pub mod pool;
pub mod quantise;
pub mod resize;
pub mod statistics;

pub use add::{Add, FloatAdd};
pub use constant::Constant;
pub use conv::Conv;
pub use cosine::CosineError;
pub use distance::Distance;
pub use float_conv::FloatConv;
pub use layer_norm::LayerNorm;
pub use layout::{AppendChannel, ByteOutput, Concat, DepthToSpace, FloatOutput};
pub use lookup::{FloatActivation, Lookup};
pub use modulate::{FloatModulate, Modulate};
pub use nearest::LeastProduct;
pub use norm::{InstanceNorm, UnitLength};
pub use pool::{AveragePool, MaxPool};
pub use quantise::{Dequantise, DequantisedOutput, Quantise};
pub use resize::{ResizeLinear, ResizeNearest};
pub use statistics::PooledStatistics;

use crate::shape::Shape;

/// The one input's shape.
fn one(inputs: &[Shape]) -> Option<Shape> {
    let &[shape] = inputs else { return None };
    Some(shape)
}

/// The shape that two inputs share.
fn two_alike(inputs: &[Shape]) -> Option<Shape> {
    let &[a, b] = inputs else { return None };
    (a == b).then_some(a)
}
