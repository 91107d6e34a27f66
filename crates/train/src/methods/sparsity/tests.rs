//! From images that are said to be defective the head learns where, and its graph says what its layers say.

use super::*;
use crate::device;
use crate::methods::ckaad::{NetConfig, Size};
use crate::methods::folding::read_backs;
use crate::methods::specimens::{SIDE, Set, node, part, run};
use crate::methods::{Method, StepBatch};
use image::RgbImage;

const STEPS: u32 = 160;

fn config() -> SparsityConfig {
    SparsityConfig {
        net: NetConfig { size: Size::Tiny, ..NetConfig::default() },
        learning_rate: 5e-3,
        head_learning_rate: 5e-3,
        share: 0.02,
        ..SparsityConfig::default()
    }
}

/// Eight normal parts, four labelled ones; two more that nothing learns from.
fn images() -> Vec<RgbImage> {
    let corner = |i: u32| ((i * 24) % 72, (i * 40) % 72);
    let normal = (0..8).map(|i| part(i, None));
    let labelled = (0..4).map(|i| part(20 + i, Some(corner(i))));
    normal.chain(labelled).chain([part(90, None), part(91, Some((40, 56)))]).collect()
}

fn lesson(set: &Set) -> StepBatch {
    StepBatch { normal: set.batch(0, 8), anomalous: Some(set.batch(8, 12)), tell: true, ..StepBatch::default() }
}

fn trained(set: Set) -> (Sparsity, Set, Vec<RgbImage>) {
    let images = images();
    device::seed(5);
    let mut method = Sparsity::new(&config(), &set.extractor, &device::cpu());
    let batch = lesson(&set);
    for step in 0..STEPS {
        let before = read_backs();
        let losses = method.step(&batch, f64::from(step) / f64::from(STEPS));
        // The losses at once, and the residuals for the limit.
        assert_eq!(read_backs() - before, if step < STEPS / 2 { 1 } else { 2 });
        assert_eq!(losses.not_finite(), None, "{losses}");
        let of_head = losses.of("mask size").is_some();
        assert_eq!(
            (of_head, losses.of("mask reconstruction").is_none()),
            (step >= STEPS / 2, step >= STEPS / 2),
            "{losses}"
        );
    }
    (method, set, images)
}

fn mask(method: &Sparsity, set: &Set, image: &RgbImage) -> Vec<f32> {
    run(&node(method, &set.extractor, method.terms()[0]), image)
}

/// Nobody outlined anything: the mask of a new part lies on its defect, that of a good one is empty.
#[test]
fn what_is_only_said_to_be_defective_is_found() {
    let (method, set, images) = trained(Set::of(&[8, 16], &images()));
    let (good, bad) = (mask(&method, &set, &images[12]), mask(&method, &set, &images[13]));
    let grid = SIDE as usize / 8;
    let on_defect = |at: usize| {
        let (y, x) = (8 * (at / grid), 8 * (at % grid));
        (48..80).contains(&y) && (32..64).contains(&x)
    };
    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..bad.len()).partition(|&at| on_defect(at));
    let mean = |map: &[f32], places: &[usize]| places.iter().map(|&at| map[at]).sum::<f32>() / places.len() as f32;
    let most = (0..bad.len()).max_by(|&a, &b| bad[a].total_cmp(&bad[b])).unwrap();
    assert!(on_defect(most) && bad[most] > 0.9, "{most}: {bad:?}");
    assert!(mean(&bad, &inside) > 1.7 * mean(&bad, &outside), "{bad:?}");
    assert!(mean(&good, &inside) < 0.3 * mean(&bad, &inside), "{good:?}");
}

#[test]
fn its_graph_says_what_its_layers_say() {
    for (strides, standardised) in [(&[8, 16][..], false), (&[16], false), (&[8, 16], true)] {
        let (method, set, images) = trained(Set::with(strides, &images(), standardised));
        let expected = method.masks(&set.batch(12, 14));
        let found = [mask(&method, &set, &images[12]), mask(&method, &set, &images[13])].concat();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && worst < 1e-3, "{strides:?}: {worst}");
        assert!(expected.iter().any(|v| *v > 0.5), "{expected:?}");
    }
}

#[test]
fn it_comes_back_as_it_was_saved_and_goes_on() {
    let (mut method, set, images) = trained(Set::of(&[8, 16], &images()));
    let folder = tempfile::tempdir().unwrap();
    method.save(folder.path()).unwrap();
    let mut again = Sparsity::new(&config(), &set.extractor, &device::cpu());
    again.load(folder.path()).unwrap();
    let of = |method: &Sparsity| mask(method, &set, &images[13]);
    let apart =
        |a: &Sparsity, b: &Sparsity| of(a).into_iter().zip(of(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // A checkpoint holds halves.
    assert!(apart(&method, &again) < 0.005);
    let batch = lesson(&set);
    for method in [&mut method, &mut again] {
        for progress in [0.0, 0.1, 0.5, 0.6] {
            method.step(&batch, progress);
        }
    }
    let worst = apart(&method, &again);
    assert!(worst < 0.02, "its optimisers go on where they were: {worst}");
    std::fs::write(folder.path().join("limit.json"), "no").unwrap();
    assert!(again.load(folder.path()).unwrap_err().to_string().contains("limit.json"));
}

/// Without anybody to learn from the head stays as it is, and so does the limit.
#[test]
fn made_anomalies_teach_no_mask() {
    let set = Set::of(&[8, 16], &images());
    let mut method = Sparsity::new(&config(), &set.extractor, &device::cpu());
    let before = mask(&method, &set, &images()[13]);
    for anomalous in [None, Some(set.batch(8, 12))] {
        let batch = StepBatch { anomalous, made: true, ..lesson(&set) };
        assert_eq!(method.step(&batch, 0.9).iter().count(), 0);
    }
    assert_eq!(mask(&method, &set, &images()[13]), before);
}
