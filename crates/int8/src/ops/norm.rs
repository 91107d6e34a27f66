//! Normalisation of channels over an image, and of pixels over their channels.

use super::one;
use crate::buffer::Buffer;
use crate::isa::{compiled_for_every_isa, squared_length};
use crate::operator::{Operator, Place, Placed, Reads, Row, RowStep, Step};
use crate::shape::{BLOCK, ElementType, Shape};

/// Each channel of an image brought to mean 0 and variance 1, then scaled and moved.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceNorm {
    /// Of each channel.
    pub scale: Vec<f32>,
    /// Of each channel.
    pub offset: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Operator for InstanceNorm {
    fn name(&self) -> &'static str {
        "a normalisation"
    }

    fn reads(&self) -> Reads {
        Reads::Floats
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let fits = |shape: &Shape| [self.scale.len(), self.offset.len()] == [shape[0]; 2];
        one(inputs).filter(fits)
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        // A value for every lane; 0 behind the last channel.
        let (lanes, mut norm) = (placed.result.lanes(), self.clone());
        norm.scale.resize(lanes, 0.0);
        norm.offset.resize(lanes, 0.0);
        Box::new(Blocks { norm, from: placed.inputs[0], to: placed.result })
    }
}

/// A unit is a block of channels of the whole tensor.
struct Blocks {
    norm: InstanceNorm,
    from: Buffer,
    to: Buffer,
}

impl Step for Blocks {
    fn units(&self) -> usize {
        self.norm.scale.len() / BLOCK
    }

    /// Sums run over the pixels in their order, in f64.
    unsafe fn run(&self, unit: usize, place: &Place) {
        let Blocks { norm, from, to } = self;
        let ([_, height, width], lanes) = (from.shape, from.lanes());
        let channels = unit * BLOCK..(unit + 1) * BLOCK;
        let pixels = |y: usize| {
            // SAFETY: by the caller's promise nobody writes the input during this step.
            let row: &[f32] = unsafe { from.floats(place.memory, y) };
            row.chunks_exact(lanes).map(|pixel| &pixel[channels.clone()])
        };
        let count = (height * width) as f64;
        let (mut mean, mut variance) = ([0f64; BLOCK], [0f64; BLOCK]);
        for pixel in (0..height).flat_map(pixels) {
            mean.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        mean.iter_mut().for_each(|sum| *sum /= count);
        for pixel in (0..height).flat_map(pixels) {
            for ((sum, &v), mean) in variance.iter_mut().zip(pixel).zip(&mean) {
                *sum += (f64::from(v) - mean).powi(2);
            }
        }
        let (scale, offset) = (&norm.scale[channels.clone()], &norm.offset[channels.clone()]);
        let factor: [f32; BLOCK] = std::array::from_fn(|i| match scale[i] {
            // Lanes behind the last channel stay 0, whatever epsilon is.
            0.0 => 0.0,
            scale => (f64::from(scale) / (variance[i] / count + f64::from(norm.epsilon)).sqrt()) as f32,
        });
        for y in 0..height {
            for (x, pixel) in pixels(y).enumerate() {
                let at = to.start() + y * to.row_bytes() + x * to.pixel;
                // SAFETY: inside row `y` of the result, whose blocks of channels are each one unit's alone. Only
                // pointers are made: a slice of the row would reach into other units' blocks.
                let out = unsafe { place.memory.add(at).cast::<f32>().add(channels.start) };
                for i in 0..BLOCK {
                    let value = (pixel[i] - mean[i] as f32) * factor[i] + offset[i];
                    // SAFETY: as above.
                    unsafe { out.add(i).write(value) };
                }
            }
        }
    }
}

/// Length 1 along the channels: `x / sqrt(|x|² + epsilon)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitLength {
    /// Keeps the root above 0.
    pub epsilon: f32,
}

impl Operator for UnitLength {
    fn name(&self) -> &'static str {
        "a normalisation"
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

impl RowStep for UnitLength {
    fn row(&self, row: &mut Row) {
        let (isa, lanes, from) = (row.isa, row.input(0).lanes(), row.floats(0, row.y));
        unit_row(isa, lanes, self.epsilon, from, row.out_floats());
    }
}

compiled_for_every_isa! {
    /// Pixels of `lanes` floats, each made as long as 1.
    pub(crate) fn unit_row(lanes: usize, epsilon: f32, x: &[f32], out: &mut [f32]) {
        for (out, x) in out.chunks_exact_mut(lanes).zip(x.chunks_exact(lanes)) {
            let factor = 1.0 / (squared_length(x) + epsilon).sqrt();
            for (out, &x) in out.iter_mut().zip(x) {
                *out = x * factor;
            }
        }
    }
}
