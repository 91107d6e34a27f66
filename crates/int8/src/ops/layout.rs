//! What moves values and computes nothing: in from outside, side by side, and out.

use super::one;
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Input, Shape};

impl Operator for Input {
    fn name(&self) -> &'static str {
        "an input"
    }

    fn reads(&self) -> Reads {
        Reads::Either
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    /// None: [`Input::from_outside`] knows it.
    fn shape(&self, _: &[Shape]) -> Option<Shape> {
        None
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(self.clone())
    }

    fn input(&self) -> Option<&Input> {
        Some(self)
    }
}

impl RowStep for Input {
    fn row(&self, row: &mut Row) {
        let (values, y, to) = (row.outside(self.index), row.y, *row.result());
        let [lanes_used, height, width] = to.shape;
        let channels = lanes_used - usize::from(self.append.is_some());
        let flip = self.element.flip();
        for (x, pixel) in row.out().chunks_exact_mut(to.pixel).enumerate() {
            for (c, byte) in pixel[..channels].iter_mut().enumerate() {
                let at = if self.channels_last { (y * width + x) * channels + c } else { (c * height + y) * width + x };
                *byte = values[at] ^ flip;
            }
            if let Some(value) = self.append {
                pixel[channels] = value;
            }
        }
    }
}

/// Tensors of the same height and width, one behind the other along the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat;

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "a concatenation"
    }

    fn reads(&self) -> Reads {
        Reads::Either
    }

    fn gives(&self, of: ElementType) -> ElementType {
        of
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let &[_, height, width] = inputs.first()?;
        let same = inputs.iter().all(|s| s[1..] == [height, width]);
        let channels = inputs.iter().try_fold(0usize, |sum, s| sum.checked_add(s[0]))?;
        same.then_some([channels, height, width])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for Concat {
    fn row(&self, row: &mut Row) {
        let (y, to) = (row.y, *row.result());
        let mut start = 0;
        for input in 0..row.inputs() {
            let from = row.input(input);
            let (bytes, length) = (row.bytes(input, y), from.shape[0] * from.element.bytes());
            for (out, pixel) in row.out().chunks_exact_mut(to.pixel).zip(bytes.chunks_exact(from.pixel)) {
                out[start..start + length].copy_from_slice(&pixel[..length]);
            }
            start += length;
        }
        // Sums over a pixel of floats run over all its lanes.
        row.out().chunks_exact_mut(to.pixel).for_each(|pixel| pixel[start..].fill(0));
    }
}

/// One more channel of floats of this value behind the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AppendChannel(pub f32);

impl Operator for AppendChannel {
    fn name(&self) -> &'static str {
        "a concatenation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let [channels, height, width] = one(inputs)?;
        Some([channels + 1, height, width])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for AppendChannel {
    fn row(&self, row: &mut Row) {
        let (y, from, lanes) = (row.y, *row.input(0), row.result().lanes());
        let (values, channels) = (row.floats(0, y), from.shape[0]);
        for (pixel, out) in values.chunks_exact(from.lanes()).zip(row.out_floats().chunks_exact_mut(lanes)) {
            out.fill(0.0);
            out[..channels].copy_from_slice(&pixel[..channels]);
            out[channels] = self.0;
        }
    }
}

/// Blocks of channels become blocks of pixels (ONNX's mode DCR): of `[n·n·C,H,W]` the channels `(i·n + j)·C` and the C - 1 behind are pixel
/// `(y·n + i, x·n + j)` of `[C,n·H,n·W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthToSpace(pub usize);

impl Operator for DepthToSpace {
    fn name(&self) -> &'static str {
        "a step from depth to space"
    }

    fn reads(&self) -> Reads {
        Reads::Either
    }

    fn gives(&self, of: ElementType) -> ElementType {
        of
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let [channels, height, width] = one(inputs)?;
        let side = self.0;
        let blocks = side.checked_mul(side).filter(|&blocks| blocks > 0 && channels.is_multiple_of(blocks))?;
        Some([channels / blocks, height.checked_mul(side)?, width.checked_mul(side)?])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for DepthToSpace {
    fn row(&self, row: &mut Row) {
        let (side, y, from, to) = (self.0, row.y, *row.input(0), *row.result());
        let (bytes, length) = (row.bytes(0, y / side), to.shape[0] * to.element.bytes());
        for (x, out) in row.out().chunks_exact_mut(to.pixel).enumerate() {
            let start = x / side * from.pixel + (y % side * side + x % side) * length;
            let (channels, rest) = out.split_at_mut(length);
            channels.copy_from_slice(&bytes[start..start + length]);
            // Sums over a pixel run over all its lanes.
            rest.fill(0);
        }
    }
}

/// Leaves the region as f32 `[1,C,H,W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatOutput;

impl Operator for FloatOutput {
    fn name(&self) -> &'static str {
        "an output"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn leaves(&self) -> Option<ElementType> {
        Some(ElementType::F32)
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        one(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for FloatOutput {
    fn row(&self, row: &mut Row) {
        let (values, from) = (row.floats(0, row.y), *row.input(0));
        for channel in 0..from.shape[0] {
            let pixels = values.chunks_exact(from.lanes());
            row.plane_floats(channel).iter_mut().zip(pixels).for_each(|(out, pixel)| *out = pixel[channel]);
        }
    }
}

/// Leaves the region as bytes `[1,C,H,W]`, U8 or I8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteOutput(pub ElementType);

impl Operator for ByteOutput {
    fn name(&self) -> &'static str {
        "an output"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn leaves(&self) -> Option<ElementType> {
        Some(self.0)
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        one(inputs).filter(|_| self.0 != ElementType::F32)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for ByteOutput {
    fn row(&self, row: &mut Row) {
        let (bytes, from, flip) = (row.bytes(0, row.y), *row.input(0), self.0.flip());
        for channel in 0..from.shape[0] {
            let pixels = bytes.chunks_exact(from.pixel);
            row.plane_bytes(channel).iter_mut().zip(pixels).for_each(|(out, pixel)| *out = pixel[channel] ^ flip);
        }
    }
}
