//! Maximum and mean over windows.

use super::one;
use crate::isa::compiled_for_every_isa;
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape, Window};

/// Largest value of a window; what lies outside counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool(pub Window);

/// Mean over the cells of a window that are inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AveragePool(pub Window);

fn pooled(window: &Window, inputs: &[Shape]) -> Option<Shape> {
    let [height, width] = window.over(one(inputs)?).filter(|_| window.always_inside())?;
    Some([inputs[0][0], height, width])
}

impl Operator for MaxPool {
    fn name(&self) -> &'static str {
        "a pooling"
    }

    fn reads(&self) -> Reads {
        Reads::Either
    }

    fn gives(&self, of: ElementType) -> ElementType {
        of
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        pooled(&self.0, inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        if placed.result.element == ElementType::F32 { placed.rows(FloatMaxPool(self.0)) } else { placed.rows(*self) }
    }
}

impl RowStep for MaxPool {
    fn row(&self, row: &mut Row) {
        let (isa, window, from) = (row.isa, self.0, *row.input(0));
        row.out().fill(0);
        for y in window.taps(row.y, 0, from.shape[1]) {
            let above = row.bytes(0, y);
            for (x, pixel) in row.out().chunks_exact_mut(from.pixel).enumerate() {
                for x in window.taps(x, 1, from.shape[2]) {
                    max_row(isa, &above[x * from.pixel..(x + 1) * from.pixel], pixel);
                }
            }
        }
    }
}

struct FloatMaxPool(Window);

impl RowStep for FloatMaxPool {
    fn row(&self, row: &mut Row) {
        let (isa, window, from) = (row.isa, self.0, *row.input(0));
        row.out_floats().fill(f32::NEG_INFINITY);
        let lanes = from.lanes();
        for y in window.taps(row.y, 0, from.shape[1]) {
            let above = row.floats(0, y);
            for (x, pixel) in row.out_floats().chunks_exact_mut(lanes).enumerate() {
                for x in window.taps(x, 1, from.shape[2]) {
                    max_row_f32(isa, &above[x * lanes..(x + 1) * lanes], pixel);
                }
            }
        }
    }
}

impl Operator for AveragePool {
    fn name(&self) -> &'static str {
        "a pooling"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        pooled(&self.0, inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for AveragePool {
    fn row(&self, row: &mut Row) {
        let (isa, window, from) = (row.isa, self.0, *row.input(0));
        let (rows, lanes) = (window.taps(row.y, 0, from.shape[1]), from.lanes());
        row.out_floats().fill(0.0);
        for y in rows.clone() {
            let above = row.floats(0, y);
            for (x, pixel) in row.out_floats().chunks_exact_mut(lanes).enumerate() {
                for x in window.taps(x, 1, from.shape[2]) {
                    sum_row(isa, &above[x * lanes..(x + 1) * lanes], pixel);
                }
            }
        }
        for (x, pixel) in row.out_floats().chunks_exact_mut(lanes).enumerate() {
            let share = 1.0 / (rows.len() * window.taps(x, 1, from.shape[2]).len()) as f32;
            pixel.iter_mut().for_each(|v| *v *= share);
        }
    }
}

compiled_for_every_isa! {
    /// `out[i] = max(out[i], x[i])`.
    pub(crate) fn max_row(x: &[u8], out: &mut [u8]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = (*out).max(x);
        }
    }

    /// `out[i] = max(out[i], x[i])`.
    pub(crate) fn max_row_f32(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = if x > *out { x } else { *out };
        }
    }

    /// `out[i] += x[i]`.
    pub(crate) fn sum_row(x: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out += x;
        }
    }
}
