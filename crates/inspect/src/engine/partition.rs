//! ONNX model → the same model in which each quantised part is one node.
//!
//! A node that the patterns know, with bytes (or floats that a taken node made of bytes) as inputs, is *taken*; taken nodes are put
//! together in regions. Between two taken nodes there may lie one that is not (an operator that has no kernel), so regions have
//! *levels*: a node's level is how many such gaps lie before it. Nodes of one level never wait for a node outside that waits for them, so a level can be one node.

use super::patterns::{Graph, Reads};
use ckaad_int8::region::Op;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, type_proto,
};

/// The operator type of a region.
pub const REGION: &str = "CkaadInt8";
/// Its attributes: the nodes that it stands for, and how many threads it may use.
pub const BODY: &str = "body";
pub const THREADS: &str = "threads";

/// Puts quantised nodes together. Returns the quantised nodes that it left, as `operator: result`.
pub fn partition(model: &mut ModelProto, threads: usize) -> Vec<String> {
    let Some(graph) = &mut model.graph else { return vec![] };
    if graph.node.len() > MOST_NODES || !writes_once(graph) {
        return vec!["the whole network".into()];
    }
    let plan = Plan::of(graph);
    let mut nodes: Vec<NodeProto> = (0..plan.levels).filter_map(|level| plan.region(graph, level, threads)).collect();
    nodes.extend(graph.node.iter().zip(&plan.kept).filter(|(_, kept)| **kept).map(|(n, _)| n.clone()));
    let left = plan.left(graph);
    graph.node = in_order(graph, nodes);
    let outputs = graph.output.iter().map(|o| o.name.as_str());
    let read: HashSet<&str> =
        graph.node.iter().flat_map(|n| n.input.iter().map(String::as_str)).chain(outputs).collect();
    graph.initializer.retain(|t| read.contains(t.name.as_str()));
    left
}

/// Nodes of a graph that is looked into: ten times those of any network for a device.
const MOST_NODES: usize = 4096;

/// Whether the file brings regions of its own, which only [`partition`] may write: the kernels trust what it writes.
pub fn forged(graph: &GraphProto) -> bool {
    let inside = |a: &AttributeProto| a.g.iter().chain(&a.graphs).any(forged);
    graph.node.iter().any(|n| n.op_type == REGION || n.attribute.iter().any(inside))
}

/// Whether every tensor has one writer, as ONNX asks for.
fn writes_once(graph: &GraphProto) -> bool {
    let constants: HashSet<&String> = graph.initializer.iter().map(|t| &t.name).collect();
    let inputs = graph.input.iter().map(|i| &i.name).filter(|name| !constants.contains(name));
    let results = graph.node.iter().flat_map(|n| &n.output).filter(|name| !name.is_empty());
    let mut seen: HashSet<&String> = HashSet::new();
    graph.initializer.iter().map(|t| &t.name).chain(inputs).chain(results).all(|name| seen.insert(name))
}

/// What becomes of each node.
struct Plan {
    /// The level of a taken node.
    level: Vec<Option<usize>>,
    levels: usize,
    /// The nodes that a taken one stands for.
    parts: HashMap<usize, Vec<usize>>,
    /// Taken nodes that only bring the image's channels in front.
    images: HashSet<usize>,
    /// Nodes that stay as they are.
    kept: Vec<bool>,
    /// Tensors that kept nodes read, or that are the graph's outputs.
    needed: HashSet<String>,
    /// Byte tensors; true for i8.
    bytes: HashMap<String, bool>,
}

impl Plan {
    fn of(proto: &GraphProto) -> Plan {
        let graph = Graph::of(proto);
        let mut bytes: HashMap<String, bool> = HashMap::new();
        // From which level on a tensor can be read by a region: that of the region which writes it, or behind all that its writer needs.
        let mut ready: HashMap<&str, usize> = HashMap::new();
        for input in &proto.input {
            // Old files list constants among the inputs.
            let kind = element_type(input).filter(|_| graph.constants.get(&input.name).is_none()).unwrap_or_default();
            if kind == DataType::Uint8 as i32 || kind == DataType::Int8 as i32 {
                bytes.insert(input.name.clone(), kind == DataType::Int8 as i32);
            }
        }
        let count = proto.node.len();
        let (mut level, mut parts, mut images) = (vec![None; count], HashMap::new(), HashSet::new());
        let mut taken_outputs: HashSet<&str> = HashSet::new();
        // Float results of taken nodes, and their level.
        let mut floats: HashMap<&str, usize> = HashMap::new();
        for (i, node) in proto.node.iter().enumerate() {
            let level_of =
                |names: &[String]| names.iter().filter_map(|x| ready.get(x.as_str()).copied()).max().unwrap_or(0);
            let found = graph.find(i).filter(|m| {
                let bytes_of = &bytes;
                let bytes = m.inputs.iter().all(|x| bytes_of.contains_key(x));
                // An i8 is kept 128 higher; who takes bytes for what they are not would be 128 off.
                let as_said =
                    m.inputs.iter().zip(&m.signed).all(|(x, signed)| bytes_of.get(x).is_none_or(|s| s == signed));
                if !as_said {
                    return false;
                }
                // Floats do not cross from one region to another.
                let here = Some(level_of(&m.inputs));
                let own_floats = m.inputs.iter().all(|x| floats.get(x.as_str()).copied() == here);
                match (&m.op, m.reads) {
                    // Only the graph's own input comes channels last.
                    (Op::Input(_), _) => bytes && proto.input.iter().any(|x| x.name == m.inputs[0]),
                    (_, Reads::Bytes) => bytes,
                    (_, Reads::Floats) => own_floats,
                    (_, Reads::Either) => bytes || own_floats,
                }
            });
            let at = match &found {
                Some(m) => level_of(&m.inputs),
                None => {
                    let behind = |x: &String| {
                        ready.get(x.as_str()).map_or(0, |r| r + usize::from(taken_outputs.contains(x.as_str())))
                    };
                    node.input.iter().map(behind).max().unwrap_or(0)
                }
            };
            for output in &node.output {
                ready.insert(output, at);
                if let Some(m) = &found {
                    taken_outputs.insert(output);
                    let of = m.inputs.first().is_some_and(|x| floats.contains_key(x.as_str()));
                    if m.op.gives_floats(of) && !m.op.leaves() {
                        floats.insert(output, at);
                    }
                }
                if let Some(signed) = byte_result(&graph, node, &bytes) {
                    bytes.insert(output.clone(), signed);
                }
            }
            if let Some(m) = found {
                if matches!(m.op, Op::Input(_)) {
                    images.insert(i);
                }
                level[i] = Some(at);
                parts.insert(i, m.nodes);
            }
        }
        let inside: HashSet<usize> = parts.values().flatten().copied().collect();
        let mut kept: Vec<bool> = (0..count).map(|i| !inside.contains(&i)).collect();
        let mut needed: HashSet<String> = proto.output.iter().map(|o| o.name.clone()).collect();
        for i in (0..count).rev() {
            // Bringing the image's channels to the front cannot leave a region; it stays where anyone else reads it.
            let node = &proto.node[i];
            let elsewhere =
                |name: &String| needed.contains(name) || other_level_reads(proto, &level, &parts, level[i], name);
            kept[i] |= images.contains(&i) && node.output.iter().any(elsewhere);
            if kept[i] {
                needed.extend(node.input.iter().cloned());
            }
        }
        let levels = level.iter().flatten().max().map_or(0, |l| l + 1);
        Plan { level, levels, parts, images, kept, needed, bytes }
    }

    /// The region of one level; none where it would only read.
    fn region(&self, graph: &GraphProto, level: usize, threads: usize) -> Option<NodeProto> {
        let anchors: Vec<usize> = (0..graph.node.len()).filter(|&i| self.level[i] == Some(level)).collect();
        let mut members: Vec<usize> = anchors.iter().flat_map(|i| self.parts[i].iter().copied()).collect();
        members.sort_unstable();
        members.dedup();
        let nodes: Vec<&NodeProto> = members.iter().map(|&i| &graph.node[i]).collect();
        // What others read of it: nodes that stay, and regions of other levels.
        let elsewhere = |name: &String| {
            self.needed.contains(name) || other_level_reads(graph, &self.level, &self.parts, Some(level), name)
        };
        let written: HashSet<&String> = nodes.iter().flat_map(|n| &n.output).collect();
        let outputs: Vec<String> = anchors
            .iter()
            .filter(|i| !self.images.contains(i))
            .flat_map(|&i| &graph.node[i].output)
            .filter(|o| elsewhere(o))
            .cloned()
            .collect();
        if outputs.is_empty() {
            return None;
        }
        let mut inputs: Vec<String> = vec![];
        for name in nodes.iter().flat_map(|n| &n.input) {
            if self.bytes.contains_key(name) && !written.contains(name) && !inputs.contains(name) {
                inputs.push(name.clone());
            }
        }
        let read: HashSet<&String> = nodes.iter().flat_map(|n| &n.input).collect();
        let body = GraphProto {
            name: format!("int8.{level}"),
            initializer: graph.initializer.iter().filter(|t| read.contains(&t.name)).cloned().collect(),
            input: inputs.iter().map(|name| byte_tensor(name, self.bytes[name])).collect(),
            output: outputs.iter().map(|name| ValueInfoProto { name: name.clone(), ..Default::default() }).collect(),
            node: nodes.into_iter().cloned().collect(),
            ..Default::default()
        };
        let attribute = |name: &str, kind: AttributeType| AttributeProto {
            name: name.into(),
            r#type: kind as i32,
            ..Default::default()
        };
        Some(NodeProto {
            name: format!("int8.{level}"),
            op_type: REGION.into(),
            input: inputs,
            output: outputs,
            attribute: vec![
                AttributeProto { g: Some(body), ..attribute(BODY, AttributeType::Graph) },
                AttributeProto { i: threads as i64, ..attribute(THREADS, AttributeType::Int) },
            ],
            ..Default::default()
        })
    }

    /// Kept nodes that read or write bytes.
    fn left(&self, graph: &GraphProto) -> Vec<String> {
        let quantised = |n: &NodeProto| n.input.iter().chain(&n.output).any(|x| self.bytes.contains_key(x));
        let kept = graph.node.iter().zip(&self.kept).filter(|(n, kept)| **kept && quantised(n));
        kept.map(|(n, _)| format!("{}: {}", n.op_type, n.output.first().map_or("", String::as_str))).collect()
    }
}

/// Whether a region of another level than `here` reads `name`.
fn other_level_reads(
    graph: &GraphProto,
    level: &[Option<usize>],
    parts: &HashMap<usize, Vec<usize>>,
    here: Option<usize>,
    name: &String,
) -> bool {
    let other = |i: &usize| level[*i].is_some() && level[*i] != here;
    let reads = |i: usize| parts[&i].iter().any(|&part| graph.node[part].input.contains(name));
    (0..graph.node.len()).filter(other).any(reads)
}

/// Whether a node's result is bytes, and then whether i8.
pub fn byte_result(graph: &Graph, node: &NodeProto, bytes: &HashMap<String, bool>) -> Option<bool> {
    let signed = |i: usize| Some(graph.constants.bytes(node.input.get(i)?)?.1);
    match node.op_type.as_str() {
        "QLinearConv" => signed(7),
        "QuantizeLinear" => signed(2),
        "Transpose" | "Pad" | "MaxPool" | "Resize" | "Concat" | "Identity" | "Reshape" | "Clip" => {
            bytes.get(node.input.first()?).copied()
        }
        _ => None,
    }
}

fn element_type(value: &ValueInfoProto) -> Option<i32> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor.elem_type),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

fn byte_tensor(name: &str, signed: bool) -> ValueInfoProto {
    let kind = if signed { DataType::Int8 } else { DataType::Uint8 };
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape: None };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}

/// Each node behind those whose results it reads.
fn in_order(graph: &GraphProto, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
    let all: HashSet<String> = nodes.iter().flat_map(|n| n.output.iter().cloned()).collect();
    let mut there: HashSet<String> = graph.input.iter().map(|i| i.name.clone()).collect();
    let (mut waiting, mut ordered) = (nodes, vec![]);
    loop {
        let before = waiting.len();
        let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|n| {
            let ready = n.input.iter().all(|x| !all.contains(x) || there.contains(x));
            if ready {
                there.extend(n.output.iter().cloned());
            }
            ready
        });
        ordered.extend(now);
        // A circle in the file: what is left goes behind, and loading says what is wrong with it.
        if later.is_empty() || later.len() == before {
            ordered.extend(later);
            return ordered;
        }
        waiting = later;
    }
}
