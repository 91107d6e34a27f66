//! Enlargement by whole factors.

use super::one;
use crate::isa::compiled_for_every_isa;
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};

/// Nearest neighbour, by whole factors down and across: each pixel becomes a block of equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizeNearest(pub [usize; 2]);

/// Bilinear, half-pixel, by whole factors down and across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizeLinear(pub [usize; 2]);

fn enlarged([down, across]: [usize; 2], inputs: &[Shape]) -> Option<Shape> {
    let [channels, height, width] = one(inputs)?;
    Some([channels, height.checked_mul(down)?, width.checked_mul(across)?])
}

impl Operator for ResizeNearest {
    fn name(&self) -> &'static str {
        "an enlargement"
    }

    fn reads(&self) -> Reads {
        Reads::Either
    }

    fn gives(&self, of: ElementType) -> ElementType {
        of
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        enlarged(self.0, inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for ResizeNearest {
    fn row(&self, row: &mut Row) {
        let ([down, across], pixel) = (self.0, row.input(0).pixel);
        let from = row.bytes(0, row.y / down);
        for (x, out) in row.out().chunks_exact_mut(pixel).enumerate() {
            let x = x / across;
            out.copy_from_slice(&from[x * pixel..(x + 1) * pixel]);
        }
    }
}

impl Operator for ResizeLinear {
    fn name(&self) -> &'static str {
        "an enlargement"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        enlarged(self.0, inputs)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        let ([_, height, width], [_, rows, columns]) = (placed.inputs[0].shape, placed.result.shape);
        placed.rows(Linear { rows: between(height, rows), columns: between(width, columns) })
    }
}

/// Between which rows and columns of the input each row and column of the result lies.
struct Linear {
    rows: Vec<Between>,
    columns: Vec<Between>,
}

/// An output position between two input positions, and the second one's share.
#[derive(Clone, Copy, Debug)]
struct Between {
    first: usize,
    second: usize,
    share: f32,
}

/// Half-pixel: for each position of an axis of length `to`.
fn between(from: usize, to: usize) -> Vec<Between> {
    let position = |i: usize| {
        let x = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        let first = (x as usize).min(from - 1);
        Between { first, second: (first + 1).min(from - 1), share: x - first as f32 }
    };
    (0..to).map(position).collect()
}

impl RowStep for Linear {
    fn row(&self, row: &mut Row) {
        let (isa, down, lanes) = (row.isa, self.rows[row.y], row.input(0).lanes());
        let [upper, lower] = [down.first, down.second].map(|y| row.floats(0, y));
        for (pixel, across) in row.out_floats().chunks_exact_mut(lanes).zip(&self.columns) {
            let at = [across.first, across.second].map(|x| x * lanes..(x + 1) * lanes);
            let [upper, lower] = [upper, lower].map(|row| at.clone().map(|pixel| &row[pixel]));
            blend_row(isa, upper, lower, across.share, down.share, pixel);
        }
    }
}

compiled_for_every_isa! {
    /// Between four corners: `upper` and `lower` are each a left and a right pixel, `across` and `down` the right's and
    /// the lower's share.
    pub(crate) fn blend_row(upper: [&[f32]; 2], lower: [&[f32]; 2], across: f32, down: f32, out: &mut [f32]) {
        let ([a, b], [c, d]) = (upper, lower);
        for ((((out, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            let (upper, lower) = (a * (1.0 - across) + b * across, c * (1.0 - across) + d * across);
            *out = upper * (1.0 - down) + lower * down;
        }
    }
}
