//! Small ONNX graphs, for tests of what runs them.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

/// An input or output.
pub fn value(name: &str, kind: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d)),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..Default::default() }
}

/// An attribute.
pub fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints: ints.into(), ..Default::default() }
}

/// With the attributes that its kind cannot do without.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    let attribute = match op {
        "Transpose" => vec![ints("perm", &[0, 3, 1, 2])],
        "QLinearConv" | "Conv" => vec![ints("kernel_shape", &[1, 1])],
        "LayerNormalization" => {
            vec![AttributeProto { name: "axis".into(), r#type: AttributeType::Int as i32, i: 1, ..Default::default() }]
        }
        _ => vec![],
    };
    NodeProto { op_type: op.into(), input: names(inputs), output: names(outputs), attribute, ..Default::default() }
}

/// An initialiser.
pub fn constant(name: &str, kind: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), data_type: kind as i32, dims: dims.into(), raw_data, ..Default::default() }
}

/// As a constant holds them.
pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A model whose map `[1,1,8,12]` is the brightness of an image 48 wide and 32 high, 0 to 1, and that may give the
/// whole image's brightness besides; its outputs are those named, in their order, of the shapes given.
pub fn brightness(outputs: &[(&str, &[i64])]) -> Vec<u8> {
    let mut cast = node("Cast", &["channels"], &["values"]);
    cast.attribute.push(number("to", DataType::Float as i64));
    let mut conv = node("Conv", &["values", "weights"], &["cells"]);
    conv.attribute = vec![ints("kernel_shape", &[4, 4]), ints("strides", &[4, 4])];
    let mut nodes =
        vec![node("Transpose", &["image"], &["channels"]), cast, conv, node("ReduceMean", &["cells"], &["mean"])];
    let mut initializer =
        vec![constant("weights", DataType::Float, &[1, 3, 4, 4], floats(&[1.0 / (48.0 * 255.0); 48]))];
    for &(name, shape) in outputs {
        let from = if name == "image_score" { "mean" } else { "cells" };
        let to = format!("{name}.shape");
        let dims = shape.iter().flat_map(|d| d.to_le_bytes()).collect();
        initializer.push(constant(&to, DataType::Int64, &[shape.len() as i64], dims));
        nodes.push(node("Reshape", &[from, &to], &[name]));
    }
    let graph = GraphProto {
        node: nodes,
        input: vec![value("image", DataType::Uint8, &[1, 32, 48, 3])],
        output: outputs.iter().map(|(name, shape)| value(name, DataType::Float, shape)).collect(),
        initializer,
        ..Default::default()
    };
    file(graph)
}

/// A model of so many views of a part, 48 wide and 32 high: the map of each, `[views,1,8,12]`, is how far the brightness of a view, 0 to 1, is from the mean of
/// all.
pub fn unlike_the_others(views: i64) -> Vec<u8> {
    let mut cast = node("Cast", &["channels"], &["values"]);
    cast.attribute.push(number("to", DataType::Float as i64));
    let mut conv = node("Conv", &["values", "weights"], &["cells"]);
    conv.attribute = vec![ints("kernel_shape", &[4, 4]), ints("strides", &[4, 4])];
    let mut mean = node("ReduceMean", &["cells"], &["mean"]);
    mean.attribute = vec![ints("axes", &[0]), number("keepdims", 1)];
    let graph = GraphProto {
        node: vec![
            node("Transpose", &["image"], &["channels"]),
            cast,
            conv,
            mean,
            node("Sub", &["cells", "mean"], &["apart"]),
            node("Abs", &["apart"], &["anomaly_map"]),
        ],
        input: vec![value("image", DataType::Uint8, &[views, 32, 48, 3])],
        output: vec![value("anomaly_map", DataType::Float, &[views, 1, 8, 12])],
        initializer: vec![constant("weights", DataType::Float, &[1, 3, 4, 4], floats(&[1.0 / (48.0 * 255.0); 48]))],
        ..Default::default()
    };
    file(graph)
}

fn file(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![opset], ..Default::default() }.encode_to_vec()
}

fn number(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..Default::default() }
}
