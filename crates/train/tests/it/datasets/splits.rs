//! Which fold an image is in: whole parts and patients, each class spread evenly, the same for the same seed.

use super::*;
use ckaad_train::datasets::evenly;
use ckaad_train::methods::Labelled;
use ckaad_train::run::{RunFolderError, RunInfo, Unit, deal};
use std::collections::{BTreeMap, BTreeSet};

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

fn draw(data: &DataSet, seed: u64) -> Result<Vec<Labelled>, RunFolderError> {
    deal(data, 5, seed)
}

fn info(data: &DataSet, images: Vec<Labelled>) -> RunInfo {
    RunInfo { data: data.root.clone(), folds: 5, images, ..RunInfo::default() }
}

/// How many images of a class each fold has.
fn sizes(images: &[Labelled], class: Option<&str>) -> Vec<usize> {
    let in_fold = |fold| images.iter().filter(|i| i.fold == fold && i.sample.defect.as_deref() == class).count();
    (0..5).map(in_fold).collect()
}

#[test]
fn no_group_is_in_two_folds_and_nothing_is_lost() {
    let data = grouped();
    for seed in 0..50 {
        let images = draw(&data, seed).unwrap();
        let mut folds: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for image in &images {
            folds.entry(image.sample.group.clone().unwrap()).or_default().insert(image.fold);
        }
        assert!(folds.values().all(|folds| folds.len() == 1), "seed {seed}: {folds:?}");
        let placed: Vec<Sample> = info(&data, images).placed().into_iter().map(|image| image.sample).collect();
        assert_eq!(placed, [data.train_normal.clone(), data.train_anomalous.clone()].concat(), "seed {seed}");
    }
}

#[test]
fn every_class_is_spread_over_the_folds() {
    let data = grouped();
    for seed in 0..50 {
        let images = draw(&data, seed).unwrap();
        for class in [None, Some("dent"), Some("scratch")] {
            let sizes = sizes(&images, class);
            let even = sizes.iter().sum::<usize>() as f64 / 5.0;
            let off = sizes.iter().map(|&size| (size as f64 - even).abs()).fold(0.0, f64::max);
            assert!(off <= (0.3 * even).max(2.0), "seed {seed}: {class:?} {sizes:?}");
        }
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
    let images = draw(&data, 3).unwrap();
    assert_eq!(images, draw(&data, 3).unwrap());
    assert_eq!(images, draw(&moved, 3).unwrap());
    assert_ne!(images, draw(&data, 4).unwrap());
}

#[test]
fn images_without_groups_are_dealt_evenly() {
    let normal = (0..100).map(|i| sample("good", i, None)).collect();
    let anomalous = (0..20).map(|i| sample("dent", i, None)).chain((0..1).map(|i| sample("rare", i, None))).collect();
    let images = draw(&set(normal, anomalous), 1).unwrap();
    assert_eq!((sizes(&images, None), sizes(&images, Some("dent"))), (vec![20; 5], vec![4; 5]));
    assert_eq!(sizes(&images, Some("rare")).iter().sum::<usize>(), 1);
}

#[test]
fn a_sets_own_validation_images_are_dealt_like_the_others() {
    let mut data = grouped();
    data.validation_normal = (0..7).map(|i| sample("own", i, None)).map(|s| Sample { defect: None, ..s }).collect();
    let images = draw(&data, 1).unwrap();
    let normal = images.iter().filter(|image| image.sample.defect.is_none()).count();
    assert_eq!(normal, data.train_normal.len() + 7);
}

#[test]
fn few_groups_make_few_folds_and_one_is_refused() {
    let part = |i: usize| Some(format!("part{}", i % 3));
    let images = draw(&set((0..50).map(|i| sample("good", i, part(i))).collect(), vec![]), 1).unwrap();
    assert_eq!(images.iter().map(|image| image.fold).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
    let normal = (0..50).map(|i| sample("good", i, Some("part1".into()))).collect();
    let told = draw(&set(normal, vec![]), 1).unwrap_err().to_string();
    assert!(told.contains("all 50 are of one part"), "{told}");
}

/// A model without a fold never sees its images; one without a kind besides sees none with that defect.
#[test]
fn a_model_sees_what_it_is_not_to_judge_never() {
    let images = draw(&grouped(), 1).unwrap();
    let seen = |unit: &Unit| images.iter().filter(|image| unit.sees(image)).count();
    let (held, dents) = (
        sizes(&images, None)[2] + sizes(&images, Some("dent"))[2] + sizes(&images, Some("scratch"))[2],
        sizes(&images, Some("dent")),
    );
    let elsewhere = dents.iter().sum::<usize>() - dents[2];
    assert_eq!(seen(&Unit::Whole), images.len());
    assert_eq!(seen(&Unit::Without(2)), images.len() - held);
    let without = Unit::WithoutKind(2, "dent".into());
    assert_eq!(seen(&without), images.len() - held - elsewhere);
    assert_eq!((without.checkpoint().as_str(), Unit::Without(2).checkpoint().as_str()), ("fold-3.dent", "fold-3"));
    assert_eq!(Unit::WithoutKind(0, "../a/b".into()).checkpoint(), "fold-1..._sa_sb");
    let [one, other] = ["a/b_c", "a_b/c"].map(|kind| Unit::WithoutKind(0, kind.into()).checkpoint());
    assert_ne!(one, other, "two kinds would share a model");
}

#[test]
fn some_of_many_are_taken_from_everywhere() {
    let all: Vec<usize> = (0..10).collect();
    assert_eq!(evenly(all.clone(), 4), [0, 3, 6, 9]);
    assert_eq!((evenly(all.clone(), 10), evenly(all.clone(), 99)), (all.clone(), all.clone()));
    assert_eq!(evenly(all, 3), [0, 4, 8]);
    assert!(evenly(Vec::<usize>::new(), 3).is_empty());
}

/// A set of which all images are in one fold would be judged by a model that never saw its like.
#[test]
fn of_several_sets_every_fold_holds_images_of_each() {
    let images: Vec<String> =
        (0..7).flat_map(|i| [format!("a/train/good/{i}.png"), format!("b/train/good/p{i}/0.png")]).collect();
    let mut tree = Tree::new(&images.iter().map(String::as_str).collect::<Vec<_>>());
    ["a/test/good/0.png", "b/test/good/0.png"].iter().for_each(|image| tree.image(image));
    let both =
        |tree: &Tree| DataSet::open_all(&["a", "b"].map(|name| DataLocation::new(tree.path().join(name)))).unwrap();
    let dealt = deal(&both(&tree), 3, 5).unwrap();
    for set in ["a", "b"] {
        let folds: Vec<usize> =
            dealt.iter().filter(|i| i.sample.category.as_deref() == Some(set)).map(|i| i.fold).collect();
        let sizes = [0, 1, 2].map(|fold| folds.iter().filter(|f| **f == fold).count());
        assert!(sizes.iter().all(|size| (2..=3).contains(size)), "{set}: {sizes:?}");
    }
    tree = Tree::new(&["a/train/good/0.png", "a/train/good/1.png", "a/test/good/0.png"]);
    ["b/train/good/p/0.png", "b/train/good/p/1.png", "b/test/good/0.png"].iter().for_each(|image| tree.image(image));
    assert_eq!(
        deal(&both(&tree), 3, 5).unwrap_err().to_string(),
        "no normal image of b can be held out: all 2 are of one part or patient; those of two are needed"
    );
    assert_eq!(
        both(&tree).need_training_images(40).unwrap_err().to_string(),
        "a holds 2 normal training images; at least 40 are needed"
    );
}

/// What `run.json` keeps is enough for any layout, and readable.
#[test]
fn a_run_keeps_defect_mask_and_group() {
    let mut anomaly = sample("MEL", 1, Some("HAM_1".into()));
    anomaly.path = "/data/ISIC2018_Task3_Training_Input/ISIC_1.jpg".into();
    anomaly.mask = Some(PathBuf::from("/data/masks/1.png").into());
    let data = set((0..10).map(|i| sample("good", i, None)).collect(), vec![anomaly.clone()]);
    let images = draw(&data, 1).unwrap();
    let json = serde_json::to_value(&images).unwrap();
    assert_eq!(
        json[10],
        serde_json::json!({
            "path": "ISIC2018_Task3_Training_Input/ISIC_1.jpg", "defect": "MEL", "mask": "masks/1.png", "group": "HAM_1",
            "fold": images[10].fold
        })
    );
    assert_eq!(json[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["fold", "path"]);
    let read: Vec<Labelled> = serde_json::from_value(json).unwrap();
    assert_eq!(info(&data, read).placed()[10].sample, anomaly);
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
