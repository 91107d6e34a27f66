//! COCO-AD: what its instances files say, and the masks that are drawn of it.

use super::*;
use ckaad_train::datasets::{Outlines, Segmentation};
use image::GrayImage;
use serde::Deserialize;
use std::process::Command;

#[derive(Deserialize)]
struct Case {
    width: u32,
    height: u32,
    segmentation: Segmentation,
    /// By pycocotools and OpenCV, packed.
    mask: Segmentation,
}

fn drawn(size: (u32, u32), object: Segmentation) -> GrayImage {
    let mut outlines = Outlines::new("instances.json".into(), "1.jpg", size);
    outlines.add(object).unwrap();
    outlines.draw()
}

/// Of `tests/reference/coco_masks.py`.
#[test]
fn masks_are_those_of_pycocotools_and_opencv() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/coco/masks.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 120);
    let mut differ = vec![];
    for (i, case) in cases.into_iter().enumerate() {
        let size = (case.width, case.height);
        let (ours, theirs) = (drawn(size, case.segmentation), drawn(size, case.mask));
        let pixels = ours.iter().zip(theirs.iter()).filter(|(a, b)| a != b).count();
        if pixels > 0 {
            differ.push((i, pixels, theirs.iter().filter(|&&is| is > 0).count()));
        }
    }
    assert_eq!(differ, []);
}

/// Four images a part: 1 without an object, 2 with a person (split 0), 3 with a chair (split 2), 4 with both.
const INSTANCES: &str = r#"{"info": {"year": 2017}, "licenses": [],
    "images": [{"id": 1, "file_name": "1.jpg", "width": 4, "height": 3, "license": 1}, {"id": 2, "file_name": "2.jpg", "width": 4, "height": 3},
        {"id": 3, "file_name": "3.jpg", "width": 4, "height": 3}, {"id": 4, "file_name": "4.jpg", "width": 4, "height": 3}],
    "annotations": [
        {"id": 9, "image_id": 2, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 1.9, 0, 1.9, 1.2, 0, 1.2]], "bbox": [0, 0, 2, 2]},
        {"id": 8, "image_id": 3, "category_id": 62, "iscrowd": 1, "segmentation": {"size": [3, 4], "counts": [3, 2, 7]}},
        {"id": 7, "image_id": 4, "category_id": 62, "iscrowd": 0, "segmentation": [[3, 2, 3, 2, 3, 2]]},
        {"id": 6, "image_id": 4, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [3, 4], "counts": "01;"}}],
    "categories": [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 62, "name": "chair"}]}"#;

fn coco(instances: &str) -> Tree {
    let tree = Tree::new(&[]);
    for part in ["train2017", "val2017"] {
        (1..5).for_each(|id| tree.image(&format!("{part}/{id}.jpg")));
        tree.write(&format!("annotations/instances_{part}.json"), instances);
    }
    tree
}

#[test]
fn coco_ad_is_read_by_split() {
    let tree = coco(INSTANCES);
    let data = tree.read(Layout::CocoAd, Some("split0"));
    assert_eq!(data.name(), "split0");
    // Image 1 has no object, and images with a person are not trained on.
    assert_eq!(told(&data, &data.train_normal), ["train2017/3.jpg"]);
    assert!(data.train_anomalous.is_empty());
    assert_eq!(told(&data, &data.test), ["val2017/2.jpg:person", "val2017/3.jpg", "val2017/4.jpg:person"]);
    let mask = |i: usize| data.test[i].mask.as_ref().map(|mask| mask.load().unwrap().into_raw());
    // Corners are cut off to whole pixels, and their pixels belong to the object.
    assert_eq!(mask(0), Some(vec![255, 255, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0]));
    assert_eq!(mask(1), None);
    // Of image 4 only the person counts; its runs go down the first column, then the second.
    assert_eq!(mask(2), Some(vec![255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    let data = tree.read(Layout::CocoAd, Some("split2"));
    assert_eq!(told(&data, &data.test), ["val2017/2.jpg", "val2017/3.jpg:chair", "val2017/4.jpg:chair"]);
    assert_eq!(data.test[1].mask.as_ref().unwrap().load().unwrap().as_raw()[..8], [0, 255, 0, 0, 0, 255, 0, 0]);
    let data = tree.read(Layout::CocoAd, Some("split1"));
    assert_eq!((data.train_normal.len(), data.test.len()), (3, 3));
}

#[test]
fn coco_ad_without_a_split_names_them_and_one_part_may_be_missing() {
    let tree = coco(INSTANCES);
    assert!(tree.refused(None, None).ends_with("choose one with --category, of split0, split1, split2, split3"));
    std::fs::remove_file(tree.at("annotations/instances_train2017.json")).unwrap();
    let data = tree.open(None, Some("split0")).unwrap();
    assert_eq!((data.train_normal.len(), data.test.len()), (0, 3));
}

#[test]
fn what_is_wrong_in_an_instances_file_is_told() {
    let refused = |from: &str, to: &str| {
        assert!(INSTANCES.contains(from), "{from}");
        coco(&INSTANCES.replacen(from, to, 1)).refused(None, Some("split0"))
    };
    for (from, to, why) in [
        (
            "\"annotations\"",
            "\"objects\"",
            "COCO's images, annotations and categories expected; found no images or no annotations",
        ),
        ("\"category_id\": 62", "\"category_id\": 66", "category 66 is in none of the four splits of COCO's"),
        ("\"image_id\": 3", "\"image_id\": 5", "an object is of image 5, which is not listed"),
        ("\"id\": 3", "\"id\": 2", "the image 2 is listed twice"),
        ("\"3.jpg\"", "\"../3.jpg\"", "without .. and not absolute"),
        ("\"3.jpg\"", "\"33.jpg\"", "no such file is there"),
        ("1.2, 0, 1.2]", "1.2, 0]", "2.jpg: a polygon has 7 numbers; x and y of each corner expected"),
        ("1.2, 0, 1.2]", "1.2, 0, 1e9]", "2.jpg: a corner lies at 1000000000; up to 100000 expected"),
        ("\"01;\"", "\"01\"", "4.jpg: its runs have 1 pixels, the image 12"),
        ("\"01;\"", "\"~\"", "4.jpg: its runs are no packed text of pycocotools"),
        ("\"01;\"", "\"0oooooooo1\"", "4.jpg: its runs are no packed text of pycocotools"),
        (
            "\"size\": [3, 4], \"counts\": \"",
            "\"size\": [4, 3], \"counts\": \"",
            "its runs are of an image of 3x4 pixels, the image has 4x3",
        ),
        (
            "\"2.jpg\", \"width\": 4",
            "\"2.jpg\", \"width\": 4000000000",
            "2.jpg: 4000000000x3 pixels; 1 to 64000000 expected",
        ),
        ("[[0, 0,", "[[\"0\", 0,", "invalid type: string \"0\", expected f64"),
        ("\"categories\"", "\"categories\" ]", "expected `:`"),
    ] {
        let told = refused(from, to);
        assert!(told.contains(why) && told.contains("instances_"), "{told}");
        assert!(told.lines().count() == 1, "{told}");
    }
}

#[test]
fn an_image_of_another_size_than_its_outlines_is_named() {
    let tree = coco(INSTANCES);
    let data = tree.open(None, Some("split0")).unwrap();
    let told = data.test[0].mask.as_ref().unwrap().of(&image::RgbImage::new(3, 4)).unwrap_err().to_string();
    assert!(told.starts_with("the mask of 2.jpg in ") && told.ends_with("is 4x3 pixels, its image 3x4"), "{told}");
}

#[test]
fn what_is_too_long_is_not_read_to_its_end() {
    let corners = vec!["1"; 20_002].join(",");
    let told = coco(&INSTANCES.replacen("0, 0, 1.9, 0, 1.9, 1.2, 0, 1.2", &corners, 1)).refused(None, Some("split0"));
    assert!(told.contains("invalid length 20001, expected a list of up to 20000"), "{told}");
}

/// The real thing, where somebody has it: `CKAAD_COCO` is the folder with annotations, train2017 and val2017, or some images of each.
#[test]
fn masks_of_coco_itself_are_those_of_pycocotools_and_opencv() {
    let (Some(root), Some(python)) = (std::env::var_os("CKAAD_COCO"), std::env::var_os("CKAAD_PYTHON")) else {
        ckaad_testing::skipped(
            "set CKAAD_COCO to a folder of COCO 2017 and CKAAD_PYTHON to a Python with opencv and pycocotools",
        );
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/coco_masks.py");
    let (mut images, mut pixels) = (0, 0);
    for split in 0..4 {
        let category = Some(format!("split{split}"));
        let data = DataSet::open(&DataLocation { root: root.clone().into(), layout: None, category }).unwrap();
        let theirs = tempfile::tempdir().unwrap();
        let mut command = Command::new(&python);
        command.arg(&script).arg("masks").arg(&root).args(["val2017", &split.to_string()]).arg(theirs.path());
        assert!(command.status().unwrap().success());
        let anomalous: Vec<_> = data.test.iter().filter(|sample| sample.defect.is_some()).collect();
        assert_eq!(anomalous.len(), std::fs::read_dir(theirs.path()).unwrap().count());
        let [train, test] = [data.train_normal.len(), data.test.len()];
        eprintln!("split {split}: {train} train, {test} test, {} of them anomalous", anomalous.len());
        for sample in anomalous {
            let name = sample.path.with_extension("png");
            let theirs = image::open(theirs.path().join(name.file_name().unwrap())).unwrap().into_luma8();
            let ours = sample.mask.as_ref().unwrap().load().unwrap();
            let differ = ours.iter().zip(theirs.iter()).filter(|(a, b)| a != b).count();
            assert_eq!(ours.dimensions(), theirs.dimensions());
            images += 1;
            pixels += differ;
            if differ > 0 {
                eprintln!("{}: {differ} pixels differ", sample.path.display());
            }
        }
    }
    assert!(images > 0 && pixels == 0, "{pixels} pixels differ in {images} masks");
}
