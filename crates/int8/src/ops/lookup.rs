//! Any function of one byte, as a table; and of floats those that are activations.

use super::one;
use crate::isa::compiled_for_every_isa;
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{Activation, ElementType, Shape};

/// Each byte becomes another: an activation between two quantisations.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup(Box<[u8; 256]>);

/// A scale and the byte that stands for 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: u8,
}

impl Lookup {
    /// Dequantises, computes `f`, and quantises: `zero + round(f(x) / scale)`, saturated; what is no number becomes 0.
    pub fn new(from: Scale, to: Scale, f: impl Fn(f32) -> f32) -> Lookup {
        let one = |byte: usize| {
            let x = (byte as f32 - f32::from(from.zero)) * from.scale;
            // `as` saturates.
            ((f(x) / to.scale).round_ties_even() + f32::from(to.zero)) as u8
        };
        Lookup(Box::new(std::array::from_fn(one)))
    }
}

impl Operator for Lookup {
    fn name(&self) -> &'static str {
        "an activation"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        one(inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(self.clone())
    }
}

impl RowStep for Lookup {
    fn row(&self, row: &mut Row) {
        let from = row.bytes(0, row.y);
        row.out().iter_mut().zip(from).for_each(|(out, &x)| *out = self.0[usize::from(x)]);
    }
}

/// An activation of floats where none of the operators before can do it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatActivation {
    /// Of each value.
    pub activation: Activation,
    /// The largest value that comes out; infinity where there is none.
    pub ceiling: f32,
}

impl Operator for FloatActivation {
    fn name(&self) -> &'static str {
        "an activation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
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
}

impl RowStep for FloatActivation {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        bend_row(isa, self.activation.slope(), self.ceiling, row.floats(0, y), row.out_floats());
    }
}

compiled_for_every_isa! {
    /// Negative values times `slope`, then at most `ceiling`.
    pub(crate) fn bend_row(slope: f32, ceiling: f32, x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            let bent = if x < 0.0 { x * slope } else { x };
            *out = if bent > ceiling { ceiling } else { bent };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_dequantisation_activation_and_quantisation() {
        let (from, to) = (Scale { scale: 0.1, zero: 100 }, Scale { scale: 0.05, zero: 20 });
        let Lookup(table) = Lookup::new(from, to, |x| if x < 0.0 { 0.1 * x } else { x });
        // 0 stays 0; 1.0 is 20 steps of 0.05; -10.0 becomes -1.0, 20 steps down; 15.5 is 310 steps and saturates.
        assert_eq!([table[100], table[110], table[0], table[255]], [20, 40, 0, 255]);
        assert!(table.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
