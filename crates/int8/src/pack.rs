//! Weights as the kernels want them, made once at load.

use crate::buffer::Buffer;
use crate::shape::BLOCK;
use crate::weights::{FloatWeights, Weights};

/// 64 bytes on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct CacheLine(pub [u8; 64]);

/// How output pixels, counted row by row, lie in the two tensors. All distances are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Output pixels in a row.
    pub width: usize,
    /// Between the inputs of two output pixels below each other, and beside each other.
    pub in_row: usize,
    pub in_column: usize,
    pub out_row: usize,
    pub out_column: usize,
}

impl Pixels {
    /// Of a result `to` whose pixels are `stride` input pixels of `from` apart, down and across.
    pub fn new(from: &Buffer, to: &Buffer, stride: [usize; 2]) -> Pixels {
        Pixels {
            width: to.shape[2],
            in_row: stride[0] * from.row_bytes(),
            in_column: stride[1] * from.pixel,
            out_row: to.row_bytes(),
            out_column: to.pixel,
        }
    }
}

/// A run of input bytes that are neighbours in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From the pixel's first byte.
    pub offset: usize,
    /// Length, in 4 bytes.
    pub quads: usize,
}

/// What turns an i32 sum into a byte: `round((bias + sum) * scale) + zero`, saturated.
#[derive(Clone, Debug)]
pub struct Requant {
    /// The convolution's own bias less what the input's zero point adds to the sum. A multiple of 16 values, 0 behind
    /// the last.
    pub bias: Vec<i32>,
    /// `x_scale * w_scale / y_scale` of each output channel, 0 behind the last.
    pub scale: Vec<f32>,
    pub zero: i32,
}

/// A convolution over all input channels.
#[derive(Clone, Debug)]
pub struct Dense {
    pub segments: Vec<Segment>,
    pub blocks: usize,
    /// Of all segments.
    pub quads: usize,
    /// `[block][quad]`, each `[16 output channels][4 input bytes]` i8.
    pub weights: Vec<CacheLine>,
    /// 128 times the sum of each output channel's weights: what sums lack whose inputs are taken as i8, 128 less.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub shift: Vec<i32>,
    /// No weight is -128: two products with bytes taken as i8 then fit an i16.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub narrow: bool,
    /// The same, widened for products of i16, where they are asked for: `[block][quad]`, each two lines of `[16 output channels][2 input bytes]`, of the
    /// quad's bytes 0 and 2, and of 1 and 3.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub pairs: Vec<PairLine>,
    pub requant: Requant,
    /// Where only the least product of each pixel is wanted, no bytes: what is added to `(bias + sum) * scale` of each output channel, a multiple of 16
    /// values, infinite behind the last. A pixel of the result then is 16 floats, and each becomes the least of itself and of what every 16th channel gives.
    pub least: Option<Vec<f32>>,
}

/// 32 halves on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PairLine(pub [i16; 32]);

/// A convolution of floats over all input channels.
#[derive(Clone, Debug)]
pub struct DenseF32 {
    /// Offsets in bytes; `quads` counts floats.
    pub segments: Vec<Segment>,
    pub blocks: usize,
    /// Floats of all segments.
    pub depth: usize,
    /// `[block][depth]`, each 16 output channels.
    pub weights: Vec<FloatLine>,
    /// A multiple of 16 values, 0 behind the last.
    pub bias: Vec<f32>,
    /// Negative sums times this, then at most `ceiling`.
    pub slope: f32,
    pub ceiling: f32,
}

/// A convolution of floats of each channel on its own.
#[derive(Clone, Debug)]
pub struct DepthwiseF32 {
    /// Distance in bytes of each kernel cell from the pixel's first byte.
    pub taps: Vec<usize>,
    pub blocks: usize,
    /// `[tap][block]`, each 16 channels.
    pub weights: Vec<FloatLine>,
    /// As in [`DenseF32`], as the next two.
    pub bias: Vec<f32>,
    pub slope: f32,
    pub ceiling: f32,
}

/// 16 floats on a cache line of their own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct FloatLine(pub [f32; 16]);

/// A convolution of each channel on its own.
#[derive(Clone, Debug)]
pub struct Depthwise {
    /// Distance in bytes of each kernel cell from the pixel's first byte.
    pub taps: Vec<usize>,
    pub blocks: usize,
    /// `[tap][channel]`, widened: what multiply-add instructions take.
    pub weights: Vec<i32>,
    /// The same, half as wide: what those of NEON take.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub halves: Vec<i16>,
    /// Widened as those of [`Dense`], where they are asked for: `[two taps][block]`, each `[16 channels][2 taps]`; behind an odd last tap 0.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub pairs: Vec<PairLine>,
    pub requant: Requant,
    /// For kernels that take 64 channels and a few pixels of a row at once, where there is one for this window.
    pub wide: Option<Wide>,
}

/// A depthwise convolution for dot products of bytes along a row: some groups of 4 input columns give a few output
/// pixels.
#[derive(Clone, Debug)]
pub struct Wide {
    /// Of the kernel, down and across, and of its step across.
    pub rows: usize,
    pub across: usize,
    pub stride: usize,
    /// Bytes between input rows, and between input columns.
    pub row: usize,
    pub column: usize,
    /// `[64 channels][row][pixel][group][4 registers]`, each `[16 channels][4 columns]` i8, 0 where a pixel's kernel does
    /// not reach a column. Which 16 channels a register has, [`Wide::channel`] says: the kernel interleaves the bytes of
    /// four columns, which leaves the channels in that order and not in their own.
    pub weights: Vec<CacheLine>,
    /// Bias and scale of each 64 channels in the same order, 4 lines of 16 values.
    pub bias: Vec<i32>,
    pub scale: Vec<f32>,
}

/// Channels of a [`Wide`] tile.
pub const WIDE: usize = 64;

impl Wide {
    /// The channel that value `lane` of register `part` is of, within 64: what unpacking bytes, then pairs, within 128
    /// bits gives.
    fn channel(part: usize, lane: usize) -> usize {
        lane / 4 * 16 + part * 4 + lane % 4
    }

    fn new(of: &Weights, stride: usize, requant: &Requant, column: usize, row: usize) -> Option<Wide> {
        let [out, _, rows, across] = of.dims;
        // Output pixels of a tile, and groups of 4 columns that they need.
        let (pixels, groups) = match (across, stride) {
            (3, 1) => (2, 1),
            (3, 2) => (3, 2),
            (5, 1) => (4, 2),
            (5, 2) => (2, 2),
            _ => return None,
        };
        let chunks = out.div_ceil(WIDE);
        let mut weights = Vec::with_capacity(chunks * rows * pixels * groups * 4);
        let (mut bias, mut scale) = (vec![], vec![]);
        for chunk in 0..chunks {
            for (y, pixel, group) in
                (0..rows).flat_map(|y| (0..pixels).flat_map(move |p| (0..groups).map(move |g| (y, p, g))))
            {
                for part in 0..4 {
                    weights.push(CacheLine(std::array::from_fn(|byte| {
                        let channel = chunk * WIDE + Wide::channel(part, byte / 4);
                        let x = (4 * group + byte % 4).checked_sub(pixel * stride).filter(|&x| x < across);
                        let weight = |x: usize| of.values[(channel * rows + y) * across + x] as u8;
                        x.filter(|_| channel < out).map_or(0, weight)
                    })));
                }
            }
            for (part, lane) in (0..4).flat_map(|part| (0..BLOCK).map(move |lane| (part, lane))) {
                let channel = chunk * WIDE + Wide::channel(part, lane);
                bias.push(requant.bias.get(channel).copied().unwrap_or(0));
                scale.push(requant.scale.get(channel).copied().unwrap_or(0.0));
            }
        }
        Some(Wide { rows, across, stride, row, column, weights, bias, scale })
    }
}

impl Weights {
    fn requant(&self) -> Requant {
        let row = self.values.len() / self.dims[0];
        let mut bias: Vec<i32> = self
            .values
            .chunks_exact(row)
            .zip(&self.bias)
            .map(|(channel, bias)| {
                let sum: i32 = channel.iter().map(|&w| i32::from(w)).sum();
                bias.wrapping_sub(sum.wrapping_mul(i32::from(self.x_zero)))
            })
            .collect();
        let mut scale = self.multipliers.clone();
        let padded = self.dims[0].next_multiple_of(BLOCK);
        bias.resize(padded, 0);
        scale.resize(padded, 0.0);
        Requant { bias, scale, zero: i32::from(self.y_zero) }
    }

    /// `lanes` are the bytes of an input pixel in memory, `row` those from one input row to the next; `pairs`, whether somebody will read them.
    pub fn dense(&self, lanes: usize, row: usize, pairs: bool) -> Dense {
        let [out, channels, height, width] = self.dims;
        // Cells beside each other are one run where no padding bytes lie between them.
        let (runs, cells) = if lanes == channels { (1, width) } else { (width, 1) };
        let bytes = cells * channels;
        let quads_a_run = bytes.div_ceil(4);
        let mut segments = vec![];
        for y in 0..height {
            segments.extend((0..runs).map(|x| Segment { offset: y * row + x * lanes, quads: quads_a_run }));
        }
        let quads = segments.len() * quads_a_run;
        let blocks = out.div_ceil(BLOCK);
        let mut weights = vec![CacheLine([0; 64]); blocks * quads];
        for o in 0..out {
            for (s, y, run) in (0..height).flat_map(|y| (0..runs).map(move |run| (y * runs + run, y, run))) {
                for byte in 0..bytes {
                    let (x, channel) = (run + byte / channels, byte % channels);
                    let w = self.values[((o * channels + channel) * height + y) * width + x];
                    let line = (o / BLOCK) * quads + s * quads_a_run + byte / 4;
                    weights[line].0[(o % BLOCK) * 4 + byte % 4] = w as u8;
                }
            }
        }
        let mut shift: Vec<i32> = self
            .values
            .chunks_exact(channels * height * width)
            .map(|channel| channel.iter().map(|&w| 128 * i32::from(w)).sum())
            .collect();
        shift.resize(blocks * BLOCK, 0);
        let narrow = self.values.iter().all(|&w| w != i8::MIN);
        let pairs = weights.iter().filter(|_| pairs).flat_map(|line| [0, 1].map(|first| pair(line, first))).collect();
        Dense { segments, blocks, quads, weights, shift, narrow, pairs, requant: self.requant(), least: None }
    }

    /// As [`Weights::dense`], for one group a channel; `stride` is the step across.
    pub fn depthwise(&self, lanes: usize, row: usize, stride: usize, pairs: bool) -> Depthwise {
        let [out, _, height, width] = self.dims;
        let blocks = out.div_ceil(BLOCK);
        let mut taps = vec![];
        let mut weights = vec![];
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            taps.push(y * row + x * lanes);
            let of_channel = |c: usize| i32::from(self.values[(c * height + y) * width + x]);
            weights.extend((0..blocks * BLOCK).map(|c| if c < out { of_channel(c) } else { 0 }));
        }
        let requant = self.requant();
        let wide = Wide::new(self, stride, &requant, lanes, row);
        // Each comes from an i8.
        let halves: Vec<i16> = weights.iter().map(|&w: &i32| w as i16).collect();
        let channels = blocks * BLOCK;
        let half = |tap: usize, channel: usize| halves.get(tap * channels + channel).copied().unwrap_or(0);
        let line = |tap, block| PairLine(std::array::from_fn(|i| half(tap + i % 2, block * BLOCK + i / 2)));
        let lines = (0..taps.len()).step_by(2).flat_map(|tap| (0..blocks).map(move |block| (tap, block)));
        let pairs = lines.filter(|_| pairs).map(|(tap, block)| line(tap, block)).collect();
        Depthwise { taps, blocks, weights, halves, pairs, requant, wide }
    }
}

impl DenseF32 {
    /// `pixel` are the bytes of an input pixel in memory, `row` those from one input row to the next.
    pub fn new(conv: &FloatWeights, pixel: usize, row: usize) -> DenseF32 {
        let [out, channels, height, width] = conv.dims;
        let cells = || (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let segments = cells().map(|(y, x)| Segment { offset: y * row + x * pixel, quads: channels }).collect();
        let (depth, blocks) = (height * width * channels, out.div_ceil(BLOCK));
        let mut weights = vec![FloatLine([0.0; 16]); blocks * depth];
        for o in 0..out {
            for (cell, (y, x)) in cells().enumerate() {
                for c in 0..channels {
                    let w = conv.values[((o * channels + c) * height + y) * width + x];
                    weights[(o / BLOCK) * depth + cell * channels + c].0[o % BLOCK] = w;
                }
            }
        }
        let mut bias = conv.bias.clone();
        bias.resize(blocks * BLOCK, 0.0);
        let (slope, ceiling) = (conv.activation.slope(), conv.ceiling);
        DenseF32 { segments, blocks, depth, weights, bias, slope, ceiling }
    }

    pub fn weights_of(&self, block: usize) -> &[FloatLine] {
        &self.weights[block * self.depth..(block + 1) * self.depth]
    }
}

impl DepthwiseF32 {
    /// As [`DenseF32::new`], for one group a channel.
    pub fn new(conv: &FloatWeights, pixel: usize, row: usize) -> DepthwiseF32 {
        let [out, _, height, width] = conv.dims;
        let blocks = out.div_ceil(BLOCK);
        let (mut taps, mut weights) = (vec![], vec![]);
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            taps.push(y * row + x * pixel);
            let of_channel = |c: usize| if c < out { conv.values[(c * height + y) * width + x] } else { 0.0 };
            weights.extend((0..blocks).map(|b| FloatLine(std::array::from_fn(|i| of_channel(b * BLOCK + i)))));
        }
        let mut bias = conv.bias.clone();
        bias.resize(blocks * BLOCK, 0.0);
        let (slope, ceiling) = (conv.activation.slope(), conv.ceiling);
        DepthwiseF32 { taps, blocks, weights, bias, slope, ceiling }
    }
}

/// Of the 4 weights of each output channel that at `first` and the second behind it.
fn pair(line: &CacheLine, first: usize) -> PairLine {
    PairLine(std::array::from_fn(|i| i16::from(line.0[i / 2 * 4 + first + i % 2 * 2] as i8)))
}

impl Dense {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn pairs_of(&self, block: usize) -> &[PairLine] {
        &self.pairs[block * self.quads * 2..(block + 1) * self.quads * 2]
    }

    pub fn weights_of(&self, block: usize) -> &[CacheLine] {
        &self.weights[block * self.quads..(block + 1) * self.quads]
    }
}

impl Depthwise {
    /// Of a block, its line of the first two taps and all behind it; of the next two taps, `blocks` lines further.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn pairs_from(&self, block: usize) -> &[PairLine] {
        &self.pairs[block..][..(self.taps.len().div_ceil(2) - 1) * self.blocks + 1]
    }

    pub fn weights_of(&self, tap: usize, block: usize) -> &[i32] {
        let start = (tap * self.blocks + block) * BLOCK;
        &self.weights[start..start + BLOCK]
    }
}

impl Requant {
    pub fn bias_of(&self, block: usize) -> [i32; BLOCK] {
        std::array::from_fn(|i| self.bias[block * BLOCK + i])
    }

    pub fn scale_of(&self, block: usize) -> &[f32] {
        &self.scale[block * BLOCK..(block + 1) * BLOCK]
    }
}
