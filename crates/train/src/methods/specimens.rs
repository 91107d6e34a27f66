//! Small parts with and without a defect, for the tests of methods that learn from them.

use super::{Batch, Method};
use crate::augment::View;
use crate::backbones::Backbone;
use crate::datasets::Sample;
use crate::features::{Extractor, Reading};
use crate::graph::Term;
use crate::onnx;
use ckaad_bundle::{Filter, Input, ResizeMode};
use ckaad_inspect::engine::Plan;
use ckaad_inspect::imaging;
use image::{Rgb, RgbImage};
use ndarray::{Array4, Axis};
use std::path::PathBuf;

/// Width and height of a part.
pub const SIDE: u32 = 96;
const INPUT: Input = Input { width: SIDE, height: SIDE, fit: ResizeMode::Stretch, filter: Filter::Bilinear };

/// Grain, and where it is given, a bright square of 16 pixels.
pub fn part(seed: u32, defect: Option<(u32, u32)>) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let grain = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503).wrapping_add(seed.wrapping_mul(97))) % 40;
        let inside = defect.is_some_and(|(l, t)| (l..l + 16).contains(&x) && (t..t + 16).contains(&y));
        Rgb([if inside { 250 } else { 90 + grain as u8 }; 3])
    })
}

/// EfficientNet-lite0, as it comes, for inputs so wide and high.
pub fn extractor([width, height]: [u32; 2], strides: &[usize], deepest: usize) -> Extractor {
    let backbone = Backbone::EfficientNetLite0;
    let input = Input { width, height, ..INPUT };
    let reading = Reading { backbone, strides, deepest, input };
    Extractor::new(reading, &backbone.weights(None).unwrap(), None, None).unwrap()
}

/// Parts on disk, and what features are taken with.
pub struct Set {
    _folder: tempfile::TempDir,
    pub extractor: Extractor,
    paths: Vec<PathBuf>,
}

impl Set {
    pub fn of(strides: &[usize], images: &[RgbImage]) -> Set {
        Set::with(strides, images, false)
    }

    /// With features that are standardised, or as they come.
    pub fn with(strides: &[usize], images: &[RgbImage], standardised: bool) -> Set {
        let folder = tempfile::tempdir().unwrap();
        let path = |i: usize| folder.path().join(format!("{i}.png"));
        images.iter().enumerate().for_each(|(i, image)| image.save(path(i)).unwrap());
        let paths: Vec<PathBuf> = (0..images.len()).map(path).collect();
        let mut set = Set { extractor: extractor([SIDE, SIDE], strides, 16), _folder: folder, paths };
        if standardised {
            let backbone = Backbone::EfficientNetLite0;
            let reading = Reading { backbone, strides, deepest: 16, input: INPUT };
            let weights = backbone.weights(None).unwrap();
            let samples: Vec<Sample> = (0..images.len()).map(|i| set.sample(i)).collect();
            let statistics = set.extractor.statistics(&samples).unwrap();
            set.extractor = Extractor::new(reading, &weights, Some(&statistics), None).unwrap();
        }
        set
    }

    /// One part.
    pub fn sample(&self, i: usize) -> Sample {
        Sample { path: self.paths[i].clone(), ..Sample::default() }
    }

    /// Features of the parts `from..to`.
    pub fn batch(&self, from: usize, to: usize) -> Batch {
        let jobs: Vec<_> = self.paths[from..to].iter().map(|p| (p.as_path(), View::default())).collect();
        let all = self.extractor.compute(&jobs).unwrap();
        let stack = |scale: usize| -> Array4<f32> {
            let views: Vec<_> = all.iter().map(|image| image[scale].view()).collect();
            ndarray::stack(Axis(0), &views).unwrap()
        };
        Batch::of_features((0..self.extractor.scales.len()).map(stack).collect())
    }
}

/// The ONNX file that gives one term of `method`.
pub fn node(method: &dyn Method, extractor: &Extractor, wanted: Term) -> Vec<u8> {
    let mut graph = extractor.graph.clone();
    let nodes = method.append(&mut graph, extractor, &|term| term == wanted);
    let id = nodes.iter().find(|(term, _)| *term == wanted).unwrap().1;
    onnx::emit_f32(&graph, Some(&[id]))
}

/// What that file gives for a part.
pub fn run(model: &[u8], image: &RgbImage) -> Vec<f32> {
    Plan::load(model, 1).unwrap().run(&imaging::resize(image, &INPUT).0).unwrap().swap_remove(0)
}
