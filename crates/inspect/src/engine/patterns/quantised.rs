//! Operators on bytes.

use super::{Graph, Match, Reads, depthwise, input, window};
use crate::engine::constants::{int, ints, text};

use ckaad_int8::region::{AddRow, Conv, Op, Weights};
use tract_onnx::pb::{NodeProto, tensor_proto::DataType};

impl Graph<'_> {
    pub(super) fn conv(&self, node: &NodeProto) -> Option<Op> {
        let (x, y) = (self.quantisation(node, 1)?, self.quantisation(node, 6)?);
        let dims = self.constants.sides(node.input.get(3)?)?;
        let (values, true) = self.constants.bytes(&node.input[3])? else { return None };
        let (zeros, true) = self.constants.bytes(node.input.get(5)?)? else { return None };
        let out = dims[0];
        let mut scales = self.constants.f32s(node.input.get(4)?)?;
        if scales.len() == 1 {
            scales = vec![scales[0]; out];
        }
        let bias = match node.input.get(8).filter(|name| !name.is_empty()) {
            Some(name) => self.constants.i32s(name)?,
            None => vec![0; out],
        };
        let depthwise = depthwise(node, dims)?;
        let weights = Weights {
            values: values.iter().map(|&w| w as i8).collect(),
            dims,
            bias,
            multipliers: scales.iter().map(|w| x.scale * w / y.scale).collect(),
            x_zero: x.zero,
            y_zero: y.zero,
        };
        let sizes = weights.values.len() == dims.iter().product::<usize>()
            && weights.multipliers.len() == out
            && weights.bias.len() == out;
        let symmetric = !zeros.is_empty() && zeros.iter().all(|&z| z == 0);
        let window = window(node, Some([dims[2], dims[3]]))?;
        (sizes && symmetric && weights.bounded()).then_some(Op::Conv(Conv { weights, window, depthwise }))
    }

    /// DequantizeLinear of two tensors → Add → (Relu) → QuantizeLinear.
    pub(super) fn add(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let y = self.quantisation(last, 1)?;
        let mut nodes = vec![index];
        let mut sum = last.input[0].as_str();
        let mut low = 0;
        if let Some((i, relu)) = self.only(sum, "Relu", 1) {
            nodes.push(i);
            low = y.zero;
            sum = &relu.input[0];
        }
        let (i, add) = self.only(sum, "Add", 2)?;
        nodes.push(i);
        let (i, a) = self.writer(&add.input[0], "DequantizeLinear", 3)?;
        let (j, b) = self.writer(&add.input[1], "DequantizeLinear", 3)?;
        nodes.extend([i, j]);
        let (qa, qb) = (self.quantisation(a, 1)?, self.quantisation(b, 1)?);
        let (scale_a, scale_b) = (qa.scale / y.scale, qb.scale / y.scale);
        let offset = f32::from(y.zero) - (f32::from(qa.zero) * scale_a + f32::from(qb.zero) * scale_b);
        let how = AddRow { scale_a, scale_b, offset, low, high: 255 };
        Some(Match {
            op: Op::Add(how),
            inputs: vec![a.input[0].clone(), b.input[0].clone()],
            reads: Reads::Bytes,
            signed: vec![qa.signed, qb.signed],
            nodes,
        })
    }

    /// Pad with one more channel: of floats, or of the channels-last image right behind its Transpose.
    pub(super) fn appended_channel(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let &[0, 0, 0, 0, 0, 1, 0, 0] = self.constants.i64s(node.input.get(1)?)?.as_slice() else { return None };
        if text(node, "mode", "constant") != "constant" || node.input.len() != 3 {
            return None;
        }
        if let Some(value) = self.constants.f32(node.input.get(2)?) {
            let inputs = vec![node.input[0].clone()];
            return Some(Match {
                op: Op::Append(value),
                inputs,
                reads: Reads::Floats,
                signed: vec![],
                nodes: vec![index],
            });
        }
        let (value, false) = self.constants.bytes(&node.input[2])? else { return None };
        let &[value] = value.as_slice() else { return None };
        let (i, transpose) = self.writer(&node.input[0], "Transpose", 1)?;
        let last = ints(transpose, "perm", &[]) == [0, 3, 1, 2];
        let inputs = transpose.input.clone();
        last.then(|| Match {
            op: input(Some(value)),
            inputs,
            reads: Reads::Bytes,
            signed: vec![false],
            nodes: vec![index, i],
        })
    }

    /// Bytes → Cast → Sub → Mul: the image as the network wants it.
    pub(super) fn image(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let scale = self.constants.f32(node.input.get(1)?)?;
        let (i, centred) = self.only(&node.input[0], "Sub", 2)?;
        let zero = self.constants.f32(&centred.input[1])?;
        let (j, cast) = self.only(&centred.input[0], "Cast", 1)?;
        let to_f32 = int(cast, "to", 0) == i64::from(DataType::Float as i32);
        let inputs = cast.input.clone();
        to_f32.then(|| Match {
            op: Op::Float { scale, zero },
            inputs,
            reads: Reads::Bytes,
            signed: vec![false],
            nodes: vec![index, i, j],
        })
    }

    pub(super) fn nearest_factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        let plain = text(node, "mode", "nearest") == "nearest"
            && text(node, "nearest_mode", "round_prefer_floor") == "floor"
            && text(node, "coordinate_transformation_mode", "half_pixel") == "asymmetric";
        plain.then_some(self.factors(node)?)
    }
}
