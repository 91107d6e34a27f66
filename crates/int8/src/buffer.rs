//! A tensor in a run's memory.

use crate::shape::{ElementType, Shape};

/// A tensor in memory, channels last, with a border of zero points around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Of the border's first byte.
    pub offset: usize,
    /// Without the border.
    pub shape: Shape,
    /// U8 or F32.
    pub element: ElementType,
    /// Bytes of a pixel: its channels filled up to a multiple of 16 values, f32 or u8.
    pub pixel: usize,
    /// Border at the top, left, bottom and right.
    pub pads: [usize; 4],
    /// What the border holds.
    pub zero: u8,
}

impl Buffer {
    /// From one row to the next, the border too.
    pub fn row_bytes(&self) -> usize {
        (self.pads[1] + self.shape[2] + self.pads[3]) * self.pixel
    }

    /// Whether it has one.
    pub fn border(&self) -> bool {
        self.pads.iter().any(|&p| p > 0)
    }

    /// Of the first pixel.
    pub fn start(&self) -> usize {
        self.offset + self.pads[0] * self.row_bytes() + self.pads[1] * self.pixel
    }

    /// Values of a pixel, those that fill it up too.
    pub fn lanes(&self) -> usize {
        self.pixel / self.element.bytes()
    }

    /// Of the tensor with its border.
    pub fn bytes(&self) -> usize {
        (self.pads[0] + self.shape[1] + self.pads[2]) * self.row_bytes()
    }

    fn row_start(&self, y: usize) -> usize {
        assert!(y < self.shape[1]);
        self.start() + y * self.row_bytes()
    }

    /// Row `y` without the border.
    ///
    /// # Safety
    /// `memory` holds the region's tensors and nobody writes this row.
    pub unsafe fn row<'a>(&self, memory: *const u8, y: usize) -> &'a [u8] {
        // SAFETY: `layout` gave the whole tensor its room.
        unsafe { std::slice::from_raw_parts(memory.add(self.row_start(y)), self.shape[2] * self.pixel) }
    }

    /// As [`Buffer::row`], of a tensor of f32.
    ///
    /// # Safety
    /// As [`Buffer::row`].
    pub unsafe fn floats<'a>(&self, memory: *const u8, y: usize) -> &'a [f32] {
        assert!(self.element == ElementType::F32);
        // SAFETY: as `row`; offsets and pixels are multiples of 64 bytes, so the row is aligned, and every f32 is a
        // value.
        unsafe { std::slice::from_raw_parts(memory.add(self.row_start(y)).cast(), self.shape[2] * self.pixel / 4) }
    }

    /// As [`Buffer::row_mut`], of a tensor of f32.
    ///
    /// # Safety
    /// As [`Buffer::row_mut`].
    pub unsafe fn floats_mut<'a>(&self, memory: *mut u8, y: usize) -> &'a mut [f32] {
        assert!(self.element == ElementType::F32);
        // SAFETY: as `floats`.
        unsafe { std::slice::from_raw_parts_mut(memory.add(self.row_start(y)).cast(), self.shape[2] * self.pixel / 4) }
    }

    /// As [`Buffer::row`], to be written.
    ///
    /// # Safety
    /// `memory` holds the region's tensors and nobody else reads or writes this row.
    pub unsafe fn row_mut<'a>(&self, memory: *mut u8, y: usize) -> &'a mut [u8] {
        // SAFETY: `layout` gave the whole tensor its room.
        unsafe { std::slice::from_raw_parts_mut(memory.add(self.row_start(y)), self.shape[2] * self.pixel) }
    }

    /// Writes the zero point into the border.
    ///
    /// # Safety
    /// `memory` holds the region's tensors and nobody else reads or writes this border.
    pub unsafe fn fill_border(&self, memory: *mut u8) {
        let row = self.row_bytes();
        let fill = |start: usize, length: usize| {
            // SAFETY: `layout` gave the whole tensor its room, border and all.
            unsafe { memory.add(start).write_bytes(self.zero, length) };
        };
        let [top, left, bottom, right] = self.pads;
        let height = self.shape[1];
        fill(self.offset, top * row);
        for y in 0..height {
            fill(self.offset + (top + y) * row, left * self.pixel);
            fill(self.offset + (top + y + 1) * row - right * self.pixel, right * self.pixel);
        }
        fill(self.offset + (top + height) * row, bottom * row);
    }
}
