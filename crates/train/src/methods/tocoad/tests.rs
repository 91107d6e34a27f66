//! The adapters move defects away from normal places, and their graph says what their layers say.

use super::*;
use crate::augment::defects::Cell;
use crate::device;
use crate::graph::{Joint, Op, Term};
use crate::methods::folding::{tensor, values};
use crate::methods::specimens::{SIDE, Set, node, part, run};
use crate::methods::{Labelled, Library, Losses, Method, Outlined, StepBatch, TrainingImages};
use crate::onnx;
use crate::progress::ProgressDisplay;
use ckaad_inspect::engine::Plan;
use image::RgbImage;
use ndarray::{Array2, Array4, Axis};

const STEPS: u32 = 90;

fn config() -> TocoadConfig {
    TocoadConfig { vectors: 64, width: 16, learning_rate: 5e-3, adapter_learning_rate: 3e-3, ..TocoadConfig::default() }
}

fn corner(i: u32) -> (u32, u32) {
    ((i * 24) % 72, (i * 40) % 72)
}

/// Eight normal parts, the same a little brighter, eight painted ones of which the last two are controls; two more that nothing learns from.
fn images() -> Vec<RgbImage> {
    let brighter = |i: u32| {
        let mut image = part(i, None);
        image.iter_mut().for_each(|byte| *byte = byte.saturating_add(9));
        image
    };
    let painted = (0..8).map(|i| part(i, (i < 6).then(|| corner(i))));
    let others = [part(90, None), part(91, Some((40, 56)))];
    (0..8).map(|i| part(i, None)).chain((0..8).map(brighter)).chain(painted).chain(others).collect()
}

fn lesson(set: &Set) -> StepBatch {
    let grid = SIDE as usize / 8;
    let cells = |i: u32| {
        let (l, t) = corner(i);
        let inside = |at: usize, from: u32| (at + 1) * 8 > from as usize && at * 8 < from as usize + 16;
        let marked = |y: usize, x: usize| i < 6 && inside(x, l) && inside(y, t);
        Array2::from_shape_fn((grid, grid), |(y, x)| if marked(y, x) { Cell::Anomalous } else { Cell::Normal })
    };
    let outlined = Outlined {
        batch: set.batch(16, 24),
        before: Some(set.batch(0, 8)),
        cells: (0..8).map(cells).collect(),
        labelled: vec![false; 8],
    };
    StepBatch {
        normal: set.batch(0, 8),
        relit: Some(set.batch(8, 16)),
        outlined: Some(outlined),
        tell: true,
        ..StepBatch::default()
    }
}

fn trained(strides: &[usize]) -> (Tocoad, Set) {
    let set = Set::of(strides, &images());
    device::seed(5);
    let mut method = Tocoad::new(&config(), &set.extractor, &device::cpu());
    let batch = lesson(&set);
    let mut first: Option<Losses> = None;
    let mut last = Losses::default();
    for step in 0..STEPS {
        last = method.step(&batch, f64::from(step) / f64::from(STEPS));
        assert_eq!(last.not_finite(), None, "{last}");
        assert_eq!(last.of("painted").is_some(), step < STEPS / 3, "{step}: {last}");
        if last.of("alike").is_some() {
            first.get_or_insert(last.clone());
        }
    }
    let of = |losses: &Losses, name| losses.of(name).unwrap();
    let first = first.unwrap();
    assert!(of(&last, "alike") < of(&first, "alike") - 0.1, "{first}; {last}");
    // Of a quarter, where a defect were as like a normal place as this itself.
    assert!(of(&last, "unlike") < 0.08, "{last}");
    assert!(of(&last, "spread") > 0.3 && method.doubt(&last).is_none(), "{last}");
    (method, set)
}

fn learn(method: &mut Tocoad, set: &Set) {
    let images: Vec<Labelled> = (0..8).map(|i| Labelled { sample: set.sample(i), fold: 0 }).collect();
    let progress = ProgressDisplay::detect();
    let library = Library::new(&images, &set.extractor, &progress, 1);
    method.learn(&TrainingImages::new(&library, |_| true)).unwrap();
}

fn map(method: &Tocoad, set: &Set, image: usize) -> Vec<f32> {
    let term: Term = method.terms()[0];
    run(&node(method, &set.extractor, term), &images()[image])
}

#[test]
fn the_adapted_bank_finds_the_defect_and_comes_back_as_it_was_saved() {
    let (mut method, set) = trained(&[8, 16]);
    let mut plain = Tocoad::new(&config(), &set.extractor, &device::cpu());
    let most = |map: &[f32]| (0..map.len()).max_by(|&a, &b| map[a].total_cmp(&map[b])).unwrap();
    // How far the defect sticks out of what a good part has.
    let contrast = |method: &mut Tocoad| {
        learn(method, &set);
        let (good, bad) = (map(method, &set, 24), map(method, &set, 25));
        let (at, grid) = (most(&bad), SIDE as usize / 8);
        let (y, x) = (8 * (at / grid), 8 * (at % grid));
        assert!((48..80).contains(&y) && (32..64).contains(&x), "{x}, {y}");
        bad[at] / good[most(&good)]
    };
    let (adapted, plain) = (contrast(&mut method), contrast(&mut plain));
    assert!(adapted > 1.1 * plain, "{adapted}, without adapters {plain}");

    let folder = tempfile::tempdir().unwrap();
    method.save(folder.path()).unwrap();
    let mut again = Tocoad::new(&config(), &set.extractor, &device::cpu());
    again.load(folder.path()).unwrap();
    // A checkpoint holds halves.
    let close = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.02 * a.abs().max(1.0));
    assert!(close(map(&method, &set, 25), map(&again, &set, 25)));
    let batch = lesson(&set);
    let both = [&mut method, &mut again].map(|method| {
        (0..3).for_each(|_| drop(method.step(&batch, 0.4)));
        method.adapted(0, &set.batch(25, 26).features[0])
    });
    let [a, b] = both.map(|adapted| values(adapted).0);
    assert!(close(a, b), "its optimiser goes on where it was");
    std::fs::write(folder.path().join("collapsed.json"), "no").unwrap();
    assert!(again.load(folder.path()).unwrap_err().to_string().contains("collapsed.json"));
}

#[test]
fn adapted_features_of_the_graph_are_those_of_the_layers() {
    let (method, set) = trained(&[8, 16]);
    let mut graph = set.extractor.graph.clone();
    method.append(&mut graph, &set.extractor, &|_| true);
    let ids = [0, 1].map(|scale| graph.nodes.iter().position(|n| n.name == format!("tocoad.adapt.{scale}")).unwrap());
    let plan = Plan::load(&onnx::emit_f32(&graph, Some(&ids)), 1).unwrap();
    let found = plan.run(&set.extractor.pixels(&set.sample(25).path).unwrap()).unwrap();
    let features = set.batch(25, 26).features;
    for (scale, found) in found.iter().enumerate() {
        let (expected, _) = values(method.adapted(scale, &features[scale]));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && worst < 1e-3, "{worst}");
        let moved = expected.iter().zip(&features[scale]).any(|(a, b)| (a - b).abs() > 0.05);
        assert!(moved, "the adapters have learned something");
    }
    // The device sees one 1x1 convolution a scale more than of a bank.
    let joint = |op: &Op| matches!(op, Op::Joint(Joint { smooth: true, unit: false }));
    assert_eq!(graph.nodes.iter().filter(|n| joint(&n.op)).count(), 1);
}

/// What was painted teaches the adapters: after a second stage without it, defects are more like the normal places that they cover.
#[test]
fn painted_defects_are_moved_away_from_the_places_that_they_cover() {
    let set = Set::of(&[8, 16], &images());
    let likeness = |painted: bool| {
        device::seed(5);
        let mut method = Tocoad::new(&config(), &set.extractor, &device::cpu());
        let (whole, plain) = (lesson(&set), StepBatch { outlined: None, ..lesson(&set) });
        for step in 0..STEPS {
            let batch = if painted || step < STEPS / 3 { &whole } else { &plain };
            method.step(batch, f64::from(step) / f64::from(STEPS));
        }
        // Told of the adapters as they are before the step.
        method.step(&whole, 0.9).of("unlike").unwrap()
    };
    let (taught, untaught) = (likeness(true), likeness(false));
    assert!((0.0..0.9 * untaught).contains(&taught), "{taught}, without painted defects {untaught}");
}

/// Adapters that make all places one would make the bank blind.
#[test]
fn adapters_that_collapse_go_back_to_where_they_were_and_it_is_said() {
    let set = Set::of(&[8, 16], &images());
    let mut method = Tocoad::new(&config(), &set.extractor, &device::cpu());
    assert_eq!(method.doubt(&Losses::default()), None);
    let batch = lesson(&set);
    assert!(
        (method.step(&batch, 0.4).of("spread").unwrap() - 1.0).abs() < 1e-4,
        "they begin as if they were not there"
    );
    // From x to the mean of all places times how much x is like it.
    let all = set.batch(0, 8).features;
    let blind = all.iter().map(|features| {
        let mean = features.mean_axis(Axis(0)).unwrap().mean_axis(Axis(1)).unwrap().mean_axis(Axis(1)).unwrap();
        let square = mean.dot(&mean);
        let c = mean.len();
        let weight = Array4::from_shape_fn((c, c, 1, 1), |(i, j, ..)| {
            mean[i] * mean[j] / square - if i == j { 1.0 } else { 0.0 }
        });
        tensor(&weight, &device::cpu())
    });
    method.put(blind.collect());
    let spread = method.step(&batch, 0.4).of("spread").unwrap();
    assert!(spread < 0.3, "{spread}");
    let said = method.doubt(&Losses::default()).unwrap();
    assert!(said.contains("tocoad.adapter_learning_rate (now 0.003)"), "{said}");
    assert_eq!(method.step(&batch, 0.5), Losses::default());
    let (kept, _) = values(method.adapted(0, &all[0]));
    assert!(kept.iter().zip(&all[0]).all(|(a, b)| a == b), "the last ones that were sound are those of the beginning");
}

/// Nobody asked for a second look, or nothing is painted: nothing is learned, and nothing fails.
#[test]
fn a_step_that_lacks_what_it_needs_changes_nothing() {
    let set = Set::of(&[8, 16], &images());
    let mut method = Tocoad::new(&config(), &set.extractor, &device::cpu());
    let step = |batch: StepBatch, progress| -> Losses {
        let mut again = Tocoad::new(&config(), &set.extractor, &device::cpu());
        again.step(&batch, progress)
    };
    assert_eq!(step(StepBatch { outlined: None, ..lesson(&set) }, 0.0), Losses::default());
    assert_eq!(step(StepBatch { relit: None, ..lesson(&set) }, 0.9), Losses::default());
    let alike = method.step(&StepBatch { outlined: None, ..lesson(&set) }, 0.9);
    assert!(alike.of("alike").is_some() && alike.of("unlike").is_none(), "{alike}");
}
