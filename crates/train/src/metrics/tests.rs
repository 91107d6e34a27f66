use super::*;
use ndarray::{Array2, ArrayView2};
use rand::{Rng, SeedableRng};

const SCORES: [f32; 6] = [0.1, 0.4, 0.35, 0.8, 0.8, 0.2];
const LABELS: [bool; 6] = [false, false, true, true, false, true];

/// `values` as rows of `width`.
fn rows<T>(values: &[T], width: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((values.len() / width, width), values).unwrap()
}

#[test]
fn image_metrics_equal_scikit_learns() {
    // sklearn.metrics on the same six values: roc_auc_score, average_precision_score, max of precision_recall_curve.
    assert!((auroc(&SCORES, &LABELS).unwrap() - 0.5).abs() < 1e-6);
    assert!((average_precision(&SCORES, &LABELS).unwrap() - 0.533_333_333).abs() < 1e-6);
    let (f1, threshold) = f1_max(&SCORES, &LABELS).unwrap();
    assert!((f1 - 0.75).abs() < 1e-6 && threshold == 0.2, "{f1} {threshold}");
}

#[test]
fn a_missing_class_has_no_curve() {
    assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
    assert_eq!(average_precision(&[1.0], &[false]), None);
    assert_eq!(ImageMetrics::of(&[], &[]), ImageMetrics::default());
    assert_eq!(auroc_interval(&[1.0, 2.0], &[false, false]), None);
    assert!(operating_points(&[1.0, 2.0], &[true, true]).is_empty());
    let mut pixels = Pixels::default();
    pixels.add(rows(&[0.1, 0.2], 2), Some(rows(&[false, false], 2))).unwrap();
    let found = pixels.metrics().unwrap();
    assert_eq!((found.auroc, found.f1_max, found.aupro_30, found.ader), (None, None, None, None));
}

#[test]
fn aupro_weighs_regions_not_pixels() {
    let mut pixels = Pixels::default();
    // Two regions, of 1 and of 4 pixels; the small one is found first, the large one only after half of the normal
    // pixels.
    let mask = [true, false, false, false, false, true, true, true, true, false];
    let map = [0.9, 0.8, 0.7, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.1];
    pixels.add(rows(&map, 10), Some(rows(&mask, 10))).unwrap();
    let found = pixels.metrics().unwrap();
    // Negatives: 0.8, 0.7 above the large region, three at 0.1 below: the overlap is 0.5 up to FPR 0.4.
    assert!((found.aupro_30.unwrap() - 0.5).abs() < 1e-12);
    assert!((found.aupro_05.unwrap() - 0.5).abs() < 1e-12);
    assert!((found.auroc.unwrap() - (0.4 * 0.2 + 0.6)).abs() < 1e-12);
    assert_eq!((found.regions, found.normal_pixels, found.anomalous_pixels), (2, 5, 5));
}

#[test]
fn regions_that_touch_at_a_corner_are_one() {
    let mut pixels = Pixels::default();
    pixels.add(rows(&[0.0, 1.0, 1.0, 0.0], 2), Some(rows(&[false, true, true, false], 2))).unwrap();
    assert_eq!(pixels.metrics().unwrap().regions, 1);
}

#[test]
fn a_set_that_outgrows_memory_gives_the_same_numbers() {
    let maps = random_maps(12, 40, 30);
    let evaluate = |mut pixels: Pixels| {
        for (map, mask) in &maps {
            pixels.add(map.view(), mask.as_ref().map(|mask| mask.view())).unwrap();
        }
        (pixels.spilled(), pixels.metrics().unwrap())
    };
    let (in_memory, expected) = evaluate(Pixels::default());
    let (on_disk, found) = evaluate(Pixels::within(2_000));
    assert!(in_memory == 0 && on_disk > 30, "{in_memory} and {on_disk} runs on disk");
    assert_eq!(found, expected);
    assert!(expected.auroc.unwrap() > 0.6 && expected.ader.unwrap().aupro_30.is_some(), "{expected:?}");
}

/// Scores of both signs with ties, higher in the masks; every third image is normal.
fn random_maps(images: usize, width: usize, height: usize) -> Vec<(Array2<f32>, Option<Array2<bool>>)> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let mut image = |i: usize| {
        let normal = i.is_multiple_of(3);
        let defective = |x: usize, y: usize| (x / 7 + y / 5).is_multiple_of(4);
        let mask = Array2::from_shape_fn((height, width), |(y, x)| !normal && defective(x, y));
        let score = |m: &bool| (rng.random_range(-60..60) as f32 + if *m { 25.0 } else { 0.0 }) / 64.0;
        let map = mask.map(score);
        (map, (!normal).then_some(mask))
    };
    (0..images).map(&mut image).collect()
}

#[test]
fn unusable_maps_are_refused() {
    let add = |map: &[f32], mask| Pixels::default().add(rows(map, map.len()), mask).unwrap_err().to_string();
    assert_eq!(add(&[0.0, f32::NAN], None), "an anomaly map holds NaN; only finite values can be ranked");
    assert_eq!(add(&[0.0, 1.0], Some(rows(&[true], 1))), "an anomaly map has 2x1 pixels, its mask 1x1");
    // As many pixels, but in other rows.
    assert_eq!(add(&[0.0, 1.0], Some(rows(&[true, true], 1))), "an anomaly map has 2x1 pixels, its mask 1x2");
}

#[test]
fn a_flat_map_is_no_better_than_chance() {
    let mut pixels = Pixels::default();
    pixels.add(rows(&[0.5; 4], 2), Some(rows(&[true, false, false, false], 2))).unwrap();
    let found = pixels.metrics().unwrap();
    assert_eq!(found.auroc, Some(0.5));
    assert_eq!(found.aupro_30, Some(0.15));
    let ader = found.ader.unwrap();
    assert_eq!((ader.f1_max, ader.iou_mean, ader.aupro_30), (0.0, 0.0, None));
}

#[test]
fn both_zeros_are_one_score() {
    assert_eq!(auroc(&[0.0, -0.0], &[true, false]), Some(0.5));
    let mut pixels = Pixels::default();
    pixels.add(rows(&[0.0, -0.0], 2), Some(rows(&[true, false], 2))).unwrap();
    assert_eq!(pixels.metrics().unwrap().auroc, Some(0.5));
}

#[test]
fn a_part_has_the_score_of_its_worst_view() {
    let part = |name: &str| Some(name.to_owned());
    let parts = [part("b"), part("a"), None, part("a"), part("b"), None];
    let (scores, anomalous) =
        by_part(&parts, &[0.2, 0.3, 0.9, 0.7, 0.1, 0.4], &[false, false, true, true, false, false]);
    let mut found: Vec<(f32, bool)> = scores.into_iter().zip(anomalous).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(found, [(0.2, false), (0.4, false), (0.7, true), (0.9, true)]);
}

#[test]
fn the_interval_narrows_with_more_images_and_holds_the_value() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
    let mut width = |images: usize| {
        let labels: Vec<bool> = (0..images).map(|i| i % 2 == 0).collect();
        let scores: Vec<f32> = labels.iter().map(|&l| rng.random::<f32>() + if l { 0.4 } else { 0.0 }).collect();
        let (low, high) = auroc_interval(&scores, &labels).unwrap();
        let value = auroc(&scores, &labels).unwrap();
        assert!(low < value && value < high, "{low} {value} {high}");
        high - low
    };
    let (few, many) = (width(40), width(4_000));
    // The width falls with the square root of the number of images.
    assert!((5.0..20.0).contains(&(few / many)), "{few} {many}");
}

#[test]
fn operating_points_sink_from_the_best_score() {
    let points = operating_points(&SCORES, &LABELS);
    assert_eq!(points.len(), 5);
    let first = points[0];
    assert_eq!((first.threshold, first.false_positive_rate, first.precision), (0.8, 1.0 / 3.0, 0.5));
    let last = points[4];
    assert_eq!((last.false_positive_rate, last.recall, last.precision), (1.0, 1.0, 0.5));
}
