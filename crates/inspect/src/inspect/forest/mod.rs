//! The score rule `forest`: boosted trees over statistics of the map's segments.
//!
//! `score/forest.json` is `{"features": n, "normal": [n numbers], "trees": [...]}`. A tree is the list of its nodes, the
//! root first: a leaf is its number, a split `[feature, threshold, left, right]` with the places of its children in the
//! list, both behind its own. A value at or below the threshold goes left. The margin is the sum of the leaves that are
//! reached, one a tree; start value and learning rate are in the leaves. `normal` are the features' medians over normal
//! images, by which a verdict can say which segment decided.

mod segments;
mod trees;

pub use segments::{SegmentForest, segment_features};
pub use trees::{Forest, ForestError, MAX_NODES, MAX_TREES, Node};
