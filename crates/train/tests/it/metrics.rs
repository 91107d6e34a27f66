//! The trainer's metrics against those of others: scikit-learn, anomalib, and ADer's definitions done by brute force
//! (`tests/reference/metrics.py`).

use ckaad_bundle::Bundle;
use ckaad_inspect::synthetic::{DatasetConfig, write_dataset};
use ckaad_train::datasets::{DataLocation, DataSet};
use ckaad_train::evaluate::{EvaluateError, Evaluation, evaluate as judge};
use ckaad_train::metrics::{ImageMetrics, PixelMetrics, Pixels, by_part};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, de::DeserializeOwned};
use std::path::Path;

/// What scikit-learn gives.
#[derive(Deserialize)]
struct Ranking {
    auroc: f64,
    average_precision: f64,
    f1_max: f64,
}

#[derive(Deserialize)]
struct ImageCase {
    name: String,
    scores: Vec<f32>,
    anomalous: Vec<bool>,
    parts: Vec<Option<String>>,
    expected: Ranking,
    by_part: Ranking,
    auroc_95: (f64, f64),
}

#[derive(Deserialize)]
struct PixelCase {
    name: String,
    width: usize,
    maps: Vec<Vec<f32>>,
    masks: Vec<String>,
    regions: u64,
    expected: PixelReference,
    ader: Stepped,
}

#[derive(Deserialize)]
struct PixelReference {
    #[serde(flatten)]
    ranking: Ranking,
    aupro_30: f64,
    aupro_05: f64,
}

#[derive(Deserialize)]
struct Stepped {
    f1_max: f64,
    iou_max: f64,
    f1_mean: f64,
    acc_mean: f64,
    iou_mean: f64,
    aupro_30: f64,
}

fn fixture<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics").join(name);
    let cases: Vec<T> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= 2);
    cases
}

#[track_caller]
fn near(case: &str, metric: &str, found: Option<f64>, expected: f64, within: f64) {
    let found = found.unwrap_or_else(|| panic!("{case}: no {metric}"));
    let apart = (found - expected).abs();
    println!("{case}: {metric} {found:.9}, apart by {apart:.1e}");
    assert!(apart <= within, "{case}: {metric} is {found}, expected {expected}");
}

fn near_ranking(case: &str, found: &ImageMetrics, expected: &Ranking) {
    near(case, "AUROC", found.auroc, expected.auroc, 1e-6);
    near(case, "AP", found.average_precision, expected.average_precision, 1e-6);
    near(case, "F1-max", found.f1_max, expected.f1_max, 1e-6);
}

#[test]
fn image_and_part_metrics_equal_scikit_learns() {
    for case in fixture::<ImageCase>("images.json") {
        near_ranking(&case.name, &ImageMetrics::of(&case.scores, &case.anomalous), &case.expected);
        let (scores, anomalous) = by_part(&case.parts, &case.scores, &case.anomalous);
        assert!(scores.len() < case.scores.len());
        near_ranking(&format!("{}, by part", case.name), &ImageMetrics::of(&scores, &anomalous), &case.by_part);
    }
}

/// Two bootstraps with different dice: the ends of 1,000 resamples scatter by about a hundredth.
#[test]
fn the_confidence_interval_is_that_of_another_bootstrap() {
    for case in fixture::<ImageCase>("images.json") {
        let (low, high) = ImageMetrics::of(&case.scores, &case.anomalous).auroc_95.unwrap();
        near(&case.name, "lower end", Some(low), case.auroc_95.0, 0.012);
        near(&case.name, "upper end", Some(high), case.auroc_95.1, 0.012);
    }
}

fn evaluate(case: &PixelCase, memory_bytes: usize) -> PixelMetrics {
    let mut pixels = Pixels::within(memory_bytes);
    for (map, mask) in case.maps.iter().zip(&case.masks) {
        let shape = (map.len() / case.width, case.width);
        let map = ArrayView2::from_shape(shape, map).unwrap();
        let mask = Array2::from_shape_vec(shape, mask.bytes().map(|b| b == b'#').collect()).unwrap();
        pixels.add(map, Some(mask.view())).unwrap();
    }
    assert_eq!(pixels.spilled() > 0, memory_bytes < 10_000);
    pixels.metrics().unwrap()
}

/// In memory and, with room for a few hundred pixels only, on disk.
#[test]
fn pixel_metrics_equal_scikit_learns_and_anomalibs() {
    for case in fixture::<PixelCase>("pixels.json") {
        for memory_bytes in [1 << 20, 3_000] {
            let found = evaluate(&case, memory_bytes);
            assert_eq!(found.regions, case.regions, "{}", case.name);
            let expected = &case.expected;
            near(&case.name, "pixel AUROC", found.auroc, expected.ranking.auroc, 1e-6);
            near(&case.name, "pixel AP", found.average_precision, expected.ranking.average_precision, 1e-6);
            near(&case.name, "pixel F1-max", found.f1_max, expected.ranking.f1_max, 1e-6);
            near(&case.name, "AUPRO to 0.3", found.aupro_30, expected.aupro_30, 1e-4);
            near(&case.name, "AUPRO to 0.05", found.aupro_05, expected.aupro_05, 1e-4);
        }
    }
}

#[test]
fn stepped_metrics_equal_aders_definitions() {
    for case in fixture::<PixelCase>("pixels.json") {
        let (found, expected) = (evaluate(&case, 1 << 20).ader.unwrap(), &case.ader);
        near(&case.name, "F1-max", Some(found.f1_max), expected.f1_max, 1e-6);
        near(&case.name, "IoU-max", Some(found.iou_max), expected.iou_max, 1e-6);
        near(&case.name, "F1 .2-.8", Some(found.f1_mean), expected.f1_mean, 1e-6);
        near(&case.name, "Acc .2-.8", Some(found.acc_mean), expected.acc_mean, 1e-6);
        near(&case.name, "IoU .2-.8", Some(found.iou_mean), expected.iou_mean, 1e-6);
        near(&case.name, "stepped AUPRO", found.aupro_30, expected.aupro_30, 1e-6);
    }
}

fn small_set(folder: &Path) -> std::path::PathBuf {
    let root = folder.join("data");
    let config =
        DatasetConfig { train_good: 1, train_defective: 0, test_good: 4, test_defective: 1, ..Default::default() };
    write_dataset(&root, &config).unwrap();
    root
}

fn judge_with_the_shipped_bundle(root: &Path) -> Result<Evaluation, EvaluateError> {
    let bundle = Bundle::read(&ckaad_testing::demo_bundle()).unwrap();
    judge(&bundle, &DataSet::open(&DataLocation::new(root)).unwrap(), |_, _, _| ())
}

#[test]
fn an_evaluation_carries_every_metric() {
    let folder = tempfile::tempdir().unwrap();
    let root = small_set(folder.path());
    let value = serde_json::to_value(judge_with_the_shipped_bundle(&root).unwrap()).unwrap();
    for level in ["image", "image_by_map_maximum"] {
        for metric in ["auroc", "average_precision", "f1_max"] {
            assert!(value[level][metric].is_f64(), "{level}.{metric} in {value}");
        }
        assert_eq!(value[level]["auroc_95"].as_array().map(Vec::len), Some(2), "{value}");
    }
    for metric in ["auroc", "average_precision", "f1_max", "aupro_30", "aupro_05"] {
        assert!(value["pixel"][metric].as_f64().is_some_and(|v| v > 0.0 && v <= 1.0), "pixel.{metric} in {value}");
    }
    for metric in ["f1_max", "iou_max", "f1_mean", "acc_mean", "iou_mean", "aupro_30"] {
        assert!(value["pixel"]["ader"][metric].is_f64(), "pixel.ader.{metric} in {value}");
    }
    let images = value["samples"].as_array().unwrap().len();
    assert_eq!(value["pixel"]["images"], images);
    assert!(value["pixel"]["regions"].as_u64().unwrap() >= images as u64 - 4);
    // The bundle's score is a mean of the largest pixels, so the largest is never below it.
    assert!(value["samples"].as_array().unwrap().iter().all(|s| s["map_maximum"].as_f64() >= s["score"].as_f64()));
}

/// Without masks there are no pixel metrics; a defect without one is left out of them; a mask of another size is named.
#[test]
fn masks_decide_what_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let root = small_set(folder.path());
    let masks: Vec<_> = std::fs::read_dir(root.join("ground_truth"))
        .unwrap()
        .flat_map(|kind| std::fs::read_dir(kind.unwrap().path()).unwrap())
        .map(|mask| mask.unwrap().path())
        .collect();
    std::fs::remove_file(&masks[0]).unwrap();
    let found = judge_with_the_shipped_bundle(&root).unwrap();
    assert_eq!(found.pixel.unwrap().images, found.samples.len() - 1);

    image::GrayImage::new(7, 5).save(&masks[1]).unwrap();
    let error = judge_with_the_shipped_bundle(&root).unwrap_err().to_string();
    assert!(error.contains(masks[1].to_str().unwrap()) && error.contains("is 7x5 pixels, its image"), "{error}");

    std::fs::remove_dir_all(root.join("ground_truth")).unwrap();
    assert!(judge_with_the_shipped_bundle(&root).unwrap().pixel.is_none());
}
