//! The least of a pixel's products with many vectors: what a distance to the nearest of them is made of.

use super::one;
use crate::cut::{Cut, Work};
use crate::kernels::{self, Area, MAX_BLOCKS};
use crate::operator::{Operator, Place, Placed, Reads, Step};
use crate::pack::{Dense, Pixels};
use crate::shape::{BLOCK, ElementType, Shape, Window};
use crate::weights::Weights;

/// `min over k of (Σ (x - x_zero) * w_k) * multiplier_k + offset_k`, sums exact, as floats `[1,H,W]`. ONNX's ConvInteger with a kernel of one cell, and what
/// makes floats of its sums.
#[derive(Clone, Debug, PartialEq)]
pub struct LeastProduct {
    /// `[k,C,1,1]`, without a bias; nothing is requantised, so `y_zero` is not used.
    pub weights: Weights,
    /// Of each vector.
    pub offset: Vec<f32>,
}

impl Operator for LeastProduct {
    fn name(&self) -> &'static str {
        "a least product"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let LeastProduct { weights, offset } = self;
        let [channels, height, width] = one(inputs)?;
        let [vectors, ..] = weights.dims;
        let sound = weights.dims == [vectors, channels, 1, 1]
            && weights.sound()
            && weights.exact()
            && offset.len() == vectors
            && weights.multipliers.iter().chain(offset).all(|value| value.is_finite());
        sound.then_some([1, height, width])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        let (weights, from, to) = (&self.weights, &placed.inputs[0], &placed.result);
        let mut products = weights.dense(from.pixel, from.row_bytes(), placed.isa.takes_pairs());
        let mut offset = self.offset.clone();
        // What fills the last block up is never the least.
        offset.resize(products.blocks * BLOCK, f32::INFINITY);
        products.least = Some(offset);
        let at = Pixels::new(from, to, Window::ONE.stride);
        let work = Work::new(Window::ONE, from, to, weights.values.len(), placed.threads);
        let cut = work.whole_pixels(products.blocks);
        Box::new(Nearest { products, at, input: from.start(), output: to.start(), cut })
    }

    fn reads_tight_pixels(&self) -> bool {
        true
    }

    fn weights(&self) -> usize {
        self.weights.values.len()
    }
}

/// The step: some pixels a unit, with all vectors.
struct Nearest {
    products: Dense,
    at: Pixels,
    /// The first pixel of the input and of the result, in a run's memory.
    input: usize,
    output: usize,
    cut: Cut,
}

impl Step for Nearest {
    fn units(&self) -> usize {
        self.cut.units()
    }

    unsafe fn run(&self, unit: usize, place: &Place) {
        let (pixels, blocks) = self.cut.unit(unit);
        // SAFETY: as a convolution's; a pixel of the result is one channel filled up to 16 floats, aligned.
        unsafe {
            let (input, output) = (place.memory.add(self.input), place.memory.add(self.output));
            let at = self.at;
            let lanes = |pixel: usize| {
                let (y, x) = (pixel / at.width, pixel % at.width);
                output.add(y * at.out_row + x * at.out_column).cast::<[f32; BLOCK]>()
            };
            for pixel in pixels.clone() {
                lanes(pixel).write([f32::INFINITY; BLOCK]);
            }
            for first in blocks.clone().step_by(MAX_BLOCKS) {
                let blocks = first..(first + MAX_BLOCKS).min(blocks.end);
                kernels::dense(place.isa, &self.products, Area { at, input, output, pixels: pixels.clone(), blocks });
            }
            for pixel in pixels {
                let least = lanes(pixel).read().into_iter().fold(f32::INFINITY, |m, v| if v < m { v } else { m });
                // What fills the pixel up is 0, as everywhere.
                lanes(pixel).write(std::array::from_fn(|lane| if lane == 0 { least } else { 0.0 }));
            }
        }
    }
}
