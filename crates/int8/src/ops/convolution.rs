//! What all convolutions share: the step over their pixels and blocks.

use crate::buffer::Buffer;
use crate::cut::Cut;
use crate::isa::Isa;
use crate::kernels::{self, Area};
use crate::operator::{Place, Step};
use crate::pack::{Dense, DenseF32, Depthwise, DepthwiseF32, Pixels};
use crate::shape::{Shape, Window};

/// Weights of one kind, with the kernel that takes them.
pub trait Packed: Send + Sync + 'static {
    /// # Safety
    /// That of the kernel.
    unsafe fn compute(&self, isa: Isa, area: Area);
}

macro_rules! packed {
    ($($weights:ident by $kernel:ident),*) => { $(
        impl Packed for $weights {
            unsafe fn compute(&self, isa: Isa, area: Area) {
                // SAFETY: the caller's promise, passed on.
                unsafe { kernels::$kernel(isa, self, area) };
            }
        }
    )* };
}
packed!(Dense by dense, Depthwise by depthwise, DenseF32 by dense_f32, DepthwiseF32 by depthwise_f32);

/// A convolution's step: some pixels of some blocks a unit.
pub struct Convolution<C> {
    conv: C,
    at: Pixels,
    /// First byte under the kernel at the first pixel, and of the result's first pixel, in a run's memory.
    input: usize,
    output: usize,
    cut: Cut,
}

impl<C: Packed> Convolution<C> {
    /// `conv` was packed for the pixels and rows of `from`, which has the border that `window` needs.
    pub fn step(conv: C, cut: Cut, window: Window, from: &Buffer, to: &Buffer) -> Box<dyn Step> {
        let Window { stride, pads: [top, left, ..], .. } = window;
        let at = Pixels::new(from, to, stride);
        // The border is as wide as the widest padding of all readers.
        let input = from.offset + (from.pads[0] - top) * from.row_bytes() + (from.pads[1] - left) * from.pixel;
        Box::new(Convolution { conv, at, input, output: to.start(), cut })
    }
}

impl<C: Packed> Step for Convolution<C> {
    fn units(&self) -> usize {
        self.cut.units()
    }

    unsafe fn run(&self, unit: usize, place: &Place) {
        let (pixels, blocks) = self.cut.unit(unit);
        // SAFETY: `layout` gave both tensors their room with all borders and a guard behind, nobody writes the input
        // during this step, and units are disjoint; that this is such a run is the caller's promise.
        unsafe {
            let (input, output) = (place.memory.add(self.input), place.memory.add(self.output));
            self.conv.compute(place.isa, Area { at: self.at, input, output, pixels, blocks });
        }
    }
}

/// Shape of a convolution's result; none where weights of shape `dims` do not fit the input or the window.
pub fn shape(input: Shape, dims: [usize; 4], window: &Window, depthwise: bool) -> Option<Shape> {
    let ([channels, ..], [out, depth, height, width]) = (input, dims);
    let fits = if depthwise { out == channels && depth == 1 } else { depth == channels };
    let [rows, columns] = window.over(input)?;
    (fits && out > 0 && window.kernel == [height, width]).then_some([out, rows, columns])
}
