//! Backbones against PyTorch, and weight files of every kind.

use ckaad_inspect::engine::Plan;
use ckaad_inspect::imaging;
use ckaad_train::backbones::{Backbone, WeightError, Weights};
use ckaad_train::graph::Graph;
use ckaad_train::onnx;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The exported extractor gives a photo the features that the original PyTorch network gave it.
#[test]
fn backbone_features_match_the_original_network() {
    #[derive(serde::Deserialize)]
    struct Fixture {
        taps: Vec<Tap>,
    }
    #[derive(serde::Deserialize)]
    struct Tap {
        shape: [usize; 3],
        mean: Vec<f64>,
        sample: Vec<Sample>,
    }
    #[derive(serde::Deserialize)]
    struct Sample {
        channel: usize,
        y: usize,
        x: usize,
        value: f64,
    }
    let text = std::fs::read_to_string(fixture("backbone/features.json")).unwrap();
    let expected: Fixture = serde_json::from_str(&text).unwrap();
    let photo = imaging::load(&fixture("backbone/photo.png")).unwrap();

    let backbone = Backbone::EfficientNetLite0;
    let mut graph = Graph::new(224, 224);
    let taps = backbone.append(&mut graph, &backbone.weights(None).unwrap(), None, 32).unwrap().taps;
    let plan = Plan::load(&onnx::emit_f32(&graph, Some(&taps)), 1).unwrap();
    let features = plan.run(photo.as_raw()).unwrap();

    assert_eq!(plan.outputs(), expected.taps.iter().map(|t| t.shape).collect::<Vec<_>>());
    for (values, tap) in features.iter().zip(&expected.taps) {
        let [channels, height, width] = tap.shape;
        // The convolutions at stride 32 ship in f16: a two-hundredth of the features' spread, which is about 1.5.
        let tolerance = if width == 7 { 1e-2 } else { 1e-3 };
        for s in &tap.sample {
            let found = f64::from(values[(s.channel * height + s.y) * width + s.x]);
            assert!(
                (found - s.value).abs() < tolerance,
                "channel {} at {},{}: {found}, expected {}",
                s.channel,
                s.x,
                s.y,
                s.value
            );
        }
        for c in 0..channels {
            let plane = &values[c * height * width..(c + 1) * height * width];
            let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / (height * width) as f64;
            assert!((mean - tap.mean[c]).abs() < tolerance, "channel {c}: mean {mean}, expected {}", tap.mean[c]);
        }
    }
}

#[test]
fn another_networks_weights_are_refused_by_name() {
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    let bytes = safetensors::serialize([("fc.weight", tensor)], None).unwrap();
    let weights = Weights::from_bytes(&bytes, "other.safetensors").unwrap();
    let error = Backbone::EfficientNetLite0.append(&mut Graph::new(64, 64), &weights, None, 16).err().unwrap();
    assert!(error.to_string().contains("other.safetensors has no tensor \"stem.conv.weight\""), "{error}");
    assert!(matches!(Weights::from_bytes(b"PK\x03\x04 not it", "x.pth"), Err(WeightError::Malformed { .. })));
}

/// Every 97th value of a tap, from `tests/reference/resnet_features.py`.
#[derive(serde::Deserialize)]
struct TapFixture {
    shape: [usize; 3],
    mean: f64,
    every_97th: Vec<f32>,
}

/// The image that the script makes: `(7x + 13y + 31c + xy) mod 256`.
fn patterned(side: usize) -> Vec<u8> {
    let cells = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    cells.flat_map(|(x, y)| [0, 1, 2].map(|c| ((7 * x + 13 * y + 31 * c + x * y) % 256) as u8)).collect()
}

/// Largest difference of each tap to PyTorch's, against the tap's largest value.
fn compare_with_pytorch(backbone: Backbone, weights: &Weights, side: usize, expected: &[TapFixture]) {
    let mut graph = Graph::new(side, side);
    let taps = backbone.append(&mut graph, weights, None, 16).unwrap().taps;
    let plan = Plan::load(&onnx::emit_f32(&graph, Some(&taps)), 1).unwrap();
    let features = plan.run(&patterned(side)).unwrap();
    assert_eq!(plan.outputs(), expected.iter().map(|t| t.shape).collect::<Vec<_>>());
    for (layer, (values, tap)) in features.iter().zip(expected).enumerate() {
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let sampled = values.iter().step_by(97).zip(&tap.every_97th);
        let worst = sampled.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        println!("{} layer {}: {worst:e} of the largest value {largest}", backbone.name(), layer + 1);
        assert!(worst < 1e-4, "{} layer {}: {worst}", backbone.name(), layer + 1);
        assert!((mean - tap.mean).abs() < 1e-4 * f64::from(largest), "mean {mean}, expected {}", tap.mean);
    }
}

/// A whole state dict, unfolded, filled by the formula of the script.
pub fn formula_weights(backbone: Backbone) -> Vec<u8> {
    let (blocks, inner, expansion) = match backbone {
        Backbone::ResNet18 => ([2, 2, 2, 2], None, 1),
        Backbone::ResNet50 => ([3, 4, 6, 3], Some(64), 4),
        _ => ([3, 4, 6, 3], Some(128), 4),
    };
    let mut shapes: Vec<(String, Vec<usize>)> = vec![];
    let mut conv = |conv: String, norm: String, out: usize, input: usize, kernel: usize| {
        shapes.push((format!("{conv}.weight"), vec![out, input, kernel, kernel]));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{norm}.{part}"), vec![out]));
        }
    };
    conv("conv1".into(), "bn1".into(), 64, 3, 7);
    let mut input = 64;
    for (layer, &count) in blocks.iter().enumerate() {
        let out = (64 << layer) * expansion;
        for block in 0..count {
            let name = format!("layer{}.{block}", layer + 1);
            let at = |i: usize| (format!("{name}.conv{i}"), format!("{name}.bn{i}"));
            let widths = match inner {
                None => vec![(out, input, 3), (out, out, 3)],
                Some(inner) => {
                    vec![(inner << layer, input, 1), (inner << layer, inner << layer, 3), (out, inner << layer, 1)]
                }
            };
            for (i, (out, input, kernel)) in widths.into_iter().enumerate() {
                let (c, n) = at(i + 1);
                conv(c, n, out, input, kernel);
            }
            if (layer > 0 && block == 0) || input != out {
                conv(format!("{name}.downsample.0"), format!("{name}.downsample.1"), out, input, 1);
            }
            input = out;
        }
    }
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let phase = (name.bytes().map(u64::from).sum::<u64>() % 97) as f64;
            let offset =
                if name.ends_with("running_var") || (name.ends_with("weight") && shape.len() == 1) { 1.0 } else { 0.0 };
            let count: usize = shape.iter().product();
            let scale = match shape.len() {
                4 => (2.0 / (count / shape[0]) as f64).sqrt() * 0.6,
                _ => 0.2,
            };
            let bytes =
                (0..count).flat_map(|i| ((offset + scale * (0.7 * i as f64 + phase).sin()) as f32).to_le_bytes());
            let bytes = bytes.collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// Basic and bottleneck blocks, narrow and wide, batch norms, strides and the folded normalisation, border included.
#[test]
fn resnet_features_are_pytorchs() {
    let text = std::fs::read_to_string(fixture("backbone/resnets.json")).unwrap();
    let mut expected: std::collections::BTreeMap<String, Vec<TapFixture>> = serde_json::from_str(&text).unwrap();
    for backbone in [Backbone::ResNet18, Backbone::ResNet50, Backbone::WideResNet50] {
        let weights = Weights::from_bytes(&formula_weights(backbone), "formula").unwrap();
        assert_eq!(weights.doubt(), None);
        compare_with_pytorch(backbone, &weights, 64, &expected.remove(backbone.name()).unwrap());
    }
}

/// The same with torchvision's weights, which cannot be shipped: CKAAD_RESNET18 names the folded state dict, and
/// CKAAD_RESNET18_FEATURES what `resnet_features.py --weights` wrote for it.
#[test]
fn trained_resnet18_features_are_pytorchs() {
    let (Some(weights), Some(features)) =
        (std::env::var_os("CKAAD_RESNET18"), std::env::var_os("CKAAD_RESNET18_FEATURES"))
    else {
        ckaad_testing::skipped("set CKAAD_RESNET18 and CKAAD_RESNET18_FEATURES to compare trained weights");
        return;
    };
    let text = std::fs::read_to_string(features).unwrap();
    let mut expected: std::collections::BTreeMap<String, Vec<TapFixture>> = serde_json::from_str(&text).unwrap();
    let weights = Weights::load(Path::new(&weights)).unwrap();
    compare_with_pytorch(Backbone::ResNet18, &weights, 224, &expected.remove("resnet18").unwrap());
}

/// A state dict as `torch.save` writes it gives the tensors that were saved.
#[test]
fn a_pytorch_state_dict_is_read() {
    let weights = Weights::load(&fixture("backbone/tiny.pth")).unwrap();
    assert_eq!(weights.get("conv1.weight", &[2, 1, 1, 1]).unwrap(), [1.5, -2.0]);
    assert_eq!(weights.get("bn1.running_var", &[2]).unwrap(), [1.0, 1.0]);
    let doubt = weights.doubt().unwrap();
    assert!(doubt.contains("tiny.pth: 1 of 1 batch norms") && doubt.contains("untrained"), "{doubt}");
    let error = Backbone::ResNet18.append(&mut Graph::new(64, 64), &weights, None, 16).err().unwrap().to_string();
    assert!(error.contains("\"conv1.weight\" has the shape [2, 1, 1, 1], expected [64, 3, 7, 7]"), "{error}");
}

/// Neither a truncated file, nor a pickle that is no state dict, nor another kind of file is taken for weights.
#[test]
fn broken_weight_files_are_refused_with_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("backbone/tiny.pth")).unwrap();
    for (name, bytes) in [
        ("cut.pth", &whole[..whole.len() / 2]),
        ("text.pth", b"hello".as_slice()),
        ("empty.pth", b"".as_slice()),
        ("evil.pth", b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.".as_slice()),
        ("text.safetensors", b"hello".as_slice()),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Weights::load(&path).err().unwrap_or_else(|| panic!("{name} was read")).to_string();
        assert!(error.contains(name), "{error}");
    }
    let missing = Weights::load(&folder.path().join("none.pth")).err().unwrap().to_string();
    assert!(missing.contains("none.pth") && missing.contains("No such file"), "{missing}");
}
