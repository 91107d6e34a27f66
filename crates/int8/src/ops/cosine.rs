//! How far two tensors are from pointing the same way, pixel by pixel.

use super::two_alike;
use crate::isa::{LANES, compiled_for_every_isa, tree_sum};
use crate::operator::{Operator, Placed, Reads, Row, RowStep, Step};
use crate::shape::{BLOCK, ElementType, Shape};

/// `1 - a·b / sqrt(a·a * b·b + epsilon)` over the channels of a pixel, where channel `c` of `a` is
/// `scale_a[c] * value + offset_a[c]`, and so for `b`. Leaves the region as f32 `[1,1,H,W]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CosineError {
    /// Bytes or floats.
    pub reads: Reads,
    /// One value a channel, or one for all, as in the next three.
    pub scale_a: Vec<f32>,
    /// Of the first input.
    pub offset_a: Vec<f32>,
    /// Of the second input.
    pub scale_b: Vec<f32>,
    /// Of the second input.
    pub offset_b: Vec<f32>,
    /// Keeps the root above 0.
    pub epsilon: f32,
}

impl CosineError {
    /// The same with a value for every lane of a pixel with so many channels, 0 behind the last; none when it is for
    /// another number of channels.
    pub(crate) fn for_channels(&self, channels: usize) -> Option<CosineError> {
        let fill = |values: &[f32]| {
            let mut all = if let &[one] = values { vec![one; channels] } else { values.to_vec() };
            let fits = all.len() == channels;
            all.resize(channels.next_multiple_of(BLOCK), 0.0);
            fits.then_some(all)
        };
        Some(CosineError {
            reads: self.reads,
            scale_a: fill(&self.scale_a)?,
            offset_a: fill(&self.offset_a)?,
            scale_b: fill(&self.scale_b)?,
            offset_b: fill(&self.offset_b)?,
            epsilon: self.epsilon,
        })
    }
}

impl Operator for CosineError {
    fn name(&self) -> &'static str {
        "a cosine error"
    }

    fn reads(&self) -> Reads {
        self.reads
    }

    fn gives(&self, _: ElementType) -> ElementType {
        ElementType::F32
    }

    fn leaves(&self) -> Option<ElementType> {
        Some(ElementType::F32)
    }

    fn shape(&self, inputs: &[Shape]) -> Option<Shape> {
        let [channels, height, width] = two_alike(inputs)?;
        self.for_channels(channels).map(|_| [1, height, width])
    }

    fn compile(&self, placed: &Placed) -> Box<dyn Step> {
        let from = &placed.inputs[0];
        let how = self.for_channels(from.shape[0]).unwrap_or_else(|| self.clone());
        if from.element == ElementType::F32 { placed.rows(OfFloats(how)) } else { placed.rows(OfBytes(how)) }
    }
}

struct OfBytes(CosineError);

impl RowStep for OfBytes {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        cosine_row(isa, &self.0, row.bytes(0, y), row.bytes(1, y), row.plane_floats(0));
    }
}

struct OfFloats(CosineError);

impl RowStep for OfFloats {
    fn row(&self, row: &mut Row) {
        let (isa, y) = (row.isa, row.y);
        cosine_row_f32(isa, &self.0, row.floats(0, y), row.floats(1, y), row.plane_floats(0));
    }
}

compiled_for_every_isa! {
    /// See [`CosineError`]; pixels are whole lanes.
    pub(crate) fn cosine_row(how: &CosineError, a: &[u8], b: &[u8], out: &mut [f32]) {
        cosine(how, a, b, out);
    }

    /// As [`cosine_row`], of floats.
    pub(crate) fn cosine_row_f32(how: &CosineError, a: &[f32], b: &[f32], out: &mut [f32]) {
        cosine(how, a, b, out);
    }
}

#[inline(always)]
fn cosine<T: Copy + Into<f32>>(how: &CosineError, a: &[T], b: &[T], out: &mut [f32]) {
    let lanes = how.scale_a.len();
    for ((out, a), b) in out.iter_mut().zip(a.chunks_exact(lanes)).zip(b.chunks_exact(lanes)) {
        let (mut ab, mut aa, mut bb) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for start in (0..lanes).step_by(LANES) {
            let part = start..start + LANES;
            let (a, b) = (&a[part.clone()], &b[part.clone()]);
            let (sa, oa) = (&how.scale_a[part.clone()], &how.offset_a[part.clone()]);
            let (sb, ob) = (&how.scale_b[part.clone()], &how.offset_b[part]);
            for i in 0..LANES {
                let x = a[i].into() * sa[i] + oa[i];
                let y = b[i].into() * sb[i] + ob[i];
                ab[i] += x * y;
                aa[i] += x * x;
                bb[i] += y * y;
            }
        }
        let [ab, aa, bb] = [ab, aa, bb].map(|sums| tree_sum(&sums));
        *out = 1.0 - ab / (aa * bb + how.epsilon).sqrt();
    }
}
