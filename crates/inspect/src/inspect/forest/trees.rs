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
        need("the length of normal", count, count == features, format!("{features} (features)"))?;
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
                        need(at("the feature"), feature, good, format!("a number below {features} (features)"))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Features 0 and 1; the second tree is a leaf alone.
    fn good() -> Value {
        json!({
            "features": 2, "normal": [0.5, -1.25],
            "trees": [[[0, 0.25, 1, 2], -0.5, [1, 3, 3, 4], 0.125, 2], [0.0625]]
        })
    }

    fn read(value: &Value) -> Result<Forest, String> {
        Forest::from_json(value.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_margin_is_the_sum_of_the_leaves_that_are_reached() {
        let forest = read(&good()).unwrap();
        assert_eq!((forest.features(), forest.normal()), (2, &[0.5, -1.25][..]));
        for (features, margin) in [
            (&[0.25, 9.0][..], -0.4375),
            (&[0.26, 3.0], 0.1875),
            (&[0.26, 3.01], 2.0625),
            (&[f32::NAN, f32::NAN], 2.0625),
            (&[], 2.0625),
        ] {
            assert_eq!(forest.score(features), margin, "{features:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same_forest() {
        let forest = read(&good()).unwrap();
        assert_eq!(Forest::from_json(&forest.to_json()).unwrap(), forest);
        // Every f32 comes back as it was.
        let mut bits = 1u32;
        let mut number = || loop {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = f32::from_bits(bits);
            if number.is_finite() {
                return number;
            }
        };
        let trees = (0..200)
            .map(|_| {
                let split = Node::Split { feature: 1, threshold: number(), left: 1, right: 2 };
                vec![split, Node::Leaf(number()), Node::Leaf(number())]
            })
            .collect();
        let forest = Forest::new(vec![number(), number()], trees).unwrap();
        assert_eq!(Forest::from_json(&forest.to_json()).unwrap(), forest);
    }

    #[test]
    fn a_forest_that_means_harm_is_refused() {
        for (pointer, value, sentence) in [
            ("/features", json!(0), "features in score/forest.json is 0; a number from 1 to 1025 was expected"),
            ("/features", json!(1026), "features in score/forest.json is 1026; a number from 1 to 1025"),
            ("/features", json!(3), "the length of normal in score/forest.json is 2; 3 (features) was expected"),
            ("/normal/1", json!(1e39), "normal[1] in score/forest.json is inf; a finite number was expected"),
            ("/trees", json!([]), "the length of trees in score/forest.json is 0; 1 to 4096 was expected"),
            ("/trees/1", json!([]), "the length of trees[1] in score/forest.json is 0; 1 to 127 was expected"),
            ("/trees/0/1", json!(-1e39), "the leaf of trees[0][1] in score/forest.json is -inf; a finite number"),
            ("/trees/0/2/1", json!(1e39), "the threshold of trees[0][2] in score/forest.json is inf"),
            (
                "/trees/0/2/0",
                json!(2),
                "the feature of trees[0][2] in score/forest.json is 2; a number below 2 (features)",
            ),
            ("/trees/0/2/0", json!(65536), "does not follow its schema: invalid value: integer `65536`, expected u16"),
            (
                "/trees/0/2/0",
                json!(0.5),
                "does not follow its schema: invalid type: floating point `0.5`, expected u16",
            ),
            (
                "/trees/0/2/2",
                json!(0),
                "a child of trees[0][2] in score/forest.json is 0; a number above 2 and up to 4",
            ),
            (
                "/trees/0/2/2",
                json!(2),
                "a child of trees[0][2] in score/forest.json is 2; a number above 2 and up to 4",
            ),
            (
                "/trees/0/2/3",
                json!(5),
                "a child of trees[0][2] in score/forest.json is 5; a number above 2 and up to 4",
            ),
            ("/trees/0/2/3", json!(-1), "does not follow its schema: invalid value: integer `-1`, expected u32"),
            (
                "/trees/0/2",
                json!([1, 2]),
                "invalid length 2, expected a leaf's number or [feature, threshold, left, right]",
            ),
            ("/trees/0/2", json!([1, 2, 3, 4, 5]), "does not follow its schema: trailing characters"),
            ("/trees/0/2", json!("2"), "invalid type: string \"2\", expected a leaf's number or [feature, threshold"),
        ] {
            let mut value_of = good();
            *value_of.pointer_mut(pointer).unwrap() = value;
            let error = read(&value_of).unwrap_err();
            assert!(error.contains(sentence), "{error:?} does not say {sentence:?}");
        }
        let error = read(&json!({"features": 1, "normal": [0], "trees": [[0]], "bias": 1})).unwrap_err();
        assert!(error.contains("unknown field `bias`"), "{error}");
        assert!(Forest::from_json(b"[").unwrap_err().to_string().contains("does not follow its schema"));
        assert!(Forest::new(vec![], vec![vec![Node::Leaf(1.0)]]).is_err());
    }

    #[test]
    fn as_large_as_a_forest_may_be() {
        // 127 nodes: 63 splits in a row, each with a leaf at its side.
        let long = |nodes: usize| -> Vec<Node> {
            let split = |i: usize| {
                let (left, right) = (i as u32 + 1, i as u32 + 2);
                if i.is_multiple_of(2) && i + 2 < nodes {
                    Node::Split { feature: 0, threshold: i as f32, left, right }
                } else {
                    Node::Leaf(i as f32)
                }
            };
            (0..nodes).map(split).collect()
        };
        let forest = |trees: usize, nodes: usize| Forest::new(vec![0.0; 1025], vec![long(nodes); trees]);
        let largest = forest(MAX_TREES, MAX_NODES).unwrap();
        assert_eq!(largest.score(&[1000.0]), (MAX_TREES * (MAX_NODES - 1)) as f32);
        assert!(largest.to_json().len() > 4 << 20, "the file's limit is the narrower one");
        assert!(forest(MAX_TREES + 1, 1).is_err() && forest(1, MAX_NODES + 2).is_err());
        assert!(Forest::new(vec![0.0; 1026], vec![long(1)]).is_err());
    }
}
