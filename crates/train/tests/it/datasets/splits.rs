//! What is held out: whole parts and patients, a share of each kind of defect, the same for the same seed.

use super::*;
use ckaad_train::run::{RunFolderError, Split, ValidationConfig, samples};
use std::collections::BTreeSet;

fn set(train_normal: Vec<Sample>, train_anomalous: Vec<Sample>) -> DataSet {
    DataSet {
        root: "/data".into(),
        layout: Layout::Mvtec,
        category: None,
        train_normal,
        train_anomalous,
        validation_normal: vec![],
        test: vec![],
    }
}

fn sample(class: &str, number: usize, group: Option<String>) -> Sample {
    let path = format!("/data/train/{class}/{number:04}.png").into();
    Sample { group, ..Sample::new(path, (class != "good").then(|| class.into())) }
}

/// Parts with 1 to 6 images, some of which show a defect.
fn grouped() -> DataSet {
    let (mut normal, mut anomalous) = (vec![], vec![]);
    for part in 0..60 {
        for view in 0..1 + part % 6 {
            let group = Some(format!("part{part}"));
            match (part % 5, view % 2) {
                (0, 0) => anomalous.push(sample("dent", 10 * part + view, group)),
                (1, 0) => anomalous.push(sample("scratch", 10 * part + view, group)),
                _ => normal.push(sample("good", 10 * part + view, group)),
            }
        }
    }
    set(normal, anomalous)
}

fn draw(data: &DataSet, seed: u64) -> Result<Split, RunFolderError> {
    Split::draw(data, &ValidationConfig::default(), seed)
}

#[test]
fn no_group_is_on_both_sides_and_nothing_is_lost() {
    let data = grouped();
    for seed in 0..50 {
        let split = draw(&data, seed).unwrap();
        let of = |parts: [&Vec<Sample>; 2]| -> BTreeSet<String> {
            parts.into_iter().flatten().map(|s| s.group.clone().unwrap()).collect()
        };
        let training = of([&split.train_normal, &split.train_anomalous]);
        let held_out = of([&split.validation_normal, &split.validation_anomalous]);
        assert!(training.is_disjoint(&held_out), "seed {seed}: {:?}", training.intersection(&held_out));
        let mut normal = [split.train_normal, split.validation_normal].concat();
        let mut anomalous = [split.train_anomalous, split.validation_anomalous].concat();
        normal.sort();
        anomalous.sort();
        assert_eq!(samples(&data.root, &normal), data.train_normal, "seed {seed}");
        assert_eq!(samples(&data.root, &anomalous).len(), data.train_anomalous.len(), "seed {seed}");
    }
}

#[test]
fn every_kind_of_defect_and_the_normal_images_give_their_share() {
    let data = grouped();
    let count = |samples: &[Sample], class: Option<&str>| {
        samples.iter().filter(|s| s.defect.as_deref() == class).count() as f64
    };
    for seed in 0..50 {
        let split = draw(&data, seed).unwrap();
        for class in ["dent", "scratch"] {
            let share = count(&split.validation_anomalous, Some(class)) / count(&data.train_anomalous, Some(class));
            assert!((0.25..0.45).contains(&share), "seed {seed}: {share} of {class}");
        }
        let share = count(&split.validation_normal, None) / count(&data.train_normal, None);
        assert!((0.12..0.25).contains(&share), "seed {seed}: {share} of the normal images");
    }
}

#[test]
fn the_seed_decides_and_the_folder_does_not() {
    let data = grouped();
    let mut moved = data.clone();
    moved.root = "/elsewhere/set".into();
    for sample in moved.train_normal.iter_mut().chain(&mut moved.train_anomalous) {
        sample.path = moved.root.join(sample.path.strip_prefix("/data").unwrap());
    }
    let split = draw(&data, 3).unwrap();
    assert_eq!(split, draw(&data, 3).unwrap());
    assert_eq!(split, draw(&moved, 3).unwrap());
    assert_ne!(split, draw(&data, 4).unwrap());
}

#[test]
fn images_without_groups_are_held_out_in_their_exact_share() {
    let normal = (0..100).map(|i| sample("good", i, None)).collect();
    let anomalous = (0..20).map(|i| sample("dent", i, None)).chain((0..1).map(|i| sample("rare", i, None))).collect();
    let split = draw(&set(normal, anomalous), 1).unwrap();
    assert_eq!((split.validation_normal.len(), split.train_normal.len()), (12, 88));
    // The only image of its kind stays to be learnt from.
    assert_eq!((split.validation_anomalous.len(), split.train_anomalous.len()), (5, 16));
    assert!(split.train_anomalous.iter().any(|s| s.defect.as_deref() == Some("rare")));
}

#[test]
fn a_sets_own_validation_images_are_taken() {
    let mut data = grouped();
    data.validation_normal = (0..7).map(|i| sample("own", i, None)).map(|s| Sample { defect: None, ..s }).collect();
    // Without anomalies nothing draws groups over, so all normal images are trained on.
    data.train_anomalous.clear();
    let split = draw(&data, 1).unwrap();
    assert_eq!(split.train_normal.len(), data.train_normal.len());
    assert_eq!(samples(&data.root, &split.validation_normal), data.validation_normal);
}

#[test]
fn normal_images_of_one_part_only_are_refused() {
    let normal = (0..50).map(|i| sample("good", i, Some("part1".into()))).collect();
    let told = draw(&set(normal, vec![]), 1).unwrap_err().to_string();
    assert!(told.contains("all 50 are of one part"), "{told}");
}

/// What `run.json` keeps is enough for any layout, and readable.
#[test]
fn the_split_keeps_defect_mask_and_group() {
    let mut anomaly = sample("MEL", 1, Some("HAM_1".into()));
    anomaly.path = "/data/ISIC2018_Task3_Training_Input/ISIC_1.jpg".into();
    anomaly.mask = Some("/data/masks/1.png".into());
    let data = set((0..10).map(|i| sample("good", i, None)).collect(), vec![anomaly.clone()]);
    let split = draw(&data, 1).unwrap();
    let json = serde_json::to_value(&split).unwrap();
    assert_eq!(
        json["train_anomalous"],
        serde_json::json!([{
            "path": "ISIC2018_Task3_Training_Input/ISIC_1.jpg", "defect": "MEL", "mask": "masks/1.png", "group": "HAM_1"
        }])
    );
    assert_eq!(json["validation_normal"][0].as_object().unwrap().keys().collect::<Vec<_>>(), ["path"]);
    let read: Split = serde_json::from_value(json).unwrap();
    assert_eq!(samples(&data.root, &read.train_anomalous), [anomaly]);
}

/// Pictures of one magnetic tile under its six exposures are recognised by their names.
#[test]
fn exposures_of_one_magnetic_tile_are_one_group() {
    let tile = [(1, 3191), (2, 3211), (3, 3223), (4, 3234), (5, 3247), (6, 3279)];
    let next = [(1, 3504), (2, 3524)];
    // Taken at the same time: their numbers are interleaved, so they stay together.
    let interleaved = [(1, 6508), (2, 6528), (1, 6539), (3, 6541), (2, 6558)];
    let names = |shots: &[(u32, u32)]| -> Vec<String> {
        shots.iter().map(|(e, n)| format!("train/good/exp{e}_num_{n}.jpg")).collect()
    };
    let all = [names(&tile), names(&next), names(&interleaved)].concat();
    let tree = Tree::new(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let group_of = |data: &DataSet, name: &str| {
        data.train_normal.iter().find(|s| s.path.ends_with(name)).unwrap().group.clone().unwrap()
    };
    let data = tree.read(Layout::Mvtec, None);
    for (shots, group) in [(&tile[..], "num_3191"), (&next[..], "num_3504"), (&interleaved[..], "num_6508")] {
        for name in names(shots) {
            assert_eq!(group_of(&data, &name), group, "{name}");
        }
    }
    // One image named otherwise, and it is another set.
    tree.image("train/good/000.jpg");
    assert!(tree.read(Layout::Mvtec, None).train_normal.iter().all(|s| s.group.is_none()));
}
