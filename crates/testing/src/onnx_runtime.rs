//! ONNX Runtime as the judge of the engine, on the very files that are shipped or exported.
//!
//! Needs a Python with the packages of `tests/reference/requirements.txt`, named by `CKAAD_PYTHON`; `.ci/run` makes one.
//! Without it the tests say so and pass, except in CI.

use crate::in_repository;
use ckaad_bundle::{Bundle, Golden};
use ckaad_inspect::engine::Engine;
use ckaad_inspect::imaging;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python with ONNX Runtime; `None`, said plainly, where there is none.
pub fn python() -> Option<OsString> {
    let python = std::env::var_os("CKAAD_PYTHON");
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set CKAAD_PYTHON, so that parity is really tested");
        crate::skipped("set CKAAD_PYTHON to a Python with onnxruntime to compare with ONNX Runtime");
    }
    python
}

/// Its library, as a program of any language loads it; `None`, said plainly, where there is none.
pub fn library() -> Option<PathBuf> {
    let python = python()?;
    let script = "import onnxruntime, pathlib; print(next((pathlib.Path(onnxruntime.__file__).parent / 'capi').glob('libonnxruntime.so*')))";
    let output = Command::new(python).args(["-c", script]).output().expect("CKAAD_PYTHON starts");
    assert!(output.status.success(), "no library of ONNX Runtime: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("a path").trim().into())
}

/// What ONNX Runtime makes of an image.
struct Answer {
    map: Vec<f32>,
    /// One a view; none where the model has no such output.
    image_scores: Vec<f32>,
}

/// The answer of ONNX Runtime to an image `[V,H,W,3]`.
fn onnx_runtime_answer(python: &OsStr, model: &[u8], image: &[u8]) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("model.onnx"), model).unwrap();
    std::fs::write(at("image.rgb"), image).unwrap();
    let script = in_repository("tests/reference/onnxruntime_map.py");
    let status = Command::new(python)
        .arg(script)
        .args([at("model.onnx"), at("image.rgb"), at("map.f32"), at("score.f32")])
        .status()
        .expect("CKAAD_PYTHON starts");
    assert!(status.success(), "ONNX Runtime did not run the model");
    let floats = |bytes: Vec<u8>| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let image_scores = std::fs::read(at("score.f32")).map(floats).unwrap_or_default();
    Answer { map: floats(std::fs::read(at("map.f32")).unwrap()), image_scores }
}

/// The pixels of a bundle's golden samples, `[V,H,W,3]` each.
fn golden_images(bundle: &Bundle) -> Vec<Vec<u8>> {
    assert!(!bundle.golden.is_empty());
    let pixels = |g: &Golden| imaging::decode(&g.png, Path::new("golden")).unwrap().into_raw();
    let parts = bundle.golden.chunks(bundle.manifest.views as usize);
    parts.map(|part| part.iter().flat_map(pixels).collect()).collect()
}

/// Largest difference between the two maps over a bundle's golden samples, and the map's range. `None` without a Python.
/// Image scores, which are logits, must agree to a fiftieth.
pub fn difference_to_onnx_runtime(bundle: &Path) -> Option<(f32, f32)> {
    let python = python()?;
    let bundle = Bundle::read(bundle).unwrap();
    let engine = Engine::load(&bundle.model, 1).unwrap();
    let (mut worst, mut low, mut high) = (0f32, f32::INFINITY, f32::NEG_INFINITY);
    for image in golden_images(&bundle) {
        let theirs = onnx_runtime_answer(&python, &bundle.model, &image);
        let ours = engine.run(&image).unwrap();
        let scores: Vec<f32> = ours.iter().filter_map(|view| view.image_score).collect();
        let map: Vec<f32> = ours.into_iter().flat_map(|view| view.map).collect();
        assert_eq!((theirs.map.len(), theirs.image_scores.len()), (map.len(), scores.len()));
        for (ours, theirs) in scores.iter().zip(theirs.image_scores) {
            assert!((ours - theirs).abs() <= 0.02 * theirs.abs().max(1.0), "image score {ours}, ONNX Runtime {theirs}");
        }
        for (ours, theirs) in map.iter().zip(theirs.map) {
            worst = worst.max((ours - theirs).abs());
            (low, high) = (low.min(theirs), high.max(theirs));
        }
    }
    Some((worst, high - low))
}

/// Mean difference, in ONNX Runtime, between the maps of a model and of a bundle's own, over the bundle's golden samples; and the standard
/// deviation of the bundle's maps. `None` without a Python.
pub fn difference_in_onnx_runtime(model: &Path, bundle: &Path) -> Option<(f32, f32)> {
    let python = python()?;
    let (model, bundle) = (std::fs::read(model).unwrap(), Bundle::read(bundle).unwrap());
    let (mut all, mut differences) = (vec![], vec![]);
    for image in golden_images(&bundle) {
        let [a, b] = [&model, &bundle.model].map(|model| onnx_runtime_answer(&python, model, &image).map);
        assert_eq!(a.len(), b.len());
        differences.extend(a.iter().zip(&b).map(|(a, b)| (a - b).abs()));
        all.extend(b);
    }
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let centre = mean(&all);
    let squares: Vec<f32> = all.iter().map(|v| (v - centre).powi(2)).collect();
    Some((mean(&differences), mean(&squares).sqrt()))
}
