//! Where each tensor of a region lies while it runs: one block of memory, used again as soon as a tensor's last reader is done.

use super::region::{BLOCK, Id, Op, Region, Shape};

/// A tensor in memory, channels last, with a border of zero points around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Of the border's first byte.
    pub offset: usize,
    pub shape: Shape,
    /// Bytes of a pixel: its channels filled up to a multiple of 16 values, f32 or u8.
    pub pixel: usize,
    /// Border at the top, left, bottom and right.
    pub pads: [usize; 4],
    /// What the border holds.
    pub zero: u8,
}

pub struct Memory {
    /// Of each node.
    pub buffers: Vec<Buffer>,
    pub bytes: usize,
}

/// Kernels read up to the end of a quad.
const GUARD: usize = 64;
/// Bytes that a region's tensors may take: far above any network for a device.
const MOST_MEMORY: u64 = 4 << 30;
/// A pixel of at most so many channels, read only by dense convolutions, is not filled up: the image.
const TIGHT: usize = 4;

impl Buffer {
    pub fn row_bytes(&self) -> usize {
        (self.pads[1] + self.shape[2] + self.pads[3]) * self.pixel
    }

    pub fn border(&self) -> bool {
        self.pads.iter().any(|&p| p > 0)
    }

    /// Of the first pixel.
    pub fn start(&self) -> usize {
        self.offset + self.pads[0] * self.row_bytes() + self.pads[1] * self.pixel
    }

    fn bytes(&self) -> usize {
        (self.pads[0] + self.shape[1] + self.pads[2]) * self.row_bytes()
    }

    fn row_start(&self, y: usize) -> usize {
        assert!(y < self.shape[1]);
        self.start() + y * self.row_bytes()
    }

    /// # Safety
    /// `memory` holds the region's tensors and nobody writes this row.
    pub unsafe fn row<'a>(&self, memory: *const u8, y: usize) -> &'a [u8] {
        // SAFETY: `layout` gave the whole tensor its room.
        unsafe { std::slice::from_raw_parts(memory.add(self.row_start(y)), self.shape[2] * self.pixel) }
    }

    /// As [`Buffer::row`], of a tensor of f32.
    ///
    /// # Safety
    /// As [`Buffer::row`]; the tensor is one of f32.
    pub unsafe fn floats<'a>(&self, memory: *const u8, y: usize) -> &'a [f32] {
        // SAFETY: as `row`; offsets and pixels are multiples of 64 bytes, so the row is aligned, and every f32 is a value.
        unsafe { std::slice::from_raw_parts(memory.add(self.row_start(y)).cast(), self.shape[2] * self.pixel / 4) }
    }

    /// As [`Buffer::row_mut`], of a tensor of f32.
    ///
    /// # Safety
    /// As [`Buffer::row_mut`]; the tensor is one of f32.
    pub unsafe fn floats_mut<'a>(&self, memory: *mut u8, y: usize) -> &'a mut [f32] {
        // SAFETY: as `floats`.
        unsafe { std::slice::from_raw_parts_mut(memory.add(self.row_start(y)).cast(), self.shape[2] * self.pixel / 4) }
    }

    /// # Safety
    /// `memory` holds the region's tensors and nobody else reads or writes this row.
    pub unsafe fn row_mut<'a>(&self, memory: *mut u8, y: usize) -> &'a mut [u8] {
        // SAFETY: `layout` gave the whole tensor its room.
        unsafe { std::slice::from_raw_parts_mut(memory.add(self.row_start(y)), self.shape[2] * self.pixel) }
    }

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

/// # Errors
/// When two readers of a tensor disagree about its zero point.
pub fn layout(region: &Region, shapes: &[Shape]) -> Result<Memory, String> {
    let floats = region.floats();
    let mut buffers: Vec<Buffer> = (0..shapes.len()).map(|id| alone(region, id, shapes[id], floats[id])).collect();
    let mut last_use: Vec<usize> = (0..shapes.len()).collect();
    for (id, node) in region.nodes.iter().enumerate() {
        for &input in &node.inputs {
            last_use[input] = id;
        }
        let (pads, zero) = match &node.op {
            Op::Conv(conv) => (conv.window.pads, conv.weights.x_zero),
            Op::FloatConv(conv) => (conv.window.pads, 0),
            _ => continue,
        };
        let buffer = &mut buffers[node.inputs[0]];
        if pads.iter().any(|&p| p > 0) {
            if buffer.border() && buffer.zero != zero {
                return Err(format!("{}: its zero point is not that of another reader of the same tensor", node.name));
            }
            buffer.zero = zero;
            buffer.pads = std::array::from_fn(|side| buffer.pads[side].max(pads[side]));
        }
    }
    // Tensors that live at the same time, by where they lie.
    let mut alive: Vec<(std::ops::Range<usize>, Id)> = vec![];
    let mut bytes = 0;
    for (id, buffer) in buffers.iter_mut().enumerate() {
        if region.nodes[id].op.leaves() {
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
fn best_gap(alive: &[(std::ops::Range<usize>, Id)], need: usize) -> usize {
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

fn alone(region: &Region, id: Id, shape: Shape, floats: bool) -> Buffer {
    let mut readers = region.nodes.iter().filter(|n| n.inputs.contains(&id));
    let dense = |op: &Op| matches!(op, Op::Conv(conv) if !conv.depthwise);
    let input = matches!(region.nodes[id].op, Op::Input(_));
    let tight = input && shape[0] <= TIGHT && readers.all(|n| dense(&n.op));
    let lanes = if tight { shape[0] } else { shape[0].next_multiple_of(BLOCK) };
    let pixel = if floats { lanes * size_of::<f32>() } else { lanes };
    Buffer { offset: 0, shape, pixel, pads: [0; 4], zero: 0 }
}

#[cfg(test)]
mod tests {
    use super::super::region::{ElementType, Input, Node};
    use super::*;

    #[test]
    fn tensors_that_live_together_do_not_overlap_and_dead_ones_make_room() {
        let input = Op::Input(Input { index: 0, channels_last: true, element: ElementType::U8, append: None });
        let node = |op: Op, inputs: Vec<Id>| Node { name: String::new(), op, inputs };
        let up = || Op::Upsample([1, 1]);
        let region = Region {
            outputs: vec![],
            nodes: vec![
                node(input, vec![]),
                node(up(), vec![0]),
                node(up(), vec![1]),
                node(up(), vec![2]),
                node(Op::Concat, vec![0, 3]),
            ],
        };
        let shapes = [[16, 4, 4], [16, 4, 4], [16, 4, 4], [16, 4, 4], [32, 4, 4]];
        let memory = layout(&region, &shapes).unwrap();
        let one = 16 * 16 + GUARD;
        // 0 stays to the end; 3 takes the room of 1, and 4 that of 2 and more.
        assert_eq!(memory.buffers[3].offset, memory.buffers[1].offset);
        assert_eq!(memory.bytes, 2 * one + 16 * 32 + GUARD);
    }
}
