//! The trainer reads each data set as it comes out of its archive, and says in one sentence what it misses in a folder
//! that is none.

mod coarse;
mod coco;
mod decoding;
mod splits;
mod wrong;

use ckaad_train::datasets::{DataError, DataLocation, DataSet, Layout, Mask, Sample};
use std::path::{Path, PathBuf};

/// A data set of tiny pictures.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new(images: &[&str]) -> Tree {
        let tree = Tree { folder: tempfile::tempdir().unwrap() };
        images.iter().for_each(|i| tree.image(i));
        tree
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn image(&self, name: &str) {
        image::RgbImage::new(1, 1).save(self.at(name)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn open(&self, layout: Option<Layout>, category: Option<&str>) -> Result<DataSet, DataError> {
        DataSet::open(&DataLocation { root: self.path().into(), layout, category: category.map(Into::into) })
    }

    /// Detected, and named by hand to the same effect.
    fn read(&self, layout: Layout, category: Option<&str>) -> DataSet {
        let data = self.open(None, category).unwrap();
        assert_eq!(data.layout, layout);
        assert_eq!(self.open(Some(layout), category).unwrap().test, data.test);
        data
    }

    fn refused(&self, layout: Option<Layout>, category: Option<&str>) -> String {
        self.open(layout, category).expect_err("a folder that is no such set is refused").to_string()
    }
}

/// `path` of a normal image, `path:defect` of an anomalous one.
fn told(data: &DataSet, samples: &[Sample]) -> Vec<String> {
    let told = |s: &Sample| match &s.defect {
        None => data.relative(&s.path),
        Some(defect) => format!("{}:{defect}", data.relative(&s.path)),
    };
    samples.iter().map(told).collect()
}

fn groups(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|s| s.group.as_deref().unwrap_or("-")).collect()
}

#[test]
fn mvtec_ad_is_read_with_masks_and_our_coarse_labels() {
    let tree = Tree::new(&[
        "bottle/train/good/000.png",
        "bottle/train/good/part7/001.png",
        "bottle/train/broken/000.png",
        "bottle/train/broken/001.png",
        "bottle/train/broken/002.jpg",
        "bottle/train/broken/a/001.png",
        "bottle/train/broken/b/001.png",
        "bottle/ground_truth_train/broken/001_mask.png",
        "bottle/ground_truth_train/broken/b/001.png",
        "bottle/ground_truth/broken/002_mask.png",
        "bottle/test/broken/002.png",
        "bottle/test/good/000.png",
        "bottle/test/broken/000.png",
        "bottle/test/broken/001.png",
        "bottle/ground_truth/broken/000_mask.png",
        "cable/test/good/000.png",
    ]);
    tree.write("bottle/train/good/.DS_Store", "");
    let data = tree.read(Layout::Mvtec, Some("bottle"));
    assert_eq!(told(&data, &data.train_normal), ["train/good/000.png", "train/good/part7/001.png"]);
    assert_eq!(groups(&data.train_normal), ["-", "part7"]);
    let coarse = ["000.png", "001.png", "002.jpg", "a/001.png", "b/001.png"];
    assert_eq!(told(&data, &data.train_anomalous), coarse.map(|name| format!("train/broken/{name}:broken")));
    assert_eq!(
        told(&data, &data.test),
        ["test/broken/000.png:broken", "test/broken/001.png:broken", "test/broken/002.png:broken", "test/good/000.png"]
    );
    let masks: Vec<bool> = data.test.iter().map(|s| s.mask.is_some()).collect();
    assert_eq!(masks, [true, false, true, false]);
    let of_training: Vec<Option<String>> =
        data.train_anomalous.iter().map(|s| s.mask.as_ref().map(|mask| data.relative(mask.file()))).collect();
    // Those of 000 and 002 are the test images' of the same names, and folders tell images of one name apart.
    let own = [None, Some("001_mask.png"), None, None, Some("b/001.png")];
    assert_eq!(of_training, own.map(|name| name.map(|name| format!("ground_truth_train/broken/{name}"))));
    assert_eq!(data.name(), "bottle");
    // The category's own folder needs no choice.
    let alone = DataSet::open(&DataLocation::new(tree.path().join("bottle"))).unwrap();
    assert_eq!(alone.test, data.test);
}

#[test]
fn several_sets_are_one_and_the_same_names_in_two_are_two_things() {
    let tree = Tree::new(&[
        "a/train/good/p1/000.png",
        "a/test/good/000.png",
        "a/test/hole/000.png",
        "b/c/train/good/p1/000.png",
        "b/c/test/good/000.png",
        "b/c/test/hole/000.png",
    ]);
    let sources = ["a", "b/c"].map(|name| DataLocation::new(tree.path().join(name)));
    let all = DataSet::open_all(&sources).unwrap();
    assert_eq!(all.name(), "a+c");
    assert_eq!(told(&all, &all.train_normal), ["a/train/good/p1/000.png", "b/c/train/good/p1/000.png"]);
    assert_eq!(groups(&all.train_normal), ["a/p1", "c/p1"]);
    let defects: Vec<_> = all.test.iter().filter_map(|s| s.defect.as_deref()).collect();
    assert_eq!(defects, ["a/hole", "c/hole"]);
    let categories: Vec<_> = all.test.iter().filter_map(|s| s.category.as_deref()).collect();
    assert_eq!(categories, ["a", "a", "c", "c"]);
    // One is what it is alone.
    let one = DataSet::open_all(&sources[..1]).unwrap();
    assert_eq!(one.test, DataSet::open(&sources[0]).unwrap().test);
    assert!(one.test.iter().all(|s| s.category.is_none()));
    let twice = DataSet::open_all(&[sources[0].clone(), sources[0].clone()]).unwrap_err().to_string();
    let sentence = "two of the data sets are called \"a\", and by its name each is told from the others: give one another name, by a link for instance";
    assert_eq!(twice, sentence);
    let nested = Tree::new(&["d/good/000.png", "d/second/good/000.png", "d/second/hole/000.png"]);
    let sources = ["d", "d/second"].map(|name| DataLocation::new(nested.path().join(name)));
    let told = DataSet::open_all(&sources).unwrap_err().to_string();
    assert!(
        told.contains("d/second/")
            && told.ends_with("is in two of the data sets, d and second: each image must be of one"),
        "{told}"
    );
}

#[test]
fn mvtec_loco_ad_is_read_with_its_validation_split_and_the_union_of_its_masks() {
    let tree = Tree::new(&[
        "pushpins/train/good/000.png",
        "pushpins/validation/good/000.png",
        "pushpins/test/good/000.png",
        "pushpins/test/logical_anomalies/000.png",
        "pushpins/test/structural_anomalies/000.png",
    ]);
    for (name, x, value) in [("000", 0, 1), ("001", 2, 254)] {
        let mask = image::GrayImage::from_fn(3, 1, |at, _| image::Luma([if at == x { value } else { 0 }]));
        mask.save(tree.at(&format!("pushpins/ground_truth/logical_anomalies/000/{name}.png"))).unwrap();
    }
    let data = tree.read(Layout::Loco, None);
    assert_eq!(told(&data, &data.train_normal), ["train/good/000.png"]);
    assert_eq!(told(&data, &data.validation_normal), ["validation/good/000.png"]);
    assert_eq!(
        told(&data, &data.test),
        [
            "test/good/000.png",
            "test/logical_anomalies/000.png:logical_anomalies",
            "test/structural_anomalies/000.png:structural_anomalies"
        ]
    );
    let mask = data.test[1].mask.as_ref().unwrap().load().unwrap();
    assert_eq!(mask.as_raw(), &[255, 0, 255]);
}

const VISA: &str = "object,split,label,image,mask\n\
    candle,train,normal,candle/Data/Images/Normal/0836.JPG,\n\
    candle,test,normal,candle/Data/Images/Normal/0012.JPG,\n\
    candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n\
    pcb1,train,normal,pcb1/Data/Images/Normal/0001.JPG,\n";

fn visa(table: &str) -> Tree {
    let tree = Tree::new(&[
        "candle/Data/Images/Normal/0836.JPG",
        "candle/Data/Images/Normal/0012.JPG",
        "candle/Data/Images/Anomaly/000.JPG",
        "candle/Data/Masks/Anomaly/000.png",
    ]);
    tree.write("split_csv/1cls.csv", table);
    tree
}

#[test]
fn visa_is_read_by_its_table() {
    let data = visa(VISA).read(Layout::Visa, Some("candle"));
    assert_eq!(told(&data, &data.train_normal), ["candle/Data/Images/Normal/0836.JPG"]);
    assert_eq!(
        told(&data, &data.test),
        ["candle/Data/Images/Anomaly/000.JPG:anomaly", "candle/Data/Images/Normal/0012.JPG"]
    );
    assert!(data.test[0].mask.as_ref().unwrap().file().ends_with("candle/Data/Masks/Anomaly/000.png"));
    assert_eq!(data.name(), "candle");
}

const ISIC_HEADER: &str = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n";

fn isic(rows: &str) -> Tree {
    let tree = Tree::new(&[
        "ISIC2018_Task3_Training_Input/ISIC_0024306.jpg",
        "ISIC2018_Task3_Training_Input/ISIC_0024307.jpg",
        "ISIC2018_Task3_Validation_Input/ISIC_0034321.jpg",
    ]);
    let table = |part| format!("ISIC2018_Task3_{part}_GroundTruth/ISIC2018_Task3_{part}_GroundTruth.csv");
    tree.write(&table("Training"), &format!("{ISIC_HEADER}{rows}"));
    tree.write(&table("Validation"), &format!("{ISIC_HEADER}ISIC_0034321,0.0,0.0,0.0,0.0,0.0,0.0,1.0\n"));
    tree
}

#[test]
fn isic_2018_has_nevi_as_its_normal_class() {
    let tree = isic("ISIC_0024306,0.0,1.0,0.0,0.0,0.0,0.0,0.0\nISIC_0024307,1.0,0.0,0.0,0.0,0.0,0.0,0.0\n");
    let data = tree.read(Layout::Isic2018, None);
    assert_eq!(told(&data, &data.train_normal), ["ISIC2018_Task3_Training_Input/ISIC_0024306.jpg"]);
    assert_eq!(told(&data, &data.train_anomalous), ["ISIC2018_Task3_Training_Input/ISIC_0024307.jpg:MEL"]);
    assert_eq!(told(&data, &data.test), ["ISIC2018_Task3_Validation_Input/ISIC_0034321.jpg:VASC"]);
    assert_eq!(groups(&data.train_normal), ["-"]);
    // With the organisers' grouping, images of one lesion stay together.
    tree.write(
        "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type\nISIC_0024306,HAM_0000550,follow_up\n",
    );
    assert_eq!(groups(&tree.read(Layout::Isic2018, None).train_normal), ["HAM_0000550"]);
}

#[test]
fn oct2017_is_grouped_by_patient() {
    let tree = Tree::new(&[
        "train/NORMAL/NORMAL-1016042-1.jpeg",
        "train/CNV/CNV-1016042-2.jpeg",
        "train/DRUSEN/DRUSEN-53018-1.jpeg",
        "val/NORMAL/NORMAL-5156112-1.jpeg",
        "test/NORMAL/NORMAL-101880-1.jpeg",
        "test/DME/DME-15307-2.jpeg",
    ]);
    let data = tree.read(Layout::Oct2017, None);
    assert_eq!(
        told(&data, &data.train_normal),
        ["train/NORMAL/NORMAL-1016042-1.jpeg", "val/NORMAL/NORMAL-5156112-1.jpeg"]
    );
    assert_eq!(groups(&data.train_normal), ["1016042", "5156112"]);
    assert_eq!(groups(&data.train_anomalous), ["1016042", "53018"]);
    assert_eq!(told(&data, &data.test), ["test/DME/DME-15307-2.jpeg:DME", "test/NORMAL/NORMAL-101880-1.jpeg"]);
}

#[test]
fn chestxray2017_is_found_below_chest_xray_and_grouped_by_patient() {
    let tree = Tree::new(&[
        "chest_xray/train/NORMAL/IM-0115-0001.jpeg",
        "chest_xray/train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg",
        "chest_xray/train/PNEUMONIA/person123_bacteria_45.jpeg",
        "chest_xray/test/NORMAL/IM-0001-0001.jpeg",
        "chest_xray/test/PNEUMONIA/person1_virus_6.jpeg",
        "__MACOSX/chest_xray/train/NORMAL/IM-0115-0001.jpeg",
    ]);
    let data = tree.read(Layout::ChestXray2017, None);
    assert_eq!(groups(&data.train_normal), ["IM-0115", "IM-0115"]);
    assert_eq!(groups(&data.train_anomalous), ["person123"]);
    assert_eq!(
        told(&data, &data.test),
        ["test/NORMAL/IM-0001-0001.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg:PNEUMONIA"]
    );
}

#[test]
fn br35h_is_split_the_same_way_every_time() {
    let names: Vec<String> =
        (0..30).map(|i| format!("no/no {i}.jpg")).chain((0..20).map(|i| format!("yes/y{i}.jpg"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (tree, elsewhere) = (Tree::new(&names), Tree::new(&names));
    let data = tree.read(Layout::Br35h, None);
    let [normal, anomalous] = [&data.train_normal, &data.train_anomalous].map(Vec::len);
    assert_eq!((normal, anomalous, data.test.len()), (20, 4, 26));
    assert!(data.train_anomalous.iter().all(|s| s.defect.as_deref() == Some("tumour")));
    let other = elsewhere.read(Layout::Br35h, None);
    assert_eq!(told(&data, &data.test), told(&other, &other.test));
}

#[test]
fn btad_is_read_with_masks_of_either_format() {
    let tree = Tree::new(&[
        "01/train/ok/0000.bmp",
        "01/test/ok/0001.bmp",
        "01/test/ko/0000.bmp",
        "01/ground_truth/ko/0000.png",
        "03/train/ok/0000.bmp",
        "03/test/ko/0000.bmp",
        "03/ground_truth/ko/0000.bmp",
    ]);
    for (category, mask) in [("01", "01/ground_truth/ko/0000.png"), ("03", "03/ground_truth/ko/0000.bmp")] {
        let data = tree.read(Layout::Btad, Some(category));
        assert_eq!(told(&data, &data.train_normal), ["train/ok/0000.bmp"]);
        assert_eq!(told(&data, &data.test[..1]), ["test/ko/0000.bmp:ko"]);
        assert_eq!(data.test[0].mask, Some(Mask::File(tree.path().join(mask))));
    }
}

const REAL_IAD: &str = r#"{"meta": {"pre_transform": null, "prefix": "toy/", "normal_class": "OK"},
    "train": [{"category": "toy", "anomaly_class": "OK", "image_path": "OK/S0001/toy_0001_OK_C1_1.jpg", "mask_path": null}],
    "test": [
        {"category": "toy", "anomaly_class": "AK", "image_path": "NG/AK/S0001/toy_0001_NG_AK_C1_1.jpg",
         "mask_path": "NG/AK/S0001/toy_0001_NG_AK_C1_1.png"},
        {"category": "toy", "anomaly_class": "OK", "image_path": "NG/AK/S0001/toy_0001_NG_AK_C2_1.jpg", "mask_path": null}]}"#;

fn real_iad(json: &str) -> Tree {
    let tree = Tree::new(&[]);
    for resolution in ["realiad_256", "realiad_1024"] {
        tree.image(&format!("{resolution}/toy/OK/S0001/toy_0001_OK_C1_1.jpg"));
        for side in ["C1_1.jpg", "C1_1.png", "C2_1.jpg"] {
            tree.image(&format!("{resolution}/toy/NG/AK/S0001/toy_0001_NG_AK_{side}"));
        }
    }
    tree.write("realiad_jsons/toy.json", json);
    tree
}

#[test]
fn real_iad_is_read_by_its_listing_and_knows_which_views_are_of_one_part() {
    let tree = real_iad(REAL_IAD);
    let data = tree.read(Layout::RealIad, Some("toy"));
    assert_eq!(told(&data, &data.train_normal), ["toy/OK/S0001/toy_0001_OK_C1_1.jpg"]);
    // The side that does not show the defect is normal; the part is not.
    assert_eq!(
        told(&data, &data.test),
        ["toy/NG/AK/S0001/toy_0001_NG_AK_C1_1.jpg:AK", "toy/NG/AK/S0001/toy_0001_NG_AK_C2_1.jpg"]
    );
    let parts: Vec<_> = data.test.iter().chain(&data.train_normal).map(|s| s.part.as_deref().unwrap()).collect();
    assert_eq!(parts, ["NG/AK/S0001", "NG/AK/S0001", "OK/S0001"]);
    assert!(data.test[0].mask.as_ref().unwrap().file().ends_with("NG/AK/S0001/toy_0001_NG_AK_C1_1.png"));
    // The largest resolution there is, or the one pointed at.
    assert!(data.root.ends_with("realiad_1024"), "{:?}", data.root);
    let small = DataSet::open(&DataLocation::new(tree.path().join("realiad_256"))).unwrap();
    assert!(small.test[0].path.starts_with(tree.path().join("realiad_256")));
    assert_eq!(told(&small, &small.test), told(&data, &data.test));
}

#[test]
fn plain_folders_are_split_by_part() {
    let names: Vec<String> = (0..12).flat_map(|p| (0..3).map(move |i| format!("Good/part{p}/{i}.png"))).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.extend(["scratch/a.png", "scratch/b.png", "masks/a.png"]);
    let data = Tree::new(&names).read(Layout::Folder, None);
    assert_eq!((data.train_normal.len(), data.train_anomalous.len(), data.test.len()), (24, 1, 13));
    let training: Vec<&str> = groups(&data.train_normal);
    assert!(data.test.iter().filter_map(|s| s.group.as_deref()).all(|g| !training.contains(&g)));
}
