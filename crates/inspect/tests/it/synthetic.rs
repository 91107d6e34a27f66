//! The synthetic line's promises: the same everywhere, and a mask that tells the truth.

use ckaad_inspect::synthetic::{DatasetConfig, DefectKind, Line, LineConfig, PartKind, write_dataset};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

fn line(seed: u64, defect_rate: f32) -> Line {
    Line::new(LineConfig { seed, defect_rate, ..LineConfig::default() })
}

#[test]
fn a_seed_gives_the_same_pixels_on_every_platform() {
    let mut digest = Sha256::new();
    for part in line(3, 0.5).take(12) {
        digest.update(part.image.as_raw());
        digest.update(part.mask.as_raw());
    }
    assert_eq!(hex::encode(digest.finalize()), "05e481ec8e593ba98aac71050f10cf75e9375442134e48d09f810401a169ef48");
}

#[test]
fn a_part_does_not_depend_on_what_was_made_before_it() {
    let (mut some, mut other) = (line(5, 0.0), line(5, 0.0));
    some.make(Some(DefectKind::Crack));
    other.make(None);
    assert_eq!(some.next_part().image, other.next_part().image);
}

#[test]
fn another_seed_gives_other_pixels() {
    assert_ne!(line(1, 0.0).next_part().image, line(2, 0.0).next_part().image);
}

#[test]
fn every_part_and_every_defect_occurs_at_about_the_rate() {
    let parts: Vec<_> = line(9, 0.5).take(120).collect();
    let kinds: HashSet<PartKind> = parts.iter().map(|p| p.kind).collect();
    let defects: HashSet<DefectKind> = parts.iter().filter_map(|p| p.defect).collect();
    assert_eq!(kinds.len(), PartKind::ALL.len());
    assert_eq!(defects.len(), DefectKind::ALL.len());
    let defective = parts.iter().filter(|p| p.defect.is_some()).count();
    assert!((40..=80).contains(&defective), "{defective} of 120 at a rate of 0.5");
}

#[test]
fn a_line_makes_only_the_parts_that_it_is_told_to() {
    let config = LineConfig { parts: vec![PartKind::Connector], ..LineConfig::default() };
    assert!(Line::new(config).take(8).all(|part| part.kind == PartKind::Connector));
}

#[test]
fn the_mask_is_where_the_picture_differs_from_its_defect_free_twin() {
    let mut line = line(11, 0.0);
    for round in 0..4 {
        for defect in DefectKind::ALL {
            let good = line.clone().make(None);
            assert!(good.mask.pixels().all(|p| p.0[0] == 0));
            let bad = line.make(Some(defect));
            let (mut marked, mut changed) = (0, 0);
            for ((x, y, mask), (was, is)) in
                bad.mask.enumerate_pixels().zip(good.image.pixels().zip(bad.image.pixels()))
            {
                if mask.0[0] == 0 {
                    assert_eq!(was, is, "{defect} of round {round} changed ({x}, {y}) outside its mask");
                } else {
                    marked += 1;
                    changed += u32::from((0..3).any(|c| was.0[c].abs_diff(is.0[c]) > 12));
                }
            }
            let share = marked as f32 / (320.0 * 320.0);
            assert!((0.0015..0.08).contains(&share), "the mask of {defect} covers {share} of the frame");
            assert!(changed * 5 > marked * 2, "of {marked} pixels of {defect} only {changed} can be seen");
        }
    }
}

#[test]
fn parts_scale_with_the_frame() {
    for (width, height) in [(64, 64), (200, 320), (640, 480)] {
        let config = LineConfig { width, height, defect_rate: 1.0, ..LineConfig::default() };
        for part in Line::new(config).take(3) {
            assert_eq!(part.image.dimensions(), (width, height));
            assert!(part.mask.pixels().any(|p| p.0[0] == 255));
        }
    }
}

#[test]
fn a_data_set_has_the_layout_of_mvtec() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("set");
    let config = DatasetConfig {
        width: 64,
        height: 64,
        train_good: 3,
        train_defective: 1,
        test_good: 2,
        test_defective: 2,
        ..DatasetConfig::default()
    };
    let summary = write_dataset(&out, &config).unwrap();
    assert_eq!((summary.images, summary.masks), (3 + 6 + 2 + 12, 12));
    for path in [
        "train/good/002.png",
        "train/crack/000.png",
        "test/good/001.png",
        "test/dent/001.png",
        "ground_truth/dent/001_mask.png",
    ] {
        assert!(out.join(path).is_file(), "{path} is missing");
    }
    // The pixels, not the files: those may change with a release of the PNG encoder.
    let mut digest = Sha256::new();
    for (kind, split, count) in ["good"]
        .into_iter()
        .chain(DefectKind::ALL.map(DefectKind::name))
        .flat_map(|kind| [(kind, "train", 1), (kind, "test", 2)])
    {
        for i in 0..count {
            digest.update(image::open(out.join(format!("{split}/{kind}/{i:03}.png"))).unwrap().as_bytes());
        }
    }
    assert_eq!(hex::encode(digest.finalize()), "c1d5023326c1cd5ba16e47dc37b0ba17ed0a8bf7e053301d94ca959ebc3560df");
    let mask = image::open(out.join("ground_truth/stain/000_mask.png")).unwrap().into_luma8();
    assert!(mask.pixels().any(|p| p.0[0] == 255) && mask.pixels().all(|p| p.0[0] == 0 || p.0[0] == 255));
    let again = write_dataset(&out, &config).unwrap_err();
    assert!(again.to_string().contains("is not empty"), "{again}");
}
