//! ONNX nodes → operators of a region: what each operator's kernels can do, and nothing else.

mod floats;
mod quantised;
mod tail;

use super::constants::{Constants, Quantisation, int, ints, text};
use ckaad_int8::Operator;
use ckaad_int8::ops::{AveragePool, Concat, DepthToSpace, Dequantise, MaxPool, ResizeLinear, ResizeNearest};
use ckaad_int8::shape::{ElementType, Input, Window};
use floats::Bend;
use std::collections::HashMap;
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, NodeProto};

/// A graph with what the patterns look up.
pub struct Graph<'a> {
    pub nodes: &'a [NodeProto],
    pub constants: Constants<'a>,
    /// The node that writes a tensor.
    writers: HashMap<&'a str, usize>,
    /// How many inputs and graph outputs a tensor is.
    uses: HashMap<&'a str, usize>,
}

/// An operator, or a few that are one operator of ours.
#[derive(Debug)]
pub struct Match {
    pub op: Arc<dyn Operator>,
    /// Names of the tensors that it reads.
    pub inputs: Vec<String>,
    /// Of each input, where it matters, what its bytes must be.
    pub elements: Vec<ElementType>,
    /// Nodes that it stands for, its own last node first. Others may read the results of the DequantizeLinears among
    /// them, and of no others.
    pub nodes: Vec<usize>,
}

impl<'a> Graph<'a> {
    pub fn of(graph: &'a GraphProto) -> Graph<'a> {
        let mut uses = HashMap::new();
        let outputs = graph.output.iter().map(|o| o.name.as_str());
        for name in graph.node.iter().flat_map(|n| n.input.iter().map(String::as_str)).chain(outputs) {
            *uses.entry(name).or_insert(0) += 1;
        }
        let written = |(i, n): (usize, &'a NodeProto)| n.output.iter().map(move |o| (o.as_str(), i));
        let writers = graph.node.iter().enumerate().flat_map(written).collect();
        Graph { nodes: &graph.node, constants: Constants::of(graph), writers, uses }
    }

    /// The node that writes `name`, if it is an `op` with so many inputs.
    fn writer(&self, name: &str, op: &str, inputs: usize) -> Option<(usize, &'a NodeProto)> {
        let &i = self.writers.get(name)?;
        let node = &self.nodes[i];
        (node.op_type == op && node.input.len() == inputs && node.output.len() == 1).then_some((i, node))
    }

    /// As [`Graph::writer`], of a tensor that nobody else reads.
    fn only(&self, name: &str, op: &str, inputs: usize) -> Option<(usize, &'a NodeProto)> {
        self.writer(name, op, inputs).filter(|_| self.uses.get(name) == Some(&1))
    }

    /// The operator whose last node is `index`. Whether its inputs are bytes at all is the caller's to know.
    pub fn find(&self, index: usize) -> Option<Match> {
        let node = &self.nodes[index];
        if node.output.len() != 1 {
            return None;
        }
        match node.op_type.as_str() {
            "QLinearConv" => self.conv(index),
            "QuantizeLinear" => {
                let whole = self.add(index).or_else(|| self.modulate(index)).or_else(|| self.lookup(index));
                whole.or_else(|| self.quantise(index))
            }
            "Identity" => self.constant(index),
            "DepthToSpace" => {
                let side = usize::try_from(int(node, "blocksize", 0)).ok().filter(|side| (1..64).contains(side));
                let by_depth = text(node, "mode", "DCR") == "DCR";
                self.alone(index, DepthToSpace(side.filter(|_| by_depth)?))
            }
            "QLinearLeakyRelu" => self.quantised_leaky_relu(index),
            "Conv" => self.float_conv(index, index, Bend::NONE),
            "Relu" | "LeakyRelu" | "Clip" | "Abs" => self.activated(index),
            "Add" => self.float_modulate(index).or_else(|| self.float_add(index, index, Bend::NONE)),
            "Mul" => self.image(index),
            "Sub" => self.cosine_error(index),
            "Div" => self.unit(index),
            "Sqrt" => self.distance(index),
            "ReduceMin" => self.least_product(index),
            "Pad" => self.appended_channel(index),
            "AveragePool" => {
                let counted = int(node, "count_include_pad", 0) != 0;
                self.alone(index, AveragePool(window(node, None).filter(|_| !counted)?))
            }
            "InstanceNormalization" => self.instance_norm(index),
            "LayerNormalization" => self.layer_norm(index),
            "DequantizeLinear" => {
                let q = self.quantisation(node, 1)?;
                let found = self.alone(index, Dequantise { scale: q.scale, zero: f32::from(q.zero) })?;
                Some(Match { elements: vec![q.element], ..found })
            }
            "Transpose" => {
                let last = ints(node, "perm", &[]) == [0, 3, 1, 2];
                last.then(|| self.alone(index, input(None)))?
            }
            "MaxPool" => self.alone(index, MaxPool(window(node, None)?)),
            "Concat" => self.pooled_statistics(index).or_else(|| {
                let found = (int(node, "axis", 0) == 1).then(|| self.alone(index, Concat))??;
                Some(Match { inputs: node.input.clone(), ..found })
            }),
            "Resize" => match self.linear_factors(node) {
                Some(factors) => self.alone(index, ResizeLinear(factors)),
                None => self.alone(index, ResizeNearest(self.nearest_factors(node)?)),
            },
            _ => None,
        }
    }

    /// A node that is an operator on its first input.
    fn alone(&self, index: usize, op: impl Operator + 'static) -> Option<Match> {
        let inputs = vec![self.nodes[index].input.first()?.clone()];
        Some(Match { op: Arc::new(op), inputs, elements: vec![], nodes: vec![index] })
    }

    fn quantisation(&self, node: &NodeProto, first: usize) -> Option<Quantisation> {
        self.constants.quantisation(node.input.get(first)?, node.input.get(first + 1)?)
    }

    /// Of a Resize by whole factors, down and across.
    fn factors(&self, node: &NodeProto) -> Option<[usize; 2]> {
        // By scales, and of all axes in their order.
        let plain = node.input.len() == 3 && ints(node, "axes", &[0, 1, 2, 3]) == [0, 1, 2, 3];
        let scales = self.constants.f32s(node.input.get(2).filter(|_| plain)?)?;
        let &[1.0, 1.0, down, across] = scales.as_slice() else { return None };
        let whole = |f: f32| (f.fract() == 0.0 && (1.0..=16.0).contains(&f)).then_some(f as usize);
        Some([whole(down)?, whole(across)?])
    }
}

/// The image: channels last, u8; which of the region's inputs it is, the caller says.
fn input(append: Option<u8>) -> Input {
    Input { index: 0, channels_last: true, element: ElementType::U8, append }
}

/// Whether a convolution has one group a channel; none where it has other groups than that or one.
fn depthwise(node: &NodeProto, [out, depth, ..]: [usize; 4]) -> Option<bool> {
    match int(node, "group", 1) {
        1 => Some(false),
        groups => (groups > 1 && groups == out as i64 && depth == 1).then_some(true),
    }
}

/// `kernel` where the weights say it; otherwise the node's attribute.
fn window(node: &NodeProto, kernel: Option<[usize; 2]>) -> Option<Window> {
    let plain = text(node, "auto_pad", "NOTSET") == "NOTSET"
        && ints(node, "dilations", &[1, 1]) == [1, 1]
        && int(node, "ceil_mode", 0) == 0
        && node.output.len() == 1;
    let small = |values: Vec<i64>| -> Option<Vec<usize>> {
        values.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v < 64)).collect()
    };
    let kernel = match kernel {
        Some(kernel) => kernel,
        None => small(ints(node, "kernel_shape", &[]))?.try_into().ok()?,
    };
    let stride: [usize; 2] = small(ints(node, "strides", &[1, 1]))?.try_into().ok()?;
    let pads: [usize; 4] = small(ints(node, "pads", &[0; 4]))?.try_into().ok()?;
    let sound = kernel.iter().chain(&stride).all(|&v| (1..64).contains(&v));
    (plain && sound).then_some(Window { kernel, stride, pads })
}
