//! The strips' promises: the same everywhere, thin defects, and a mask that tells the truth.

use ckaad_inspect::synthetic::{DatasetConfig, DatasetKind, Strip, StripConfig, StripDefect, Strips, write_dataset};
use image::GrayImage;
use sha2::{Digest, Sha256};

fn strips(seed: u64) -> Strips {
    Strips::new(StripConfig { seed, ..StripConfig::default() })
}

#[test]
fn a_seed_gives_the_same_strips_on_every_platform() {
    let (mut row, mut digest) = (strips(3), Sha256::new());
    for defect in [None, Some(StripDefect::Crack), Some(StripDefect::Pit), Some(StripDefect::Crack)] {
        let strip = row.make(defect);
        digest.update(strip.image.as_raw());
        digest.update(strip.mask.as_raw());
    }
    assert_eq!(hex::encode(digest.finalize()), "6656a855f1bb1f2a9464da5f82aa043fdb119b9548bf58264324262362bbcff3");
}

#[test]
fn a_strip_does_not_depend_on_what_was_made_before_it() {
    let (mut some, mut other) = (strips(5), strips(5));
    some.make(Some(StripDefect::Crack));
    other.make(None);
    assert_eq!(some.make(None).image, other.make(None).image);
    assert_ne!(strips(5).make(None).image, strips(6).make(None).image);
}

#[test]
fn a_strip_differs_from_its_good_twin_at_most_a_pixel_beside_its_mask() {
    let mut row = strips(11);
    for round in 0..6 {
        for defect in StripDefect::ALL {
            let good = row.clone().make(None);
            assert!(good.mask.pixels().all(|p| p.0[0] == 0));
            let bad = row.make(Some(defect));
            assert_eq!(bad.defect, Some(defect));
            let near = with_neighbours(&bad.mask);
            let (mut marked, mut darker) = (0, 0_i64);
            for (x, y, is) in bad.image.enumerate_pixels() {
                let was = good.image.get_pixel(x, y);
                if near.get_pixel(x, y).0[0] == 0 {
                    assert_eq!(was, is, "{defect} of round {round} changed ({x}, {y}) beside its mask");
                }
                if bad.mask.get_pixel(x, y).0[0] == 255 {
                    marked += 1;
                    darker += i64::from(was.0[0]) - i64::from(is.0[0]);
                }
            }
            assert!((40..2500).contains(&marked), "the mask of {defect} of round {round} has {marked} pixels");
            assert!(darker >= marked * 3, "{marked} pixels of {defect} of round {round} are {darker} darker in all");
        }
    }
}

/// The mask and the eight neighbours of its pixels: as far as the lens spreads light.
fn with_neighbours(mask: &GrayImage) -> GrayImage {
    let mut out = mask.clone();
    for (x, y, p) in mask.enumerate_pixels().filter(|(.., p)| p.0[0] != 0) {
        for ny in y.saturating_sub(1)..(y + 2).min(mask.height()) {
            for nx in x.saturating_sub(1)..(x + 2).min(mask.width()) {
                out.put_pixel(nx, ny, *p);
            }
        }
    }
    out
}

#[test]
fn a_crack_is_long_and_thin() {
    let mut row = strips(21);
    for round in 0..12 {
        let Strip { mask, .. } = row.make(Some(StripDefect::Crack));
        let marked: Vec<(u32, u32)> =
            mask.enumerate_pixels().filter(|(.., p)| p.0[0] != 0).map(|p| (p.0, p.1)).collect();
        let extent = |axis: fn(&(u32, u32)) -> u32| {
            marked.iter().map(axis).max().unwrap_or(0) - marked.iter().map(axis).min().unwrap_or(0)
        };
        let reach = extent(|p| p.0).max(extent(|p| p.1));
        assert!(reach >= 25, "the crack of round {round} reaches over {reach} pixels");
        // A block of 9 x 9 would be no line; where a branch leaves, a crack is wider than its 4 pixels.
        let solid = marked.iter().find(|(x, y)| {
            (*y..y + 9).all(|y| (*x..x + 9).all(|x| mask.get_pixel_checked(x, y).is_some_and(|p| p.0[0] != 0)))
        });
        assert_eq!(solid, None, "the crack of round {round} is a blot");
    }
}

#[test]
fn strips_have_the_size_asked_for() {
    for ((width, height), expected) in [((256, 300), (256, 300)), ((640, 400), (640, 400)), ((10, 500), (256, 500))] {
        let mut row = Strips::new(StripConfig { seed: 1, width, height });
        for defect in StripDefect::ALL {
            let strip = row.make(Some(defect));
            assert_eq!((strip.image.dimensions(), strip.mask.dimensions()), (expected, expected));
            assert!(strip.mask.pixels().any(|p| p.0[0] == 255), "{defect} at {expected:?} leaves no mark");
        }
    }
    assert_eq!(strips(1).make(None).image.dimensions(), (500, 1250));
}

#[test]
fn a_data_set_of_strips_has_the_layout_of_mvtec() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("set");
    let config = DatasetConfig {
        train_good: 2,
        train_defective: 2,
        train_masks: 1,
        test_good: 1,
        test_defective: 2,
        ..DatasetConfig::of(DatasetKind::Strip)
    };
    let summary = write_dataset(&out, &config).unwrap();
    assert_eq!((summary.images, summary.masks), (2 + 4 + 1 + 4, 2 + 4));
    assert!(out.join("ground_truth_train/pit/000_mask.png").is_file());
    assert!(!out.join("ground_truth_train/pit/001_mask.png").exists());
    for path in ["train/good/001.png", "train/crack/000.png", "train/pit/000.png", "test/good/000.png"] {
        assert!(out.join(path).is_file(), "{path} is missing");
    }
    for defect in StripDefect::ALL {
        let image = image::open(out.join(format!("test/{defect}/001.png"))).unwrap();
        let mask = image::open(out.join(format!("ground_truth/{defect}/001_mask.png"))).unwrap();
        assert_eq!((image.color(), mask.color()), (image::ColorType::L8, image::ColorType::L8));
        assert_eq!((image.width(), image.height()), (500, 1250));
        let mask = mask.into_luma8();
        assert!(mask.pixels().any(|p| p.0[0] == 255) && mask.pixels().all(|p| p.0[0] == 0 || p.0[0] == 255));
    }
}
