//! Convolution of bytes with i8 weights.

use super::convolution::{Convolution, shape};
use super::one;
use crate::cut::Work;
use crate::operator::{Border, Operator, Placed, Reads, Step};
use crate::shape::{ElementType, Shape, Window};
use crate::weights::Weights;

/// ONNX's QLinearConv: exact sums, requantised to bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// With both zero points.
    pub weights: Weights,
    /// Its kernel is the weights'.
    pub window: Window,
    /// One group a channel; otherwise one group.
    pub depthwise: bool,
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "a convolution"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let Conv { weights, window, depthwise } = self;
        shape(one(inputs)?, weights.dims, window, *depthwise).filter(|_| weights.sound() && weights.bounded())
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        let (&Conv { ref weights, window, depthwise }, from, to) = (self, &placed.inputs[0], &placed.result);
        let work = Work::new(window, from, to, weights.values.len(), placed.threads);
        if depthwise {
            let conv = weights.depthwise(from.pixel, from.row_bytes(), window.stride[1], placed.isa.takes_pairs());
            let cut = work.whole_pixels(conv.blocks);
            return Convolution::step(conv, cut, window, from, to);
        }
        let conv = weights.dense(from.pixel, from.row_bytes(), placed.isa.takes_pairs());
        // Those that the kernel reads.
        let cut = work.dense(conv.blocks, conv.weights.len().max(conv.pairs.len()));
        Convolution::step(conv, cut, window, from, to)
    }

    fn border(&self) -> Option<Border> {
        Some(Border { pads: self.window.pads, zero: self.weights.x_zero })
    }

    fn reads_tight_pixels(&self) -> bool {
        !self.depthwise
    }

    fn weights(&self) -> usize {
        self.weights.values.len()
    }
}
