//! `QLinearConv` → DequantizeLinear-Conv-QuantizeLinear.
//!
//! tract's own quantised convolution is slower than its f32 one: around the integer product it makes about ten passes over
//! i32 tensors, and a depthwise one becomes C separate products. Between the two quantisers the f32 operator gives the
//! same bytes, but for sums that lie on the edge between two of them. Nodes that are not understood stay as they are.

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
) -> Option<([NodeProto; 3], [TensorProto; 2])> {
    if node.op_type != "QLinearConv" || node.input.len() != 9 {
        return None;
    }
    let constant = |i: usize| constants.get(&node.input[i]);
    let weight = constant(3)?;
    let channels = *weight.dims.first()?;
    let x_scale = *f32s(constant(1)?)?.first()?;
    let w_scales = f32s(constant(4)?)?;
    let biases = i32s(constant(8)?)?;
    let symmetric = constant(5)?.raw_data.iter().all(|&z| z == 0);
    let i8s = weight.data_type == DataType::Int8 as i32 && !weight.raw_data.is_empty();
    if !symmetric || !i8s || w_scales.len() as i64 != channels || biases.len() as i64 != channels {
        return None;
    }
    let row = weight.raw_data.len() / w_scales.len();
    let scaled = weight
        .raw_data
        .iter()
        .enumerate()
        .map(|(i, &w)| f32::from(w as i8) * w_scales.get(i / row).copied().unwrap_or(0.0));
    let bias = biases.iter().zip(&w_scales).map(|(&b, s)| (f64::from(b) * f64::from(x_scale) * f64::from(*s)) as f32);

    let out = node.output.first()?;
    let name = |what: &str| format!("{out}.float.{what}");
    let new = |op: &str, inputs: Vec<String>, output: String| NodeProto {
        name: format!("{op}:{output}"),
        op_type: op.into(),
        input: inputs,
        output: vec![output],
        ..Default::default()
    };
    let inputs = |range: std::ops::Range<usize>| node.input[range].iter().cloned();
    let mut conv = new("Conv", vec![name("x"), name("weight"), name("bias")], name("y"));
    conv.attribute = node.attribute.clone();
    let quantise = [name("y")].into_iter().chain(inputs(6..8)).collect();
    Some((
        [
            new("DequantizeLinear", inputs(0..3).collect(), name("x")),
            conv,
            new("QuantizeLinear", quantise, out.clone()),
        ],
        [tensor(name("weight"), weight.dims.clone(), scaled), tensor(name("bias"), vec![channels], bias)],
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
