//! [`Graph`] → ONNX in f32 and for GPUs, and what that shares with [`super::int8`]: the input (`image`, u8), every float operator,
//! the names.

use super::proto::{GraphBuilder, conv_attributes, float, int, ints, string, weight_dims};
use super::tail;
use crate::graph::{Activation, Conv, Graph, Id, InstanceNorm, Node, Op};
use prost::Message;

/// Name of the result that the ONNX contract asks for.
pub const OUTPUT: &str = "anomaly_map";

/// Name of the result that the contract allows beside it.
pub const IMAGE_SCORE: &str = "image_score";

/// The model in f32; `outputs` (by default the graph's own) become the file's outputs.
pub fn emit_f32(graph: &Graph, outputs: Option<&[Id]>) -> Vec<u8> {
    let mut b = GraphBuilder::new(graph.views());
    let own = graph.outputs();
    for (id, node) in graph.nodes.iter().enumerate() {
        for view in b.views() {
            b.view = view;
            let inputs = reads(node, view);
            let inputs: Vec<String> = inputs.iter().map(|&(view, i)| b.in_view(view, &float_name(graph, i))).collect();
            let out = b.in_view(view, &float_name(graph, id));
            float_node(&mut b, graph, node, &inputs, &out);
        }
    }
    finish(b, graph, outputs.unwrap_or(&own))
}

/// The model for a GPU: the network in f16, typed so that nobody has to be told, and the tail, whose sums may be large, in f32.
pub fn emit_half(graph: &Graph) -> Vec<u8> {
    let mut b = GraphBuilder::new(graph.views());
    let outputs = graph.outputs();
    let read_by = |id: Id, tail: bool| graph.nodes.iter().any(|n| n.op.is_tail() == tail && n.inputs.contains(&id));
    let half_name = |id: Id| format!("{}.f16", graph.nodes[id].name);
    for (id, node) in graph.nodes.iter().enumerate() {
        for view in b.views() {
            b.view = view;
            let [out, half] = [float_name(graph, id), half_name(id)].map(|name| b.in_view(view, &name));
            b.half = !node.op.is_tail();
            let name = |i: Id| if node.op.is_tail() { float_name(graph, i) } else { half_name(i) };
            let inputs: Vec<String> = reads(node, view).iter().map(|&(view, i)| b.in_view(view, &name(i))).collect();
            if b.half {
                float_node(&mut b, graph, node, &inputs, &half);
                b.half = false;
                if outputs.contains(&id) || read_by(id, true) {
                    b.cast(&half, &out);
                }
                continue;
            }
            float_node(&mut b, graph, node, &inputs, &out);
            // Layers may read what the tail gives.
            if read_by(id, false) {
                b.half = true;
                b.cast(&out, &half);
            }
        }
    }
    finish(b, graph, &outputs)
}

fn finish(mut b: GraphBuilder, graph: &Graph, outputs: &[Id]) -> Vec<u8> {
    let mut output = |&id: &Id| {
        let name = float_name(graph, id);
        let each: Vec<String> = b.views().map(|view| b.in_view(view, &name)).collect();
        (b.all_views(&each, &name), graph.shape(id))
    };
    let outputs: Vec<_> = outputs.iter().map(&mut output).collect();
    let [_, height, width] = graph.shape(Graph::IMAGE);
    b.finish(width, height, &outputs).encode_to_vec()
}

/// What a node reads in `view`, each input with the view that it is read in: of what looks across views the others come behind.
pub(super) fn reads(node: &Node, view: usize) -> Vec<(usize, Id)> {
    let mut all: Vec<(usize, Id)> = node.inputs.iter().map(|&input| (view, input)).collect();
    if let Op::CrossView(how) = node.op {
        all.extend((0..how.views).filter(|&other| other != view).map(|other| (other, node.inputs[2])));
    }
    all
}

/// Writes `node` in floats: from the float tensors `inputs` to the float tensor `out`.
pub(super) fn float_node(b: &mut GraphBuilder, graph: &Graph, node: &Node, inputs: &[String], out: &str) {
    match &node.op {
        Op::Image => {
            // u8 only meets the cast: TensorRT takes no other operator on it.
            if !b.has_output("image.cast") {
                b.cast("image", "image.cast");
            }
            let own = b.own_image("image.cast");
            let [nchw, centred] = ["image.nchw", "image.centred"].map(|name| b.in_view(b.view, name));
            b.node("Transpose", &[&own], &nchw, vec![ints("perm", &[0, 3, 1, 2])]);
            let mean = b.floats("image.mean", &[], &[127.0]);
            let scale = b.floats("image.scale", &[], &[1.0 / 128.0]);
            b.node("Sub", &[&nchw, &mean], &centred, vec![]);
            b.node("Mul", &[&centred, &scale], out, vec![]);
        }
        Op::Conv(conv) => {
            let weight = b.floats(&format!("{out}.weight"), &weight_dims(conv), &conv.weight);
            float_conv(b, conv, &inputs[0], &weight, out);
        }
        Op::Add(act) => {
            let linear = before_activation(out, *act);
            b.node("Add", &[&inputs[0], &inputs[1]], &linear, vec![]);
            activation(b, &linear, out, *act);
        }
        Op::Ones => append_channel(b, &inputs[0], out, |b| b.floats("one", &[], &[1.0])),
        Op::InstanceNorm(norm) => {
            let linear = before_activation(out, norm.activation);
            instance_norm(b, norm, &inputs[0], out, &linear);
            activation(b, &linear, out, norm.activation);
        }
        Op::LeakyRelu(slope) => b.node("LeakyRelu", &[&inputs[0]], out, vec![float("alpha", *slope)]),
        Op::LayerNorm(epsilon) => {
            let [c, h, w] = node.shape;
            let ones = b.floats(&format!("layer_norm.{c}x{h}x{w}"), &[c, h, w], &vec![1.0; c * h * w]);
            b.node("LayerNormalization", &[&inputs[0], &ones], out, vec![int("axis", 1), float("epsilon", *epsilon)]);
        }
        Op::Modulate => {
            let scaled = format!("{out}.scaled");
            b.node("Mul", &[&inputs[0], &inputs[1]], &scaled, vec![]);
            b.node("Add", &[&scaled, &inputs[2]], out, vec![]);
        }
        Op::Constant(values) => {
            let [c, h, w] = node.shape;
            let values = b.floats(&format!("{out}.values"), &[1, c, h, w], values);
            b.node("Identity", &[&values], out, vec![]);
        }
        Op::MaxPool | Op::Upsample2 | Op::DepthToSpace2 | Op::Concat => same_values(b, &node.op, inputs, out),
        _ => tail::emit(b, graph, node, inputs, out),
    }
}

/// A convolution of floats with its activation; `weight` is a tensor of the graph.
pub(super) fn float_conv(b: &mut GraphBuilder, conv: &Conv, input: &str, weight: &str, out: &str) {
    let bias = b.floats(&format!("{out}.bias"), &[conv.out], &conv.bias);
    let linear = before_activation(out, conv.activation);
    b.node("Conv", &[input, weight, &bias], &linear, conv_attributes(conv));
    activation(b, &linear, out, conv.activation);
}

/// The operators that only pick or move values, so that they work on floats and on bytes alike.
pub(super) fn same_values(b: &mut GraphBuilder, op: &Op, inputs: &[String], out: &str) {
    match op {
        Op::MaxPool => max_pool(b, &inputs[0], out),
        Op::Upsample2 => upsample2(b, &inputs[0], out),
        Op::DepthToSpace2 => {
            b.node("DepthToSpace", &[&inputs[0]], out, vec![int("blocksize", 2), string("mode", "DCR")]);
        }
        _ => b.node("Concat", &refs(inputs), out, vec![int("axis", 1)]),
    }
}

/// Name of a node's float result; those that the contract knows have its names.
pub(super) fn float_name(graph: &Graph, id: Id) -> String {
    match () {
        () if id == graph.output() => OUTPUT.into(),
        () if graph.image_score == Some(id) => IMAGE_SCORE.into(),
        () => format!("{}.f32", graph.nodes[id].name),
    }
}

pub(super) fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn before_activation(out: &str, activation: Activation) -> String {
    if activation == Activation::Linear { out.to_owned() } else { format!("{out}.linear") }
}

fn activation(b: &mut GraphBuilder, input: &str, out: &str, activation: Activation) {
    match activation {
        Activation::Linear => {}
        Activation::Relu => b.node("Relu", &[input], out, vec![]),
        Activation::Relu6 => {
            let (low, high) = (b.floats("relu6.low", &[], &[0.0]), b.floats("relu6.high", &[], &[6.0]));
            b.node("Clip", &[input, &low, &high], out, vec![]);
        }
    }
}

pub(super) fn instance_norm(b: &mut GraphBuilder, norm: &InstanceNorm, input: &str, name: &str, out: &str) {
    let channels = [norm.scale.len()];
    let scale = b.floats(&format!("{name}.norm.scale"), &channels, &norm.scale);
    let offset = b.floats(&format!("{name}.norm.offset"), &channels, &norm.offset);
    b.node("InstanceNormalization", &[input, &scale, &offset], out, vec![float("epsilon", norm.epsilon)]);
}

/// One more channel behind the others, filled with a constant.
pub(super) fn append_channel(
    b: &mut GraphBuilder,
    input: &str,
    out: &str,
    value: impl Fn(&mut GraphBuilder) -> String,
) {
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
