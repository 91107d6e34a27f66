//! The networks against PyTorch (`tests/reference/invad_step.py` fills the same networks and inputs from the same formula), and their graph against
//! the networks.

use super::*;
use crate::backbones::Scale;
use crate::graph::Op;
use crate::methods::folding::{read_backs, values};
use crate::methods::formula::{Fill, Samples, batch, compare, same, samples, wgpu};
use crate::methods::invad::{NormKind, Size};
use crate::methods::specimens::extractor;
use crate::onnx::emit_f32;
use burn::module::{ModuleVisitor, Param};
use ckaad_inspect::engine::Plan;

#[derive(serde::Deserialize)]
struct Fixture {
    layer: Case,
    batch: Case,
    parameter_count: usize,
}

#[derive(serde::Deserialize)]
struct Case {
    loss: f32,
    /// Of each scale the first values, before the step.
    predictions: Vec<Vec<f32>>,
    parameters: Samples,
    /// Of these rounding decides where the first step of Adam goes.
    skipped: Vec<String>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../../tests/fixtures/train/invad_step.json")).unwrap()
}

const SHAPES: [[usize; 3]; 3] = [[6, 16, 16], [8, 8, 8], [10, 4, 4]];

fn waves(name: &str) -> (f64, f64) {
    let one = name.ends_with("norm.gamma") || name.ends_with("gamma.bias");
    (if one { 1.0 } else { 0.0 }, 0.3)
}

fn method(net: InvadNet, config: InvadConfig, device: &Device) -> Invad {
    Invad {
        config,
        net: Learner::new(net, adam),
        raw: Raw::new(&[], device),
        spread: None,
        device: device.clone().autodiff(),
    }
}

fn step_as_pytorch(norm: NormKind, case: &Case, device: &Device) {
    let config = InvadConfig {
        learning_rate: 4e-3,
        net: NetConfig { style: 4, latent: 3, blocks: 2, norm, ..NetConfig::default() },
        ..InvadConfig::default()
    };
    let strides = [4, 8, 16];
    let scales: Vec<Scale> =
        SHAPES.iter().zip(strides).map(|(&[channels, ..], stride)| Scale { channels, stride }).collect();
    let net = device::drawn(device, |device| InvadNet::new(&config.net, &scales, [4, 4], device));
    let net = net.map(&mut Fill::by(waves));
    let normal = batch("normal", 3, &SHAPES, 0.2, 1.0);
    let predictions = net.forward(&tensors(&normal.features, &device.clone().autodiff()));
    for (i, (found, expected)) in predictions.into_iter().zip(&case.predictions).enumerate() {
        let (found, _) = values(found);
        found.iter().zip(expected).for_each(|(f, e)| same(&format!("prediction {i}"), *f, *e));
    }
    let mut method = method(net, config, device);
    let step = StepBatch { normal, tell: true, ..StepBatch::default() };
    let before = read_backs();
    let losses = method.step(&step, 0.0);
    assert_eq!(read_backs() - before, 1, "a step waits for its losses alone");
    same("the loss", losses.of(RECONSTRUCTION).unwrap(), case.loss);
    compare(samples(&method.net.network), &case.parameters, &case.skipped);
}

#[test]
fn the_papers_step_is_pytorchs() {
    step_as_pytorch(NormKind::Layer, &fixture().layer, &device::cpu());
}

#[test]
fn a_step_with_batch_norms_is_pytorchs() {
    step_as_pytorch(NormKind::Batch, &fixture().batch, &device::cpu());
}

#[test]
fn the_papers_step_on_a_gpu_is_pytorchs() {
    let Some(device) = wgpu() else { return };
    step_as_pytorch(NormKind::Layer, &fixture().layer, &device);
}

fn small_extractor() -> Extractor {
    extractor([96, 64], &[4, 8, 16], 16)
}

fn image(seed: u32) -> Vec<u8> {
    (0..96 * 64 * 3u32).map(|i| ((i * 31 + seed * 977) % 256 / 2 + 30 + i / 3 % 96) as u8).collect()
}

/// What the nodes `ids` of a graph are for an image.
fn run(graph: &Graph, ids: &[Id], image: &[u8]) -> Vec<Vec<f32>> {
    Plan::load(&emit_f32(graph, Some(ids)), 1).unwrap().run(image).unwrap()
}

fn batch_of(extractor: &Extractor, images: &[Vec<u8>]) -> StepBatch {
    let all: Vec<Vec<Vec<f32>>> = images.iter().map(|image| run(&extractor.graph, &extractor.taps, image)).collect();
    let scale = |(i, &[c, h, w]): (usize, &[usize; 3])| {
        let values = all.iter().flat_map(|one| one[i].iter().copied()).collect();
        ndarray::Array4::from_shape_vec((images.len(), c, h, w), values).unwrap()
    };
    let features = extractor.shapes().iter().enumerate().map(scale).collect();
    let normal = crate::methods::Batch::of_features(features);
    StepBatch { normal, ..StepBatch::default() }
}

/// Predictions of a trained method, by its graph and by its networks, and the largest absolute value of each scale.
fn both(config: &InvadConfig, seen: &[Vec<u8>], steps: usize, asked: &[u8]) -> Vec<(Vec<f32>, Vec<f32>)> {
    let extractor = small_extractor();
    let mut method = Invad::new(config, &extractor, &device::cpu());
    let batch = batch_of(&extractor, seen);
    (0..steps).for_each(|_| {
        method.step(&batch, 0.0);
    });
    let mut graph = extractor.graph.clone();
    let net = method.net.network.valid();
    let ids = Fold { graph: &mut graph, norm: config.net.norm }.predictions(&net, &extractor.taps);
    let features = batch_of(&extractor, &[asked.to_vec()]).normal.features;
    let outputs = net.forward(&tensors(&features, &device::cpu()));
    run(&graph, &ids, asked).into_iter().zip(outputs.into_iter().map(|x| values(x).0)).collect()
}

fn alike(pairs: Vec<(Vec<f32>, Vec<f32>)>, tolerance: f32) {
    assert_eq!(pairs.len(), 3);
    for (scale, (graph, net)) in pairs.into_iter().enumerate() {
        assert_eq!(graph.len(), net.len());
        let largest = net.iter().fold(0f32, |m, v| m.max(v.abs()));
        let worst = graph.iter().zip(&net).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(largest > 0.0 && worst <= tolerance * largest, "scale {scale}: {worst} of {largest}");
    }
}

#[test]
fn the_graph_gives_what_the_networks_give() {
    let seen: Vec<Vec<u8>> = (0..3).map(image).collect();
    for norm in [NormKind::Layer, NormKind::Batch] {
        let config = InvadConfig { net: NetConfig { norm, ..NetConfig::default() }, ..InvadConfig::default() };
        alike(both(&config, &seen, 2, &image(7)), 1e-4);
    }
}

/// Of training images that are all the same one, the mean statistics are that image's own.
#[test]
fn frozen_statistics_of_an_image_are_its_layer_norm() {
    let net = NetConfig { norm: NormKind::Frozen, style: 8, latent: 2, blocks: 1, ..NetConfig::default() };
    // Nothing is learned, so that nothing moves but the statistics.
    let config = InvadConfig { learning_rate: 1e-12, net, ..InvadConfig::default() };
    alike(both(&config, &[image(1), image(1)], 300, &image(1)), 1e-3);
}

/// Counts parameters, running statistics left out, without drawing them.
#[derive(Default)]
struct Count {
    path: Vec<String>,
    parameters: usize,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.iter().all(|name| !name.contains("running")) {
            self.parameters += param.lazy_shape().num_elements();
        }
    }
}

/// 9.28 GMAC and 17.1 M parameters of InvAD-lite, 45.39 and 95.6 of InvAD: the paper's encoders are 3.96 and 12.03, 8.2 and 24.9 of these.
#[test]
fn fuser_and_decoder_have_the_published_sizes() {
    let published = fixture().parameter_count;
    assert_eq!(published, 16_416, "as counted by the script");
    // By `invad_step.py sizes`: parameters; multiply-adds of convolutions and of transposed ones, which count at their input's places.
    let rows = [
        (Size::Lite, [64, 128, 256], 452_416 + 8_523_376, 266_403_840 + 4_832_100_352u64, [47_185_920, 167_772_160u64]),
        (
            Size::Paper,
            [256, 512, 1024],
            3_490_240 + 67_276_528,
            1_043_398_656 + 29_557_522_432,
            [47_185_920, 2_684_354_560],
        ),
    ];
    for (size, channels, parameters, convolutions, transposed) in rows {
        let strides = [4, 8, 16];
        let scales: Vec<Scale> =
            channels.iter().zip(strides).map(|(&channels, stride)| Scale { channels, stride }).collect();
        let config = NetConfig { size, norm: NormKind::Layer, ..NetConfig::default() };
        let net = InvadNet::new(&config, &scales, [16, 16], &device::cpu());
        let mut counted = Count::default();
        net.visit(&mut counted);
        assert_eq!(counted.parameters, parameters, "{size:?}");
        if size == Size::Paper {
            // Seventy million numbers are drawn where they are looked at.
            continue;
        }
        let mut graph = Graph::new(256, 256);
        let tap = |graph: &mut Graph, scale: &Scale| {
            let side = 256 / scale.stride;
            graph.constant(format!("tap.{side}"), [scale.channels, side, side], vec![0.0; scale.channels * side * side])
        };
        let taps: Vec<Id> = scales.iter().map(|scale| tap(&mut graph, scale)).collect();
        Fold { graph: &mut graph, norm: NormKind::Layer }.predictions(&net, &taps);
        // What is the same for every image is computed once: the start's convolution and the first shortcut.
        let constant = 256 * 256 * (9 + 1) * 16 * 16;
        // A transposed convolution is four plain ones; a doubled shortcut's mean is nine more for each of its cells.
        let means = 4 * 9 * (128 * 16 * 16 + 64 * 32 * 32);
        let sum = convolutions - constant + 4 * transposed.iter().sum::<u64>() + means;
        assert_eq!(graph.macs(), sum, "{size:?}");
        assert!(graph.nodes.iter().filter(|n| matches!(n.op, Op::LayerNorm(_))).count() == 23);
    }
}
