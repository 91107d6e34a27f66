//! What frozen features can tell at all: a logistic regression on places whose class is known, `probe DIR WIDTHxHEIGHT [OUTLINED]`.
//!
//!     ckaad-train synth --out strips --kind strip --seed 11 --train-good 150 --train-defective 30 --train-masks 30 --test-good 150 --test-defective 60
//!     cargo run --release -p ckaad-train --example probe -- strips 256x640
//!
//! DIR is a set with masks, also of labelled training images; at most OUTLINED of these teach, evenly over the set, all without it. For every list of strides the places of the finest one are
//! rows, their columns the channels of all strides there (EfficientNet-lite0, exact features), and an image's score is its largest place's. No detector
//! that learns from labels without masks, a place at a time, has more to go by: it is the ceiling of that size and those strides.

use ckaad_bundle::{Filter, Input, ResizeMode};
use ckaad_inspect::imaging;
use ckaad_train::augment::View;
use ckaad_train::augment::defects::{Cell, cells};
use ckaad_train::backbones::Backbone;
use ckaad_train::datasets::{DataLocation, DataSet, Sample, evenly};
use ckaad_train::features::{Extractor, Reading};
use ckaad_train::logistic::Logistic;
use ckaad_train::metrics;
use ndarray::{Array1, Array2, Array3};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::error::Error;

const STRIDES: [usize; 3] = [8, 16, 32];
/// Lists of them, by their places in [`STRIDES`].
const LISTS: [&[usize]; 6] = [&[0], &[1], &[2], &[0, 1], &[1, 2], &[0, 1, 2]];
/// Normal places of an image that teach.
const PLACES: usize = 60;
/// Normal images that teach.
const NORMAL: usize = 150;
const RIDGE: f64 = 1e-3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "probe DIR WIDTHxHEIGHT [OUTLINED] is expected";
    let (dir, size) = (arguments.first().ok_or(usage)?, arguments.get(1).ok_or(usage)?);
    let (width, height) = size.split_once('x').ok_or(usage)?;
    let input =
        Input { width: width.parse()?, height: height.parse()?, fit: ResizeMode::Stretch, filter: Filter::Bilinear };
    let set = DataSet::open(&DataLocation::new(dir.as_str()))?;
    let masked: Vec<Sample> = set.train_anomalous.iter().filter(|s| s.mask.is_some()).cloned().collect();
    let outlined = evenly(masked, arguments.get(2).map_or(Ok(usize::MAX), |n| n.parse())?);
    let backbone = Backbone::EfficientNetLite0;
    let reading = Reading { backbone, strides: &STRIDES, deepest: 32, input };
    let extractor = Extractor::new(reading, &backbone.weights(None)?, None, None)?;

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut rows = LISTS.map(|_| Vec::<Array1<f64>>::new());
    let mut anomalous = LISTS.map(|_| Vec::<bool>::new());
    let normal = evenly(set.train_normal.clone(), NORMAL);
    for sample in normal.iter().chain(&outlined) {
        let features = features(&extractor, sample)?;
        let mask = match &sample.mask {
            Some(mask) => mask.at_input(&imaging::load(&sample.path)?, &input)?,
            None => Array2::from_elem((input.height as usize, input.width as usize), false),
        };
        for (list, strides) in LISTS.iter().enumerate() {
            let (_, h, w) = features[strides[0]].dim();
            let kinds = cells(mask.view(), (h, w));
            let normal: Vec<(usize, usize)> =
                kinds.indexed_iter().filter(|(_, kind)| **kind == Cell::Normal).map(|(at, _)| at).collect();
            let drawn = (0..PLACES.min(normal.len())).map(|_| (normal[rng.random_range(0..normal.len())], false));
            let marked = kinds.indexed_iter().filter(|(_, kind)| **kind == Cell::Anomalous).map(|(at, _)| (at, true));
            for ((y, x), is) in drawn.chain(marked).collect::<Vec<_>>() {
                rows[list].push(place(&features, strides, y, x));
                anomalous[list].push(is);
            }
        }
    }
    let probes: Vec<Logistic> = (0..LISTS.len())
        .map(|list| {
            let all: Vec<f64> = rows[list].iter().flatten().copied().collect();
            let columns = rows[list].first().map_or(0, Array1::len);
            let table = Array2::from_shape_vec((rows[list].len(), columns), all)?;
            Ok(Logistic::fit(table.view(), &anomalous[list], RIDGE))
        })
        .collect::<Result<_, ndarray::ShapeError>>()?;

    let mut scores = LISTS.map(|_| Vec::<f32>::new());
    for sample in &set.test {
        let features = features(&extractor, sample)?;
        for (list, strides) in LISTS.iter().enumerate() {
            let (_, h, w) = features[strides[0]].dim();
            let of = |at: usize| probes[list].score(place(&features, strides, at / w, at % w).view());
            scores[list].push((0..h * w).map(of).fold(f64::NEG_INFINITY, f64::max) as f32);
        }
    }
    let truth: Vec<bool> = set.test.iter().map(|s| s.defect.is_some()).collect();
    println!("{} at {size}: {} normal and {} outlined images teach", set.name(), normal.len(), outlined.len());
    println!("| strides | image AUROC of {} and {} | 95 % |\n|---|---|---|", count(&truth, false), count(&truth, true));
    for ((strides, scores), anomalous) in LISTS.iter().zip(&scores).zip(&anomalous) {
        let name: Vec<String> = strides.iter().map(|&s| STRIDES[s].to_string()).collect();
        if !anomalous.contains(&true) {
            println!("| {} | no place has more than 5 % of it marked | |", name.join(" + "));
            continue;
        }
        let auroc = metrics::auroc(scores, &truth).ok_or("test images of both classes are expected")?;
        let (low, high) = metrics::auroc_interval(scores, &truth).ok_or("test images of both classes are expected")?;
        println!("| {} | {auroc:.3} | {low:.3} to {high:.3} |", name.join(" + "));
    }
    Ok(())
}

fn count(truth: &[bool], class: bool) -> usize {
    truth.iter().filter(|t| **t == class).count()
}

fn features(extractor: &Extractor, sample: &Sample) -> Result<Vec<Array3<f32>>, Box<dyn Error>> {
    let mut all = extractor.compute(&[(sample.path.as_path(), View::default())])?;
    Ok(all.pop().ok_or("an image has features")?)
}

/// The channels of all `strides` at a place of the first one's grid.
fn place(features: &[Array3<f32>], strides: &[usize], y: usize, x: usize) -> Array1<f64> {
    let of = |&stride: &usize| {
        let coarser = STRIDES[stride] / STRIDES[strides[0]];
        features[stride]
            .slice(ndarray::s![.., y / coarser, x / coarser])
            .iter()
            .map(|v| f64::from(*v))
            .collect::<Vec<_>>()
    };
    strides.iter().flat_map(of).collect()
}
