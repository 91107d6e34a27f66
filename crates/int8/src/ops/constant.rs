//! Tensors that are the same in every run.

use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{ElementType, Shape};
use std::fmt;
use std::sync::Arc;

/// An operator without inputs; `T` is u8 or f32.
#[derive(Clone, PartialEq)]
pub struct Constant<T> {
    shape: Shape,
    values: Arc<[T]>,
}

impl<T> Constant<T> {
    /// `values` are `[C,H,W]`, row by row; none where they are not as many as `shape` says.
    pub fn new(shape: Shape, values: Vec<T>) -> Option<Constant<T>> {
        let count = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        (count == Some(values.len())).then(|| Constant { shape, values: values.into() })
    }
}

impl<T: Copy> Constant<T> {
    /// Row `y` into pixels of `lanes` values each; what fills a pixel up becomes `rest`.
    fn write(&self, y: usize, lanes: usize, rest: T, out: &mut [T]) {
        let [channels, height, width] = self.shape;
        for (x, pixel) in out.chunks_exact_mut(lanes).enumerate() {
            let values = (0..channels).map(|c| self.values[(c * height + y) * width + x]);
            pixel.iter_mut().zip(values.chain(std::iter::repeat(rest))).for_each(|(out, value)| *out = value);
        }
    }
}

impl<T> fmt::Debug for Constant<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Constant {:?}", self.shape)
    }
}

impl Operator for Constant<f32> {
    fn name(&self) -> &'static str {
        "a constant"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
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

impl RowStep for Constant<f32> {
    fn row(&self, row: &mut Row) {
        let (y, lanes) = (row.y, row.result().lanes());
        self.write(y, lanes, 0.0, row.out_floats());
    }
}

impl Operator for Constant<u8> {
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

impl RowStep for Constant<u8> {
    fn row(&self, row: &mut Row) {
        let (y, lanes) = (row.y, row.result().pixel);
        self.write(y, lanes, 0, row.out());
    }
}
