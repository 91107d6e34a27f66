//! [`Graph`] → ONNX in int8, in two dialects.
//!
//! | | [`Dialect::QOperator`] | [`Dialect::Qdq`] |
//! |---|---|---|
//! | for | the agent, ONNX Runtime | TensorRT |
//! | tensors | u8 with a zero point, 0 behind ReLU | i8, symmetric: TensorRT takes no zero point |
//! | convolution | `QLinearConv`: i8 weights per output channel, i32 bias | DequantizeLinear (input, weights) - Conv, f32 bias - QuantizeLinear |
//! | upsampling, depth to space, pooling, concatenation | on the bytes | between DequantizeLinear and QuantizeLinear |
//! | addition, modulation, norms, LeakyReLU | DequantizeLinear - operator - QuantizeLinear | the same |
//! | activation | saturation of the quantiser | an operator |
//! | distance to the nearest | `ConvInteger`, whose exact sums become floats | as a convolution, without a quantisation behind it |
//!
//! The rest of the tail (cosine error to sum of maps) is float. So are the layers that the caller names: a float layer reads floats
//! where its input is one and dequantised bytes elsewhere, and hands on floats; bytes are made of them only for an int8
//! layer behind.

use super::float::{self, float_conv, float_name, float_node, instance_norm};
use super::proto::{GraphBuilder, conv_attributes, int, ints, weight_dims};
use super::tail;
use crate::graph::{Activation, Bank, Conv, Graph, Id, InstanceNorm, Node, Op};
use prost::Message;

/// Quantisation of a tensor: `real = scale * (byte - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantisation {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero_point: u8,
}

impl Quantisation {
    /// The image's own: the backbone's normalisation `(x - 127) / 128`.
    pub const IMAGE: Quantisation = Quantisation { scale: 1.0 / 128.0, zero_point: 127 };

    /// Covers `low..=high`, which is widened to hold zero, with u8.
    pub fn covering(low: f32, high: f32) -> Quantisation {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / 255.0).max(1e-8);
        Quantisation { scale, zero_point: (-low / scale).round().clamp(0.0, 255.0) as u8 }
    }

    /// The values of its smallest and its largest byte.
    fn ends(self, dialect: Dialect) -> (f32, f32) {
        let (low, high) = match dialect {
            Dialect::QOperator => (-f32::from(self.zero_point), 255.0 - f32::from(self.zero_point)),
            Dialect::Qdq => (-127.0, 127.0),
        };
        (low * self.scale, high * self.scale)
    }

    /// Covers `low..=high` with i8 around zero.
    pub fn symmetric(low: f32, high: f32) -> Quantisation {
        Quantisation { scale: (low.abs().max(high.abs()) / 127.0).max(1e-8), zero_point: 0 }
    }
}

/// How int8 is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// For ONNX Runtime and the agent.
    QOperator,
    /// For TensorRT.
    Qdq,
}

/// The model in int8. `ranges[id]` holds the smallest and largest value of each node's result; `float` the layers that
/// stay in float, see [`is_layer`]. `outputs`, by default the graph's own, are given as floats.
pub fn emit(
    graph: &Graph,
    outputs: Option<&[Id]>,
    ranges: &[(f32, f32)],
    float: impl Fn(Id) -> bool,
    dialect: Dialect,
) -> Vec<u8> {
    let own = graph.outputs();
    let outputs = outputs.unwrap_or(&own);
    let quantisation = quantisations(graph, ranges, dialect);
    let mut emitter = Emitter { b: GraphBuilder::new(graph.views()), graph, quantisation, real: vec![], dialect };
    for id in 0..graph.nodes.len() {
        let real = emitter.stays_float(id, &float);
        // Of bytes a distance makes floats.
        emitter.real.push(real || matches!(graph.nodes[id].op, Op::Nearest(_)));
        for view in emitter.b.views() {
            emitter.b.view = view;
            if real { emitter.float(id) } else { emitter.quantised(id) }
        }
    }
    let [_, height, width] = graph.shape(Graph::IMAGE);
    let outputs: Vec<_> = outputs.iter().map(|&id| (emitter.output(id), graph.shape(id))).collect();
    emitter.b.finish(width, height, &outputs).encode_to_vec()
}

/// Whether a node is one that can be in int8 or in float as one likes.
pub fn is_layer(node: &Node) -> bool {
    matches!(node.op, Op::Conv(_) | Op::Add(_) | Op::InstanceNorm(_) | Op::Nearest(_))
        || matches!(node.op, Op::LeakyRelu(_) | Op::LayerNorm(_) | Op::Modulate)
}

/// Whether a node's result is bytes where it is in int8, or is made bytes for a layer that reads it, so that the range of its values matters.
pub fn gives_bytes(node: &Node) -> bool {
    is_layer(node) && !node.op.is_tail() || matches!(node.op, Op::ChannelNorm(_) | Op::CrossView(_))
}

struct Emitter<'a> {
    b: GraphBuilder,
    graph: &'a Graph,
    quantisation: Vec<Quantisation>,
    /// Whether each node so far gives floats.
    real: Vec<bool>,
    dialect: Dialect,
}

impl Emitter<'_> {
    fn stays_float(&self, id: Id, float: impl Fn(Id) -> bool) -> bool {
        let node = &self.graph.nodes[id];
        match &node.op {
            // Quantised for whoever asks: the channel of ones needs another scale.
            Op::Image => self.dialect == Dialect::Qdq,
            Op::Ones => false,
            // As its readers are.
            Op::Constant(_) => {
                let mut readers = self.graph.nodes.iter().enumerate().filter(|(_, reader)| reader.inputs.contains(&id));
                readers.all(|(reader, node)| node.op.is_tail() || is_layer(node) && float(reader))
            }
            Op::MaxPool | Op::Upsample2 | Op::DepthToSpace2 | Op::Concat => node.inputs.iter().all(|&i| self.real[i]),
            _ if is_layer(node) => float(id),
            _ => node.op.is_tail(),
        }
    }

    fn float(&mut self, id: Id) {
        let node = &self.graph.nodes[id];
        let own = self.b.view;
        let mut inputs = vec![];
        for (view, input) in float::reads(node, own) {
            self.b.view = view;
            inputs.push(self.real(input));
        }
        self.b.view = own;
        let out = self.float_name(id);
        float_node(&mut self.b, self.graph, node, &inputs, &out);
    }

    /// Of all views, as floats.
    fn output(&mut self, id: Id) -> String {
        let mut each = vec![];
        for view in self.b.views() {
            self.b.view = view;
            each.push(self.real(id));
        }
        self.b.all_views(&each, &float_name(self.graph, id))
    }

    fn quantised(&mut self, id: Id) {
        let node = &self.graph.nodes[id];
        let out = self.byte_name(id);
        match (&node.op, self.dialect) {
            (Op::Conv(conv), Dialect::QOperator) => self.qlinear_conv(conv, node.inputs[0], id),
            (Op::Image, _) => {
                let own = self.b.own_image("image");
                self.b.node("Transpose", &[&own], &out, vec![ints("perm", &[0, 3, 1, 2])]);
            }
            (Op::Ones, Dialect::QOperator) => {
                let image = self.byte(node.inputs[0]);
                float::append_channel(&mut self.b, &image, &out, |b| b.u8s("image.ones.byte", &[], &[255]));
            }
            // What keeps its input's quantisation, or has one of its own, cannot take the one that the others share.
            (Op::Concat, Dialect::QOperator) if !self.alike(id) => self.through_floats(id),
            (Op::MaxPool | Op::Upsample2 | Op::DepthToSpace2 | Op::Concat, Dialect::QOperator) => {
                let bytes: Vec<String> = node.inputs.iter().map(|&i| self.byte(i)).collect();
                float::same_values(&mut self.b, &node.op, &bytes, &out);
            }
            (Op::Add(_), Dialect::QOperator) => {
                let inputs: Vec<String> = node.inputs.iter().map(|&i| self.real(i)).collect();
                let sum = format!("{out}.sum");
                self.b.node("Add", &float::refs(&inputs), &sum, vec![]);
                // The activation is the saturation of the quantiser: zero point 0 is ReLU.
                self.quantise(&sum, id);
            }
            (Op::InstanceNorm(norm), Dialect::QOperator) => {
                let x = self.real(node.inputs[0]);
                let normal = format!("{out}.normal");
                instance_norm(&mut self.b, norm, &x, &out, &normal);
                self.quantise(&normal, id);
            }
            (Op::Constant(values), Dialect::QOperator) => {
                let Quantisation { scale, zero_point } = self.quantisation[id];
                let byte = |value: &f32| ((value / scale).round_ties_even() + f32::from(zero_point)) as u8;
                let [c, h, w] = node.shape;
                let bytes: Vec<u8> = values.iter().map(byte).collect();
                let bytes = self.b.u8s(&format!("{out}.values"), &[1, c, h, w], &bytes);
                self.b.node("Identity", &[&bytes], &out, vec![]);
            }
            (Op::Conv(conv), Dialect::Qdq) => {
                let x = self.rounded(node.inputs[0]);
                let weight = self.dequantised_weight(conv, &out);
                let exact = format!("{out}.exact");
                float_conv(&mut self.b, conv, &x, &weight, &exact);
                self.quantise(&exact, id);
            }
            (Op::Nearest(bank), dialect) => self.nearest(bank, dialect, node.inputs[0], id),
            (Op::LeakyRelu(_) | Op::LayerNorm(_) | Op::Modulate, Dialect::QOperator) | (_, Dialect::Qdq) => {
                self.through_floats(id);
            }
            _ => unreachable!("the tail is float"),
        }
    }

    /// Whether all inputs of a node have its own quantisation.
    fn alike(&self, id: Id) -> bool {
        self.graph.nodes[id].inputs.iter().all(|&i| self.quantisation[i] == self.quantisation[id])
    }

    /// A node between dequantisation and quantisation.
    fn through_floats(&mut self, id: Id) {
        let node = &self.graph.nodes[id];
        let inputs: Vec<String> = node.inputs.iter().map(|&i| self.real(i)).collect();
        let exact = format!("{}.exact", self.byte_name(id));
        float_node(&mut self.b, self.graph, node, &inputs, &exact);
        self.quantise(&exact, id);
    }

    /// A node's result as floats: as it is, or dequantised.
    fn real(&mut self, id: Id) -> String {
        if self.real[id] { self.float_name(id) } else { self.rounded(id) }
    }

    /// A node's result as bytes: as they are, or quantised.
    fn byte(&mut self, id: Id) -> String {
        let out = self.byte_name(id);
        if self.real[id] && !self.b.has_output(&out) {
            let real = self.float_name(id);
            self.quantise(&real, id);
        }
        out
    }

    /// A node's result as floats that went through bytes.
    fn rounded(&mut self, id: Id) -> String {
        let bytes = self.byte(id);
        let out = format!("{bytes}.real");
        // A tensor that several nodes read is dequantised once.
        if !self.b.has_output(&out) {
            let (scale, zero) = self.parameters(id);
            self.b.node("DequantizeLinear", &[&bytes, &scale, &zero], &out, vec![]);
        }
        out
    }

    fn quantise(&mut self, real: &str, id: Id) {
        let (scale, zero) = self.parameters(id);
        let out = self.byte_name(id);
        self.b.node("QuantizeLinear", &[real, &scale, &zero], &out, vec![]);
    }

    fn qlinear_conv(&mut self, conv: &Conv, input: Id, id: Id) {
        let out = self.byte_name(id);
        let x_step = self.quantisation[input].scale;
        // The bias must fit an i32 at scale x * w, also for a channel whose weights are all but zero.
        let least = |bias: f32| bias.abs() / (x_step * (1 << 30) as f32);
        let (weights, scales) = quantised_weights(conv, least);
        let bias =
            |(bias, scale): (&f32, &f32)| (f64::from(*bias) / (f64::from(x_step) * f64::from(*scale))).round() as i32;
        let biases: Vec<i32> = conv.bias.iter().zip(&scales).map(bias).collect();
        let x = self.byte(input);
        let (x_scale, x_zero) = self.parameters(input);
        let (y_scale, y_zero) = self.parameters(id);
        let b = &mut self.b;
        let w = b.i8s(&format!("{out}.weight"), &weight_dims(conv), &weights);
        let w_scale = b.f32s(&format!("{out}.weight.scale"), &[conv.out], &scales);
        let w_zero = b.i8s(&format!("{out}.weight.zero"), &[conv.out], &vec![0; conv.out]);
        let bias = b.i32s(&format!("{out}.bias"), &[conv.out], &biases);
        let inputs = [&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero, &bias].map(String::as_str);
        b.node("QLinearConv", &inputs, &out, conv_attributes(conv));
    }

    /// Exact products of the bytes of both, and of the same bytes the lengths: the distance of what was rounded to the nearest of what was rounded.
    fn nearest(&mut self, bank: &Bank, dialect: Dialect, input: Id, id: Id) {
        let out = self.float_name(id);
        let name = |what: &str| format!("{out}.{what}");
        let conv = tail::products_of(bank);
        let (weights, scales) = quantised_weights(&conv, |_| 0.0);
        let squares = tail::squares_of(&weights, &scales);
        let x = self.rounded(input);
        if dialect == Dialect::Qdq {
            let weight = self.dequantised_weight(&conv, &out);
            let conv = Conv { bias: squares, ..conv };
            float_conv(&mut self.b, &conv, &x, &weight, &name("products"));
        } else {
            let (bytes, (_, zero)) = (self.byte(input), self.parameters(input));
            let step = self.quantisation[input].scale;
            let b = &mut self.b;
            let along = [1, conv.out, 1, 1];
            let w = b.i8s(&name("bank"), &weight_dims(&conv), &weights);
            let scales: Vec<f32> = scales.iter().map(|scale| scale * step).collect();
            let scales = b.f32s(&name("bank.scales"), &along, &scales);
            let squares = b.f32s(&name("bank.squares"), &along, &squares);
            b.node("ConvInteger", &[&bytes, &w, &zero], &name("sums"), vec![ints("kernel_shape", &[1, 1])]);
            b.node("Cast", &[&name("sums")], &name("sums.real"), vec![int("to", 1)]);
            b.node("Mul", &[&name("sums.real"), &scales], &name("scaled"), vec![]);
            b.node("Add", &[&name("scaled"), &squares], &name("products"), vec![]);
        }
        tail::distance(&mut self.b, &name("products"), &x, &out);
    }

    /// i8 weights, one scale an output channel, and back.
    fn dequantised_weight(&mut self, conv: &Conv, out: &str) -> String {
        let (weights, scales) = quantised_weights(conv, |_| 0.0);
        let b = &mut self.b;
        let w = b.i8s(&format!("{out}.weight"), &weight_dims(conv), &weights);
        let scale = b.f32s(&format!("{out}.weight.scale"), &[conv.out], &scales);
        let zero = b.i8s(&format!("{out}.weight.zero"), &[conv.out], &vec![0; conv.out]);
        let real = format!("{out}.weight.real");
        b.node("DequantizeLinear", &[&w, &scale, &zero], &real, vec![int("axis", 0)]);
        real
    }

    fn parameters(&mut self, id: Id) -> (String, String) {
        let (tensor, q) = (self.byte_name(id), self.quantisation[id]);
        let scale = self.b.f32s(&format!("{tensor}.scale"), &[], &[q.scale]);
        let zero = format!("{tensor}.zero");
        let zero = match self.dialect {
            Dialect::QOperator => self.b.u8s(&zero, &[], &[q.zero_point]),
            Dialect::Qdq => self.b.i8s(&zero, &[], &[0]),
        };
        (scale, zero)
    }

    fn byte_name(&self, id: Id) -> String {
        let kind = if self.dialect == Dialect::Qdq { "i8" } else { "u8" };
        self.b.in_view(self.b.view, &format!("{}.{kind}", self.graph.nodes[id].name))
    }

    fn float_name(&self, id: Id) -> String {
        self.b.in_view(self.b.view, &float_name(self.graph, id))
    }
}

/// One quantisation a node. Upsampling keeps its input's; the inputs of a concatenation share one, so that it can stay
/// in bytes; a rectified u8 tensor has zero point 0, so that saturation is the activation.
fn quantisations(graph: &Graph, ranges: &[(f32, f32)], dialect: Dialect) -> Vec<Quantisation> {
    let mut ranges = ranges.to_vec();
    for (id, node) in graph.nodes.iter().enumerate() {
        if let Op::Concat = node.op {
            let low = node.inputs.iter().map(|&i| ranges[i].0).fold(f32::INFINITY, f32::min);
            let high = node.inputs.iter().map(|&i| ranges[i].1).fold(f32::NEG_INFINITY, f32::max);
            for &i in node.inputs.iter().chain([&id]) {
                ranges[i] = (low, high);
            }
        }
    }
    let covering = match dialect {
        Dialect::QOperator => Quantisation::covering,
        Dialect::Qdq => Quantisation::symmetric,
    };
    let mut result: Vec<Quantisation> = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let (low, high) = ranges[id];
        result.push(match &node.op {
            // In i8 white (1.0) saturates at 127/128; the channel of ones must not.
            Op::Image if dialect == Dialect::Qdq => Quantisation { scale: 1.0 / 128.0, zero_point: 0 },
            Op::Ones if dialect == Dialect::Qdq => Quantisation::symmetric(-1.0, 1.0),
            Op::Image | Op::Ones => Quantisation::IMAGE,
            Op::Upsample2 | Op::DepthToSpace2 | Op::MaxPool => result[node.inputs[0]],
            Op::Constant(values) => {
                let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
                covering(low, high)
            }
            Op::Conv(Conv { activation, .. })
            | Op::InstanceNorm(InstanceNorm { activation, .. })
            | Op::Add(activation) => match activation {
                Activation::Linear => covering(low, high),
                Activation::Relu => covering(0.0, high),
                Activation::Relu6 => covering(0.0, high.min(6.0)),
            },
            // Means of what its inputs hold, which are not measured. What an input that stays in float has beyond its range is cut off here.
            Op::Joint(how) if !how.unit => {
                let ends = node.inputs.iter().map(|&i| result[i].ends(dialect));
                let (low, high) = ends.fold((0f32, 0f32), |(low, high), (a, b)| (low.min(a), high.max(b)));
                covering(low, high)
            }
            Op::Joint(_) => covering(-1.0, 1.0),
            Op::Capped(_) => covering(0.0, 1.0),
            // Of the tail nothing else reads it.
            _ => covering(low, high),
        });
    }
    result
}

/// i8 weights and the scale of every output channel, which is at least `least(bias)`.
fn quantised_weights(conv: &Conv, least: impl Fn(f32) -> f32) -> (Vec<i8>, Vec<f32>) {
    let row = conv.weight.len() / conv.out;
    let mut weights = Vec::with_capacity(conv.weight.len());
    let mut scales = Vec::with_capacity(conv.out);
    for (channel, bias) in conv.weight.chunks_exact(row).zip(&conv.bias) {
        let scale = weight_scale(channel).max(least(*bias)).max(1e-12);
        scales.push(scale);
        weights.extend(channel.iter().map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8));
    }
    (weights, scales)
}

/// Step of the i8 grid that holds one output channel's weights.
fn weight_scale(channel: &[f32]) -> f32 {
    channel.iter().fold(0f32, |m, w| m.max(w.abs())) / 127.0
}

/// Rounds a convolution's weights to the i8 grid that [`emit`] will use, so that int8 holds them exactly.
pub fn round_weights(conv: &mut Conv) {
    let row = conv.weight.len() / conv.out;
    for channel in conv.weight.chunks_exact_mut(row) {
        let scale = weight_scale(channel);
        if scale > 0.0 {
            channel.iter_mut().for_each(|w| *w = (*w / scale).round() * scale);
        }
    }
}

#[cfg(test)]
mod tests;
