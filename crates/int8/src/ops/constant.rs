//! A tensor of bytes that is the same in every run.

use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};
use std::fmt;
use std::sync::Arc;

/// An operator without inputs.
#[derive(Clone, PartialEq)]
pub struct Constant {
    shape: Shape,
    values: Arc<[u8]>,
}

impl Constant {
    /// `values` are `[C,H,W]`, row by row; none where they are not as many as `shape` says.
    pub fn new(shape: Shape, values: Vec<u8>) -> Option<Constant> {
        let count = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        (count == Some(values.len())).then(|| Constant { shape, values: values.into() })
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Constant {:?}", self.shape)
    }
}

impl Operator for Constant {
    fn name(&self) -> &'static str {
        "a constant"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::U8
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        inputs.is_empty().then_some(self.shape)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(self.clone())
    }

    fn weights(&self) -> usize {
        self.values.len()
    }
}

impl RowStep for Constant {
    fn row(&self, row: &mut Row) {
        let ([channels, height, width], y, to) = (self.shape, row.y, *row.result());
        for (x, pixel) in row.out().chunks_exact_mut(to.pixel).enumerate() {
            let values = (0..channels).map(|c| self.values[(c * height + y) * width + x]);
            pixel.iter_mut().zip(values).for_each(|(byte, value)| *byte = value);
        }
    }
}
