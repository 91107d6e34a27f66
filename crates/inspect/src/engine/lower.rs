//! The body of a region's node → [`Region`].

use super::partition::{BODY, REGION, byte_result};
use super::patterns::Graph;
use ckaad_int8::region::{Id, Input, Node, Op, Region};
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, NodeProto, tensor_proto::DataType, type_proto};

/// Weights of a region, each time that a node reads them.
const MOST_WEIGHTS: usize = 256 << 20;

/// # Errors
/// A sentence, when the node is not what [`super::partition`] writes.
pub fn region(node: &NodeProto) -> Result<Region, String> {
    let body = node.attribute.iter().find(|a| a.name == BODY).and_then(|a| a.g.as_ref());
    Lowering::new(body.ok_or_else(|| format!("{REGION} without a body"))?).run()
}

struct Lowering<'a> {
    body: &'a GraphProto,
    region: Region,
    ids: HashMap<&'a str, Id>,
}

impl<'a> Lowering<'a> {
    fn new(body: &'a GraphProto) -> Lowering<'a> {
        Lowering { body, region: Region::default(), ids: HashMap::new() }
    }

    fn run(mut self) -> Result<Region, String> {
        let graph = Graph::of(self.body);
        let outputs: HashSet<&str> = self.body.output.iter().map(|o| o.name.as_str()).collect();
        let found: Vec<_> = (0..graph.nodes.len()).map(|i| graph.find(i)).collect();
        let weights: usize = found.iter().flatten().map(|m| m.op.weights()).sum();
        if weights > MOST_WEIGHTS {
            return Err(format!("{weights} weights are more than {MOST_WEIGHTS}"));
        }
        // Byte tensors; true for i8.
        let mut bytes: HashMap<String, bool> = HashMap::new();
        for (i, input) in self.body.input.iter().enumerate() {
            bytes.insert(
                input.name.clone(),
                self.outer(&input.name).is_some_and(|(index, signed)| index == i && signed),
            );
        }
        for node in &self.body.node {
            if let (Some(signed), Some(name)) = (byte_result(&graph, node, &bytes), node.output.first()) {
                bytes.insert(name.clone(), signed);
            }
        }
        // What somebody reads inside: the parts of larger patterns are read by nobody.
        let mut read: HashSet<String> = HashSet::new();
        for (node, found) in self.body.node.iter().zip(&found).rev() {
            let Some(m) = found else { continue };
            if node.output.iter().any(|o| outputs.contains(o.as_str()) || read.contains(o)) {
                read.extend(m.inputs.iter().cloned());
            }
        }
        for (node, found) in self.body.node.iter().zip(found) {
            let (Some(m), [name]) = (found, node.output.as_slice()) else { continue };
            let name = name.as_str();
            let (inside, outside) = (read.contains(name), outputs.contains(name));
            if !inside && !outside {
                continue;
            }
            let op = match m.op {
                Op::Input(input) => {
                    let (index, _) = self.outer(&m.inputs[0]).ok_or_else(|| unknown(&m.inputs[0]))?;
                    Op::Input(Input { index, ..input })
                }
                // Nobody inside needs the floats: they leave as they are made.
                Op::Float { scale, zero } if !inside => Op::Dequantise { scale, zero },
                op => op,
            };
            let inputs = match op {
                Op::Input(_) => vec![],
                _ => m.inputs.iter().map(|x| self.read(x)).collect::<Result<_, _>>()?,
            };
            self.push(name, op, inputs);
        }
        for output in &self.body.output {
            let name = output.name.as_str();
            let mut id = *self.ids.get(name).ok_or_else(|| unknown(name))?;
            if !self.region.nodes[id].op.leaves() {
                let op = if self.region.floats()[id] {
                    Op::Floats
                } else {
                    Op::Bytes { signed: bytes.get(name).copied().unwrap_or_default() }
                };
                self.region.nodes.push(Node { name: name.into(), op, inputs: vec![id] });
                id = self.region.nodes.len() - 1;
            }
            self.region.outputs.push(id);
        }
        Ok(self.region)
    }

    fn push(&mut self, name: &'a str, op: Op, inputs: Vec<Id>) -> Id {
        self.region.nodes.push(Node { name: name.into(), op, inputs });
        let id = self.region.nodes.len() - 1;
        self.ids.insert(name, id);
        id
    }

    /// Which of the region's inputs a tensor is, and whether it is i8.
    fn outer(&self, name: &str) -> Option<(usize, bool)> {
        let (index, input) = self.body.input.iter().enumerate().find(|(_, x)| x.name == name)?;
        let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref()?.value.as_ref() else { return None };
        Some((index, tensor.elem_type == DataType::Int8 as i32))
    }

    /// A tensor that a node reads: another node's, or one from outside.
    fn read(&mut self, name: &str) -> Result<Id, String> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        let (index, signed) = self.outer(name).ok_or_else(|| unknown(name))?;
        let name = self.body.input[index].name.as_str();
        Ok(self.push(name, Op::Input(Input { index, channels_last: false, signed, append: None }), vec![]))
    }
}

fn unknown(name: &str) -> String {
    format!("{REGION}: nothing in its body gives {name}")
}
