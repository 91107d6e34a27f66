//! What `synth` draws is what `fit` and `evaluate` read.

use crate::program::{train, train_well};
use ckaad_train::datasets::{DataLocation, DataSet, Layout};
use std::collections::BTreeSet;

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
