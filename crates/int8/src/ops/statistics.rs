//! Channels pooled over an image to what is typical and what is extreme in them.

use super::one;
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{BLOCK, ElementType, Shape};

/// Of each channel the mean, the mean of the `count` largest values and the mean of the `count` smallest: one pixel of
/// f32 with the means of all channels first, then the largest, then the smallest.
///
/// Bytes are counted rather than sorted, so the sums are exact and their order does not matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PooledStatistics {
    /// What one step of a byte is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: f32,
    /// Pixels that the image must have.
    pub cells: usize,
    /// How many of them are the extreme ones.
    pub count: usize,
}

impl Operator for PooledStatistics {
    fn name(&self) -> &'static str {
        "pooled statistics"
    }

    fn reads(&self) -> Reads {
        Reads::Bytes
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let [channels, height, width] = one(inputs)?;
        // A count of u32 must hold them all.
        let cells = height.checked_mul(width).filter(|&cells| u32::try_from(cells).is_ok())?;
        let fits = cells == self.cells && (1..=cells).contains(&self.count);
        fits.then_some([channels.checked_mul(3)?, 1, 1])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        placed.rows(*self)
    }
}

impl RowStep for PooledStatistics {
    fn row(&self, row: &mut Row) {
        let from = *row.input(0);
        let [channels, height, _] = from.shape;
        // Sums over a pixel run over all its lanes.
        row.out_floats()[3 * channels..].fill(0.0);
        let mut counts = [[0u32; 256]; BLOCK];
        for first in (0..channels).step_by(BLOCK) {
            counts.iter_mut().for_each(|counts| counts.fill(0));
            for pixel in (0..height).flat_map(|y| row.bytes(0, y).chunks_exact(from.pixel)) {
                let bytes = &pixel[first..first + BLOCK];
                counts.iter_mut().zip(bytes).for_each(|(counts, &byte)| counts[usize::from(byte)] += 1);
            }
            let out = row.out_floats();
            for (channel, counts) in (first..channels).zip(&counts) {
                for (part, mean) in self.means(counts).into_iter().enumerate() {
                    out[part * channels + channel] = mean;
                }
            }
        }
    }
}

impl PooledStatistics {
    /// Of all, of the largest and of the smallest values of a channel in which each byte is so often.
    fn means(&self, counts: &[u32; 256]) -> [f32; 3] {
        let ascending = || counts.iter().copied().enumerate();
        let mean =
            |sum: u64, of: usize| ((sum as f64 / of as f64 - f64::from(self.zero)) * f64::from(self.scale)) as f32;
        [
            mean(ascending().map(|(byte, n)| byte as u64 * u64::from(n)).sum(), self.cells),
            mean(sum_of_first(ascending().rev(), self.count), self.count),
            mean(sum_of_first(ascending(), self.count), self.count),
        ]
    }
}

/// Sum of the first `wanted` of bytes that come in order, each with how many there are of it.
fn sum_of_first(bytes: impl Iterator<Item = (usize, u32)>, wanted: usize) -> u64 {
    let mut left = wanted as u64;
    let taken = bytes.map(|(byte, n)| {
        let taken = left.min(u64::from(n));
        left -= taken;
        taken * byte as u64
    });
    taken.sum()
}
