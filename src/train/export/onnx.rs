//! [`Graph`] → ONNX, in f32 and in int8.
//!
//! Both forms share the input (`image`, u8) and the float tail (cosine error and sum of maps); between them the int8
//! form keeps every tensor in u8: `QLinearConv` with i8 weights per output channel, nearest upsampling and
//! concatenation on the bytes, additions as DequantizeLinear-Add-QuantizeLinear.

use super::graph::{Activation, Conv, Graph, Id, InstanceNorm, Node, Op};
use super::proto::{GraphBuilder, float, int, ints, string};
use super::tail;
use prost::Message;

/// Name of the result that the ONNX contract asks for.
pub const OUTPUT: &str = "anomaly_map";

/// u8 quantisation of a tensor: `real = scale * (byte - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantisation {
    pub scale: f32,
    pub zero_point: u8,
}

impl Quantisation {
    /// The image's own: the backbone's normalisation `(x - 127) / 128`.
    pub const IMAGE: Quantisation = Quantisation { scale: 1.0 / 128.0, zero_point: 127 };

    /// Covers `low..=high`, which is widened to hold zero.
    pub fn covering(low: f32, high: f32) -> Quantisation {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / 255.0).max(1e-8);
        Quantisation { scale, zero_point: (-low / scale).round().clamp(0.0, 255.0) as u8 }
    }
}

/// The model in f32; `outputs` (by default the last node) become the graph's outputs.
pub fn emit_f32(graph: &Graph, outputs: Option<&[Id]>) -> Vec<u8> {
    let mut b = GraphBuilder::new();
    let default = [graph.output()];
    let outputs = outputs.unwrap_or(&default);
    for (id, node) in graph.nodes.iter().enumerate() {
        let out = float_name(graph, id);
        let inputs: Vec<String> = node.inputs.iter().map(|&i| float_name(graph, i)).collect();
        match &node.op {
            Op::Image => {
                b.node("Transpose", &["image"], "image.nchw", vec![ints("perm", &[0, 3, 1, 2])]);
                b.node("Cast", &["image.nchw"], "image.cast", vec![int("to", 1)]);
                let mean = b.f32s("image.mean", &[], &[127.0]);
                let scale = b.f32s("image.scale", &[], &[1.0 / 128.0]);
                b.node("Sub", &["image.cast", &mean], "image.centred", vec![]);
                b.node("Mul", &["image.centred", &scale], &out, vec![]);
            }
            Op::Conv(conv) => {
                let w = b.f32s(&format!("{out}.weight"), &weight_dims(conv), &conv.weight);
                let bias = b.f32s(&format!("{out}.bias"), &[conv.out], &conv.bias);
                let linear = before_activation(&out, conv.activation);
                b.node("Conv", &[&inputs[0], &w, &bias], &linear, conv_attributes(conv));
                activation(&mut b, &linear, &out, conv.activation);
            }
            Op::Add(act) => {
                let linear = before_activation(&out, *act);
                b.node("Add", &[&inputs[0], &inputs[1]], &linear, vec![]);
                activation(&mut b, &linear, &out, *act);
            }
            Op::Ones => append_channel(&mut b, &inputs[0], &out, |b| b.f32s("one", &[], &[1.0])),
            Op::InstanceNorm(norm) => {
                let linear = before_activation(&out, norm.activation);
                instance_norm(&mut b, norm, &inputs[0], &out, &linear);
                activation(&mut b, &linear, &out, norm.activation);
            }
            Op::MaxPool => max_pool(&mut b, &inputs[0], &out),
            Op::Upsample2 => upsample2(&mut b, &inputs[0], &out),
            Op::Concat => b.node("Concat", &refs(&inputs), &out, vec![int("axis", 1)]),
            Op::CosineError(_) | Op::Joint(_) | Op::Energy(_) | Op::Nearest(_) | Op::SumMaps(_) => {
                tail::emit(&mut b, graph, node, &inputs, &out);
            }
        }
    }
    let outputs: Vec<_> = outputs.iter().map(|&id| (float_name(graph, id), graph.shape(id))).collect();
    let [_, height, width] = graph.shape(Graph::IMAGE);
    b.finish(width, height, &outputs).encode_to_vec()
}

/// The model in int8. `ranges[id]` is the smallest and largest value seen of each node's result.
pub fn emit_int8(graph: &Graph, ranges: &[(f32, f32)]) -> Vec<u8> {
    let quantisation = quantisations(graph, ranges);
    let mut b = GraphBuilder::new();
    for (id, node) in graph.nodes.iter().enumerate() {
        let (out, q) = (byte_name(node), quantisation[id]);
        let bytes: Vec<String> = node.inputs.iter().map(|&i| byte_name(&graph.nodes[i])).collect();
        match &node.op {
            Op::Image => b.node("Transpose", &["image"], &out, vec![ints("perm", &[0, 3, 1, 2])]),
            Op::Conv(conv) => quantised_conv(&mut b, conv, &bytes[0], quantisation[node.inputs[0]], &out, q),
            Op::Add(_) => {
                let a = dequantise(&mut b, &bytes[0], quantisation[node.inputs[0]]);
                let c = dequantise(&mut b, &bytes[1], quantisation[node.inputs[1]]);
                let sum = format!("{out}.sum");
                b.node("Add", &[&a, &c], &sum, vec![]);
                // The activation is the saturation of the quantiser: zero point 0 is ReLU.
                let (scale, zero) = parameters(&mut b, &out, q);
                b.node("QuantizeLinear", &[&sum, &scale, &zero], &out, vec![]);
            }
            Op::Ones => append_channel(&mut b, &bytes[0], &out, |b| b.u8s("image.ones.byte", &[], &[255])),
            Op::InstanceNorm(norm) => {
                let x = dequantise(&mut b, &bytes[0], quantisation[node.inputs[0]]);
                let normal = format!("{out}.normal");
                instance_norm(&mut b, norm, &x, &out, &normal);
                let (scale, zero) = parameters(&mut b, &out, q);
                b.node("QuantizeLinear", &[&normal, &scale, &zero], &out, vec![]);
            }
            Op::MaxPool => max_pool(&mut b, &bytes[0], &out),
            Op::Upsample2 => upsample2(&mut b, &bytes[0], &out),
            Op::Concat => b.node("Concat", &refs(&bytes), &out, vec![int("axis", 1)]),
            Op::CosineError(_) | Op::Joint(_) => {
                let reals = node.inputs.iter().zip(&bytes).map(|(&i, x)| dequantise(&mut b, x, quantisation[i]));
                let reals: Vec<String> = reals.collect();
                tail::emit(&mut b, graph, node, &reals, &float_name(graph, id));
            }
            Op::Energy(_) | Op::Nearest(_) | Op::SumMaps(_) => {
                let reals: Vec<String> = node.inputs.iter().map(|&i| float_name(graph, i)).collect();
                tail::emit(&mut b, graph, node, &reals, &float_name(graph, id));
            }
        }
    }
    let [_, height, width] = graph.shape(Graph::IMAGE);
    let output = (OUTPUT.to_owned(), graph.shape(graph.output()));
    b.finish(width, height, &[output]).encode_to_vec()
}

/// One quantisation a node. Upsampling keeps its input's; the inputs of a concatenation share one, so that it can stay
/// in bytes; a rectified tensor has zero point 0, so that saturation is the activation.
fn quantisations(graph: &Graph, ranges: &[(f32, f32)]) -> Vec<Quantisation> {
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
    let mut result: Vec<Quantisation> = Vec::with_capacity(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate() {
        let (low, high) = ranges[id];
        result.push(match &node.op {
            Op::Image | Op::Ones => Quantisation::IMAGE,
            Op::Upsample2 | Op::MaxPool => result[node.inputs[0]],
            Op::Conv(Conv { activation, .. })
            | Op::InstanceNorm(InstanceNorm { activation, .. })
            | Op::Add(activation) => match activation {
                Activation::Linear => Quantisation::covering(low, high),
                Activation::Relu => Quantisation::covering(0.0, high),
                Activation::Relu6 => Quantisation::covering(0.0, high.min(6.0)),
            },
            Op::Concat => Quantisation::covering(low, high),
            // Float in both precisions; nothing reads this.
            Op::CosineError(_) | Op::Joint(_) | Op::Energy(_) | Op::Nearest(_) | Op::SumMaps(_) => {
                Quantisation::covering(low, high)
            }
        });
    }
    result
}

fn quantised_conv(b: &mut GraphBuilder, conv: &Conv, x: &str, xq: Quantisation, out: &str, q: Quantisation) {
    let row = conv.weight.len() / conv.out;
    let mut weights = Vec::with_capacity(conv.weight.len());
    let mut scales = Vec::with_capacity(conv.out);
    let mut biases = Vec::with_capacity(conv.out);
    for (channel, bias) in conv.weight.chunks_exact(row).zip(&conv.bias) {
        // The bias must fit an i32 at scale x * w, also for a channel whose weights are all but zero.
        let scale = weight_scale(channel).max(bias.abs() / (xq.scale * (1 << 30) as f32)).max(1e-12);
        scales.push(scale);
        weights.extend(channel.iter().map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8));
        biases.push((f64::from(*bias) / (f64::from(xq.scale) * f64::from(scale))).round() as i32);
    }
    let (x_scale, x_zero) = parameters(b, x, xq);
    let (y_scale, y_zero) = parameters(b, out, q);
    let w = b.i8s(&format!("{out}.weight"), &weight_dims(conv), &weights);
    let w_scale = b.f32s(&format!("{out}.weight.scale"), &[conv.out], &scales);
    let w_zero = b.i8s(&format!("{out}.weight.zero"), &[conv.out], &vec![0; conv.out]);
    let bias = b.i32s(&format!("{out}.bias"), &[conv.out], &biases);
    let inputs = [x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero, &bias];
    b.node("QLinearConv", &inputs, out, conv_attributes(conv));
}

/// Step of the i8 grid that holds one output channel's weights.
fn weight_scale(channel: &[f32]) -> f32 {
    channel.iter().fold(0f32, |m, w| m.max(w.abs())) / 127.0
}

/// Rounds a convolution's weights to the i8 grid that [`emit_int8`] will use, so that int8 holds them exactly.
pub fn round_weights(conv: &mut Conv) {
    let row = conv.weight.len() / conv.out;
    for channel in conv.weight.chunks_exact_mut(row) {
        let scale = weight_scale(channel);
        if scale > 0.0 {
            channel.iter_mut().for_each(|w| *w = (*w / scale).round() * scale);
        }
    }
}

/// Name of a node's float result; the graph's last one has the contract's name.
fn float_name(graph: &Graph, id: Id) -> String {
    if id == graph.output() { OUTPUT.into() } else { format!("{}.f32", graph.nodes[id].name) }
}

fn byte_name(node: &Node) -> String {
    format!("{}.u8", node.name)
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn parameters(b: &mut GraphBuilder, tensor: &str, q: Quantisation) -> (String, String) {
    (b.f32s(&format!("{tensor}.scale"), &[], &[q.scale]), b.u8s(&format!("{tensor}.zero"), &[], &[q.zero_point]))
}

fn dequantise(b: &mut GraphBuilder, tensor: &str, q: Quantisation) -> String {
    let out = format!("{tensor}.real");
    // A tensor that several nodes read is dequantised once.
    if !b.has_output(&out) {
        let (scale, zero) = parameters(b, tensor, q);
        b.node("DequantizeLinear", &[tensor, &scale, &zero], &out, vec![]);
    }
    out
}

pub(super) fn weight_dims(conv: &Conv) -> [usize; 4] {
    [conv.out, conv.depth(), conv.kernel, conv.kernel]
}

pub(super) fn conv_attributes(conv: &Conv) -> Vec<tract_onnx::pb::AttributeProto> {
    let (k, s) = (conv.kernel as i64, conv.stride as i64);
    let pads = conv.pads.map(|p| p as i64);
    vec![ints("kernel_shape", &[k, k]), ints("strides", &[s, s]), ints("pads", &pads), int("group", conv.groups as i64)]
}

fn before_activation(out: &str, activation: Activation) -> String {
    if activation == Activation::Linear { out.to_owned() } else { format!("{out}.linear") }
}

fn activation(b: &mut GraphBuilder, input: &str, out: &str, activation: Activation) {
    match activation {
        Activation::Linear => {}
        Activation::Relu => b.node("Relu", &[input], out, vec![]),
        Activation::Relu6 => {
            let (low, high) = (b.f32s("relu6.low", &[], &[0.0]), b.f32s("relu6.high", &[], &[6.0]));
            b.node("Clip", &[input, &low, &high], out, vec![]);
        }
    }
}

fn instance_norm(b: &mut GraphBuilder, norm: &InstanceNorm, input: &str, name: &str, out: &str) {
    let channels = [norm.scale.len()];
    let scale = b.f32s(&format!("{name}.norm.scale"), &channels, &norm.scale);
    let offset = b.f32s(&format!("{name}.norm.offset"), &channels, &norm.offset);
    b.node("InstanceNormalization", &[input, &scale, &offset], out, vec![float("epsilon", norm.epsilon)]);
}

/// One more channel behind the others, filled with a constant.
fn append_channel(b: &mut GraphBuilder, input: &str, out: &str, value: impl Fn(&mut GraphBuilder) -> String) {
    let pads = b.i64s("image.ones.pads", &[0, 0, 0, 0, 0, 1, 0, 0]);
    let value = value(b);
    b.node("Pad", &[input, &pads, &value], out, vec![string("mode", "constant")]);
}

fn max_pool(b: &mut GraphBuilder, input: &str, out: &str) {
    let attributes = vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])];
    b.node("MaxPool", &[input], out, attributes);
}

fn upsample2(b: &mut GraphBuilder, input: &str, out: &str) {
    let scales = b.f32s("upsample2.scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let attributes = vec![
        string("mode", "nearest"),
        string("nearest_mode", "floor"),
        string("coordinate_transformation_mode", "asymmetric"),
    ];
    b.node("Resize", &[input, "", &scales], out, attributes);
}
