//! One optimiser step against PyTorch: `tests/reference/ckaad_step.py` fills the same networks and inputs from the same
//! formula.

use super::*;
use crate::device;
use crate::methods::ckaad::{Cosine, DiscriminatorKind};
use crate::methods::folding::{read_backs, sorted, values as values_of};
use crate::methods::formula::{Fill, Samples, batch, compare, same, samples, wgpu};

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

/// Offset and scale of a parameter.
fn waves(name: &str) -> (f64, f64) {
    let scale = match name {
        n if n.starts_with("image.") && n.ends_with("conv.weight") => 0.05,
        "image.hidden.weight" | "image.energy.weight" => 0.1,
        _ => 0.3,
    };
    (if name.ends_with("gamma") { 1.0 } else { 0.0 }, scale)
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
    trainer.auto_encoder = trainer.auto_encoder.map(&mut Fill::by(waves));
    trainer.discriminators = trainer.discriminators.map(|d| d.map(&mut Fill::by(waves)));
    let shapes = [[6, 16, 16], [8, 8, 8]];
    let (normal, anomalous) = (batch("normal", 3, &shapes, 0.2, 1.0), batch("anomalous", 2, &shapes, -0.3, 1.5));
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
    compare(samples(&trainer.auto_encoder), &case.auto_encoder, &[]);
    compare(samples(&trainer.discriminators.unwrap()), &case.discriminators, &[]);
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
