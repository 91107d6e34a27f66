//! One optimiser step against PyTorch: `tests/reference/ckaad_step.py` fills the same networks and inputs from the same
//! formula.

use super::*;
use crate::device::{self, DeviceChoice, DeviceError};
use crate::methods::ckaad::{Cosine, DiscriminatorKind};
use crate::methods::folding::{read_backs, sorted, values as values_of};
use burn::module::{ModuleMapper, ModuleVisitor, Param};
use ndarray::Array4;
use std::collections::BTreeMap;

type Samples = BTreeMap<String, Vec<f32>>;

#[derive(serde::Deserialize)]
struct Fixture {
    paper: Case,
    joint: Case,
}

#[derive(serde::Deserialize)]
struct Case {
    discriminator: f32,
    reconstruction: f32,
    adversarial: f32,
    auto_encoder: Samples,
    discriminators: Samples,
}

const SCALES: [Scale; 2] = [Scale { channels: 6, stride: 8 }, Scale { channels: 8, stride: 16 }];
const SIDES: [usize; 2] = [16, 8];

/// `offset + scale * sin(0.7 i + phase)`; the phase comes from the name.
fn fill(name: &str, count: usize, offset: f64, scale: f64) -> Vec<f32> {
    let phase = (name.bytes().map(u64::from).sum::<u64>() % 97) as f64;
    (0..count).map(|i| (offset + scale * (0.7 * i as f64 + phase).sin()) as f32).collect()
}

/// Fills every parameter by its path.
struct Fill(Vec<String>);

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.0.join(".");
        // Running statistics stay what they are; a training step does not read them.
        if name.contains("running") {
            return param;
        }
        let scale = match &name {
            n if n.starts_with("image.") && n.ends_with("conv.weight") => 0.05,
            n if n == "image.hidden.weight" || n == "image.energy.weight" => 0.1,
            _ => 0.3,
        };
        let offset = if name.ends_with("gamma") { 1.0 } else { 0.0 };
        param.map(|t| {
            let (dims, device) = (t.dims(), t.device());
            let values = fill(&name, dims.iter().product(), offset, scale);
            Tensor::from_data(TensorData::new(values, dims), &device).require_grad()
        })
    }
}

/// The first values of every parameter by its path.
#[derive(Default)]
struct Collect {
    path: Vec<String>,
    samples: Samples,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values: Vec<f32> = param.val().into_data().convert::<f32>().try_into_vec().unwrap();
        self.samples.insert(self.path.join("."), values.into_iter().take(4).collect());
    }
}

fn batch(name: &str, count: usize, offset: f64, scale: f64) -> Batch {
    let features = |(i, (s, side)): (usize, (&Scale, usize))| {
        let values = fill(&format!("{name}.{i}"), count * s.channels * side * side, offset, scale);
        Array4::from_shape_vec((count, s.channels, side, side), values).unwrap()
    };
    Batch::of_features(SCALES.iter().zip(SIDES).enumerate().map(features).collect())
}

fn same(what: &str, found: f32, expected: f32) {
    let tolerance = 1e-4 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{what} is {found}, PyTorch's {expected}");
}

fn compare(found: Samples, expected: &Samples) {
    for (name, expected) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("no parameter {name} in {:?}", found.keys()));
        for (f, e) in found.iter().zip(expected) {
            same(name, *f, *e);
        }
    }
    let trained = found.keys().filter(|name| !name.contains("running")).count();
    assert_eq!(trained, expected.len(), "a parameter that PyTorch does not have");
}

fn step_as_pytorch(case: &Case, joint: bool, device: &Device) {
    let net = NetConfig { widths: vec![4, 6], bottleneck: 8, ..Default::default() };
    let discriminator = DiscriminatorConfig {
        kind: if joint { DiscriminatorKind::Patch } else { DiscriminatorKind::Both },
        joint,
        width: 0,
        places: if joint { 16 * 16 / 4 } else { 0 },
        noise: 0.0,
        ..Default::default()
    };
    let cosine = if joint { Cosine::Position } else { Cosine::Flattened };
    let loss = LossConfig { gamma: 0.5, cosine, ..Default::default() };
    let parts = Parts { net: &net, discriminator: &discriminator, loss, scales: &SCALES, spread: None };
    let mut trainer = Trainer::new(parts, device);
    trainer.auto_encoder = trainer.auto_encoder.map(&mut Fill(vec![]));
    trainer.discriminators = trainer.discriminators.map(|d| d.map(&mut Fill(vec![])));
    let (normal, anomalous) = (batch("normal", 3, 0.2, 1.0), batch("anomalous", 2, -0.3, 1.5));
    let before = read_backs();
    let (trainer, losses) = trainer.step(&normal, Some(&anomalous), Rates { auto_encoder: 5e-3, discriminator: 1e-2 });
    // The hardest places of normal and of anomalous images.
    let sorts = if joint { 2 } else { 0 };
    assert_eq!(read_backs() - before, sorts, "a step waits for sorts alone");
    let losses = losses.read();
    assert_eq!(read_backs() - before, sorts + 1, "and its losses are read at once");
    same("discriminator loss", losses.of(DISCRIMINATOR).unwrap(), case.discriminator);
    same("reconstruction loss", losses.of(RECONSTRUCTION).unwrap(), case.reconstruction);
    same("adversarial loss", losses.of(ADVERSARIAL).unwrap(), case.adversarial);
    let mut collect = Collect::default();
    trainer.auto_encoder.visit(&mut collect);
    compare(collect.samples, &case.auto_encoder);
    let mut collect = Collect::default();
    trainer.discriminators.unwrap().visit(&mut collect);
    compare(collect.samples, &case.discriminators);
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../../tests/fixtures/train/ckaad_step.json")).unwrap()
}

#[test]
fn the_papers_step_is_pytorchs() {
    step_as_pytorch(&fixture().paper, false, &device::cpu());
}

#[test]
fn the_joint_heads_step_is_pytorchs() {
    step_as_pytorch(&fixture().joint, true, &device::cpu());
}

/// A GPU, or Mesa's software renderer.
fn wgpu() -> Option<Device> {
    match DeviceChoice::Wgpu(0).open() {
        Ok((device, _)) => Some(device),
        Err(DeviceError::NoVulkan(_)) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: no Vulkan driver (Debian: apt-get install mesa-vulkan-drivers)");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn the_papers_step_on_a_gpu_is_pytorchs() {
    let Some(device) = wgpu() else { return };
    step_as_pytorch(&fixture().paper, false, &device);
}

#[test]
fn the_joint_heads_step_on_a_gpu_is_pytorchs() {
    let Some(device) = wgpu() else { return };
    step_as_pytorch(&fixture().joint, true, &device);
}

/// burn 0.22.1's `topk` gives -3.4e38 and other values that are none of the row's on wgpu where a row is long; as a loss that is no warning.
#[test]
fn the_largest_of_long_rows_are_those_of_the_row() {
    let rows = |device: &Device| {
        let values: Vec<f32> = (0..2 * 4096).map(|i| (f64::from(i) * 0.7).sin() as f32).collect();
        let x = Tensor::<2>::from_data(TensorData::new(values, [2, 4096]), device);
        values_of(sorted(x).narrow(1, 0, 100)).0
    };
    let expected = rows(&device::cpu());
    assert!(expected.iter().all(|v| *v > 0.99) && expected[..100].is_sorted_by(|a, b| a >= b));
    let Some(device) = wgpu() else { return };
    assert_eq!(rows(&device), expected);
}
