//! The bounds of a bundle. Reading compares a declared length with them before it uses it, and writing is held to what
//! reading accepts.
//!
//! | what | at most |
//! |---|---|
//! | the whole file | [`MAX_BYTES`], 128 MiB |
//! | `manifest.json` | 256 KiB |
//! | `model.onnx` | 96 MiB |
//! | golden samples | [`MAX_GOLDEN`], 16 |
//! | `golden/NN.png` | 8 MiB |
//! | `golden/NN.json` | 64 KiB |
//! | `report.json` | 16 MiB |
//! | levels of brackets in any JSON | [`MAX_DEPTH`], 32 |

use super::{MANIFEST, MODEL, REPORT};

/// Longest bundle, in bytes.
pub const MAX_BYTES: u64 = 128 << 20;

/// Most golden samples in a bundle.
pub const MAX_GOLDEN: usize = 16;

/// Most levels of brackets in any JSON text of a bundle.
pub const MAX_DEPTH: usize = 32;

/// Longest content of the member at `path`, in bytes. A path that the format does not know is held to a picture's limit
/// until it is refused.
pub fn limit(path: &str) -> u64 {
    match path {
        MANIFEST => 256 << 10,
        MODEL => 96 << 20,
        REPORT => 16 << 20,
        _ if path.ends_with(".json") => 64 << 10,
        _ => 8 << 20,
    }
}
