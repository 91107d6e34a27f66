//! `QLinearConv` → the same integers in f32: for what the int8 engine does not take (groups that are not channels,
//! dilation).
//!
//! tract's own quantised convolution is slower than its f32 one: around the integer product it makes about ten passes
//! over i32 tensors, and a depthwise one becomes C separate products. So the bytes are widened to f32, convolved with
//! the integer weights, and requantised:
//!
//! ```text
//! x ─DequantizeLinear(1, zero)─► Conv(integer weights, integer bias) ─► Floor
//!   ─► Mul(x_scale * w_scale / y_scale) ─► QuantizeLinear(1, zero)─► y
//! ```
//!
//! f32 holds every integer below 2^24, so smaller sums are those of the integer product (larger ones lose their last
//! bits), and the multiplier and the rounding (to even) are ONNX Runtime's. Real scales in the convolution would not
//! do: where a sum lies between two bytes, they round it differently, and a deep net makes much of that (measured: 4 %
//! of the map's range after 4 such bytes in the first layer). `Floor` changes no integer; it keeps tract from folding
//! the multiplier into the weights. Nodes that are not understood stay as they are.

use super::constants::{Constants, QuantisedConv};
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

/// What takes a node's place, and the constants that it reads.
struct Replacement {
    nodes: [NodeProto; 5],
    constants: [TensorProto; 4],
}

pub fn rewrite(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let constants = Constants::of(graph);
    let replacements: Vec<Option<Replacement>> = graph.node.iter().map(|node| replacement(node, &constants)).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (node, replacement) in std::mem::take(&mut graph.node).into_iter().zip(replacements) {
        match replacement {
            Some(new) => {
                nodes.extend(new.nodes);
                graph.initializer.extend(new.constants);
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
}

fn replacement(node: &NodeProto, constants: &Constants) -> Option<Replacement> {
    if node.op_type != "QLinearConv" {
        return None;
    }
    let QuantisedConv { values, dims, bias, multipliers, .. } = constants.quantised_conv(node)?;
    let out = node.output.first()?;
    let name = |what: &str| format!("{out}.float.{what}");
    let new = |op: &str, inputs: &[&str], output: &str| NodeProto {
        name: format!("{op}:{output}"),
        op_type: op.into(),
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    };
    let [x, y, sum, scaled, one, w, b, multiplier] =
        ["x", "y", "sum", "scaled", "one", "weight", "bias", "multiplier"].map(name);
    let mut conv = new("Conv", &[&x, &w, &b], &y);
    conv.attribute = node.attribute.clone();
    let channels = dims[0] as i64;
    Some(Replacement {
        nodes: [
            new("DequantizeLinear", &[&node.input[0], &one, &node.input[2]], &x),
            conv,
            new("Floor", &[&y], &sum),
            new("Mul", &[&sum, &multiplier], &scaled),
            new("QuantizeLinear", &[&scaled, &one, &node.input[7]], out),
        ],
        constants: [
            tensor(one.clone(), vec![], std::iter::once(1.0)),
            tensor(w.clone(), dims.map(|side| side as i64).into(), values.into_iter().map(f32::from)),
            tensor(b.clone(), vec![channels], bias.into_iter().map(|b| b as f32)),
            tensor(multiplier.clone(), vec![1, channels, 1, 1], multipliers.into_iter()),
        ],
    })
}

fn tensor(name: String, dims: Vec<i64>, values: impl Iterator<Item = f32>) -> TensorProto {
    let raw_data = values.flat_map(f32::to_le_bytes).collect();
    TensorProto { name, dims, data_type: DataType::Float as i32, raw_data, ..Default::default() }
}
