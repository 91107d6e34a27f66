//! What a tensor is: its shape, its values, how a kernel moves over it, and what is done to each value.

use std::ops::Range;

/// Output channels that are computed together; pixels in memory are filled up to a multiple of it.
pub const BLOCK: usize = 16;

/// Channels, height, width.
pub type Shape = [usize; 3];

/// What the values of a tensor are. Inside a region bytes are U8: an I8 tensor is the U8 tensor 128 higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// Bytes from 0 to 255.
    U8,
    /// Bytes from -128 to 127; only outside a region.
    I8,
    /// Floats of 4 bytes.
    F32,
}

impl ElementType {
    /// What turns a byte outside into the u8 inside, and back, by exclusive or: an i8 is kept 128 higher.
    pub fn flip(self) -> u8 {
        if self == ElementType::I8 { 0x80 } else { 0 }
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        if self == ElementType::F32 { size_of::<f32>() } else { 1 }
    }
}

/// What is done to each value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Negative values become 0.
    Relu,
    /// Negative values are multiplied with this.
    Leaky(f32),
    /// Negative values lose their sign.
    Abs,
}

impl Activation {
    /// What negative values are multiplied with: all activations here are that.
    pub fn slope(self) -> f32 {
        match self {
            Activation::None => 1.0,
            Activation::Relu => 0.0,
            Activation::Leaky(slope) => slope,
            Activation::Abs => -1.0,
        }
    }
}

/// How a kernel moves over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Cells down and across, as in all pairs here.
    pub kernel: [usize; 2],
    /// Steps down and across, at least 1.
    pub stride: [usize; 2],
    /// Cells around the input: top, left, bottom, right.
    pub pads: [usize; 4],
}

impl Window {
    /// One cell, every cell.
    pub const ONE: Window = Window { kernel: [1, 1], stride: [1, 1], pads: [0; 4] };

    /// Height and width of what it gives; none where the kernel does not fit the padded input.
    pub fn over(&self, [_, height, width]: Shape) -> Option<[usize; 2]> {
        let side = |length: usize, before: usize, after: usize, axis: usize| {
            let room = (length + before + after).checked_sub(self.kernel[axis])?;
            Some(room.checked_div(self.stride[axis])? + 1)
        };
        let [top, left, bottom, right] = self.pads;
        Some([side(height, top, bottom, 0)?, side(width, left, right, 1)?])
    }

    /// Input positions under the kernel at output position `at` of an axis (0 down, 1 across) that is `length` long.
    pub fn taps(&self, at: usize, axis: usize, length: usize) -> Range<usize> {
        let start = at * self.stride[axis];
        let before = self.pads[axis];
        let end = (start + self.kernel[axis]).saturating_sub(before).min(length);
        start.saturating_sub(before).min(end)..end
    }

    /// Whether every position of the window has a cell of the input under it.
    pub fn always_inside(&self) -> bool {
        self.pads.iter().zip(self.kernel.iter().cycle()).all(|(pad, kernel)| pad < kernel)
    }
}

/// A tensor from outside. It is an operator without inputs, of which `ops::layout` has the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Which of the region's inputs.
    pub index: usize,
    /// `[1,H,W,C]` rather than `[1,C,H,W]`.
    pub channels_last: bool,
    /// U8 or I8.
    pub element: ElementType,
    /// One more channel behind the others, filled with this byte.
    pub append: Option<u8>,
}

impl Input {
    /// Its shape inside, from the shapes of the region's inputs; none where the batch is not 1.
    pub fn from_outside(&self, inputs: &[[usize; 4]]) -> Option<Shape> {
        let &[1, a, b, c] = inputs.get(self.index)? else { return None };
        let [channels, height, width] = if self.channels_last { [c, a, b] } else { [a, b, c] };
        Some([channels.checked_add(usize::from(self.append.is_some()))?, height, width])
    }
}
