//! Operators on bytes.

use super::floats::Bend;
use super::{Graph, Match, depthwise, input, window};
use crate::engine::constants::{Quantisation, QuantisedConv, float, int, ints, text};

use ckaad_int8::Operator;
use ckaad_int8::ops::lookup::Scale;
use ckaad_int8::ops::{Add, AppendChannel, Constant, Conv, Dequantise, Lookup, Modulate};
use ckaad_int8::shape::{Activation, ElementType};
use ckaad_int8::weights::Weights;
use std::sync::Arc;
use tract_onnx::pb::{NodeProto, tensor_proto::DataType};

fn scale(q: Quantisation) -> Scale {
    Scale { scale: q.scale, zero: q.zero }
}

/// What becomes of each byte.
fn table(x: Quantisation, y: Quantisation, bend: Bend) -> Lookup {
    Lookup::new(scale(x), scale(y), |value| bend.of(value))
}

impl Graph<'_> {
    pub(super) fn conv(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let QuantisedConv { values, dims, bias, multipliers, x, y } = self.constants.quantised_conv(node)?;
        let (window, depthwise) = (window(node, Some([dims[2], dims[3]]))?, depthwise(node, dims)?);
        let weights = Weights { values, dims, bias, multipliers, x_zero: x.zero, y_zero: y.zero };
        let found = weights.bounded().then(|| self.alone(index, Conv { weights, window, depthwise }))??;
        Some(Match { elements: vec![x.element], ..found })
    }

    /// DequantizeLinear → activation → QuantizeLinear: a table.
    pub(super) fn lookup(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let y = self.quantisation(last, 1)?;
        let name = last.input[0].as_str();
        let &i = self.writers.get(name).filter(|_| self.uses.get(name) == Some(&1))?;
        let bend = self.bend(&self.nodes[i])?;
        let (j, real) = self.writer(self.nodes[i].input.first()?, "DequantizeLinear", 3)?;
        let x = self.quantisation(real, 1)?;
        Some(Match {
            op: Arc::new(table(x, y, bend)),
            inputs: vec![real.input[0].clone()],
            elements: vec![x.element],
            nodes: vec![index, i, j],
        })
    }

    /// ONNX Runtime's LeakyRelu on bytes.
    pub(super) fn quantised_leaky_relu(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let (x, y) = (self.quantisation(node, 1)?, self.quantisation(node, 3)?);
        let bend = Bend { activation: Activation::Leaky(float(node, "alpha", 0.01)), ceiling: f32::INFINITY };
        Some(Match { elements: vec![x.element], ..self.alone(index, table(x, y, bend))? })
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
        let how = Add { scale_a, scale_b, offset, low, high: 255 };
        Some(Match {
            op: Arc::new(how),
            inputs: vec![a.input[0].clone(), b.input[0].clone()],
            elements: vec![qa.element, qb.element],
            nodes,
        })
    }

    /// DequantizeLinear of three tensors → Mul of two → Add of the third → QuantizeLinear.
    pub(super) fn modulate(&self, index: usize) -> Option<Match> {
        let last = &self.nodes[index];
        let result = self.quantisation(last, 1)?;
        let (i, add) = self.only(&last.input[0], "Add", 2)?;
        let (j, mul) = self.only(&add.input[0], "Mul", 2)?;
        let mut nodes = vec![index, i, j];
        let (mut inputs, mut elements, mut scales) = (vec![], vec![], vec![]);
        for real in [&mul.input[0], &mul.input[1], &add.input[1]] {
            let (i, real) = self.writer(real, "DequantizeLinear", 3)?;
            let q = self.quantisation(real, 1)?;
            nodes.push(i);
            inputs.push(real.input[0].clone());
            elements.push(q.element);
            scales.push(scale(q));
        }
        let &[x, gamma, beta] = scales.as_slice() else { return None };
        let op = Arc::new(Modulate { x, gamma, beta, result: scale(result) });
        Some(Match { op, inputs, elements, nodes })
    }

    /// Identity of bytes or floats that the file holds, `[1,C,H,W]`: to be read inside a region, a tensor needs a node.
    pub(super) fn constant(&self, index: usize) -> Option<Match> {
        let name = self.nodes[index].input.first()?;
        let [1, channels, height, width] = self.constants.sides(name)? else { return None };
        let shape = [channels, height, width];
        let op: Arc<dyn Operator> = match self.constants.bytes(name) {
            Some((mut values, element)) => {
                values.iter_mut().for_each(|value| *value ^= element.flip());
                Arc::new(Constant::new(shape, values)?)
            }
            None => Arc::new(Constant::new(shape, self.constants.f32s(name)?)?),
        };
        Some(Match { op, inputs: vec![], elements: vec![], nodes: vec![index] })
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
            return Some(Match { op: Arc::new(AppendChannel(value)), inputs, elements: vec![], nodes: vec![index] });
        }
        let (value, ElementType::U8) = self.constants.bytes(&node.input[2])? else { return None };
        let &[value] = value.as_slice() else { return None };
        let (i, transpose) = self.writer(&node.input[0], "Transpose", 1)?;
        let last = ints(transpose, "perm", &[]) == [0, 3, 1, 2];
        let inputs = transpose.input.clone();
        last.then(|| Match {
            op: Arc::new(input(Some(value))),
            inputs,
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
            op: Arc::new(Dequantise { scale, zero }),
            inputs,
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
