//! Networks filled from a formula, as the scripts of `tests/reference` fill theirs, and what comes of them.

use super::Batch;
use super::folding::values;
use crate::device::{DeviceChoice, DeviceError};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use ndarray::Array4;
use std::collections::BTreeMap;

/// The first values of every parameter by its path.
pub type Samples = BTreeMap<String, Vec<f32>>;

/// `offset + scale * sin(0.7 i + phase)`; the phase comes from the name.
pub fn fill(name: &str, count: usize, offset: f64, scale: f64) -> Vec<f32> {
    let phase = (name.bytes().map(u64::from).sum::<u64>() % 97) as f64;
    (0..count).map(|i| (offset + scale * (0.7 * i as f64 + phase).sin()) as f32).collect()
}

/// Fills every parameter by its path.
pub struct Fill {
    path: Vec<String>,
    waves: fn(&str) -> (f64, f64),
}

impl Fill {
    /// `waves` gives offset and scale of a parameter.
    pub fn by(waves: fn(&str) -> (f64, f64)) -> Fill {
        Fill { path: vec![], waves }
    }
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        // Running statistics stay what they are; a training step does not read them.
        if name.contains("running") {
            return param;
        }
        let (offset, scale) = (self.waves)(&name);
        param.map(|t| {
            let (dims, device) = (t.dims(), t.device());
            let values = fill(&name, dims.iter().product(), offset, scale);
            Tensor::from_data(TensorData::new(values, dims), &device).require_grad()
        })
    }
}

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
        let (all, _) = values(param.val());
        self.samples.insert(self.path.join("."), all.into_iter().take(4).collect());
    }
}

/// Of every parameter the first four values.
pub fn samples(module: &impl Module) -> Samples {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.samples
}

/// Features of `count` images, of each scale channels, height and width.
pub fn batch(name: &str, count: usize, scales: &[[usize; 3]], offset: f64, scale: f64) -> Batch {
    let features = |(i, &[c, h, w]): (usize, &[usize; 3])| {
        let values = fill(&format!("{name}.{i}"), count * c * h * w, offset, scale);
        Array4::from_shape_vec((count, c, h, w), values).unwrap()
    };
    Batch::of_features(scales.iter().enumerate().map(features).collect())
}

/// Within 1e-4, of the value where it is above 1.
pub fn same(what: &str, found: f32, expected: f32) {
    let tolerance = 1e-4 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{what} is {found}, PyTorch's {expected}");
}

/// `skipped` are parameters that PyTorch has too, and of which rounding decides.
pub fn compare(found: Samples, expected: &Samples, skipped: &[String]) {
    for (name, expected) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("no parameter {name} in {:?}", found.keys()));
        for (f, e) in found.iter().zip(expected) {
            same(name, *f, *e);
        }
    }
    let trained = found.keys().filter(|name| !name.contains("running") && !skipped.contains(name)).count();
    assert_eq!(trained, expected.len(), "a parameter that PyTorch does not have");
}

/// A GPU, or Mesa's software renderer.
pub fn wgpu() -> Option<Device> {
    match DeviceChoice::Wgpu(0).open() {
        Ok((device, _)) => Some(device),
        Err(DeviceError::NoVulkan(_)) if std::env::var_os("CI").is_none() => {
            ckaad_testing::skipped("no Vulkan driver (Debian: apt-get install mesa-vulkan-drivers)");
            None
        }
        Err(e) => panic!("{e}"),
    }
}
