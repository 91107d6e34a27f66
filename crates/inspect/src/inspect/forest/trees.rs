//! The trees: reading them within bounds, writing them, and asking them.

use ckaad_bundle::limits::MAX_SEGMENTS;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Most trees of a forest.
pub const MAX_TREES: usize = 4096;
/// Most nodes of a tree, splits and leaves.
pub const MAX_NODES: usize = 127;
/// Four of each segment, and the map's maximum.
const MAX_FEATURES: usize = 4 * MAX_SEGMENTS as usize + 1;

/// Why a forest cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum ForestError {
    #[error("score/forest.json does not follow its schema: {0}")]
    Json(String),
    #[error("{field} in score/forest.json is {found}; {expected} was expected")]
    Value { field: String, found: String, expected: String },
    #[error("score/forest.json has {found} features; {expected} were expected for {segments} segments")]
    Features { found: usize, expected: usize, segments: u32 },
    #[error("{0}")]
    Segments(String),
    #[error(
        "score/segments.png is {}x{} pixels; the network's input of {}x{} was expected",
        found.0, found.1, expected.0, expected.1
    )]
    Size { found: (usize, usize), expected: (usize, usize) },
    #[error("score/segments.png has the label {found}; labels below {segments} were expected")]
    Label { found: u8, segments: u32 },
    #[error("{0} is missing, which the score rule forest needs")]
    Missing(&'static str),
}

/// A node of a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// Where a tree ends: what it adds to the margin.
    Leaf(f32),
    /// Where it goes on.
    Split {
        /// Which feature is asked.
        feature: u16,
        /// A value at or below it goes left.
        threshold: f32,
        /// Place of the left child in the tree, behind this node's.
        left: u32,
        /// Place of the right child, behind this node's.
        right: u32,
    },
}

/// Boosted trees, each bound checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forest {
    features: usize,
    normal: Vec<f32>,
    trees: Vec<Vec<Node>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    features: usize,
    normal: Vec<f32>,
    trees: Vec<Vec<Node>>,
}

impl Forest {
    /// `normal` holds the median of each feature over normal images, so its length is the number of features.
    ///
    /// # Errors
    /// [`ForestError::Value`]: there are no or too many features, trees or nodes, a node names a feature that there is
    /// not, a child is not behind its parent, or a number is not finite.
    pub fn new(normal: Vec<f32>, trees: Vec<Vec<Node>>) -> Result<Forest, ForestError> {
        let forest = Forest { features: normal.len(), normal, trees };
        forest.check()?;
        Ok(forest)
    }

    /// Reads `score/forest.json`; the module says what it holds.
    ///
    /// # Errors
    /// [`ForestError::Json`], or as [`Forest::new`].
    pub fn from_json(text: &[u8]) -> Result<Forest, ForestError> {
        let Unchecked { features, normal, trees } =
            serde_json::from_slice(text).map_err(|e| ForestError::Json(e.to_string()))?;
        let forest = Forest { features, normal, trees };
        forest.check()?;
        Ok(forest)
    }

    /// What [`Forest::from_json`] reads as the same forest.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and lists are JSON")
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The median of each feature over normal images.
    pub fn normal(&self) -> &[f32] {
        &self.normal
    }

    /// The margin of an image with these features: the larger, the more anomalous. A feature that is missing or not a
    /// number goes right.
    pub fn score(&self, features: &[f32]) -> f32 {
        self.sum(features) as f32
    }

    /// As [`Forest::score`], before it is rounded.
    pub(super) fn sum(&self, features: &[f32]) -> f64 {
        self.trees.iter().map(|tree| f64::from(leaf(tree, features))).sum()
    }

    fn check(&self) -> Result<(), ForestError> {
        let (features, trees) = (self.features, self.trees.len());
        let good = (1..=MAX_FEATURES).contains(&features);
        need("features", features, good, format!("a number from 1 to {MAX_FEATURES}"))?;
        let count = self.normal.len();
        need("the length of normal", count, count == features, format!("features, {features},"))?;
        for (i, &median) in self.normal.iter().enumerate() {
            need(format!("normal[{i}]"), median, median.is_finite(), "a finite number")?;
        }
        need("the length of trees", trees, (1..=MAX_TREES).contains(&trees), format!("1 to {MAX_TREES}"))?;
        for (i, tree) in self.trees.iter().enumerate() {
            let nodes = tree.len();
            let good = (1..=MAX_NODES).contains(&nodes);
            need(format!("the length of trees[{i}]"), nodes, good, format!("1 to {MAX_NODES}"))?;
            for (j, node) in tree.iter().enumerate() {
                let at = |what: &str| format!("{what} of trees[{i}][{j}]");
                match *node {
                    Node::Leaf(value) => need(at("the leaf"), value, value.is_finite(), "a finite number")?,
                    Node::Split { feature, threshold, left, right } => {
                        let good = usize::from(feature) < features;
                        need(at("the feature"), feature, good, format!("a number below features, {features},"))?;
                        need(at("the threshold"), threshold, threshold.is_finite(), "a finite number")?;
                        for child in [left, right] {
                            // Behind its parent: no way leads in a circle.
                            let good = (j + 1..nodes).contains(&(child as usize));
                            let last = nodes - 1;
                            need(at("a child"), child, good, format!("a number above {j} and up to {last}"))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The leaf that an image with these features reaches in a tree that was checked.
fn leaf(tree: &[Node], features: &[f32]) -> f32 {
    let mut at = 0;
    loop {
        match tree.get(at) {
            Some(Node::Leaf(value)) => return *value,
            Some(Node::Split { feature, threshold, left, right }) => {
                let goes_left = features.get(usize::from(*feature)).is_some_and(|value| value <= threshold);
                at = (if goes_left { *left } else { *right }) as usize;
            }
            // Not in a tree that was checked.
            None => return 0.0,
        }
    }
}

fn need(
    field: impl Into<String>,
    found: impl ToString,
    holds: bool,
    expected: impl Into<String>,
) -> Result<(), ForestError> {
    if holds {
        return Ok(());
    }
    Err(ForestError::Value { field: field.into(), found: found.to_string(), expected: expected.into() })
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Node::Leaf(value) => serializer.serialize_f32(value),
            Node::Split { feature, threshold, left, right } => (feature, threshold, left, right).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct Nodes;
        impl<'de> Visitor<'de> for Nodes {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a leaf's number or [feature, threshold, left, right]")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Leaf(value as f32))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Leaf(value as f32))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Leaf(value as f32))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let short = |n| A::Error::invalid_length(n, &Nodes);
                let feature = seq.next_element()?.ok_or_else(|| short(0))?;
                let threshold = seq.next_element()?.ok_or_else(|| short(1))?;
                let left = seq.next_element()?.ok_or_else(|| short(2))?;
                let right = seq.next_element()?.ok_or_else(|| short(3))?;
                Ok(Node::Split { feature, threshold, left, right })
            }
        }
        deserializer.deserialize_any(Nodes)
    }
}
