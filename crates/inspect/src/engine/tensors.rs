//! What is known of each tensor of a graph while its nodes are gone through in their order.

use super::constants::Constants;
use super::patterns::Match;
use ckaad_int8::shape::ElementType;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, NodeProto, ValueInfoProto, tensor_proto::DataType, type_proto};

pub struct Tensors<'a> {
    /// Tensors of bytes, and whether they are u8 or i8.
    bytes: HashMap<&'a str, ElementType>,
    /// From which level on a region can read a tensor: that of the region which writes it, or behind all that its
    /// writer needs.
    ready: HashMap<&'a str, usize>,
    /// Float results of taken nodes, and their level.
    floats: HashMap<&'a str, usize>,
    /// Results of taken nodes.
    taken: HashSet<&'a str>,
}

impl<'a> Tensors<'a> {
    /// The graph's inputs.
    pub fn of(graph: &'a GraphProto, constants: &Constants) -> Tensors<'a> {
        // Old files list constants among the inputs.
        let inputs = graph.input.iter().filter(|input| constants.get(&input.name).is_none());
        let bytes = inputs.filter_map(|input| Some((input.name.as_str(), byte_type(input)?))).collect();
        Tensors { bytes, ready: HashMap::new(), floats: HashMap::new(), taken: HashSet::new() }
    }

    /// Of a tensor of bytes, whether they are u8 or i8.
    pub fn bytes(&self, name: &str) -> Option<ElementType> {
        self.bytes.get(name).copied()
    }

    /// The level of the taken node that gives these floats.
    pub fn floats(&self, name: &str) -> Option<usize> {
        self.floats.get(name).copied()
    }

    /// The level of a taken node that reads these tensors.
    pub fn level_of(&self, names: &[String]) -> usize {
        names.iter().filter_map(|x| self.ready.get(x.as_str()).copied()).max().unwrap_or(0)
    }

    /// The level from which on the results of a node that is not taken can be read: one more than that of the regions
    /// before it.
    pub fn level_behind(&self, node: &NodeProto) -> usize {
        let behind = |x: &String| {
            let ready = self.ready.get(x.as_str()).copied();
            ready.map_or(0, |level| level + usize::from(self.taken.contains(x.as_str())))
        };
        node.input.iter().map(behind).max().unwrap_or(0)
    }

    /// A node's results.
    pub fn record(&mut self, node: &'a NodeProto, constants: &Constants, level: usize, found: Option<&Match>) {
        let bytes = self.byte_result(node, constants);
        for output in &node.output {
            self.ready.insert(output, level);
            if let Some(m) = found {
                self.taken.insert(output);
                let floats = m.inputs.first().is_some_and(|x| self.floats.contains_key(x.as_str()));
                let of = if floats { ElementType::F32 } else { ElementType::U8 };
                if m.op.gives(of) == ElementType::F32 && m.op.leaves().is_none() {
                    self.floats.insert(output, level);
                }
            }
            if let Some(element) = bytes {
                self.bytes.insert(output, element);
            }
        }
    }

    /// Whether a node's result is bytes, and then which.
    fn byte_result(&self, node: &NodeProto, constants: &Constants) -> Option<ElementType> {
        let zero_point = |i: usize| Some(constants.bytes(node.input.get(i)?)?.1);
        match node.op_type.as_str() {
            "QLinearConv" => zero_point(7),
            "QuantizeLinear" => zero_point(2),
            "QLinearLeakyRelu" => zero_point(4),
            "Transpose" | "Pad" | "MaxPool" | "Resize" | "Concat" | "DepthToSpace" | "Reshape" | "Clip" | "Slice" => {
                self.bytes(node.input.first()?)
            }
            "Identity" => {
                let input = node.input.first()?;
                self.bytes(input).or_else(|| Some(constants.bytes(input)?.1))
            }
            _ => None,
        }
    }
}

fn byte_type(value: &ValueInfoProto) -> Option<ElementType> {
    let type_proto::Value::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    let is = |kind: DataType| tensor.elem_type == kind as i32;
    match () {
        () if is(DataType::Uint8) => Some(ElementType::U8),
        () if is(DataType::Int8) => Some(ElementType::I8),
        () => None,
    }
}
