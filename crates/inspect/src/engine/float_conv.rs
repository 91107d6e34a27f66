//! `QLinearConv` → the same integers in f32: for what the int8 engine does not take (groups that are not channels, dilation).
//!
//! tract's own quantised convolution is slower than its f32 one: around the integer product it makes about ten passes over
//! i32 tensors, and a depthwise one becomes C separate products. So the bytes are widened to f32, convolved with the integer
//! weights, and requantised:
//!
//! ```text
//! x ─DequantizeLinear(1, zero)─► Conv(integer weights, integer bias) ─► Floor ─► Mul(x_scale * w_scale / y_scale) ─► QuantizeLinear(1, zero)─► y
//! ```
//!
//! f32 holds every integer below 2^24, so smaller sums are those of the integer product (larger ones lose their last bits), and the multiplier and the rounding
//! (to even) are ONNX Runtime's. Real scales in the convolution would not do: where a sum lies between two bytes, they round
//! it differently, and a deep net makes much of that (measured: 4 % of the map's range after 4 such bytes in the first
//! layer). `Floor` changes no integer; it keeps tract from folding the multiplier into the weights. Nodes that are
//! not understood stay as they are.

use std::collections::HashMap;
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

pub fn rewrite(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let constants: HashMap<String, TensorProto> =
        graph.initializer.iter().map(|t| (t.name.clone(), t.clone())).collect();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        match replacement(&node, &constants) {
            Some((new_nodes, new_constants)) => {
                nodes.extend(new_nodes);
                graph.initializer.extend(new_constants);
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
}

fn replacement(
    node: &NodeProto,
    constants: &HashMap<String, TensorProto>,
) -> Option<([NodeProto; 5], [TensorProto; 4])> {
    if node.op_type != "QLinearConv" || node.input.len() != 9 {
        return None;
    }
    let constant = |i: usize| constants.get(&node.input[i]);
    let scalar = |i: usize| f32s(constant(i)?)?.first().copied();
    let (x_scale, y_scale) = (scalar(1)?, scalar(6)?);
    let weight = constant(3)?;
    let channels = *weight.dims.first()?;
    let w_scales = f32s(constant(4)?)?;
    let biases = i32s(constant(8)?)?;
    let zeros = &constant(5)?.raw_data;
    let symmetric = !zeros.is_empty() && zeros.iter().all(|&z| z == 0);
    let i8s = weight.data_type == DataType::Int8 as i32 && !weight.raw_data.is_empty();
    if !symmetric || !i8s || w_scales.len() as i64 != channels || biases.len() as i64 != channels {
        return None;
    }
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
    let multipliers = w_scales.iter().map(|w_scale| x_scale * w_scale / y_scale);
    Some((
        [
            new("DequantizeLinear", &[&node.input[0], &one, &node.input[2]], &x),
            conv,
            new("Floor", &[&y], &sum),
            new("Mul", &[&sum, &multiplier], &scaled),
            new("QuantizeLinear", &[&scaled, &one, &node.input[7]], out),
        ],
        [
            tensor(one.clone(), vec![], std::iter::once(1.0)),
            tensor(w.clone(), weight.dims.clone(), weight.raw_data.iter().map(|&w| f32::from(w as i8))),
            tensor(b.clone(), vec![channels], biases.iter().map(|&b| b as f32)),
            tensor(multiplier.clone(), vec![1, channels, 1, 1], multipliers),
        ],
    ))
}

fn tensor(name: String, dims: Vec<i64>, values: impl Iterator<Item = f32>) -> TensorProto {
    let raw_data = values.flat_map(f32::to_le_bytes).collect();
    TensorProto { name, dims, data_type: DataType::Float as i32, raw_data, ..Default::default() }
}

fn f32s(tensor: &TensorProto) -> Option<Vec<f32>> {
    let right = tensor.data_type == DataType::Float as i32 && !tensor.raw_data.is_empty();
    right.then(|| tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn i32s(tensor: &TensorProto) -> Option<Vec<i32>> {
    let right = tensor.data_type == DataType::Int32 as i32 && !tensor.raw_data.is_empty();
    right.then(|| tensor.raw_data.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
