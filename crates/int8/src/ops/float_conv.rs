//! Convolution of floats.

use super::convolution::{Convolution, shape};
use super::one;
use crate::cut::Work;
use crate::operator::{Border, Operator, Placed, Reads, Step};
use crate::pack::{DenseF32, DepthwiseF32};
use crate::shape::{BLOCK, ElementType, Shape, Window};
use crate::weights::FloatWeights;

/// ONNX's Conv, with an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatConv {
    /// With bias and activation.
    pub weights: FloatWeights,
    /// Its kernel is the weights'.
    pub window: Window,
    /// One group a channel; otherwise one group.
    pub depthwise: bool,
}

impl Operator for FloatConv {
    fn name(&self) -> &'static str {
        "a convolution"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let FloatConv { weights, window, depthwise } = self;
        shape(one(inputs)?, weights.dims, window, *depthwise).filter(|_| weights.sound())
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        let (&FloatConv { ref weights, window, depthwise }, from, to) = (self, &placed.inputs[0], &placed.result);
        // A float is four times the work of a byte.
        let work = Work::new(window, from, to, 4 * weights.values.len(), placed.threads);
        if depthwise {
            let conv = DepthwiseF32::new(weights, from.pixel, from.row_bytes());
            let cut = work.whole_pixels(conv.blocks);
            return Convolution::step(conv, cut, window, from, to);
        }
        let conv = DenseF32::new(weights, from.pixel, from.row_bytes());
        let cut = work.dense(conv.blocks, conv.weights.len());
        Convolution::step(conv, cut, window, from, to)
    }

    fn border(&self) -> Option<Border> {
        Some(Border { pads: self.window.pads, zero: 0 })
    }

    fn weights(&self) -> usize {
        let FloatWeights { values, dims, .. } = &self.weights;
        // 16 output channels lie side by side, however few there are.
        values.len() / dims[0].max(1) * dims[0].next_multiple_of(BLOCK)
    }
}
