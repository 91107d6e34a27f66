//! The bounds of a bundle. Reading compares a declared length with them before it uses it, and writing is held to what
//! reading accepts.
//!
//! | what | at most |
//! |---|---|
//! | the whole file | [`MAX_BYTES`], 192 MiB |
//! | `manifest.json` | 256 KiB |
//! | `model.onnx`, `model-gpu.onnx` | 96 MiB each |
//! | `score/forest.json` | 4 MiB |
//! | `score/segments.png` | 1 MiB |
//! | golden samples | [`MAX_GOLDEN`], 16 |
//! | `golden/NN.png` | 8 MiB |
//! | `golden/NN.json`, `golden-gpu/NN.json` | 64 KiB |
//! | `report.json` | 16 MiB |
//! | methods, terms of the map, terms of a score rule | 16 each |
//! | segments of a score rule | [`MAX_SEGMENTS`], 256 |
//! | levels of brackets in any JSON | [`MAX_DEPTH`], 32 |

use super::{FOREST, GPU_MODEL, MANIFEST, MODEL, REPORT, SEGMENTS};

/// Longest bundle, in bytes. Two networks may not both be as long as one may be.
pub const MAX_BYTES: u64 = 192 << 20;

/// Most golden samples in a bundle.
pub const MAX_GOLDEN: usize = 16;

/// Most images of one part that a network takes at once.
pub const MAX_VIEWS: usize = 16;

/// Most methods that a manifest names.
pub(super) const MAX_METHODS: usize = 16;

/// Most terms of an anomaly map, and of a combined score rule.
pub(super) const MAX_TERMS: usize = 16;

/// Most segments of a score rule: as many as labels of 8 bits.
pub const MAX_SEGMENTS: u32 = 256;

/// Most levels of brackets in any JSON text of a bundle.
pub const MAX_DEPTH: usize = 32;

/// Longest content of the member at `path`, in bytes. A path that the format does not know is held to a picture's limit
/// until it is refused.
pub fn limit(path: &str) -> u64 {
    match path {
        MANIFEST => 256 << 10,
        MODEL | GPU_MODEL => 96 << 20,
        FOREST => 4 << 20,
        SEGMENTS => 1 << 20,
        REPORT => 16 << 20,
        _ if path.ends_with(".json") => 64 << 10,
        _ => 8 << 20,
    }
}
