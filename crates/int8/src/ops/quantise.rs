//! Bytes to floats and back.

use super::one;
use crate::isa::{compiled_for_every_isa, to_byte};
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};
use std::sync::Arc;

/// `scale * (byte - zero)`, for the float operators that follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dequantise {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: f32,
}

/// As [`Dequantise`], with a result that leaves the region as f32 `[1,C,H,W]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DequantisedOutput {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: f32,
}

/// Floats to bytes: `zero + round(x / scale)`, saturated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantise {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: f32,
}

impl Operator for Dequantise {
    fn name(&self) -> &'static str {
        "a dequantisation"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        one(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }

    fn leaving(&self) -> Option<Arc<dyn Operator>> {
        let &Dequantise { scale, zero } = self;
        Some(Arc::new(DequantisedOutput { scale, zero }))
    }
}

impl RowStep for Dequantise {
    fn row(&self, row: &mut Row) {
        let (isa, y, to) = (row.isa, row.y, *row.result());
        let from = row.bytes(0, y);
        let (out, channels, lanes) = (row.out_floats(), to.shape[0], to.lanes());
        to_float_row(isa, self.scale, self.zero, from, out);
        if channels < lanes {
            // Sums over a pixel run over all its lanes.
            out.chunks_exact_mut(lanes).for_each(|pixel| pixel[channels..].fill(0.0));
        }
    }
}

impl Operator for DequantisedOutput {
    fn name(&self) -> &'static str {
        "a dequantisation"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
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
        placed.rows(Table(std::array::from_fn(|byte| (byte as f32 - self.zero) * self.scale)))
    }
}

/// What each byte stands for.
struct Table([f32; 256]);

impl RowStep for Table {
    fn row(&self, row: &mut Row) {
        let (y, from) = (row.y, *row.input(0));
        let bytes = row.bytes(0, y);
        for channel in 0..from.shape[0] {
            let pixels = bytes.chunks_exact(from.pixel);
            row.plane_floats(channel)
                .iter_mut()
                .zip(pixels)
                .for_each(|(out, x)| *out = self.0[usize::from(x[channel])]);
        }
    }
}

impl Operator for Quantise {
    fn name(&self) -> &'static str {
        "a quantisation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        one(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for Quantise {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        to_byte_row(isa, self.scale, self.zero, row.floats(0, y), row.out());
    }
}

compiled_for_every_isa! {
    /// `scale * (byte - zero)` of every byte.
    pub(crate) fn to_float_row(scale: f32, zero: f32, x: &[u8], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = (f32::from(x) - zero) * scale;
        }
    }

    /// `zero + round(x / scale)`, saturated.
    pub(crate) fn to_byte_row(scale: f32, zero: f32, x: &[f32], out: &mut [u8]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = to_byte((x / scale).round_ties_even() + zero, 0, 255);
        }
    }
}
