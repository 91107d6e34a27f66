//! What lies behind the network: cosine errors, unit vectors, distances, pooled statistics.

use super::{Graph, Match, window};
use crate::engine::constants::{int, ints};

use ckaad_int8::ops::{CosineError, Distance, LeastProduct, PooledStatistics, UnitLength};
use ckaad_int8::shape::{ElementType, Window};
use ckaad_int8::weights::Weights;
use ckaad_int8::{Operator, Reads};
use std::sync::Arc;
use tract_onnx::pb::{NodeProto, tensor_proto::DataType};

/// A tensor, and what is done to its values (`real` ones, or bytes) for every channel, or alike for all.
struct Affine {
    name: String,
    scales: Vec<f32>,
    offsets: Vec<f32>,
    real: bool,
    /// Of bytes, what they must be.
    element: Option<ElementType>,
}

/// Means of the extreme values of each channel.
struct Extremes<'a> {
    /// The tensor `[1,channels,cells]` that they are taken from.
    flat: &'a str,
    count: i64,
    channels: i64,
    nodes: [usize; 3],
}

impl Graph<'_> {
    /// `1 - a·b / sqrt(a·a * b·b + epsilon)` along the channels of two dequantised tensors, each perhaps scaled and
    /// moved per channel.
    pub(super) fn cosine_error(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let mut nodes = vec![index];
        let mut step = |name: &str, op: &str, inputs: usize| {
            let (i, node) = self.only(name, op, inputs)?;
            nodes.push(i);
            Some(node)
        };
        if self.constants.f32(last.input.first()?)? != 1.0 {
            return None;
        }
        let division = step(last.input.get(1)?, "Div", 2)?;
        let root = step(&division.input[1], "Sqrt", 1)?;
        let guarded = step(&root.input[0], "Add", 2)?;
        let epsilon = self.constants.f32(&guarded.input[1])?;
        let squares = step(&guarded.input[0], "Mul", 2)?;
        let mut dot = |name: &str| {
            let sum = step(name, "ReduceSum", 2)?;
            let along = self.constants.i64s(&sum.input[1])? == [1] && int(sum, "keepdims", 1) == 1;
            let product = step(&sum.input[0], "Mul", 2)?;
            along.then_some([product.input[0].as_str(), product.input[1].as_str()])
        };
        let [x, y] = dot(&division.input[0])?;
        if dot(&squares.input[0])? != [x, x] || dot(&squares.input[1])? != [y, y] {
            return None;
        }
        let (a, b) = (self.affine(x, &mut nodes)?, self.affine(y, &mut nodes)?);
        let reads = if a.real && b.real { Reads::Floats } else { Reads::Bytes };
        let (scale_a, offset_a, scale_b, offset_b) = (a.scales, a.offsets, b.scales, b.offsets);
        let op = Arc::new(CosineError { reads, scale_a, offset_a, scale_b, offset_b, epsilon });
        let elements = a.element.into_iter().chain(b.element).collect();
        let inputs = vec![a.name, b.name];
        (a.real == b.real).then_some(Match { op, inputs, elements, nodes })
    }

    /// (DequantizeLinear →) (Mul → Add) → `name`.
    fn affine(&self, name: &str, nodes: &mut Vec<usize>) -> Option<Affine> {
        let mut affine = Affine { name: name.into(), scales: vec![1.0], offsets: vec![0.0], real: true, element: None };
        let moved = self.writer(name, "Add", 2).and_then(|(i, add)| {
            let (j, scaled) = self.only(&add.input[0], "Mul", 2)?;
            let (offsets, scales) =
                (self.constants.per_channel(&add.input[1])?, self.constants.per_channel(&scaled.input[1])?);
            // The three products read it, and nobody else.
            let whole = self.uses.get(name) == Some(&3) && offsets.len() == scales.len();
            whole.then_some((i, j, scaled.input[0].clone(), scales, offsets))
        });
        if let Some((i, j, name, scales, offsets)) = moved {
            nodes.extend([i, j]);
            affine = Affine { name, scales, offsets, real: true, element: None };
        }
        if let Some((i, real)) = self.writer(&affine.name, "DequantizeLinear", 3) {
            nodes.push(i);
            let q = self.quantisation(real, 1)?;
            let zero = f32::from(q.zero);
            for (scale, offset) in affine.scales.iter_mut().zip(&mut affine.offsets) {
                *offset -= zero * q.scale * *scale;
                *scale *= q.scale;
            }
            affine = Affine { name: real.input[0].clone(), real: false, element: Some(q.element), ..affine };
        }
        Some(affine)
    }

    /// `x / sqrt(sum x² + epsilon)` along the channels.
    pub(super) fn unit(&self, index: usize) -> Option<Match> {
        let division = &self.nodes[index];
        let x = division.input.first()?;
        let (i, root) = self.only(division.input.get(1)?, "Sqrt", 1)?;
        let (j, guarded) = self.only(&root.input[0], "Add", 2)?;
        let epsilon = self.constants.f32(&guarded.input[1])?;
        let [k, l] = self.squared_length(&guarded.input[0], x)?;
        Some(Match {
            op: Arc::new(UnitLength { epsilon }),
            inputs: vec![x.clone()],
            elements: vec![],
            nodes: vec![index, i, j, k, l],
        })
    }

    /// `sqrt(relu(min p + sum x²))`, minimum and sum along the channels.
    pub(super) fn distance(&self, index: usize) -> Option<Match> {
        let (i, clamped) = self.only(self.nodes[index].input.first()?, "Relu", 1)?;
        let (j, squared) = self.only(&clamped.input[0], "Add", 2)?;
        let (k, smallest) = self.only(&squared.input[0], "ReduceMin", 1)?;
        if !along_channels(smallest) {
            return None;
        }
        let (_, sum) = self.writer(&squared.input[1], "ReduceSum", 2)?;
        let (_, product) = self.writer(&sum.input[0], "Mul", 2)?;
        let x = &product.input[0];
        let [l, m] = self.squared_length(&squared.input[1], x)?;
        let mut nodes = vec![index, i, j, l, m];
        // Of products of bytes the least is an operator of its own.
        let least = if self.least_product(k).is_some() {
            &squared.input[0]
        } else {
            nodes.push(k);
            &smallest.input[0]
        };
        Some(Match { op: Arc::new(Distance), inputs: vec![least.clone(), x.clone()], elements: vec![], nodes })
    }

    /// ConvInteger with a kernel of one cell → Cast → Mul → Add → ReduceMin: what is multiplied and added is of each channel, or of all alike.
    pub(super) fn least_product(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let (i, moved) = self.only(last.input.first()?, "Add", 2)?;
        let (j, scaled) = self.only(&moved.input[0], "Mul", 2)?;
        let (k, cast) = self.only(&scaled.input[0], "Cast", 1)?;
        let (l, conv) = self.only(&cast.input[0], "ConvInteger", 3)?;
        let (values, ElementType::I8) = self.constants.bytes(&conv.input[1])? else { return None };
        // ONNX Runtime takes no others, so there is nothing to hold them to.
        let (zero, ElementType::U8) = self.constants.bytes(&conv.input[2])? else { return None };
        let &[x_zero] = zero.as_slice() else { return None };
        let dims = self.constants.sides(&conv.input[1])?;
        let plain = along_channels(last)
            && int(cast, "to", 0) == i64::from(DataType::Float as i32)
            && window(conv, Some([dims[2], dims[3]]))? == Window::ONE
            && int(conv, "group", 1) == 1;
        let of_each = |name: &str| {
            let values = self.constants.per_channel(name)?;
            Some(if let &[value] = values.as_slice() { vec![value; dims[0]] } else { values })
        };
        let (multipliers, offset) = (of_each(&scaled.input[1])?, of_each(&moved.input[1])?);
        let values = values.into_iter().map(|w| w as i8).collect();
        let weights = Weights { values, dims, bias: vec![0; dims[0]], multipliers, x_zero, y_zero: 0 };
        let op = LeastProduct { weights, offset };
        // What it does not take is tract's, and not the whole network with it.
        op.shape(&[[dims[1], 1, 1]]).filter(|_| plain)?;
        let inputs = vec![conv.input[0].clone()];
        Some(Match { op: Arc::new(op), inputs, elements: vec![ElementType::U8], nodes: vec![index, i, j, k, l] })
    }

    /// Of each channel of a dequantised tensor the mean over all cells, the mean of the largest and that of the
    /// smallest, one behind the other.
    pub(super) fn pooled_statistics(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let [mean, largest, smallest] = last.input.as_slice() else { return None };
        if int(last, "axis", 0) != 1 {
            return None;
        }
        let (i, mean) = self.only(mean, "ReduceMean", 1)?;
        let x = mean.input[0].as_str();
        if ints(mean, "axes", &[]) != [2, 3] || int(mean, "keepdims", 1) != 1 {
            return None;
        }
        let mut nodes = vec![index, i];
        let Extremes { flat, count, channels, nodes: parts } = self.extremes(largest, true)?;
        let small = self.extremes(smallest, false)?;
        nodes.extend(parts.into_iter().chain(small.nodes));
        let (j, reshape) = self.writer(flat, "Reshape", 2)?;
        let (k, real) = self.writer(x, "DequantizeLinear", 3)?;
        nodes.extend([j, k]);
        let q = self.quantisation(real, 1)?;
        let &[1, c, cells] = self.constants.i64s(&reshape.input[1])?.as_slice() else { return None };
        let alike = (small.flat, small.count, small.channels) == (flat, count, channels)
            && c == channels
            && reshape.input[0] == x
            && self.uses.get(flat) == Some(&2);
        let (count, cells) = (usize::try_from(count).ok()?, usize::try_from(cells).ok()?);
        let op = Arc::new(PooledStatistics { scale: q.scale, zero: f32::from(q.zero), cells, count });
        let inputs = vec![real.input[0].clone()];
        alike.then(|| Match { op, inputs, elements: vec![q.element], nodes })
    }

    /// TopK → ReduceMean → Reshape: of each channel of a flat tensor the mean of the largest or smallest values.
    fn extremes(&self, name: &str, largest: bool) -> Option<Extremes<'_>> {
        let (i, part) = self.only(name, "Reshape", 2)?;
        let (j, mean) = self.only(&part.input[0], "ReduceMean", 1)?;
        let values = mean.input[0].as_str();
        let &k = self.writers.get(values)?;
        let top = &self.nodes[k];
        let [flat, count] = top.input.as_slice() else { return None };
        let alone = top.op_type == "TopK"
            && top.output.first().is_some_and(|first| first == values)
            && self.uses.get(values) == Some(&1)
            && top.output[1..].iter().all(|places| !self.uses.contains_key(places.as_str()));
        let plain = int(top, "axis", -1) == 2
            && (int(top, "largest", 1) == 1) == largest
            && ints(mean, "axes", &[]) == [2]
            && int(mean, "keepdims", 1) == 1;
        let &[1, channels, 1, 1] = self.constants.i64s(&part.input[1])?.as_slice() else { return None };
        let &[count] = self.constants.i64s(count)?.as_slice() else { return None };
        (alone && plain).then_some(Extremes { flat, count, channels, nodes: [i, j, k] })
    }

    /// The two nodes that make `name` of `x`: `sum x²` along the channels.
    fn squared_length(&self, name: &str, x: &str) -> Option<[usize; 2]> {
        let (i, sum) = self.only(name, "ReduceSum", 2)?;
        let along = self.constants.i64s(&sum.input[1])? == [1] && int(sum, "keepdims", 1) == 1;
        let (j, product) = self.only(&sum.input[0], "Mul", 2)?;
        (along && product.input == [x, x]).then_some([i, j])
    }
}

/// Whether a reduction is along the channels and leaves their axis there.
fn along_channels(node: &NodeProto) -> bool {
    ints(node, "axes", &[]) == [1] && int(node, "keepdims", 1) == 1
}
