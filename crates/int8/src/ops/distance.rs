//! Distance to the nearest of many vectors, whose products with the pixel a convolution has made.

use crate::isa::{LANES, compiled_for_every_isa, squared_length};
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};

/// `sqrt(max(0, min p + |x|²))`, where `p` are the channels of the first input and `x` those of the second. Leaves the
/// region as f32 `[1,1,H,W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distance;

impl Operator for Distance {
    fn name(&self) -> &'static str {
        "a distance"
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
        let &[[_, height, width], of] = inputs else { return None };
        (of[1..] == [height, width]).then_some([1, height, width])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for Distance {
    fn row(&self, row: &mut Row) {
        let (isa, y, count) = (row.isa, row.y, row.input(0).shape[0]);
        distance_row(isa, count, row.floats(0, y), row.floats(1, y), row.plane_floats(0));
    }
}

compiled_for_every_isa! {
    /// Of each pixel the smallest of `count` products (in pixels of whole lanes) and the length of `x`.
    pub(crate) fn distance_row(count: usize, products: &[f32], x: &[f32], out: &mut [f32]) {
        let (wide, lanes) = (products.len() / out.len(), x.len() / out.len());
        for ((out, products), x) in out.iter_mut().zip(products.chunks_exact(wide)).zip(x.chunks_exact(lanes)) {
            let mut smallest = [f32::INFINITY; LANES];
            let whole = products[..count].chunks_exact(LANES);
            let rest = whole.remainder();
            for part in whole {
                for (smallest, &p) in smallest.iter_mut().zip(part) {
                    *smallest = if p < *smallest { p } else { *smallest };
                }
            }
            let smallest = smallest.iter().chain(rest).fold(f32::INFINITY, |m, &p| if p < m { p } else { m });
            *out = (smallest + squared_length(x)).max(0.0).sqrt();
        }
    }
}
