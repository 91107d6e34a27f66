//! Convolutions of drawn shapes and values, laid out in memory as a program lays them out.

use super::*;
use crate::weights::Weights;
use rand::seq::IndexedRandom;

/// A convolution with both tensors in memory, each with a border.
pub struct Case {
    seed: u64,
    pub depthwise: bool,
    pub weights: Weights,
    stride: [usize; 2],
    pads: [usize; 4],
    /// Height and width.
    input: [usize; 2],
    output: [usize; 2],
    /// What the convolution says it adds at the edges is in here, and the channels that fill a pixel up are noise.
    memory: Vec<u8>,
    /// Bytes of an input pixel and of a row of them; the first byte under the kernel at the first output pixel.
    lanes: usize,
    row: usize,
    start: usize,
    pub at: Pixels,
    /// Noise, with the result's first pixel at `first`.
    canaries: Vec<u8>,
    first: usize,
}

pub enum Packed {
    Dense(Dense),
    Depthwise(Depthwise),
}

/// Multiply-adds of a case, about.
const BUDGET: usize = 300_000;

/// What the case looks like; the rest is drawn.
pub struct Shape {
    pub depthwise: bool,
    pub channels: usize,
    pub out: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Height and width of the result.
    pub pixels: [usize; 2],
    /// An input pixel is its channels and nothing else: the image.
    pub tight: bool,
}

impl Shape {
    fn any(rng: &mut ChaCha8Rng, depthwise: bool) -> Shape {
        let tight = !depthwise && rng.random_bool(0.25);
        let channels = if tight { rng.random_range(1..=4) } else { rng.random_range(1..=130) };
        let out = if depthwise { channels } else { rng.random_range(1..=200) };
        let side = rng.random_range(1..=7);
        let kernel = if rng.random_bool(0.6) { [side, side] } else { [side, rng.random_range(1..=7)] };
        let step = rng.random_range(1..=3);
        let stride = if rng.random_bool(0.8) { [step, step] } else { [step, rng.random_range(1..=3)] };
        let depth = if depthwise { 1 } else { channels };
        let most = (BUDGET / (out * depth * kernel[0] * kernel[1])).clamp(1, 200);
        let width = rng.random_range(1..=most.min(45));
        let height = rng.random_range(1..=(most / width).max(1));
        Shape { depthwise, channels, out, kernel, stride, pixels: [height, width], tight }
    }
}

impl Case {
    pub fn any(seed: u64, depthwise: bool) -> Case {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape::any(&mut rng, depthwise);
        Case::of(seed, rng, &shape)
    }

    pub fn of(seed: u64, mut rng: ChaCha8Rng, shape: &Shape) -> Case {
        let rng = &mut rng;
        let &Shape { depthwise, channels, out, kernel, stride, tight, .. } = shape;
        let weights = weights(rng, [out, if depthwise { 1 } else { channels }, kernel[0], kernel[1]]);
        let pads: [usize; 4] = std::array::from_fn(|side| rng.random_range(0..kernel[side % 2]));
        let input: [usize; 2] = std::array::from_fn(|axis| {
            let covered = (shape.pixels[axis] - 1) * stride[axis] + kernel[axis] + rng.random_range(0..stride[axis]);
            covered.saturating_sub(pads[axis] + pads[axis + 2]).max(1)
        });
        let output: [usize; 2] = std::array::from_fn(|axis| {
            let room = (input[axis] + pads[axis] + pads[axis + 2]).checked_sub(kernel[axis]);
            room.map_or(1, |room| room / stride[axis] + 1)
        });
        // Another reader of the tensor may want a wider border.
        let border: [usize; 4] = std::array::from_fn(|side| {
            // A kernel larger than its input needs room at the end.
            let lacking = if side < 2 { 0 } else { kernel[side - 2].saturating_sub(input[side - 2] + pads[side - 2]) };
            pads[side].max(lacking) + rng.random_range(0..3)
        });
        let lanes = if tight { channels } else { channels.next_multiple_of(BLOCK) };
        let row = (border[1] + input[1] + border[3]) * lanes;
        let start = (border[0] - pads[0]) * row + (border[1] - pads[1]) * lanes;
        let tensor = (border[0] + input[0] + border[2]) * row;
        let blocks = out.div_ceil(BLOCK);
        let margin: [usize; 4] = std::array::from_fn(|_| rng.random_range(0..3));
        let (out_column, out_row) = (blocks * BLOCK, (margin[1] + output[1] + margin[3]) * blocks * BLOCK);
        let first = 16 + margin[0] * out_row + margin[1] * out_column;
        let at =
            Pixels { width: output[1], in_row: stride[0] * row, in_column: stride[1] * lanes, out_row, out_column };
        let mut case = Case {
            seed,
            depthwise,
            weights,
            stride,
            pads,
            input,
            output,
            memory: vec![],
            lanes,
            row,
            start,
            at,
            canaries: noise(rng, 16 + (margin[0] + output[0] + margin[2]) * out_row + 16),
            first,
        };
        // No byte more than the contract asks for, so that the address sanitizer sees what goes beyond.
        case.memory = noise(rng, tensor.max(case.last_read()));
        let style = rng.random_range(0..3);
        for (y, x) in (0..tensor / row).flat_map(|y| (0..row / lanes).map(move |x| (y, x))) {
            let pixel = &mut case.memory[y * row + x * lanes..][..channels];
            let inside =
                (border[0]..border[0] + input[0]).contains(&y) && (border[1]..border[1] + input[1]).contains(&x);
            for byte in pixel {
                *byte = match style {
                    _ if !inside => case.weights.x_zero,
                    0 => rng.random(),
                    1 => *[0, 255].choose(rng).unwrap(),
                    _ => 255,
                };
            }
        }
        case
    }

    pub fn packed(&self) -> Packed {
        if self.depthwise {
            Packed::Depthwise(self.weights.depthwise(self.lanes, self.row, self.stride[1], true))
        } else {
            Packed::Dense(self.weights.dense(self.lanes, self.row, true))
        }
    }

    pub fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    pub fn blocks(&self) -> usize {
        self.at.out_column / BLOCK
    }

    /// End of the last byte that a kernel may read.
    fn last_read(&self) -> usize {
        let of_pixel = match self.packed() {
            Packed::Dense(conv) => conv.segments.iter().map(|s| s.offset + 4 * s.quads).max().unwrap(),
            Packed::Depthwise(conv) => conv.taps.iter().max().unwrap() + conv.blocks * BLOCK,
        };
        self.start + (self.output[0] - 1) * self.at.in_row + (self.output[1] - 1) * self.at.in_column + of_pixel
    }

    fn run(&self, isa: Isa, packed: &Packed, to: &mut [u8], pixels: Range<usize>, blocks: Range<usize>) {
        // SAFETY: `memory` and `canaries` have room for all pixels, and the caller borrows `to` for itself.
        unsafe {
            let (input, output) = (self.memory.as_ptr().add(self.start), to.as_mut_ptr().add(self.first));
            let area = Area { at: self.at, input, output, pixels, blocks };
            match packed {
                Packed::Dense(conv) => dense(isa, conv, area),
                Packed::Depthwise(conv) => depthwise(isa, conv, area),
            }
        }
    }

    /// Where `blocks` of a pixel lie in the result.
    pub fn bytes_of(&self, pixel: usize, blocks: &Range<usize>) -> Range<usize> {
        let (y, x) = (pixel / self.at.width, pixel % self.at.width);
        let start = self.first + y * self.at.out_row + x * self.at.out_column;
        start + blocks.start * BLOCK..start + blocks.end * BLOCK
    }

    /// The whole result of the portable kernels, noise around it.
    pub fn portable(&self, packed: &Packed) -> Vec<u8> {
        let mut to = self.canaries.clone();
        for start in (0..self.blocks()).step_by(MAX_BLOCKS) {
            self.run(Isa::PORTABLE, packed, &mut to, 0..self.pixels(), start..(start + MAX_BLOCKS).min(self.blocks()));
        }
        to
    }

    /// Computes the units in their order and holds after each that its bytes are right and that all others are as they
    /// were.
    pub fn check(&self, isa: Isa, packed: &Packed, right: &[u8], units: &[(Range<usize>, Range<usize>)]) {
        let (mut expected, mut to) = (self.canaries.clone(), self.canaries.clone());
        for (pixels, blocks) in units {
            for bytes in pixels.clone().map(|p| self.bytes_of(p, blocks)) {
                expected[bytes.clone()].copy_from_slice(&right[bytes]);
            }
            self.run(isa, packed, &mut to, pixels.clone(), blocks.clone());
            assert!(to == expected, "{isa:?}, pixels {pixels:?}, blocks {blocks:?} of {self:?}");
        }
    }

    /// The i32 sum before requantisation, from the definition: what lies outside the input counts as its zero point.
    pub fn sum(&self, channel: usize, y: usize, x: usize) -> i64 {
        let [_, depth, height, width] = self.weights.dims;
        let border = self.start + self.pads[0] * self.row + self.pads[1] * self.lanes;
        let mut sum = i64::from(self.weights.bias[channel]);
        for (ky, kx) in (0..height).flat_map(|ky| (0..width).map(move |kx| (ky, kx))) {
            let (Some(y), Some(x)) = (
                (y * self.stride[0] + ky).checked_sub(self.pads[0]),
                (x * self.stride[1] + kx).checked_sub(self.pads[1]),
            ) else {
                continue;
            };
            if y >= self.input[0] || x >= self.input[1] {
                continue;
            }
            for d in 0..depth {
                let c = if self.depthwise { channel } else { d };
                let value = self.memory[border + y * self.row + x * self.lanes + c];
                let weight = self.weights.values[((channel * depth + d) * height + ky) * width + kx];
                sum += (i64::from(value) - i64::from(self.weights.x_zero)) * i64::from(weight);
            }
        }
        sum
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.depthwise { "depthwise" } else { "dense" };
        let (dims, lanes) = (self.weights.dims, self.lanes);
        write!(f, "seed {}: {kind} {dims:?}, stride {:?}, pads {:?}, ", self.seed, self.stride, self.pads)?;
        write!(f, "{:?} -> {:?}, {lanes} bytes a pixel", self.input, self.output)
    }
}

pub fn weights(rng: &mut ChaCha8Rng, dims: [usize; 4]) -> Weights {
    let [out, depth, height, width] = dims;
    let terms = depth * height * width;
    let style = rng.random_range(0..5);
    let value = |rng: &mut ChaCha8Rng| match style {
        0 => -128,
        1 => 127,
        2 => *[-128, 127].choose(rng).unwrap(),
        // Some kernels are quicker where no weight is -128.
        3 => rng.random_range(-127..=127),
        _ => rng.random::<i8>(),
    };
    let values = (0..out * terms).map(|_| value(rng)).collect();
    // How large the sums are, about, says which multipliers spread them over the bytes.
    let typical = if style < 2 { terms as f32 } else { (terms as f32).sqrt() } * 8000.0;
    let scaling = rng.random_range(0..4);
    let multiplier = |rng: &mut ChaCha8Rng| match scaling {
        // Powers of two: sums that lie exactly between two bytes are frequent.
        0 => 0.5f32.powi((typical / 64.0).log2() as i32),
        1 => 1.0,
        _ => rng.random_range(20.0..300.0) / typical,
    };
    let multipliers = (0..out).map(|_| multiplier(rng)).collect();
    let bias = (0..out).map(|_| rng.random_range(-(1 << 18)..1 << 18)).collect();
    let zero = |rng: &mut ChaCha8Rng| *[0, 128, 255, rng.random()].choose(rng).unwrap();
    let weights = Weights { values, dims, bias, multipliers, x_zero: zero(rng), y_zero: zero(rng) };
    assert!(weights.bounded());
    weights
}
