//! Where each tensor of a region lies while it runs: one block of memory, used again as soon as a tensor's last reader
//! is done.

use crate::buffer::Buffer;
use crate::operator::Border;
use crate::region::Region;
use crate::shape::{BLOCK, ElementType, Shape};
use std::ops::Range;

/// Where all tensors of a region lie.
pub struct Memory {
    /// Of each node.
    pub buffers: Vec<Buffer>,
    /// Of all tensors.
    pub bytes: usize,
}

/// Kernels read up to the end of a quad.
const GUARD: usize = 64;
/// Bytes that a region's tensors may take: far above any network for a device.
const MOST_MEMORY: u64 = 4 << 30;
/// A pixel of at most so many channels, read only by dense convolutions, is not filled up: the image.
const TIGHT: usize = 4;

/// Gives each tensor its place.
///
/// # Errors
/// When two readers of a tensor disagree about its zero point.
pub fn layout(region: &Region, shapes: &[Shape]) -> Result<Memory, String> {
    let mut buffers = bordered(region, shapes)?;
    let mut last_use: Vec<usize> = (0..shapes.len()).collect();
    for (id, node) in region.nodes().iter().enumerate() {
        for input in &node.inputs {
            last_use[input.index()] = id;
        }
    }
    // Tensors that live at the same time, by where they lie.
    let mut alive: Vec<(Range<usize>, usize)> = vec![];
    let mut bytes = 0;
    for (id, buffer) in buffers.iter_mut().enumerate() {
        if region.nodes()[id].op.leaves().is_some() {
            continue;
        }
        alive.retain(|&(_, other)| last_use[other] >= id);
        let need = (buffer.bytes() + GUARD).next_multiple_of(64);
        let offset = best_gap(&alive, need);
        buffer.offset = offset;
        alive.push((offset..offset + need, id));
        alive.sort_by_key(|(range, _)| range.start);
        bytes = bytes.max(offset + need);
    }
    if bytes as u64 > MOST_MEMORY {
        return Err(format!("it needs {bytes} bytes of memory, more than {MOST_MEMORY}"));
    }
    Ok(Memory { buffers, bytes })
}

/// The smallest gap between the ranges that is large enough, or behind them all.
fn best_gap(alive: &[(Range<usize>, usize)], need: usize) -> usize {
    let mut end = 0;
    let mut best: Option<(usize, usize)> = None;
    for (range, _) in alive {
        let gap = range.start.saturating_sub(end);
        if gap >= need && best.is_none_or(|(size, _)| gap < size) {
            best = Some((gap, end));
        }
        end = end.max(range.end);
    }
    best.map_or(end, |(_, start)| start)
}

/// The tensors with the borders that their readers want, nowhere yet.
fn bordered(region: &Region, shapes: &[Shape]) -> Result<Vec<Buffer>, String> {
    let elements = region.elements();
    let mut buffers: Vec<Buffer> = (0..shapes.len()).map(|id| alone(region, id, shapes[id], elements[id])).collect();
    for node in region.nodes() {
        let (Some(Border { pads, zero }), Some(input)) = (node.op.border(), node.inputs.first()) else { continue };
        let buffer = &mut buffers[input.index()];
        if pads.iter().any(|&p| p > 0) {
            if buffer.border() && buffer.zero != zero {
                return Err(format!("{}: its zero point is not that of another reader of the same tensor", node.name));
            }
            buffer.zero = zero;
            buffer.pads = std::array::from_fn(|side| buffer.pads[side].max(pads[side]));
        }
    }
    Ok(buffers)
}

fn alone(region: &Region, id: usize, shape: Shape, element: ElementType) -> Buffer {
    let mut readers = region.nodes().iter().filter(|n| n.inputs.iter().any(|input| input.index() == id));
    let input = region.nodes()[id].op.input().is_some();
    let tight = input && shape[0] <= TIGHT && readers.all(|n| n.op.reads_tight_pixels());
    let lanes = if tight { shape[0] } else { shape[0].next_multiple_of(BLOCK) };
    Buffer { offset: 0, shape, element, pixel: lanes * element.bytes(), pads: [0; 4], zero: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Concat, ResizeNearest};
    use crate::shape::Input;
    use std::sync::Arc;

    #[test]
    fn tensors_that_live_together_do_not_overlap_and_dead_ones_make_room() {
        let mut region = Region::default();
        let input = Input { index: 0, channels_last: true, element: ElementType::U8, append: None };
        let first = region.push("input", Arc::new(input), vec![]);
        let mut last = first;
        for _ in 0..3 {
            last = region.push("same", Arc::new(ResizeNearest([1, 1])), vec![last]);
        }
        region.push("both", Arc::new(Concat), vec![first, last]);
        let shapes = region.shapes(&[[1, 4, 4, 16]]).unwrap();
        assert_eq!(shapes[4], [32, 4, 4]);
        let memory = layout(&region, &shapes).unwrap();
        let one = 16 * 16 + GUARD;
        // 0 stays to the end; 3 takes the room of 1, and 4 that of 2 and more.
        assert_eq!(memory.buffers[3].offset, memory.buffers[1].offset);
        assert_eq!(memory.bytes, 2 * one + 16 * 32 + GUARD);
    }
}
