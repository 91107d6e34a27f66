//! A thin layer over the ONNX protobuf types that tract-onnx exposes: nodes, attributes and constants by name.

use crate::graph::Conv;
use half::f16;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

const OPSET: i64 = 17;
/// The IR version that came with ONNX 1.12, whose operator set is 17.
const IR_VERSION: i64 = 8;

pub struct GraphBuilder {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// Floats are written as f16.
    pub half: bool,
    /// Images that the network takes at once.
    views: usize,
    /// Which of them is being written, counted from 0.
    pub view: usize,
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    attribute(name, AttributeType::Ints, |a| a.ints = values.to_vec())
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    attribute(name, AttributeType::Int, |a| a.i = value)
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    attribute(name, AttributeType::Float, |a| a.f = value)
}

pub fn string(name: &str, value: &str) -> AttributeProto {
    attribute(name, AttributeType::String, |a| a.s = value.as_bytes().to_vec())
}

fn attribute(name: &str, kind: AttributeType, set: impl FnOnce(&mut AttributeProto)) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.into(), r#type: kind as i32, ..Default::default() };
    set(&mut attribute);
    attribute
}

impl GraphBuilder {
    /// For a network of so many views.
    pub fn new(views: usize) -> GraphBuilder {
        GraphBuilder { nodes: vec![], constants: vec![], half: false, views, view: 0 }
    }

    /// The views, counted from 0.
    pub fn views(&self) -> std::ops::Range<usize> {
        0..self.views
    }

    /// Name of a tensor in a view; where there is one alone, the plain one.
    pub fn in_view(&self, view: usize, name: &str) -> String {
        if self.views == 1 { name.to_owned() } else { format!("{name}.view{view}") }
    }

    /// The network's input of this view, out of all views' `images`.
    pub fn own_image(&mut self, images: &str) -> String {
        if self.views == 1 {
            return images.to_owned();
        }
        let out = self.in_view(self.view, images);
        let view = self.view as i64;
        let [from, to] = [view, view + 1].map(|at| self.i64s(&format!("view.{at}"), &[at]));
        let axis = self.i64s("view.axis", &[0]);
        self.node("Slice", &[images, &from, &to, &axis], &out, vec![]);
        out
    }

    /// The tensors of all views behind one another, called `out`; one alone as it is called.
    pub fn all_views(&mut self, each: &[String], out: &str) -> String {
        if let [one] = each {
            return one.clone();
        }
        let each: Vec<&str> = each.iter().map(String::as_str).collect();
        self.node("Concat", &each, out, vec![int("axis", 0)]);
        out.to_owned()
    }

    /// Adds a node with one output named `output`; an input `""` is an optional one left out.
    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.node_with_outputs(op, inputs, &[output], attributes);
    }

    /// Adds a node, named by the first of its outputs.
    pub fn node_with_outputs(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            name: format!("{op}:{}", outputs[0]),
            op_type: op.into(),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: outputs.iter().map(|&o| o.to_owned()).collect(),
            attribute: attributes,
            ..Default::default()
        });
    }

    /// Whether a node writes `output` already.
    pub fn has_output(&self, output: &str) -> bool {
        self.nodes.iter().any(|n| n.output.iter().any(|o| o == output))
    }

    /// A constant that takes part in the arithmetic: f32, or f16 where that is [`GraphBuilder::half`].
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        if !self.half {
            return self.f32s(name, dims, values);
        }
        let bytes = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        self.constant(name, dims, DataType::Float16, bytes)
    }

    /// A conversion to floats, as they are written.
    pub fn cast(&mut self, input: &str, output: &str) {
        let to = if self.half { DataType::Float16 } else { DataType::Float };
        self.node("Cast", &[input], output, vec![int("to", to as i64)]);
    }

    pub fn f32s(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.constant(name, dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn i64s(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(name, &[values.len()], DataType::Int64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn i32s(&mut self, name: &str, dims: &[usize], values: &[i32]) -> String {
        self.constant(name, dims, DataType::Int32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn u8s(&mut self, name: &str, dims: &[usize], values: &[u8]) -> String {
        self.constant(name, dims, DataType::Uint8, values.to_vec())
    }

    pub fn i8s(&mut self, name: &str, dims: &[usize], values: &[i8]) -> String {
        self.constant(name, dims, DataType::Int8, values.iter().map(|&v| v as u8).collect())
    }

    /// Stores a constant once under its name and returns the name. What all views have is there once, but for weights in int8: on CPUs without VNNI ONNX
    /// Runtime writes them anew under another name, and fails over the second layer that has them.
    fn constant(&mut self, name: &str, dims: &[usize], kind: DataType, raw_data: Vec<u8>) -> String {
        if self.views > 1 && kind != DataType::Int8 {
            let same = |c: &&TensorProto| {
                let alike = c.data_type == kind as i32 && c.dims.iter().map(|&d| d as usize).eq(dims.iter().copied());
                alike && c.raw_data == raw_data
            };
            if let Some(there) = self.constants.iter().find(same) {
                return there.name.clone();
            }
        }
        if !self.constants.iter().any(|c| c.name == name) {
            self.constants.push(TensorProto {
                name: name.into(),
                dims: dims.iter().map(|&d| d as i64).collect(),
                data_type: kind as i32,
                raw_data,
                ..Default::default()
            });
        }
        name.to_owned()
    }

    /// The finished model: input `image`, u8 `[views,height,width,3]`; outputs f32 `[views,c,h,w]`.
    pub fn finish(self, width: usize, height: usize, outputs: &[(String, [usize; 3])]) -> ModelProto {
        let graph = GraphProto {
            name: "ckaad".into(),
            node: self.nodes,
            initializer: self.constants,
            input: vec![value("image", DataType::Uint8, &[self.views, height, width, 3])],
            output: outputs.iter().map(|(n, [c, h, w])| value(n, DataType::Float, &[self.views, *c, *h, *w])).collect(),
            ..Default::default()
        };
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "ckaad-train".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            graph: Some(graph),
            ..Default::default()
        }
    }
}

fn value(name: &str, kind: DataType, dims: &[usize]) -> ValueInfoProto {
    let dim = |&d: &usize| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d as i64)),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: kind as i32,
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

/// Dimensions of a convolution's weights, `[out, in/groups, kernel, kernel]`.
pub(super) fn weight_dims(conv: &Conv) -> [usize; 4] {
    [conv.out, conv.depth(), conv.kernel, conv.kernel]
}

/// What ONNX asks of a convolution beside its tensors.
pub(super) fn conv_attributes(conv: &Conv) -> Vec<AttributeProto> {
    let (k, s) = (conv.kernel as i64, conv.stride as i64);
    let pads = conv.pads.map(|p| p as i64);
    vec![ints("kernel_shape", &[k, k]), ints("strides", &[s, s]), ints("pads", &pads), int("group", conv.groups as i64)]
}
