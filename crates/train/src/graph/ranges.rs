//! What the tensors of a graph cover.

use super::{Graph, Node};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The smallest and the largest value of nodes' results, by the nodes' names: a graph with some terms left out has the
/// same nodes for the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(BTreeMap<String, (f32, f32)>);

impl Ranges {
    /// Whether the range of `node` is known.
    pub fn know(&self, node: &Node) -> bool {
        self.0.contains_key(&node.name)
    }

    /// One range a node of `graph`; (0, 0) where none is known.
    pub fn of(&self, graph: &Graph) -> Vec<(f32, f32)> {
        graph.nodes.iter().map(|node| self.0.get(&node.name).copied().unwrap_or_default()).collect()
    }

    /// These, and those of `others`.
    pub fn and(mut self, others: &Ranges) -> Ranges {
        self.0.extend(others.0.iter().map(|(name, range)| (name.clone(), *range)));
        self
    }
}

impl FromIterator<(String, (f32, f32))> for Ranges {
    fn from_iter<I: IntoIterator<Item = (String, (f32, f32))>>(pairs: I) -> Ranges {
        Ranges(pairs.into_iter().collect())
    }
}
