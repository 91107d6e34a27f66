//! How a convolution's output is cut in units of work.

use crate::buffer::Buffer;
use crate::kernels::MAX_BLOCKS;
use crate::shape::Window;
use std::ops::Range;

/// How a convolution's output is cut in units: pixels times groups of blocks.
#[derive(Clone, Debug)]
pub struct Cut {
    pixels: usize,
    /// Pixels of a unit.
    chunk: usize,
    blocks: usize,
    /// Blocks of a unit.
    group: usize,
    /// All groups of some pixels before the next pixels: their input stays in the cache, where all weights fit beside
    /// it.
    group_first: bool,
}

/// Bytes of weights that may stay in the second-level cache beside the pixels.
const WEIGHTS_IN_CACHE: usize = 384 << 10;
/// Input bytes of a unit.
const UNIT_INPUT: usize = 96 << 10;
/// Multiply-adds below which a unit is not worth the handing over.
const UNIT_MACS: usize = 100_000;
/// Divided by every tile's number of pixels.
const TILE_MULTIPLE: usize = 24;

/// What there is to cut.
pub struct Work {
    pixels: usize,
    /// Input bytes of an output pixel.
    in_bytes: usize,
    macs: usize,
    threads: usize,
}

impl Work {
    /// `weights` is the multiply-adds of an output pixel.
    pub fn new(window: Window, from: &Buffer, to: &Buffer, weights: usize, threads: usize) -> Work {
        let pixels = to.shape[1] * to.shape[2];
        let in_bytes = window.stride[0] * window.stride[1] * from.pixel;
        Work { pixels, in_bytes, macs: weights * pixels, threads }
    }

    /// All blocks at once: for weights of a few kilobytes, and where the blocks of a pixel have one result.
    pub fn whole_pixels(&self, blocks: usize) -> Cut {
        self.cut(blocks, blocks)
    }

    /// `lines` are the 64 bytes that the weights lie in.
    pub fn dense(&self, blocks: usize, lines: usize) -> Cut {
        let groups = blocks.div_ceil(MAX_BLOCKS);
        Cut { group_first: lines * 64 <= WEIGHTS_IN_CACHE, ..self.cut(blocks, blocks.div_ceil(groups)) }
    }

    fn cut(&self, blocks: usize, group: usize) -> Cut {
        let &Work { pixels, in_bytes, macs, threads } = self;
        let groups = blocks.div_ceil(group);
        let mut chunk = (UNIT_INPUT / in_bytes.max(1)).max(TILE_MULTIPLE);
        if threads > 1 {
            // Enough units that the threads end together, unless they would be too small.
            let wanted = (4 * threads).min(macs / UNIT_MACS).div_ceil(groups).max(1);
            chunk = chunk.min(pixels.div_ceil(wanted));
        }
        let chunk = chunk.next_multiple_of(TILE_MULTIPLE);
        Cut { pixels, chunk, blocks, group, group_first: true }
    }
}

impl Cut {
    pub fn units(&self) -> usize {
        self.pixels.div_ceil(self.chunk) * self.blocks.div_ceil(self.group)
    }

    /// Pixels and blocks of a unit.
    pub fn unit(&self, unit: usize) -> (Range<usize>, Range<usize>) {
        let (chunks, groups) = (self.pixels.div_ceil(self.chunk), self.blocks.div_ceil(self.group));
        let (chunk, group) =
            if self.group_first { (unit / groups, unit % groups) } else { (unit % chunks, unit / chunks) };
        let part = |i: usize, size: usize, all: usize| i * size..((i + 1) * size).min(all);
        (part(chunk, self.chunk, self.pixels), part(group, self.group, self.blocks))
    }
}
