//! The engine against ONNX Runtime, on the very files that are shipped or exported.
//!
//! Needs a Python with the packages of `tests/reference/requirements.txt`, named by `CKAAD_PYTHON`; `.ci/run` makes one.
//! Without it these tests say so and pass, except in CI.

use ckaad_edge::bundle::Bundle;
use ckaad_edge::engine::Engine;
use ckaad_edge::imaging;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The Python to compare with; `None`, said aloud, where there is none.
pub fn python() -> Option<OsString> {
    let python = std::env::var_os("CKAAD_PYTHON");
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set CKAAD_PYTHON, so that parity is really tested");
        eprintln!("SKIPPED: set CKAAD_PYTHON to a Python with onnxruntime to compare with ONNX Runtime");
    }
    python
}

/// Largest difference between the two maps over a bundle's golden samples, and the map's range. `None` without a Python.
pub fn difference_to_onnx_runtime(bundle: &Path) -> Option<(f32, f32)> {
    let python = python()?;
    let bundle = Bundle::read(bundle).unwrap();
    let engine = Engine::load(&bundle.model, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("model.onnx"), &bundle.model).unwrap();
    assert!(!bundle.golden.is_empty());
    let (mut worst, mut low, mut high) = (0f32, f32::INFINITY, f32::NEG_INFINITY);
    for golden in &bundle.golden {
        let image = imaging::decode(&golden.png, Path::new("golden")).unwrap();
        std::fs::write(at("image.rgb"), image.as_raw()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/onnxruntime_map.py");
        let status = Command::new(&python)
            .arg(script)
            .args([at("model.onnx"), at("image.rgb"), at("map.f32")])
            .status()
            .expect("CKAAD_PYTHON starts");
        assert!(status.success(), "ONNX Runtime did not run the model");
        let bytes = std::fs::read(at("map.f32")).unwrap();
        let theirs = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let ours = engine.run(image.as_raw()).unwrap();
        assert_eq!(bytes.len(), 4 * ours.values.len());
        for (ours, theirs) in ours.values.iter().zip(theirs) {
            worst = worst.max((ours - theirs).abs());
            (low, high) = (low.min(theirs), high.max(theirs));
        }
    }
    Some((worst, high - low))
}

#[test]
fn the_shipped_int8_bundle_agrees_with_onnx_runtime_within_one_percent() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.ckaad");
    if let Some((worst, range)) = difference_to_onnx_runtime(&path) {
        println!("demo.ckaad: largest difference {worst}, range {range}");
        assert!(worst <= 0.01 * range, "largest difference {worst} in a range of {range}");
    }
}
