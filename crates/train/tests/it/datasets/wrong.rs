//! One sentence for a folder that is not what it should be: what was expected, and what is there.

use super::*;
use crate::program::{refused, train};

/// What the trainer says of a folder that is no such set, with SET for the folder.
fn sentence(tree: &Tree, layout: Option<Layout>, category: Option<&str>) -> String {
    tree.refused(layout, category).replace(tree.path().to_str().unwrap(), "SET")
}

#[test]
fn a_folder_of_no_known_layout_is_answered_with_the_layouts_and_what_is_there() {
    let names = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "g.png"];
    let unknown = "SET has none of the known layouts (mvtec, loco, visa, isic2018, oct2017, chestxray2017, br35h, btad, \
                   real-iad, coco-ad, folder): see docs/data.md, or name one with --layout; found ";
    let told = sentence(&Tree::new(&names), None, None);
    assert_eq!(told, format!("{unknown}a.png, b.png, c.png, d.png, e.png and 2 more"));
    assert_eq!(sentence(&Tree::new(&[]), None, None), format!("{unknown}nothing"));
    let nowhere = DataSet::open(&DataLocation::new("/nowhere/at/all")).unwrap_err().to_string();
    assert_eq!(nowhere, "cannot read /nowhere/at/all: No such file or directory (os error 2)");
}

#[test]
fn every_layout_says_what_it_expected_and_what_it_found() {
    let expectations = [
        (Layout::Mvtec, "train/good or test/good, in it or in a folder of each category"),
        (
            Layout::Loco,
            "train/good and test/logical_anomalies or test/structural_anomalies, in it or in a folder of each category",
        ),
        (Layout::Visa, "split_csv/1cls.csv and a folder of each category"),
        (Layout::Isic2018, "ISIC2018_Task3_Training_Input and ISIC2018_Task3_Training_GroundTruth with its CSV file"),
        (Layout::Oct2017, "train/NORMAL or test/NORMAL beside CNV, DME or DRUSEN, in it or in one folder of it"),
        (Layout::ChestXray2017, "NORMAL and PNEUMONIA in train or in test, in it or in one folder of it"),
        (Layout::Br35h, "the folders yes and no"),
        (Layout::Btad, "train/ok and test/ok or test/ko, in it or in the folders 01, 02, 03"),
        (
            Layout::RealIad,
            "CATEGORY.json in it, in realiad_jsons or in ../realiad_jsons, beside the folder CATEGORY, realiad_1024, \
             realiad_512 or realiad_256",
        ),
        (Layout::Folder, "a folder good, ok or normal"),
    ];
    let tree = Tree::new(&["pictures/a.png"]);
    for (layout, expected) in expectations {
        assert_eq!(
            sentence(&tree, Some(layout), None),
            format!("SET is no data set in the layout {}: expected {expected}; found pictures", layout.name())
        );
    }
}

#[test]
fn of_several_categories_one_must_be_chosen_and_the_sentence_lists_them() {
    let tree = Tree::new(&["bottle/train/good/0.png", "cable/train/good/0.png"]);
    let several = "SET holds several categories: choose one with --category, of ";
    assert_eq!(sentence(&tree, None, None), format!("{several}bottle, cable"));
    assert_eq!(sentence(&tree, None, Some("carpet")), "SET has no category \"carpet\"; found bottle, cable");
    assert_eq!(sentence(&visa(VISA), None, None), format!("{several}candle, pcb1"));
    let one = Tree::new(&["good/0.png"]);
    assert_eq!(sentence(&one, None, Some("x")), "SET is one set without categories: leave --category away");
}

#[test]
fn a_damaged_table_is_named_with_its_row() {
    let of_visa = |table: &str, category| {
        let told = sentence(&visa(table), None, category);
        told.strip_prefix("SET/split_csv/1cls.csv").unwrap_or_else(|| panic!("no table is named: {told}")).to_owned()
    };
    assert_eq!(
        of_visa("object,split,image,mask\n", None),
        ": the columns object, split, label, image, mask expected, object, split, image, mask found"
    );
    assert_eq!(
        of_visa(&VISA.replace("train,normal", "train,fine"), Some("candle")),
        ": row 1: label is \"fine\"; normal or anomaly expected"
    );
    assert_eq!(
        of_visa(&VISA.replace("candle,train", "candle,spare"), Some("candle")),
        ": row 1: split is \"spare\"; train or test expected"
    );
    // The rest of the sentence is the CSV reader's.
    assert!(of_visa("object,split,label,image,mask\na,b\n", None).contains("2 fields"));
    assert_eq!(of_visa(VISA, Some("pcb1")), " names SET/pcb1/Data/Images/Normal/0001.JPG, and no such file is there");
    let truth = "SET/ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv";
    assert_eq!(
        sentence(&isic("ISIC_0024306,1.0,1.0,0.0,0.0,0.0,0.0,0.0\n"), None, None),
        format!("{truth}: row 1: one diagnosis of 1 among zeros expected, 1.0,1.0,0.0,0.0,0.0,0.0,0.0 found")
    );
    assert_eq!(
        sentence(&isic("ISIC_9,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"), None, None),
        format!("{truth} names SET/ISIC2018_Task3_Training_Input/ISIC_9, and no such file is there")
    );
    let listing = "SET/realiad_jsons/toy.json";
    assert_eq!(
        sentence(&real_iad(r#"{"train": []}"#), None, None),
        format!(
            "{listing}: meta, train and test with anomaly_class and image_path expected; \
             found missing field `test` at line 1 column 13"
        )
    );
    let told = sentence(&real_iad(&REAL_IAD.replace("OK/S0001", "OK/S0009")), None, None);
    assert!(
        told.starts_with(&format!("{listing} names SET/realiad_"))
            && told.ends_with("/toy/OK/S0009/toy_0001_OK_C1_1.jpg, and no such file is there"),
        "{told}"
    );
}

#[test]
fn a_table_cannot_name_files_outside_the_data_set() {
    for evil in ["../../secret.jpg", "/etc/passwd", "candle/../../x.jpg"] {
        let told = visa(&VISA.replace("candle/Data/Images/Normal/0836.JPG", evil)).refused(None, Some("candle"));
        assert!(told.contains(&format!("names {evil:?}")) && told.contains("without .."), "{told}");
        let told = visa(&VISA.replace("candle/Data/Masks/Anomaly/000.png", evil)).refused(None, Some("candle"));
        assert!(told.contains("without .."), "{told}");
        let told = isic(&format!("{evil},0.0,1.0,0.0,0.0,0.0,0.0,0.0\n")).refused(None, None);
        assert!(told.contains("without .."), "{told}");
        let told = real_iad(&REAL_IAD.replace("OK/S0001/toy_0001_OK_C1_1.jpg", evil)).refused(None, None);
        assert!(told.contains("without .."), "{told}");
        let told = real_iad(&REAL_IAD.replace("toy/\"", &format!("{evil}\""))).refused(None, None);
        assert!(told.contains("without .."), "{told}");
    }
}

#[test]
fn a_table_longer_than_64_mib_is_not_read() {
    let tree = visa(VISA);
    let file = std::fs::File::options().append(true).open(tree.at("split_csv/1cls.csv")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let told = tree.refused(None, Some("candle"));
    assert!(told.contains("1cls.csv is longer than the 67108864 bytes"), "{told}");
}

#[test]
fn masks_of_different_sizes_for_one_image_are_refused() {
    let tree = Tree::new(&["masks/000.png"]);
    assert!(Mask::File(tree.path().join("masks")).load().is_ok());
    image::GrayImage::new(2, 1).save(tree.at("masks/001.png")).unwrap();
    let told = Mask::File(tree.path().join("masks")).load().unwrap_err().to_string();
    assert!(told.contains("001.png is 2x1 pixels, another of the same image 1x1"), "{told}");
    std::fs::create_dir(tree.at("none")).unwrap();
    assert!(Mask::File(tree.at("none")).load().unwrap_err().to_string().contains("holds no mask"));
}

#[test]
fn the_command_line_takes_layout_and_category() {
    let tree = Tree::new(&["bottle/train/good/0.png", "cable/train/good/0.png"]);
    let config = tree.at("c.toml");
    std::fs::write(&config, "").unwrap();
    let at = |name: &str| tree.path().join(name).to_str().unwrap().to_owned();
    let (root, config, run) = (at(""), config.to_str().unwrap(), at("run"));
    let root = root.trim_end_matches('/');
    let all = ["fit", "--device", "cpu", "--config", config, "--out", &run, "--data", root];
    let fit = |more: &[&str]| refused(&[&all, more].concat());
    assert_eq!(fit(&[]), format!("{root} holds several categories: choose one with --category, of bottle, cable"));
    assert_eq!(
        fit(&["--category", "cable"]),
        format!("{root}/cable holds 1 normal training images; at least 40 are needed")
    );
    assert_eq!(
        fit(&["--layout", "visa"]),
        format!(
            "{root} is no data set in the layout visa: expected split_csv/1cls.csv and a folder of each category; \
             found bottle, c.toml, cable"
        )
    );
    // Usage is answered with the values that there are.
    let usage = train(&[&all, ["--layout", "mvtek"].as_slice()].concat());
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("[possible values: mvtec, loco, visa, "));
}
