//! `augment --show`: a sheet of painted defects to look at, the same for the same seed.

use crate::program::{refused, train, train_well};
use ckaad_inspect::synthetic::{DatasetConfig, DatasetKind, write_dataset};
use std::path::{Path, PathBuf};

/// A set of three good strips below `folder`.
fn strips(folder: &Path) -> String {
    let data = folder.join("strips");
    let none =
        DatasetConfig { train_defective: 0, test_good: 0, test_defective: 0, ..DatasetConfig::of(DatasetKind::Strip) };
    write_dataset(&data, &DatasetConfig { train_good: 3, width: 300, height: 500, ..none }).unwrap();
    data.to_str().unwrap().to_owned()
}

fn show(data: &str, sheet: &Path, more: &[&str]) -> String {
    train_well(&[&["augment", "--data", data, "--show", sheet.to_str().unwrap()], more].concat())
}

#[test]
fn a_sheet_has_a_column_for_every_change_and_says_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (data, sheet) = (strips(folder.path()), folder.path().join("sheet.png"));
    let told = show(&data, &sheet, &["--count", "8"]);
    let kinds: Vec<String> = told.lines().map(|line| line.chars().skip(5).take(10).collect()).collect();
    let rota = ["line", "blob", "line", "cut-paste", "moved edge", "light step", "line", "blob"];
    assert_eq!(kinds.iter().map(|kind| kind.trim()).collect::<Vec<_>>(), rota, "{told}");
    for (line, kind) in told.lines().zip(rota) {
        assert!(line.ends_with(".png") && line.contains("train/good/"), "{line}");
        let is_defect = !["moved edge", "light step"].contains(&kind);
        assert_eq!(line.contains(" pixels "), is_defect, "{line}");
    }
    // Six columns of a normal image, painted, outlined, and two more below them.
    assert_eq!(image::image_dimensions(&sheet).unwrap(), (6 * 328 + 8, 6 * 328 + 8));
    let outline = image::Rgb([255, 0, 180]);
    let drawn = image::open(&sheet).unwrap().into_rgb8();
    let outlined = |column: u32| (0..328).any(|x| (656..984).any(|y| *drawn.get_pixel(column * 328 + x, y) == outline));
    assert_eq!((0..6).map(outlined).collect::<Vec<_>>(), [true, true, true, true, false, false]);
}

/// Whoever has outlined defects sees them in other images, as they are taught.
#[test]
fn labelled_defects_with_a_mask_are_shown_in_other_images() {
    let folder = tempfile::tempdir().unwrap();
    let (data, sheet) = (folder.path().join("strips"), folder.path().join("sheet.png"));
    let config = DatasetConfig {
        train_defective: 1,
        train_masks: 1,
        test_good: 0,
        test_defective: 0,
        ..DatasetConfig::of(DatasetKind::Strip)
    };
    write_dataset(&data, &DatasetConfig { train_good: 3, width: 300, height: 500, ..config }).unwrap();
    let told = show(data.to_str().unwrap(), &sheet, &["--count", "14"]);
    let labelled: Vec<&str> = told.lines().filter(|line| line.contains("labelled")).collect();
    assert_eq!(labelled.len(), 2, "{told}");
    assert!(labelled.iter().all(|line| line.contains(" pixels ")), "{told}");
}

#[test]
fn a_seed_shows_the_same_sheet_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = strips(folder.path());
    let sheet = |name: &str, seed: &str| -> Vec<u8> {
        let path: PathBuf = folder.path().join(name);
        show(&data, &path, &["--count", "3", "--seed", seed]);
        std::fs::read(path).unwrap()
    };
    assert_eq!(sheet("a.png", "5"), sheet("b.png", "5"));
    assert_ne!(sheet("a.png", "5"), sheet("c.png", "6"));
}

#[test]
fn what_cannot_be_shown_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (data, sheet) = (strips(folder.path()), folder.path().join("none/sheet.png"));
    let sheet = sheet.to_str().unwrap();
    let told = refused(&["augment", "--data", &data, "--show", sheet]);
    assert_eq!(told, format!("cannot write {sheet}: No such file or directory (os error 2)"));
    let count = train(&["augment", "--data", &data, "--show", sheet, "--count", "0"]);
    assert_eq!(count.status.code(), Some(2));
    for i in 0..3 {
        std::fs::write(folder.path().join(format!("strips/train/good/00{i}.png")), "no picture").unwrap();
    }
    let told = refused(&["augment", "--data", &data, "--show", sheet]);
    assert!(told.contains(".png is not an image that can be decoded"), "{told}");
    for i in 0..3 {
        std::fs::remove_file(folder.path().join(format!("strips/train/good/00{i}.png"))).unwrap();
    }
    let told = refused(&["augment", "--data", &data, "--show", sheet]);
    assert_eq!(told, format!("{data} has no normal training image to paint on"));
}
