//! What `synth` draws is what `fit` and `evaluate` read.

use crate::program::{train, train_well};
use ckaad_train::datasets::{DataLocation, DataSet, Layout, Sample};
use std::collections::{BTreeMap, BTreeSet};

const FEW: [&str; 8] = ["--train-good", "2", "--train-defective", "1", "--test-good", "1", "--test-defective", "1"];

#[test]
fn strips_are_drawn_in_a_layout_that_the_trainer_reads() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("strips");
    let out = data.to_str().unwrap();
    let said = train_well(&[&["synth", "--out", out, "--kind", "strip"], &FEW[..]].concat());
    assert_eq!(said, format!("{out}: 7 images, 2 masks\n"));
    let set = DataSet::open(&DataLocation::new(&data)).unwrap();
    assert_eq!((set.layout, set.train_normal.len(), set.train_anomalous.len()), (Layout::Mvtec, 2, 2));
    let defects: BTreeSet<&str> = set.test.iter().filter_map(|s| s.defect.as_deref()).collect();
    assert_eq!(defects, BTreeSet::from(["crack", "pit"]));
    for sample in set.test {
        assert_eq!(image::image_dimensions(&sample.path).unwrap(), (500, 1250));
        assert_eq!(sample.mask.is_some(), sample.defect.is_some());
        if let Some(mask) = sample.mask {
            assert!(mask.load().unwrap().pixels().any(|p| p.0[0] != 0));
        }
    }
}

#[test]
fn more_masks_than_defective_parts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("strips");
    let output = train(&[&["synth", "--out", out.to_str().unwrap(), "--train-masks", "2"], &FEW[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("--train-masks is 2; up to 1 expected, the defective parts of each kind (--train-defective)"),
        "{told}"
    );
    assert!(!output.status.success() && !out.exists());
}

/// Whoever calibrates by such a set, or judges it, has whole parts on one side, and of a defective one normal views too.
#[test]
fn parts_with_several_views_are_drawn_in_the_layout_of_real_iad() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let few = ["--train-good", "3", "--train-defective", "4", "--test-good", "2", "--test-defective", "2"];
    let said =
        train_well(&[&["synth", "--out", &out("parts"), "--views", "3", "--train-masks", "1"], &few[..]].concat());
    let set = DataSet::open(&DataLocation::new(folder.path().join("parts"))).unwrap();
    assert_eq!((set.layout, set.category.as_deref()), (Layout::RealIad, Some("line")));
    let training: Vec<_> = set.train_normal.iter().chain(&set.train_anomalous).collect();
    let tested: Vec<_> = set.test.iter().collect();
    // Six kinds of defects; three views a part.
    assert_eq!((training.len(), tested.len()), (3 * (3 + 6 * 4), 3 * (2 + 6 * 2)));
    for (samples, masked) in [(&training, 1), (&tested, 2)] {
        let mut parts: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        samples.iter().for_each(|s| parts.entry(s.part.as_deref().unwrap()).or_default().push(s));
        let mut masks: BTreeMap<&str, usize> = BTreeMap::new();
        for (part, views) in parts {
            let names: Vec<&str> = views.iter().map(|v| v.path.file_stem().unwrap().to_str().unwrap()).collect();
            let called = |view: &str| names.iter().filter(|name| name.split('_').any(|piece| piece == view)).count();
            assert_eq!(["C1", "C2", "C3"].map(called), [1; 3], "{names:?}");
            let shown = views.iter().filter(|v| v.defect.is_some()).count();
            assert_eq!((1..=2).contains(&shown), part.starts_with("NG/"), "{part}: {shown} views show a defect");
            let outlined: Vec<&str> =
                views.iter().filter(|v| v.mask.is_some()).map(|v| v.defect.as_deref().unwrap()).collect();
            if let Some(&defect) = outlined.first() {
                assert_eq!(outlined.len(), shown);
                *masks.entry(defect).or_default() += 1;
            }
        }
        assert!(masks.len() == 6 && masks.values().all(|&count| count == masked), "{masks:?}");
    }
    let of_all = set.test.iter().chain(training).filter(|s| s.mask.is_some()).count();
    assert_eq!(said, format!("{}: {} images, {of_all} masks\n", out("parts"), 3 * (27 + 14)));
    let refused = train(&[&["synth", "--out", &out("strips"), "--kind", "strip", "--views", "2"], &few[..]].concat());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("strips have one view; 2 are asked for"));
    assert!(!refused.status.success() && !folder.path().join("strips").exists());
}

#[test]
fn a_drawn_set_has_the_frame_asked_for_and_its_kind_s_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, more: &[&str]| {
        let data = folder.path().join(name);
        train_well(&[&["synth", "--out", data.to_str().unwrap()], &FEW[..], more].concat());
        image::image_dimensions(data.join("test/crack/000.png")).unwrap()
    };
    assert_eq!(draw("line", &[]), (320, 320));
    assert_eq!(draw("wide", &["--width", "300", "--kind", "line"]), (300, 320));
    assert_eq!(draw("strip", &["--height", "600", "--kind", "strip"]), (500, 600));
    for wrong in ["255", "4097", "-1", "many"] {
        let refused = train(&["synth", "--out", folder.path().to_str().unwrap(), &format!("--width={wrong}")]);
        assert_eq!(refused.status.code(), Some(2), "{wrong}");
    }
}

/// A part in two finishes has no picture that is wrong by itself.
#[test]
fn finishes_are_of_whole_parts_and_a_mismatch_is_one_view_in_another() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let few = ["--train-good", "10", "--train-defective", "0", "--test-good", "1", "--test-defective", "4"];
    let synth = |name: &str, views: &str| {
        train(&[&["synth", "--out", &out(name), "--views", views, "--finishes"][..], &few[..]].concat())
    };
    assert!(synth("parts", "3").status.success());
    let set = DataSet::open(&DataLocation::new(folder.path().join("parts"))).unwrap();
    let colour = |sample: &Sample| {
        let image = image::open(&sample.path).unwrap().to_rgb8();
        let sum = |c: usize| image.pixels().map(|p| f64::from(p.0[c])).sum::<f64>();
        [sum(0) / sum(1), sum(2) / sum(1)]
    };
    let apart = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).abs().max((a[1] - b[1]).abs());
    // How far the views of each part are from each other.
    let spreads = |samples: &[&Sample]| -> Vec<f64> {
        let mut parts: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
        samples.iter().for_each(|s| parts.entry(s.part.as_deref().unwrap()).or_default().push(colour(s)));
        let spread = |views: &Vec<[f64; 2]>| {
            let pairs = views.iter().enumerate().flat_map(|(i, a)| views[..i].iter().map(move |b| (*a, *b)));
            pairs.map(|(a, b)| apart(a, b)).fold(0.0, f64::max)
        };
        parts.values().map(spread).collect()
    };
    let good = spreads(&set.train_normal.iter().collect::<Vec<_>>());
    let of_mismatch = |s: &&Sample| s.part.as_deref().unwrap().contains("mismatch");
    let wrong: Vec<&Sample> = set.test.iter().filter(of_mismatch).collect();
    let mismatched = spreads(&wrong);
    let largest = good.iter().copied().fold(0.0, f64::max);
    assert!(good.len() == 10 && mismatched.len() == 4, "{} and {}", good.len(), mismatched.len());
    assert!(mismatched.iter().all(|&spread| spread > 2.0 * largest), "{mismatched:?} and {good:?}");
    let odd: Vec<&&Sample> = wrong.iter().filter(|s| s.defect.as_deref() == Some("mismatch")).collect();
    assert!(odd.len() == 4 && odd.iter().all(|s| s.mask.is_some()));
    // Whole parts come in several finishes.
    let first: Vec<[f64; 2]> = set.train_normal.iter().step_by(3).map(colour).collect();
    assert!(first.iter().any(|&a| apart(a, first[0]) > 2.0 * largest), "{first:?}");
    let refused = synth("two", "2");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains(
            "of fewer than three views nobody could say which has another finish than the rest; 2 are asked for"
        ),
        "{said}"
    );
}
