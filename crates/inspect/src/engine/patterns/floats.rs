//! Operators on floats: layers that stay in float, and whole networks in f32.

use super::{Graph, Match, Reads, depthwise, window};
use crate::engine::constants::{float, text};
use ckaad_int8::region::{Activation, FloatConv, InstanceNorm, Op};
use tract_onnx::pb::NodeProto;

impl Graph<'_> {
    /// The convolution `conv`, whose result as `index` gives it is wanted.
    pub(super) fn float_conv(&self, index: usize, conv: usize, activation: Activation) -> Option<Match> {
        let node = &self.nodes[conv];
        let dims = self.constants.sides(node.input.get(1)?)?;
        let values = self.constants.f32s(&node.input[1])?;
        let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) => self.constants.f32s(name)?,
            None => vec![0.0; dims[0]],
        };
        let window = window(node, Some([dims[2], dims[3]]))?;
        let depthwise = depthwise(node, dims)?;
        let sound = values.len() == dims.iter().product::<usize>() && bias.len() == dims[0];
        let op = Op::FloatConv(FloatConv { values, dims, bias, window, activation, depthwise });
        let nodes = if index == conv { vec![conv] } else { vec![index, conv] };
        sound.then(|| Match { op, inputs: vec![node.input[0].clone()], reads: Reads::Floats, elements: vec![], nodes })
    }

    /// Conv or Add → activation.
    pub(super) fn activated(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let name = node.input.first()?;
        let &before = self.writers.get(name.as_str())?;
        if self.uses.get(name.as_str()) != Some(&1) {
            return None;
        }
        let activation = match node.op_type.as_str() {
            "Relu" => Activation::Slope(0.0, f32::INFINITY),
            "Abs" => Activation::Slope(-1.0, f32::INFINITY),
            "LeakyRelu" => {
                let slope = float(node, "alpha", 0.01);
                Activation::Slope(slope, f32::INFINITY)
            }
            _ => {
                let (low, high) = (self.constants.f32(node.input.get(1)?)?, self.constants.f32(node.input.get(2)?)?);
                (low == 0.0 && high >= 0.0).then_some(Activation::Slope(0.0, high))?
            }
        };
        match self.nodes[before].op_type.as_str() {
            "Conv" => self.float_conv(index, before, activation),
            "Add" => self.float_add(index, before, activation),
            _ => None,
        }
    }

    /// The Add `add` of two tensors, whose result as `index` gives it is wanted.
    pub(super) fn float_add(&self, index: usize, add: usize, activation: Activation) -> Option<Match> {
        let node = &self.nodes[add];
        let variable = node.input.len() == 2 && node.input.iter().all(|x| self.constants.get(x).is_none());
        let nodes = if index == add { vec![add] } else { vec![index, add] };
        let (op, inputs) = (Op::FloatAdd(activation), node.input.clone());
        variable.then_some(Match { op, inputs, reads: Reads::Floats, elements: vec![], nodes })
    }

    pub(super) fn instance_norm(&self, node: &NodeProto) -> Option<Op> {
        let (scale, offset) = (self.constants.f32s(node.input.get(1)?)?, self.constants.f32s(node.input.get(2)?)?);
        let epsilon = float(node, "epsilon", 1e-5);
        Some(Op::InstanceNorm(InstanceNorm { scale, offset, epsilon }))
    }

    pub(super) fn quantise(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let q = self.quantisation(node, 1)?;
        let op = Op::Quantise { scale: q.scale, zero: f32::from(q.zero) };
        Some(Match {
            op,
            inputs: vec![node.input[0].clone()],
            reads: Reads::Floats,
            elements: vec![],
            nodes: vec![index],
        })
    }

    pub(super) fn linear_factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        let plain = text(node, "mode", "nearest") == "linear"
            && text(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel";
        plain.then_some(self.factors(node)?)
    }
}
