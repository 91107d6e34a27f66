//! Operators on floats: layers that stay in float, and whole networks in f32.

use super::{Graph, Match, depthwise, window};
use crate::engine::constants::{float, int, text};
use ckaad_int8::ops::layer_norm::Affine;
use ckaad_int8::ops::{FloatActivation, FloatAdd, FloatConv, FloatModulate, InstanceNorm, LayerNorm, Quantise};
use ckaad_int8::shape::Activation;
use ckaad_int8::weights::FloatWeights;
use std::sync::Arc;
use tract_onnx::pb::NodeProto;

/// What an activation does: to negative values, and to large ones.
#[derive(Clone, Copy)]
pub(super) struct Bend {
    pub activation: Activation,
    pub ceiling: f32,
}

impl Bend {
    pub const NONE: Bend = Bend { activation: Activation::None, ceiling: f32::INFINITY };

    pub fn of(self, value: f32) -> f32 {
        let bent = if value < 0.0 { value * self.activation.slope() } else { value };
        bent.min(self.ceiling)
    }
}

impl Graph<'_> {
    /// What a node does to each value, if it is an activation.
    pub(super) fn bend(&self, node: &NodeProto) -> Option<Bend> {
        let activation = match node.op_type.as_str() {
            "Relu" => Activation::Relu,
            "Abs" => Activation::Abs,
            "LeakyRelu" => Activation::Leaky(float(node, "alpha", 0.01)),
            "Clip" => {
                let (low, high) = (self.constants.f32(node.input.get(1)?)?, self.constants.f32(node.input.get(2)?)?);
                let sound = low == 0.0 && high >= 0.0;
                return sound.then_some(Bend { activation: Activation::Relu, ceiling: high });
            }
            _ => return None,
        };
        Some(Bend { activation, ceiling: f32::INFINITY })
    }

    /// The convolution `conv`, whose result as `index` gives it is wanted.
    pub(super) fn float_conv(&self, index: usize, conv: usize, bend: Bend) -> Option<Match> {
        let node = &self.nodes[conv];
        let dims = self.constants.sides(node.input.get(1)?)?;
        let values = self.constants.f32s(&node.input[1])?;
        let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) => self.constants.f32s(name)?,
            None => vec![0.0; dims[0]],
        };
        let (window, depthwise) = (window(node, Some([dims[2], dims[3]]))?, depthwise(node, dims)?);
        let Bend { activation, ceiling } = bend;
        let weights = FloatWeights { values, dims, bias, activation, ceiling };
        let sound = weights.sound();
        let op = Arc::new(FloatConv { weights, window, depthwise });
        let nodes = if index == conv { vec![conv] } else { vec![index, conv] };
        sound.then(|| Match { op, inputs: vec![node.input[0].clone()], elements: vec![], nodes })
    }

    /// Conv or Add → activation; else the activation alone.
    pub(super) fn activated(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let name = node.input.first()?;
        let bend = self.bend(node)?;
        let before = self.writers.get(name.as_str()).filter(|_| self.uses.get(name.as_str()) == Some(&1));
        let whole = before.and_then(|&before| match self.nodes[before].op_type.as_str() {
            "Conv" => self.float_conv(index, before, bend),
            "Add" => self.float_add(index, before, bend),
            _ => None,
        });
        let Bend { activation, ceiling } = bend;
        whole.or_else(|| self.alone(index, FloatActivation { activation, ceiling }))
    }

    /// The Add `add` of two tensors, whose result as `index` gives it is wanted.
    pub(super) fn float_add(&self, index: usize, add: usize, bend: Bend) -> Option<Match> {
        let node = &self.nodes[add];
        let variable = node.input.len() == 2 && node.input.iter().all(|x| self.constants.get(x).is_none());
        let nodes = if index == add { vec![add] } else { vec![index, add] };
        let Bend { activation, ceiling } = bend;
        let (op, inputs) = (Arc::new(FloatAdd { activation, ceiling }), node.input.clone());
        variable.then_some(Match { op, inputs, elements: vec![], nodes })
    }

    /// Mul of two tensors → Add of a third.
    pub(super) fn float_modulate(&self, index: usize) -> Option<Match> {
        let add = &self.nodes[index];
        let (i, mul) = self.only(add.input.first()?, "Mul", 2)?;
        let inputs = vec![mul.input[0].clone(), mul.input[1].clone(), add.input.get(1)?.clone()];
        let variable = inputs.iter().all(|x| self.constants.get(x).is_none());
        variable.then(|| Match { op: Arc::new(FloatModulate), inputs, elements: vec![], nodes: vec![index, i] })
    }

    pub(super) fn instance_norm(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let (scale, offset) = (self.constants.f32s(node.input.get(1)?)?, self.constants.f32s(node.input.get(2)?)?);
        self.alone(index, InstanceNorm { scale, offset, epsilon: float(node, "epsilon", 1e-5) })
    }

    /// Over channels, height and width, with a scale and perhaps an offset for each value.
    pub(super) fn layer_norm(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        let axis = int(node, "axis", -1);
        let scale = self.constants.f32s(node.input.get(1)?)?;
        let dims = |name: &str| -> Option<[usize; 3]> {
            let dims: Vec<usize> =
                self.constants.get(name)?.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
            dims.try_into().ok()
        };
        let shape = dims(&node.input[1])?;
        let offset = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) if dims(name) == Some(shape) => self.constants.f32s(name)?,
            Some(_) => return None,
            None => vec![0.0; scale.len()],
        };
        let plain = scale.iter().all(|&s| s == 1.0) && offset.iter().all(|&o| o == 0.0);
        let affine = (!plain).then_some(Affine { scale, offset });
        let whole = axis == 1 || axis == -3;
        whole.then(|| self.alone(index, LayerNorm { shape, affine, epsilon: float(node, "epsilon", 1e-5) }))?
    }

    pub(super) fn quantise(&self, index: usize) -> Option<Match> {
        let q = self.quantisation(&self.nodes[index], 1)?;
        self.alone(index, Quantise { scale: q.scale, zero: f32::from(q.zero) })
    }

    pub(super) fn linear_factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        let plain = text(node, "mode", "nearest") == "linear"
            && text(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel";
        plain.then_some(self.factors(node)?)
    }
}
