//! One sentence for a folder that is not what it should be: what was expected, and what is there.

use super::*;
use crate::program::{refused, train};

#[test]
fn a_folder_of_no_known_layout_is_answered_with_the_layouts_and_what_is_there() {
    let names = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "g.png"];
    let told = Tree::new(&names).refused(None, None);
    assert!(
        told.contains("mvtec, loco, visa, isic2018, oct2017, chestxray2017, br35h, btad, real-iad, folder"),
        "{told}"
    );
    assert!(told.ends_with("found a.png, b.png, c.png, d.png, e.png and 2 more"), "{told}");
    assert!(Tree::new(&[]).refused(None, None).ends_with("found nothing"));
    let nowhere = DataSet::open(&DataLocation::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(nowhere.starts_with("cannot read /nowhere/at/all"), "{nowhere}");
}

#[test]
fn every_layout_says_what_it_expected_and_what_it_found() {
    let expectations = [
        (Layout::Mvtec, "expected train/good or test/good"),
        (Layout::Loco, "test/logical_anomalies or test/structural_anomalies"),
        (Layout::Visa, "expected split_csv/1cls.csv"),
        (Layout::Isic2018, "expected ISIC2018_Task3_Training_Input"),
        (Layout::Oct2017, "CNV, DME or DRUSEN"),
        (Layout::ChestXray2017, "expected NORMAL and PNEUMONIA"),
        (Layout::Br35h, "expected the folders yes and no"),
        (Layout::Btad, "expected train/ok"),
        (Layout::RealIad, "expected CATEGORY.json"),
        (Layout::Folder, "expected a folder good, ok or normal"),
    ];
    let tree = Tree::new(&["pictures/a.png"]);
    for (layout, expected) in expectations {
        let told = tree.refused(Some(layout), None);
        assert!(told.contains(&format!("in the layout {}", layout.name())), "{told}");
        assert!(told.contains(expected) && told.ends_with("found pictures"), "{told}");
        assert!(told.contains(tree.path().to_str().unwrap()) && told.len() < 500, "{told}");
    }
}

#[test]
fn of_several_categories_one_must_be_chosen_and_the_sentence_lists_them() {
    let tree = Tree::new(&["bottle/train/good/0.png", "cable/train/good/0.png"]);
    let told = tree.refused(None, None);
    assert!(told.contains("--category") && told.ends_with("bottle, cable"), "{told}");
    let told = tree.refused(None, Some("carpet"));
    assert!(told.contains("no category \"carpet\"") && told.ends_with("bottle, cable"), "{told}");
    assert!(visa(VISA).refused(None, None).ends_with("candle, pcb1"));
    assert!(Tree::new(&["good/0.png"]).refused(None, Some("x")).contains("leave --category away"));
}

#[test]
fn a_damaged_table_is_named_with_its_row() {
    let told = visa("object,split,image,mask\n").refused(None, None);
    assert!(
        told.contains(
            "1cls.csv: the columns object, split, label, image, mask expected, object, split, image, mask found"
        ),
        "{told}"
    );
    let told = visa(&VISA.replace("train,normal", "train,fine")).refused(None, Some("candle"));
    assert!(told.contains("1cls.csv: row 1: label is \"fine\"; normal or anomaly expected"), "{told}");
    let told = visa(&VISA.replace("candle,train", "candle,spare")).refused(None, Some("candle"));
    assert!(told.contains("row 1: split is \"spare\"; train or test expected"), "{told}");
    let told = visa("object,split,label,image,mask\na,b\n").refused(None, None);
    assert!(told.contains("1cls.csv") && told.contains("2 fields"), "{told}");
    let told = visa(VISA).refused(None, Some("pcb1"));
    assert!(told.contains("pcb1/Data/Images/Normal/0001.JPG, and no such file is there"), "{told}");
    let told = isic("ISIC_0024306,1.0,1.0,0.0,0.0,0.0,0.0,0.0\n").refused(None, None);
    assert!(told.contains("row 1: one diagnosis of 1 among zeros expected, 1.0,1.0,0.0"), "{told}");
    let told = isic("ISIC_9,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n").refused(None, None);
    assert!(told.contains("ISIC_9, and no such file is there"), "{told}");
    let told = real_iad(r#"{"train": []}"#).refused(None, None);
    assert!(told.contains("toy.json: meta, train and test") && told.contains("missing field `test`"), "{told}");
    let told = real_iad(&REAL_IAD.replace("OK/S0001", "OK/S0009")).refused(None, None);
    assert!(told.contains("OK/S0009/toy_0001_OK_C1_1.jpg, and no such file is there"), "{told}");
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
    assert!(load_mask(&tree.path().join("masks")).is_ok());
    image::GrayImage::new(2, 1).save(tree.at("masks/001.png")).unwrap();
    let told = load_mask(&tree.path().join("masks")).unwrap_err().to_string();
    assert!(told.contains("001.png is 2x1 pixels, another of the same image 1x1"), "{told}");
    std::fs::create_dir(tree.at("none")).unwrap();
    assert!(load_mask(&tree.at("none")).unwrap_err().to_string().contains("holds no mask"));
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
