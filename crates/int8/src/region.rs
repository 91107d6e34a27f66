//! A piece of a network: operators, and which of them reads which.

use crate::operator::{Operator, Reads};
use crate::shape::{ElementType, Shape};
use std::sync::Arc;

/// A node of a region; every node has one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// Its place among the region's nodes.
    pub fn index(self) -> usize {
        self.0
    }
}

/// An operator and what it reads.
#[derive(Clone, Debug)]
pub struct Node {
    /// The result's name, for messages.
    pub name: String,
    /// What it does.
    pub op: Arc<dyn Operator>,
    /// Whose results it reads.
    pub inputs: Vec<NodeId>,
}

/// Nodes in an order in which each comes after its inputs, and those whose results leave.
#[derive(Clone, Debug, Default)]
pub struct Region {
    nodes: Vec<Node>,
    outputs: Vec<NodeId>,
}

/// Elements that a tensor may have: far above any frame, far below what would overflow.
const LARGEST: usize = 1 << 28;

/// Whether a tensor has elements, and not too many.
fn small(shape: &Shape) -> bool {
    let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    elements.is_some_and(|n| (1..LARGEST).contains(&n))
}

impl Region {
    /// Adds a node, and before it the one that its operator needs, if any.
    pub fn push(&mut self, name: &str, op: Arc<dyn Operator>, mut inputs: Vec<NodeId>) -> NodeId {
        if let Some(first) = op.before() {
            inputs.push(self.push(name, first, inputs.clone()));
        }
        self.nodes.push(Node { name: name.to_owned(), op, inputs });
        NodeId(self.nodes.len() - 1)
    }

    /// Says that the result of a node, whose operator must be one that leaves, is the next of the region's outputs.
    pub fn output(&mut self, id: NodeId) {
        self.outputs.push(id);
    }

    /// All nodes, in their order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes whose results leave, in the order in which they do.
    pub fn outputs(&self) -> &[NodeId] {
        &self.outputs
    }

    /// What each result holds inside the region.
    pub fn elements(&self) -> Vec<ElementType> {
        let mut elements: Vec<ElementType> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let of = node.inputs.first().and_then(|input| elements.get(input.0)).copied();
            elements.push(node.op.gives(of.unwrap_or(ElementType::U8)));
        }
        elements
    }

    /// Shapes of all results, from the shapes of the region's inputs as they come.
    ///
    /// # Errors
    /// A sentence that names the node whose inputs do not fit.
    pub fn shapes(&self, inputs: &[[usize; 4]]) -> Result<Vec<Shape>, String> {
        let elements = self.elements();
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let (name, operator) = (&node.name, node.op.name());
            // The kernels rely on this: each tensor is in memory, and of the kind that its reader takes.
            if !self.readable(node, &elements[..shapes.len()]) {
                return Err(format!("{name}: {operator} cannot read its inputs"));
            }
            let of: Vec<Shape> = node.inputs.iter().map(|input| shapes[input.0]).collect();
            let shape = match node.op.input() {
                Some(input) => input.from_outside(inputs),
                None => node.op.shape(&of),
            };
            let Some(shape) = shape.filter(small) else {
                return Err(format!("{name}: inputs of {of:?} (channels, height, width) do not fit {operator}"));
            };
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// Whether a node reads what its operator takes; `elements` are those of the nodes before it.
    fn readable(&self, node: &Node, elements: &[ElementType]) -> bool {
        let of: Option<Vec<ElementType>> = node.inputs.iter().map(|input| elements.get(input.0).copied()).collect();
        let Some(of) = of else { return false };
        let inside = node.inputs.iter().all(|input| self.nodes[input.0].op.leaves().is_none());
        inside
            && match node.op.reads() {
                Reads::Bytes => of.iter().all(|&e| e == ElementType::U8),
                Reads::Floats => of.iter().all(|&e| e == ElementType::F32),
                Reads::Either => of.windows(2).all(|pair| pair[0] == pair[1]),
            }
    }
}
