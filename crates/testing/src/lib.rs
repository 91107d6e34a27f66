//! What the tests of several crates need: where the repository's files are, and ONNX Runtime as a judge.
#![forbid(unsafe_code)]

pub mod onnx_runtime;

use std::path::{Path, PathBuf};

/// A file of the repository, by its path from the root.
pub fn in_repository(path: &str) -> PathBuf {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is two folders below the root");
    root.join(path)
}

/// The model that comes with the program.
pub fn demo_bundle() -> PathBuf {
    in_repository("models/demo.ckaad")
}
