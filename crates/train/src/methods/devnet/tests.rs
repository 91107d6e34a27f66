//! The stages begin as the backbone's, learn what they are shown, and their graph says what their layers say.

use super::*;
use crate::device;
use crate::graph::Term;
use crate::methods::specimens::{Set, node, part, run};
use crate::methods::{Losses, Method, StepBatch};
use crate::onnx;
use ckaad_inspect::engine::Plan;

fn config(from: usize) -> DevnetConfig {
    DevnetConfig { from, learning_rate: 1e-3, ..DevnetConfig::default() }
}

fn terms(method: &Devnet) -> [Term; 2] {
    method.terms().try_into().unwrap()
}

/// Eight normal parts and four labelled ones; two more that nothing learns from.
fn set(standardised: bool) -> (Set, Vec<image::RgbImage>) {
    let mut images: Vec<_> = (0..8).map(|i| part(i, None)).collect();
    images.extend((0..4).map(|i| part(20 + i, Some(((i * 24) % 72, (i * 40) % 72)))));
    images.extend([part(90, None), part(91, Some((40, 56)))]);
    (Set::with(&[8, 16], &images, standardised), images)
}

fn batch(set: &Set) -> StepBatch {
    StepBatch { normal: set.batch(0, 8), anomalous: Some(set.batch(8, 12)), tell: true, ..StepBatch::default() }
}

fn taught(set: &Set, steps: u32) -> (Devnet, Losses) {
    device::seed(5);
    let mut method = Devnet::new(config(8), &set.extractor, &device::cpu());
    let batch = batch(set);
    let mut last = Losses::default();
    for step in 0..steps {
        last = method.step(&batch, f64::from(step) / f64::from(steps));
        assert_eq!(last.not_finite(), None, "{last}");
    }
    (method, last)
}

#[test]
fn untaught_stages_are_the_backbones_own() {
    for standardised in [false, true] {
        let (set, images) = set(standardised);
        let method = Devnet::new(config(8), &set.extractor, &device::cpu());
        let own = method.last_stage(&set.batch(12, 13));
        let deepest = set.extractor.deepest();
        let theirs = Plan::load(&onnx::emit_f32(&set.extractor.graph, Some(&[deepest])), 1).unwrap();
        let pixels = set.extractor.pixels(&set.sample(12).path).unwrap();
        let theirs = theirs.run(&pixels).unwrap().swap_remove(0);
        assert_eq!((own.len(), images.len()), (theirs.len(), 14));
        let largest = theirs.iter().fold(0f32, |a, b| a.max(b.abs()));
        let worst = own.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4 * largest, "{worst} of {largest}");
    }
}

#[test]
fn it_tells_a_defective_part_and_its_graph_says_what_its_layers_say() {
    let (set, images) = set(true);
    let (method, losses) = taught(&set, 40);
    assert!(losses.of("deviation normal").unwrap() < 0.8, "{losses}");
    assert!(losses.of("deviation anomalous").unwrap() < 0.8, "{losses}");
    let scores = method.image_scores(&set.batch(12, 14));
    assert!(scores[1] > scores[0] + 1.0, "{scores:?}");
    let [deviation, devnet] = terms(&method);
    let (map, score) = (node(&method, &set.extractor, deviation), node(&method, &set.extractor, devnet));
    for (image, expected) in images[12..].iter().zip(&scores) {
        let found = run(&score, image)[0];
        assert!((found - expected).abs() < 1e-2 * expected.max(1.0), "{found} {expected}");
        let mut cells = run(&map, image);
        cells.sort_by(|a, b| b.total_cmp(a));
        let count = (cells.len() / 10).max(1);
        let mean = cells[..count].iter().sum::<f32>() / count as f32;
        assert!((mean - found).abs() < 1e-4 * mean.max(1.0) && cells[cells.len() - 1] >= 0.0, "{mean} {found}");
    }
}

/// Stages that stayed where they were would make it a worse `pooled`.
#[test]
fn the_stages_themselves_learn() {
    let (set, _) = set(true);
    let before = Devnet::new(config(8), &set.extractor, &device::cpu()).last_stage(&set.batch(12, 13));
    let (method, _) = taught(&set, 5);
    let after = method.last_stage(&set.batch(12, 13));
    let moved = before.iter().zip(&after).filter(|(a, b)| (*a - *b).abs() > 1e-3).count();
    assert!(moved > before.len() / 2, "{moved} of {}", before.len());
}

#[test]
fn it_comes_back_as_it_was_saved_and_goes_on() {
    let (set, _) = set(true);
    let (mut method, _) = taught(&set, 10);
    let folder = tempfile::tempdir().unwrap();
    method.save(folder.path()).unwrap();
    let mut again = Devnet::new(config(8), &set.extractor, &device::cpu());
    again.load(folder.path()).unwrap();
    let scores = |method: &Devnet| method.image_scores(&set.batch(12, 14));
    // A checkpoint holds halves.
    let same = |a: &Devnet, b: &Devnet| scores(a).iter().zip(scores(b)).all(|(a, b)| (a - b).abs() < 0.02 * a.max(1.0));
    assert!(same(&method, &again), "{:?} {:?}", scores(&method), scores(&again));
    let batch = batch(&set);
    for method in [&mut method, &mut again] {
        method.step(&batch, 0.9);
    }
    assert!(same(&method, &again), "{:?} {:?}", scores(&method), scores(&again));
}

/// What a generator made is no defect.
#[test]
fn made_anomalies_are_not_taken_for_labelled_ones() {
    let (set, _) = set(true);
    let (mut method, _) = taught(&set, 1);
    let made = StepBatch { made: true, ..batch(&set) };
    assert_eq!(method.step(&made, 0.5), Losses::default());
}
