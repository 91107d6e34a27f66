//! The head learns what it is shown, and its graph says what its layers say.

use super::*;
use crate::augment::defects::Cell;
use crate::device;
use crate::graph::Term;
use crate::methods::folding::read_backs;
use crate::methods::specimens::{SIDE, Set, node, part, run};
use crate::methods::{Losses, Method, Outlined, StepBatch};
use image::RgbImage;
use ndarray::Array2;

const CONFIG: MilConfig =
    MilConfig { width: 16, context: 8, places: 6, learning_rate: 3e-3, painted: 8, painted_batch: 8 };

fn terms(mil: &Mil) -> [Term; 2] {
    mil.terms().try_into().unwrap()
}

/// Eight normal parts, four labelled and eight painted ones; two more that nothing learns from.
fn trained(strides: &[usize]) -> (Mil, Set, Vec<RgbImage>) {
    let corner = |i: u32| ((i * 24) % 72, (i * 40) % 72);
    let mut images: Vec<RgbImage> = (0..8).map(|i| part(i, None)).collect();
    images.extend((0..4).map(|i| part(20 + i, Some(corner(i)))));
    images.extend((0..8).map(|i| part(40 + i, (i < 6).then(|| corner(i + 1)))));
    images.extend([part(90, None), part(91, Some((40, 56)))]);
    let set = Set::of(strides, &images);
    let grid = SIDE as usize / strides[0];
    let cells = |i: u32| {
        let marked = |y: usize, x: usize| {
            let (l, t) = corner(i + 1);
            let inside = |at: usize, from: u32| {
                let (from, to) = (from as usize, from as usize + 16);
                (at + 1) * strides[0] > from && at * strides[0] < to
            };
            i < 6 && inside(x, l) && inside(y, t)
        };
        Array2::from_shape_fn((grid, grid), |(y, x)| if marked(y, x) { Cell::Anomalous } else { Cell::Normal })
    };
    let device = device::cpu();
    device::seed(5);
    let mut mil = Mil::new(&CONFIG, &set.extractor, &device);
    let batch = StepBatch {
        normal: set.batch(0, 8),
        anomalous: Some(set.batch(8, 12)),
        outlined: Some(Outlined {
            batch: set.batch(12, 20),
            before: None,
            cells: (0..8).map(cells).collect(),
            labelled: vec![false; 8],
        }),
        tell: true,
        ..StepBatch::default()
    };
    let mut last = None;
    for step in 0..60 {
        let losses = mil.step(&batch, f64::from(step) / 60.0);
        assert_eq!(losses.not_finite(), None, "{losses}");
        assert_eq!(losses.of("instances").is_some(), step >= 20, "labelled images teach places late: {losses}");
        last = Some(losses);
    }
    let losses = last.unwrap();
    assert!(losses.of("places").unwrap() < 0.4 && losses.of("bag").unwrap() < 0.02, "{losses}");
    (mil, set, images)
}

#[test]
fn it_finds_the_defect_and_knows_the_image_whatever_the_strides() {
    for strides in [&[8, 16][..], &[4, 8, 16], &[16]] {
        let (mil, set, images) = trained(strides);
        let [instance, bag] = terms(&mil);
        let map = node(&mil, &set.extractor, instance);
        let (good, bad) = (run(&map, &images[20]), run(&map, &images[21]));
        let most = |map: &[f32]| (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b])).unwrap();
        let (at, grid) = (most(&bad), SIDE as usize / strides[0]);
        let (y, x) = ((at / grid) * strides[0], (at % grid) * strides[0]);
        assert!((48..80).contains(&y) && (32..64).contains(&x), "{strides:?}: {x}, {y}");
        assert!(bad[at] > 2.0 * good[most(&good)], "{strides:?}: {} {}", bad[at], good[most(&good)]);
        let image = node(&mil, &set.extractor, bag);
        assert!(run(&image, &images[21])[0] > 0.0 && run(&image, &images[20])[0] < 0.0, "{strides:?}");
    }
}

/// Batch norms of sums, pools and the linear layer are folded right: the graph gives what the layers give.
#[test]
fn its_graph_says_what_its_layers_say() {
    let (mil, set, images) = trained(&[8, 16]);
    let [instance, bag] = terms(&mil);
    let batch = set.batch(20, 22);
    let (places, of_images) = mil.logits(&batch);
    let softplus = |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p();
    for (i, image) in images[20..].iter().enumerate() {
        let map = run(&node(&mil, &set.extractor, instance), image);
        let each = places.len() / 2;
        let worst = map.iter().zip(&places[i * each..]).map(|(a, b)| (a - softplus(*b)).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
        let found = run(&node(&mil, &set.extractor, bag), image)[0];
        assert!((found - of_images[i]).abs() < 1e-3 * of_images[i].abs().max(1.0), "{found} {}", of_images[i]);
    }
}

#[test]
fn it_comes_back_as_it_was_saved_and_goes_on() {
    let (mut mil, set, images) = trained(&[8, 16]);
    let folder = tempfile::tempdir().unwrap();
    mil.save(folder.path()).unwrap();
    let mut again = Mil::new(&CONFIG, &set.extractor, &device::cpu());
    again.load(folder.path()).unwrap();
    let [instance, _] = terms(&mil);
    let map = |mil: &Mil| run(&node(mil, &set.extractor, instance), &images[21]);
    // A checkpoint holds halves.
    let same = |a: &Mil, b: &Mil| map(a).iter().zip(map(b)).all(|(a, b)| (a - b).abs() < 0.02);
    assert!(same(&mil, &again), "{:?} {:?}", map(&mil), map(&again));
    assert!(map(&mil).iter().any(|v| *v > 0.7), "{:?}", map(&mil));
    let batch =
        || StepBatch { normal: set.batch(0, 8), anomalous: Some(set.batch(8, 12)), tell: true, ..StepBatch::default() };
    for mil in [&mut mil, &mut again] {
        device::cpu().seed(3);
        mil.step(&batch(), 0.9);
    }
    assert!(same(&mil, &again));
    std::fs::remove_file(folder.path().join("mil.bpk")).unwrap();
    assert!(again.load(folder.path()).unwrap_err().to_string().starts_with("checkpoint "));
}

/// Anomalies that are only made are no labels: they must not teach places.
#[test]
fn made_anomalies_are_not_taken_for_labelled_ones() {
    let set = Set::of(&[8, 16], &(0..6).map(|i| part(i, None)).collect::<Vec<_>>());
    let mut mil = Mil::new(&CONFIG, &set.extractor, &device::cpu());
    let mut batch = StepBatch {
        normal: set.batch(0, 4),
        anomalous: Some(set.batch(4, 6)),
        made: true,
        tell: true,
        ..StepBatch::default()
    };
    let before = read_backs();
    let losses = mil.step(&batch, 0.9);
    assert_eq!(read_backs() - before, 2, "one sort, and its losses are read at once");
    batch.tell = false;
    assert_eq!(mil.step(&batch, 0.9), Losses::default());
    assert_eq!(read_backs() - before, 3, "a step that is not to tell waits for the sort alone");
    assert!(losses.of("instances").is_none() && losses.of("places").is_some(), "{losses}");
}
