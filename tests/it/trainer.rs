//! The trainer's promises, shown on small sets with the real binaries.

use ckaad_edge::bundle::{Bundle, Precision};
use ckaad_edge::engine::Plan;
use ckaad_edge::imaging;
use ckaad_edge::train::backbones::{Backbone, WeightError, Weights};
use ckaad_edge::train::export::graph::Graph;
use ckaad_edge::train::export::onnx;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn train(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ckaad-train")).args(arguments).output().expect("the trainer starts")
}

fn train_well(arguments: &[&str]) -> String {
    let output = train(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ckaad-train {arguments:?} failed: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
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
    let taps = backbone.append(&mut graph, &backbone.weights(None).unwrap(), None).unwrap().taps;
    let plan = Plan::load(&onnx::emit_f32(&graph, Some(&taps)), 1).unwrap();
    let features = plan.run(photo.as_raw()).unwrap();

    assert_eq!(plan.outputs(), expected.taps.iter().map(|t| t.shape).collect::<Vec<_>>());
    for (values, tap) in features.iter().zip(&expected.taps) {
        let [channels, height, width] = tap.shape;
        for s in &tap.sample {
            let found = f64::from(values[(s.channel * height + s.y) * width + s.x]);
            assert!(
                (found - s.value).abs() < 1e-3,
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
            assert!((mean - tap.mean[c]).abs() < 1e-3, "channel {c}: mean {mean}, expected {}", tap.mean[c]);
        }
    }
}

#[test]
fn another_networks_weights_are_refused_by_name() {
    let tensor = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    let bytes = safetensors::serialize([("fc.weight", tensor)], None).unwrap();
    let weights = Weights::from_bytes(&bytes, "other.safetensors").unwrap();
    let error = Backbone::EfficientNetLite0.append(&mut Graph::new(64, 64), &weights, None).err().unwrap();
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
    let taps = backbone.append(&mut graph, weights, None).unwrap().taps;
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
fn formula_weights(backbone: Backbone) -> Vec<u8> {
    let (blocks, inner, expansion) = match backbone {
        Backbone::ResNet18 => ([2, 2, 2], None, 1),
        Backbone::ResNet50 => ([3, 4, 6], Some(64), 4),
        _ => ([3, 4, 6], Some(128), 4),
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

/// The same with torchvision's weights, which cannot be shipped: CKAAD_RESNET18 names the folded state dict, and CKAAD_RESNET18_FEATURES
/// what `resnet_features.py --weights` wrote for it.
#[test]
fn trained_resnet18_features_are_pytorchs() {
    let (Some(weights), Some(features)) =
        (std::env::var_os("CKAAD_RESNET18"), std::env::var_os("CKAAD_RESNET18_FEATURES"))
    else {
        eprintln!("SKIPPED: set CKAAD_RESNET18 and CKAAD_RESNET18_FEATURES to compare trained weights");
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
    let error = Backbone::ResNet18.append(&mut Graph::new(64, 64), &weights, None).err().unwrap().to_string();
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

/// synth → fit → export → evaluate, then the same score from `evaluate` and from the agent's `infer`, bit for bit.
#[test]
fn the_whole_way_from_a_folder_to_a_judged_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, run, config) = (at("data"), at("run"), at("config.toml"));
    synth(&data);
    std::fs::write(&config, CONFIG).unwrap();
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu"]);
    for (precision, bundle) in [("f32", at("f32.ckaad")), ("int8", at("int8.ckaad"))] {
        train_well(&["export", "--run", &run, "--out", &bundle, "--precision", precision]);
        let (json, page) = (at("scores.json"), at("page.html"));
        train_well(&["evaluate", "--bundle", &bundle, "--data", &data, "--json", &json, "--report", &page]);
        let evaluation: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        let samples = evaluation["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 20 + 6 * 2);
        let html = std::fs::read_to_string(&page).unwrap();
        assert!(html.contains("<svg") && html.contains("data:image/jpeg;base64,"));
        let read = Bundle::read(Path::new(&bundle)).unwrap();
        let expected = if precision == "f32" { Precision::F32 } else { Precision::Int8 };
        assert_eq!(read.manifest.precision, expected);
        if let Some((worst, range)) = crate::parity::difference_to_onnx_runtime(Path::new(&bundle)) {
            println!("{precision}: largest difference to ONNX Runtime {worst}, range {range}");
            let limit = if precision == "f32" { 1e-4 } else { 0.01 * range };
            assert!(worst <= limit, "{precision}: largest difference {worst} in a range of {range}");
        }
        #[cfg(feature = "agent")]
        infer_gives_the_same_bits(&bundle, &data, samples);
    }
    // A bar that cannot be reached is exit code 1.
    let bundle = at("int8.ckaad");
    let output = train(&["evaluate", "--bundle", &bundle, "--data", &data, "--min-auroc", "1.01"]);
    assert_eq!(output.status.code(), Some(1));
}

/// The options that the whole way above does not take: instance norm, both discriminators, made anomalies, features computed while
/// training runs, a combined score.
#[test]
fn the_papers_parts_reach_the_bundle_too() {
    let config =
        CONFIG.replace("[net]\n", "[net]\nnorm = \"instance\"\nblocks = 2\n").replace("epochs = 4", "epochs = 2")
            + "[discriminator]\nkind = \"both\"\njoint = false\nwidth = 0\nhard_share = 1.0\nnoise = 0.0\n\
           [bank]\nvectors = 0\n[anomalies]\nsource = \"perlin\"\nsynthetic_share = 0.2\n\
           [augment]\nbrightness = 0.1\nrotate_deg = 5.0\n[score]\nrule = \"combined\"\n";
    let manifest = through_the_bundle(&config, &[]);
    assert_eq!(manifest.method, "ckaad-both");
    assert!(!manifest.score.terms.is_empty());
}

/// Another backbone with weights of the user's own, in f32 and in int8.
#[test]
fn a_resnet_reaches_the_bundle_too() {
    let config = CONFIG.replace("epochs = 4", "epochs = 2");
    let without = train_on(&format!("backbone = \"resnet18\"\n{config}"), &[]).1;
    let stderr = String::from_utf8_lossy(&without.stderr);
    assert!(stderr.contains("resnet18 does not come with this program") && stderr.contains("key weights"), "{stderr}");
    let config = format!("backbone = \"resnet18\"\nweights = \"WEIGHTS\"\n{config}");
    let manifest = through_the_bundle(&config, &formula_weights(Backbone::ResNet18));
    assert_eq!(manifest.backbone, "resnet18");
}

/// Fits `config` on a small synthetic set; WEIGHTS in it stands for a file with the bytes `weights`.
fn train_on(config: &str, weights: &[u8]) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("own.safetensors"), weights).unwrap();
    std::fs::write(at("config.toml"), config.replace("WEIGHTS", &at("own.safetensors"))).unwrap();
    synth(&at("data"));
    let output =
        train(&["fit", "--config", &at("config.toml"), "--data", &at("data"), "--out", &at("run"), "--device", "cpu"]);
    (folder, output)
}

/// Fits, exports in int8, evaluates, and compares with ONNX Runtime.
fn through_the_bundle(config: &str, weights: &[u8]) -> ckaad_edge::bundle::Manifest {
    let (folder, output) = train_on(config, weights);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    train_well(&["export", "--run", &at("run"), "--out", &at("int8.ckaad"), "--precision", "int8"]);
    train_well(&["evaluate", "--bundle", &at("int8.ckaad"), "--data", &at("data"), "--report", &at("page.html")]);
    let page = std::fs::read_to_string(at("page.html")).unwrap();
    assert!(page.contains("Training"), "the report shows how the training went");
    if let Some((worst, range)) = crate::parity::difference_to_onnx_runtime(Path::new(&at("int8.ckaad"))) {
        println!("largest difference to ONNX Runtime {worst}, range {range}");
        assert!(worst <= 0.01 * range, "largest difference {worst} in a range of {range}");
    }
    Bundle::read(Path::new(&at("int8.ckaad"))).unwrap().manifest
}

/// Every config that is shipped can be read, with no unknown key and every value in its bounds.
#[test]
fn shipped_training_configs_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/train");
    let configs: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(configs.len() >= 5);
    for path in configs {
        ckaad_edge::train::config::TrainConfig::load(&path).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn values_out_of_bounds_are_named_with_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    for (text, expected) in [
        ("[loss]\ngamma = 0.0", "loss.gamma is 0.0; above 0 and at most 1 expected"),
        ("[discriminator]\nkernel = 2", "discriminator.kernel is 2; 1 or 3 expected"),
        ("[discriminator]\nstride = 4", "discriminator.stride is 4; one of features.strides expected"),
        ("[features]\nstrides = [4, 16]", "features.strides is [4, 16]; neighbours"),
        ("[anomalies]\nshare = 2.0", "anomalies.share is 2.0"),
        ("[score]\nenergy = -1.0", "score.energy is Some(-1.0)"),
        ("method = \"nearest-neighbour\"\n[bank]\nvectors = 0", "bank.vectors is 0"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = ckaad_edge::train::config::TrainConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("c.toml"), "{error}");
    }
}

/// A run that is resumed ends with the weights of one that was never stopped.
#[test]
fn a_resumed_run_ends_where_an_unbroken_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, config, short) = (at("data"), at("config.toml"), at("short.toml"));
    synth(&data);
    std::fs::write(&config, CONFIG).unwrap();
    let (whole, broken) = (at("whole"), at("broken"));
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &whole, "--device", "cpu"]);
    // Stopped after the first validation: what a kill leaves is that state, since every file is renamed into place.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ckaad-train"))
        .args(["fit", "--config", &config, "--data", &data, "--out", &broken, "--device", "cpu"])
        .spawn()
        .unwrap();
    while !Path::new(&broken).join("last/progress.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "fit ended before its first checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = train(&["fit", "--config", &config, "--data", &data, "--out", &broken, "--device", "cpu"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--resume"));
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &broken, "--device", "cpu", "--resume"]);
    let losses = |run: &str| {
        let text = std::fs::read_to_string(Path::new(run).join("last/progress.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["validations"].clone()
    };
    assert_eq!(losses(&whole), losses(&broken));
    // Another config is not silently mixed into the run.
    std::fs::write(&short, CONFIG.replace("seed = 7", "seed = 8")).unwrap();
    let refused = train(&["fit", "--config", &short, "--data", &data, "--out", &broken, "--device", "cpu", "--resume"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another config"));
}

#[test]
fn a_typo_in_the_training_config_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.toml").to_string_lossy().into_owned();
    std::fs::write(&config, "[train]\nepoch = 3\n").unwrap();
    let output = train(&["fit", "--config", &config, "--data", "x", "--out", "y"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("epoch") && stderr.contains("epochs") && stderr.contains("c.toml"), "{stderr}");
}

fn synth(data: &str) {
    train_well(&[
        "synth",
        "--out",
        data,
        "--seed",
        "3",
        "--train-good",
        "60",
        "--train-defective",
        "2",
        "--test-good",
        "20",
        "--test-defective",
        "2",
    ]);
}

const CONFIG: &str = "name = \"small\"\nseed = 7\nfalse_alarm_budget = 0.05\n\
    [input]\nwidth = 96\nheight = 96\n\
    [features]\nstrides = [4, 8, 16]\n[net]\nwidths = [8, 16, 24]\nbottleneck = 32\n\
    [train]\nepochs = 4\nbatch = 8\nanomalous_batch = 2\n\
    [validation]\nnormal_share = 0.4\nanomalous_share = 0.4\nevery = 2\n";

#[cfg(feature = "agent")]
fn infer_gives_the_same_bits(bundle: &str, data: &str, samples: &[serde_json::Value]) {
    let images: Vec<String> = samples.iter().map(|s| format!("{data}/{}", s["path"].as_str().unwrap())).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_ckaad-agent"))
        .args(["infer", "--json", "--bundle", bundle])
        .args(&images)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object an image"))
        .collect();
    assert_eq!(lines.len(), samples.len());
    for (line, sample) in lines.iter().zip(samples) {
        let (inferred, evaluated) = (line["score"].as_f64().unwrap() as f32, sample["score"].as_f64().unwrap() as f32);
        assert_eq!(inferred.to_bits(), evaluated.to_bits(), "{line} {sample}");
    }
}
