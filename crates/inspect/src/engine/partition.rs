//! ONNX model → the same model in which each quantised part is one node, and the regions that those nodes stand for.
//!
//! A node that the patterns know, with bytes (or floats that a taken node made of bytes) as inputs, is *taken*; taken
//! nodes are put together in regions. Between two taken nodes there may lie one that is not (an operator that has no
//! kernel), so regions have *levels*: a node's level is how many such gaps lie before it. Nodes of one level never wait
//! for a node outside that waits for them, so a level can be one node.
//!
//! This is the only place where a node is recognised. The node that stands for a region carries nothing but the
//! region's number, so what the kernels trust never travels through a file.

use super::assemble::{Assembled, assemble};
use super::patterns::{Graph, Match};
use super::tensors::Tensors;
use ckaad_int8::Reads;
use ckaad_int8::region::Region;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType};

/// The operator type of a region's node.
pub const REGION: &str = "CkaadInt8";
/// Its attribute: the region's number.
pub const INDEX: &str = "region";

/// Nodes of a graph that is looked into: more than those of any network for a device, sixteen views of a part at once.
const MOST_NODES: usize = 8192;
/// Weights of all regions, each time that a node reads them.
const MOST_WEIGHTS: usize = 256 << 20;

/// A model cut in what regions do and what tract does.
pub struct Partitioned {
    pub model: ModelProto,
    /// What the nodes of type [`REGION`] stand for, by their number.
    pub regions: Vec<Region>,
    /// Quantised nodes that were left, as `operator: result`; one line, `the whole network` and why, where nothing was
    /// taken.
    pub unfused: Vec<String>,
}

/// Puts quantised nodes together.
pub fn partition(mut model: ModelProto) -> Partitioned {
    let Some(graph) = &mut model.graph else { return Partitioned { model, regions: vec![], unfused: vec![] } };
    match cut(graph) {
        Ok(Cut { nodes, regions, unfused }) => {
            graph.node = in_order(graph, nodes);
            let outputs = graph.output.iter().map(|o| &o.name);
            let read: HashSet<&String> = graph.node.iter().flat_map(|n| &n.input).chain(outputs).collect();
            graph.initializer.retain(|t| read.contains(&t.name));
            Partitioned { model, regions, unfused }
        }
        Err(why) => Partitioned { model, regions: vec![], unfused: vec![format!("the whole network: {why}")] },
    }
}

/// # Errors
/// Why nothing of the graph can be taken.
fn cut(graph: &GraphProto) -> Result<Cut, String> {
    if graph.node.len() > MOST_NODES {
        return Err(format!("it has more than {MOST_NODES} nodes"));
    }
    if !writes_once(graph) {
        return Err("a tensor is written more than once".into());
    }
    Partition::of(graph)?.into_regions()
}

/// Whether the file brings regions of its own. Only [`partition`] writes them: a number in a file would be one that we
/// did not write.
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

/// A node that is the last of an operator of ours.
struct Taken {
    level: usize,
    found: Match,
}

impl Taken {
    /// Whether it only brings the image's channels in front.
    fn image(&self) -> bool {
        self.found.op.input().is_some()
    }
}

/// What becomes of each node.
struct Partition<'a> {
    graph: &'a GraphProto,
    tensors: Tensors<'a>,
    /// Of each node, whether it is taken.
    taken: Vec<Option<Taken>>,
    /// The levels of the regions that read a tensor.
    readers: HashMap<&'a str, Vec<usize>>,
    /// Nodes that stay as they are.
    kept: Vec<bool>,
    /// Tensors that kept nodes read, or that are the graph's outputs.
    needed: HashSet<&'a str>,
}

/// The parts of a graph.
struct Cut {
    /// In no order.
    nodes: Vec<NodeProto>,
    regions: Vec<Region>,
    unfused: Vec<String>,
}

impl<'a> Partition<'a> {
    fn of(proto: &'a GraphProto) -> Result<Partition<'a>, String> {
        let graph = Graph::of(proto);
        let mut tensors = Tensors::of(proto, &graph.constants);
        let (mut taken, mut weights) = (vec![], 0);
        for (i, node) in proto.node.iter().enumerate() {
            let found = graph.find(i).filter(|m| readable(m, &tensors, proto));
            let level = match &found {
                Some(m) => tensors.level_of(&m.inputs),
                None => tensors.level_behind(node),
            };
            tensors.record(node, &graph.constants, level, found.as_ref());
            weights += found.as_ref().map_or(0, |m| m.op.weights());
            if weights > MOST_WEIGHTS {
                return Err(format!("it has more than {MOST_WEIGHTS} weights"));
            }
            taken.push(found.map(|found| Taken { level, found }));
        }
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for Taken { level, found } in taken.iter().flatten() {
            for name in found.nodes.iter().flat_map(|&part| &proto.node[part].input) {
                readers.entry(name).or_default().push(*level);
            }
        }
        let inside: HashSet<usize> = taken.iter().flatten().flat_map(|t| t.found.nodes.iter().copied()).collect();
        let kept = (0..proto.node.len()).map(|i| !inside.contains(&i)).collect();
        let needed = proto.output.iter().map(|o| o.name.as_str()).collect();
        let mut partition = Partition { graph: proto, tensors, taken, readers, kept, needed };
        partition.keep();
        Ok(partition)
    }

    /// Says which nodes stay, and what they read.
    fn keep(&mut self) {
        for (i, node) in self.graph.node.iter().enumerate().rev() {
            // Bringing the image's channels to the front cannot leave a region; it stays where anyone else reads it.
            if let Some(image) = self.taken[i].as_ref().filter(|t| t.image()) {
                self.kept[i] |= node.output.iter().any(|o| self.read_elsewhere(o, image.level));
            }
            if self.kept[i] {
                self.needed.extend(node.input.iter().map(String::as_str));
            }
        }
    }

    /// Whether a node that stays, or a region of another level, reads `name`.
    fn read_elsewhere(&self, name: &str, level: usize) -> bool {
        let others = || self.readers.get(name).is_some_and(|levels| levels.iter().any(|&other| other != level));
        self.needed.contains(name) || others()
    }

    fn into_regions(mut self) -> Result<Cut, String> {
        let unfused = self.left();
        let (mut nodes, mut regions) = (vec![], vec![]);
        let levels = self.taken.iter().flatten().map(|t| t.level + 1).max().unwrap_or(0);
        for level in 0..levels {
            let Some(Assembled { region, inputs, outputs }) = self.region(level)? else { continue };
            let index = AttributeProto {
                name: INDEX.into(),
                r#type: AttributeType::Int as i32,
                i: regions.len() as i64,
                ..Default::default()
            };
            nodes.push(NodeProto {
                name: format!("int8.{level}"),
                op_type: REGION.into(),
                input: inputs,
                output: outputs,
                attribute: vec![index],
                ..Default::default()
            });
            regions.push(region);
        }
        nodes.extend(self.graph.node.iter().zip(&self.kept).filter(|(_, kept)| **kept).map(|(n, _)| n.clone()));
        Ok(Cut { nodes, regions, unfused })
    }

    /// The region of one level; none where it would only read.
    fn region(&mut self, level: usize) -> Result<Option<Assembled>, String> {
        let here = |t: &Option<Taken>| t.as_ref().is_some_and(|t| t.level == level);
        let members: Vec<usize> = (0..self.taken.len()).filter(|&i| here(&self.taken[i])).collect();
        let leaving = |&&i: &&usize| !self.taken[i].as_ref().is_some_and(Taken::image);
        let outputs: Vec<String> = members
            .iter()
            .filter(leaving)
            .flat_map(|&i| &self.graph.node[i].output)
            .filter(|o| self.read_elsewhere(o, level))
            .cloned()
            .collect();
        if outputs.is_empty() {
            return Ok(None);
        }
        let found = |&i: &usize| {
            let name = self.graph.node[i].output.first()?.as_str();
            Some((name, self.taken[i].take()?.found))
        };
        let matches = members.iter().filter_map(found).collect();
        assemble(matches, outputs, &self.tensors).map(Some)
    }

    /// Kept nodes that read or write bytes.
    fn left(&self) -> Vec<String> {
        let quantised = |n: &NodeProto| n.input.iter().chain(&n.output).any(|x| self.tensors.bytes(x).is_some());
        let left = |n: &NodeProto| quantised(n) && !picks_view(n, self.graph);
        let kept = self.graph.node.iter().zip(&self.kept).filter(|(n, kept)| **kept && left(n));
        kept.map(|(n, _)| format!("{}: {}", n.op_type, n.output.first().map_or("", String::as_str))).collect()
    }
}

fn is_input(graph: &GraphProto, name: &str) -> bool {
    graph.input.iter().any(|input| input.name == name)
}

/// Whether a node takes images out of the graph's own input: a slice along the first axis alone.
fn picks_view(node: &NodeProto, graph: &GraphProto) -> bool {
    let [input, _, _, axes] = node.input.as_slice() else { return false };
    let first = |t: &TensorProto| t.name == *axes && (t.raw_data == [0; 8] || t.int64_data == [0]);
    node.op_type == "Slice" && is_input(graph, input) && graph.initializer.iter().any(first)
}

/// Whether the inputs of a match are what its operator reads.
fn readable(found: &Match, tensors: &Tensors, graph: &GraphProto) -> bool {
    // An i8 is kept 128 higher; who takes bytes for what they are not would be 128 off.
    let mut said = found.inputs.iter().zip(&found.elements);
    if !said.all(|(x, element)| tensors.bytes(x).is_none_or(|e| e == *element)) {
        return false;
    }
    let bytes = found.inputs.iter().all(|x| tensors.bytes(x).is_some());
    // Floats do not cross from one region to another.
    let own_floats = || {
        let here = Some(tensors.level_of(&found.inputs));
        found.inputs.iter().all(|x| tensors.floats(x) == here)
    };
    match found.op.reads() {
        // Only the graph's own input comes channels last, or one view of it.
        _ if found.op.input().is_some() => {
            let view = |n: &NodeProto| picks_view(n, graph) && n.output.first() == found.inputs.first();
            bytes && (is_input(graph, &found.inputs[0]) || graph.node.iter().any(view))
        }
        Reads::Bytes => bytes,
        Reads::Floats => own_floats(),
        Reads::Either => bytes || own_floats(),
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
