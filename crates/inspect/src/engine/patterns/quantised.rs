//! Operators on bytes.

use super::{Graph, Match, Reads, depthwise, input, window};
use crate::engine::constants::{QuantisedConv, int, ints, text};

use ckaad_int8::region::{AddRow, Conv, ElementType, Op, Weights};
use tract_onnx::pb::{NodeProto, tensor_proto::DataType};

impl Graph<'_> {
    pub(super) fn conv(&self, node: &NodeProto) -> Option<Op> {
        let QuantisedConv { values, dims, bias, multipliers, x, y } = self.constants.quantised_conv(node)?;
        let (window, depthwise) = (window(node, Some([dims[2], dims[3]]))?, depthwise(node, dims)?);
        let weights = Weights { values, dims, bias, multipliers, x_zero: x.zero, y_zero: y.zero };
        weights.bounded().then_some(Op::Conv(Conv { weights, window, depthwise }))
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
            elements: vec![qa.element, qb.element],
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
                elements: vec![],
                nodes: vec![index],
            });
        }
        let (value, ElementType::U8) = self.constants.bytes(&node.input[2])? else { return None };
        let &[value] = value.as_slice() else { return None };
        let (i, transpose) = self.writer(&node.input[0], "Transpose", 1)?;
        let last = ints(transpose, "perm", &[]) == [0, 3, 1, 2];
        let inputs = transpose.input.clone();
        last.then(|| Match {
            op: input(Some(value)),
            inputs,
            reads: Reads::Bytes,
            elements: vec![ElementType::U8],
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
            elements: vec![ElementType::U8],
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
