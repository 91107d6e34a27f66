//! A tensor scaled and moved by two others.

use super::lookup::Scale;
use crate::isa::{compiled_for_every_isa, to_byte};
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};

/// `x * gamma + beta` of three tensors of bytes: dequantised, multiplied, added and quantised, each rounded as it would
/// be on its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modulate {
    /// Of the first input.
    pub x: Scale,
    /// Of the second, by which the first is multiplied.
    pub gamma: Scale,
    /// Of the third, which is added.
    pub beta: Scale,
    /// Of the result.
    pub result: Scale,
}

impl Operator for Modulate {
    fn name(&self) -> &'static str {
        "a modulation"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        three_alike(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for Modulate {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        modulate_row(isa, self, [row.bytes(0, y), row.bytes(1, y), row.bytes(2, y)], row.out());
    }
}

/// `x * gamma + beta` of three tensors of floats, the product rounded before the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatModulate;

impl Operator for FloatModulate {
    fn name(&self) -> &'static str {
        "a modulation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        three_alike(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for FloatModulate {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        modulate_row_f32(isa, [row.floats(0, y), row.floats(1, y), row.floats(2, y)], row.out_floats());
    }
}

fn three_alike(inputs: &[Shape]) -> Option<Shape> {
    let &[x, gamma, beta] = inputs else { return None };
    (x == gamma && x == beta).then_some(x)
}

compiled_for_every_isa! {
    /// See [`Modulate`].
    pub(crate) fn modulate_row(how: &Modulate, inputs: [&[u8]; 3], out: &mut [u8]) {
        let [x, gamma, beta] = inputs;
        let zeros = [how.x, how.gamma, how.beta, how.result].map(|q| f32::from(q.zero));
        for (((out, &x), &gamma), &beta) in out.iter_mut().zip(x).zip(gamma).zip(beta) {
            let scaled = (f32::from(x) - zeros[0]) * how.x.scale * ((f32::from(gamma) - zeros[1]) * how.gamma.scale);
            let moved = scaled + (f32::from(beta) - zeros[2]) * how.beta.scale;
            *out = to_byte((moved / how.result.scale).round_ties_even() + zeros[3], 0, 255);
        }
    }

    /// See [`FloatModulate`].
    pub(crate) fn modulate_row_f32(inputs: [&[f32]; 3], out: &mut [f32]) {
        let [x, gamma, beta] = inputs;
        for (((out, &x), &gamma), &beta) in out.iter_mut().zip(x).zip(gamma).zip(beta) {
            *out = x * gamma + beta;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn a_byte_is_multiplied_and_moved() {
        let scale = |scale, zero| Scale { scale, zero };
        let how = Modulate { x: scale(0.5, 10), gamma: scale(0.1, 0), beta: scale(0.25, 128), result: scale(0.5, 100) };
        let mut out = [0; 4];
        // 2.0 * 1.0 + 0.5 is 5 steps of 0.5; -5.0 * 2.0 is 20 steps down; 122.5 * 25.5 saturates; 0.25 is half a step, to the even.
        modulate_row(Isa::PORTABLE, &how, [&[14, 0, 255, 10], &[10, 20, 255, 9], &[130, 128, 128, 129]], &mut out);
        assert_eq!(out, [105, 80, 255, 100]);
    }
}
