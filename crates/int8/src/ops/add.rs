//! Sums of two tensors.

use super::two_alike;
use crate::isa::{compiled_for_every_isa, to_byte};
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{Activation, ElementType, Shape};

/// Sum of two quantised tensors: `round(a * scale_a + (b * scale_b + offset))`, both scales already over the output's,
/// both products fused with their additions: so ONNX Runtime computes it, and now and then the last bit decides over a
/// byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Add {
    /// Scale of the first input over the result's.
    pub scale_a: f32,
    /// Scale of the second input over the result's.
    pub scale_b: f32,
    /// `zero - (zero_a * scale_a + zero_b * scale_b)`.
    pub offset: f32,
    /// Smallest byte; above 0 it is an activation.
    pub low: u8,
    /// Largest byte.
    pub high: u8,
}

impl Operator for Add {
    fn name(&self) -> &'static str {
        "an addition"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        two_alike(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for Add {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        add_row(isa, self, row.bytes(0, y), row.bytes(1, y), row.out());
    }
}

/// Sum of two tensors of floats, with an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatAdd {
    /// Of each sum.
    pub activation: Activation,
    /// The largest value that comes out; infinity where there is none.
    pub ceiling: f32,
}

impl Operator for FloatAdd {
    fn name(&self) -> &'static str {
        "an addition"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        two_alike(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for FloatAdd {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        let (a, b) = (row.floats(0, y), row.floats(1, y));
        add_row_f32(isa, self.activation.slope(), self.ceiling, a, b, row.out_floats());
    }
}

compiled_for_every_isa! {
    /// See [`Add`].
    pub(crate) fn add_row(how: &Add, a: &[u8], b: &[u8], out: &mut [u8]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            let sum = f32::from(a).mul_add(how.scale_a, f32::from(b).mul_add(how.scale_b, how.offset));
            *out = to_byte(sum.round_ties_even(), how.low, how.high);
        }
    }

    /// `a + b`, negative sums times `slope`, then at most `ceiling`.
    pub(crate) fn add_row_f32(slope: f32, ceiling: f32, a: &[f32], b: &[f32], out: &mut [f32]) {
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            let sum = a + b;
            let bent = if sum < 0.0 { sum * slope } else { sum };
            *out = if bent > ceiling { ceiling } else { bent };
        }
    }
}
