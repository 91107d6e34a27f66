//! What the data doctor finds in sets that each have one thing wrong, and that it finds nothing in a clean one.

use crate::program::{refused, train, train_well};
use ckaad_train::datasets::{DataLocation, DataSet};
use ckaad_train::doctor::{Findings, Problem, Warning, examine};
use ckaad_train::progress::ProgressDisplay;
use image::{GrayImage, Luma, Rgb, RgbImage};
use std::fs::File;
use std::path::{Path, PathBuf};

const NORMALS: usize = 45;
const LABELS: usize = 12;
const TESTS: usize = 12;

/// A set in MVTec AD's layout with 45 normal and 12 defective training images, and 12 of each for the test with masks.
struct Set {
    folder: tempfile::TempDir,
}

impl Set {
    fn clean() -> Set {
        let set = Set { folder: tempfile::tempdir().unwrap() };
        let classes = [("train/good", NORMALS), ("train/dent", LABELS), ("test/good", TESTS), ("test/dent", TESTS)];
        let mut seed = 0;
        for (class, images) in classes {
            for i in 0..images {
                seed += 1;
                set.picture(&format!("{class}/{i:03}.png"), &picture(seed, 64, 64));
            }
        }
        (0..TESTS).for_each(|i| set.mask(i, 255));
        set
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn picture(&self, name: &str, picture: &RgbImage) {
        picture.save(self.at(name)).unwrap();
    }

    /// The mask of a test image: one pixel of `value`.
    fn mask(&self, i: usize, value: u8) {
        let mut mask = GrayImage::new(64, 64);
        mask.put_pixel(10, 10, Luma([value]));
        mask.save(self.at(&format!("ground_truth/dent/{i:03}_mask.png"))).unwrap();
    }

    fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.at(from), self.at(to)).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn examine(&self) -> Findings {
        let data = DataSet::open(&DataLocation::new(self.path())).unwrap();
        examine(&data, &ProgressDisplay::detect()).unwrap()
    }

    /// The one warning that there is.
    #[track_caller]
    fn only(&self, problem: Problem) -> Warning {
        let mut warnings = self.examine().warnings;
        assert_eq!(warnings.iter().map(|w| w.problem).collect::<Vec<_>>(), [problem], "{warnings:#?}");
        warnings.remove(0)
    }
}

/// Blots on a ground, other ones for every seed.
fn picture(seed: u32, width: u32, height: u32) -> RgbImage {
    let mut state = u64::from(seed);
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    let blots: Vec<[f32; 4]> = (0..30).map(|_| [next(), next(), 0.03 + 0.07 * next(), 90.0 * (next() - 0.5)]).collect();
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let blot = |b: &[f32; 4]| b[3] * (-((x - b[0]).powi(2) + (y - b[1]).powi(2)) / (b[2] * b[2])).exp();
        Rgb([(120.0 + blots.iter().map(blot).sum::<f32>()).clamp(0.0, 255.0) as u8; 3])
    })
}

/// Under another exposure, and of another size.
fn taken_again(seed: u32) -> RgbImage {
    let mut image = picture(seed, 70, 70);
    image.pixels_mut().for_each(|p| p.0 = p.0.map(|v| (f32::from(v) * 0.7 + 12.0) as u8));
    image
}

#[test]
fn a_clean_set_has_no_warning_and_exit_code_0() {
    let set = Set::clean();
    let findings = set.examine();
    assert_eq!(findings.warnings, []);
    assert!(!findings.dishonest() && findings.near_duplicates.is_empty());
    assert_eq!((findings.counts.train_normal, findings.counts.test_normal), (NORMALS, TESTS));
    let (training, test) = (findings.counts.train_anomalous["dent"], findings.counts.test_anomalous["dent"]);
    assert_eq!((training.images, training.masks, test.images, test.masks), (LABELS, 0, TESTS, TESTS));
    let sizes = findings.sizes.unwrap();
    assert_eq!((sizes.smallest, sizes.largest, sizes.most_frequent_images), ((64, 64), (64, 64), 81));
    let proof = findings.proof;
    assert_eq!((proof.test.unwrap().anomalous, proof.training.unwrap().normal), (TESTS, NORMALS));
    assert_eq!((proof.test_by_part, proof.false_alarms[1].normal), (None, NORMALS));

    let elsewhere = tempfile::tempdir().unwrap();
    let json = elsewhere.path().join("doctor.json");
    let told = train_well(&["data", set.path().to_str().unwrap(), "--json", json.to_str().unwrap()]);
    assert!(told.contains("training  45 normal, 12 anomalous, without masks: dent 12"), "{told}");
    assert!(told.contains("(12 anomalous + 12 normal): standard error 0.0"), "{told}");
    assert!(told.contains("nothing is wrong with it"), "{told}");
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(read["findings"]["counts"]["train_normal"], NORMALS);
    assert_eq!(read["findings"]["warnings"], serde_json::json!([]));
    assert!(read["suspects"].is_null());
}

#[test]
fn the_same_pixels_in_training_and_test_are_grave_whatever_the_file() {
    let set = Set::clean();
    // Another file of the same pixels.
    image::open(set.at("train/good/003.png")).unwrap().save(set.at("test/good/100.bmp")).unwrap();
    let found = set.only(Problem::DuplicatesAcross);
    assert_eq!((found.grave, found.count), (true, 1));
    assert_eq!(found.examples, ["train/good/003.png = test/good/100.bmp"]);
    let output = train(&["data", set.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stdout);
    let line =
        "wrong: test images that are training images too, to the pixel: 1 (train/good/003.png = test/good/100.bmp)";
    assert!(told.lines().any(|l| l == line), "{told}");
}

#[test]
fn contradictory_labels_are_told_before_anything_else() {
    let set = Set::clean();
    set.copy("train/good/003.png", "test/dent/100.png");
    set.mask(100, 255);
    let warnings = set.examine().warnings;
    let problems: Vec<Problem> = warnings.iter().map(|w| w.problem).collect();
    assert_eq!(problems, [Problem::ContradictoryLabels, Problem::DuplicatesAcross]);
    assert_eq!(warnings[0].examples, ["train/good/003.png = test/dent/100.png"]);
    assert!(warnings[0].grave);
}

/// What makes results worthless is said before hours of training, not after.
#[test]
fn fit_says_what_is_wrong_with_a_set_before_it_trains() {
    let set = Set::clean();
    set.copy("train/good/003.png", "test/good/100.png");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config =
        "methods = [\"bank\"]\n[input]\nwidth = 64\nheight = 64\n[bank]\nvectors = 8\n[validation]\nfolds = 2\n";
    std::fs::write(at("config.toml"), config).unwrap();
    let data = set.path().to_str().unwrap();
    let output =
        train(&["fit", "--config", &at("config.toml"), "--data", data, "--out", &at("run"), "--device", "cpu"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let place = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?} in {said}"));
    assert!(place("wrong: test images that are training images too") < place("measuring the feature channels"));
}

#[test]
fn copies_within_training_and_within_test_are_counted_apart() {
    let set = Set::clean();
    for i in 0..4 {
        set.copy("train/good/003.png", &format!("train/good/10{i}.png"));
    }
    set.copy("test/good/001.png", "test/good/100.png");
    let warnings = set.examine().warnings;
    let told: Vec<_> = warnings.iter().map(|w| (w.problem, w.count, w.grave, w.examples.len())).collect();
    assert_eq!(told, [(Problem::DuplicatesInTraining, 4, false, 3), (Problem::DuplicatesInTest, 1, false, 1)]);
    assert!(warnings[0].sentence.ends_with(", ...)"), "{}", warnings[0].sentence);
}

#[test]
fn a_part_taken_again_is_a_near_duplicate_and_many_are_grave() {
    let set = Set::clean();
    set.picture("test/good/100.png", &taken_again(5));
    let found = set.only(Problem::NearDuplicates);
    assert_eq!((found.count, found.grave), (1, false));
    // Seed 5 is the fifth training image.
    assert_eq!(found.examples, ["train/good/004.png ~ test/good/100.png"]);
    for seed in 6..11 {
        set.picture(&format!("test/good/1{seed:02}.png"), &taken_again(seed));
    }
    let findings = set.examine();
    assert_eq!((findings.warnings[0].count, findings.dishonest()), (6, true));
    assert_eq!(findings.near_duplicates.len(), 6);

    let sheet = tempfile::tempdir().unwrap();
    let sheet = sheet.path().join("sheet.png");
    let output = train(&["data", set.path().to_str().unwrap(), "--sheet", sheet.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let drawn = image::open(&sheet).unwrap().into_rgb8();
    // Two rows of eight pictures: six pairs.
    assert_eq!(drawn.dimensions(), (8 * 178 + 8, 2 * 178 + 8));
}

#[test]
fn without_near_duplicates_no_sheet_is_written() {
    let (set, folder) = (Set::clean(), tempfile::tempdir().unwrap());
    let sheet = folder.path().join("sheet.png");
    let told = train_well(&["data", set.path().to_str().unwrap(), "--sheet", sheet.to_str().unwrap()]);
    assert!(told.contains("is not written: there are no near duplicates"), "{told}");
    assert!(!sheet.exists());
}

#[test]
fn parts_on_both_sides_are_grave_and_parts_count_in_the_proof() {
    let set = Set::clean();
    for (i, name) in ["train/good/p7", "train/good/p7", "train/good/p8", "test/good/p7"].iter().enumerate() {
        set.picture(&format!("{name}/{i}.png"), &picture(1000 + i as u32, 64, 64));
    }
    let found = set.only(Problem::PartsAcross);
    assert_eq!((found.grave, found.examples), (true, vec!["p7".to_owned()]));
    let proof = set.examine().proof;
    assert_eq!((proof.training.unwrap().normal, proof.training_by_part.unwrap().normal), (NORMALS + 3, NORMALS + 2));
    assert_eq!(proof.test_by_part, None);
}

#[test]
fn unreadable_images_are_named_counted_and_grave() {
    let set = Set::clean();
    std::fs::write(set.at("train/good/100.png"), "no picture").unwrap();
    let whole = std::fs::read(set.at("test/good/000.png")).unwrap();
    std::fs::write(set.at("test/good/000.png"), &whole[..whole.len() / 2]).unwrap();
    let found = set.only(Problem::Unreadable);
    assert_eq!((found.count, found.grave), (2, true));
    assert!(found.examples[0].contains("train/good/100.png is not an image"), "{found:?}");
}

#[test]
fn constant_images_are_found() {
    let set = Set::clean();
    set.picture("train/good/100.png", &RgbImage::from_pixel(64, 64, Rgb([20, 30, 40])));
    let found = set.only(Problem::ConstantImages);
    assert_eq!((found.count, found.grave, found.examples), (1, false, vec!["train/good/100.png".to_owned()]));
}

#[test]
fn missing_empty_and_unusable_masks_are_told_apart() {
    let set = Set::clean();
    std::fs::remove_file(set.at("ground_truth/dent/001_mask.png")).unwrap();
    set.mask(2, 0);
    GrayImage::new(32, 64).save(set.at("ground_truth/dent/003_mask.png")).unwrap();
    let warnings = set.examine().warnings;
    let told: Vec<_> = warnings.iter().map(|w| (w.problem, w.count, w.grave)).collect();
    let expected =
        [(Problem::UnusableMasks, 1, true), (Problem::EmptyMasks, 1, false), (Problem::MissingMasks, 1, false)];
    assert_eq!(told, expected);
    assert!(warnings[0].examples[0].ends_with("is 32x64 pixels, its image 64x64"), "{warnings:?}");
    assert_eq!(
        (&warnings[1].examples[0], &warnings[2].examples[0]),
        (&"test/dent/002.png".into(), &"test/dent/001.png".into())
    );
    // Where no test image has a mask, none is missing.
    std::fs::remove_dir_all(set.at("ground_truth")).unwrap();
    assert_eq!(set.examine().warnings, []);
}

#[test]
fn unequal_sizes_and_stretched_images_are_found() {
    let set = Set::clean();
    set.picture("train/good/100.png", &picture(1000, 100, 100));
    let found = set.only(Problem::UnequalSizes);
    assert_eq!((found.count, found.examples.last().unwrap().as_str()), (1, "train/good/100.png"));
    set.picture("train/good/100.png", &picture(1000, 50, 80));
    assert_eq!(set.only(Problem::Stretched).examples, ["train/good/100.png"]);
    // At the limit.
    set.picture("train/good/100.png", &picture(1000, 96, 96));
    set.picture("train/good/101.png", &picture(1001, 64, 96));
    assert_eq!(set.examine().warnings, []);
}

#[test]
fn too_few_images_and_a_test_of_one_class_are_told() {
    let set = Set::clean();
    for i in 0..6 {
        std::fs::remove_file(set.at(&format!("train/good/{i:03}.png"))).unwrap();
    }
    assert_eq!(set.only(Problem::FewNormals).count, NORMALS - 6);
    let set = Set::clean();
    for i in 0..3 {
        std::fs::remove_file(set.at(&format!("train/dent/{i:03}.png"))).unwrap();
    }
    assert_eq!(set.only(Problem::FewLabels).count, LABELS - 3);
    let set = Set::clean();
    std::fs::remove_dir_all(set.at("test/good")).unwrap();
    assert_eq!(set.only(Problem::OneSidedTest).count, TESTS);
    assert_eq!(set.examine().proof.test, None);
}

/// Scores of all training images: as they should be, but for one of each class.
fn judged(set: &Set, run: &Path) {
    let entry = |class: &str, i: usize, score: f64| {
        let defect = (class != "good").then_some(class);
        serde_json::json!({"path": format!("train/{class}/{i:03}.png"), "defect": defect, "fold": i % 5, "score": score})
    };
    let mut entries: Vec<_> =
        (0..NORMALS).map(|i| entry("good", i, if i == 7 { 9.0 } else { 0.01 * i as f64 })).collect();
    entries.extend((0..LABELS).map(|i| entry("dent", i, if i == 3 { 0.2 } else { 5.0 + 0.1 * i as f64 })));
    entries.push(serde_json::json!({"path": "train/good/gone.png", "fold": 0, "score": 99.0}));
    std::fs::write(run.join("judged.json"), serde_json::to_vec(&entries).unwrap()).unwrap();
    assert!(set.at("train/good/007.png").exists());
}

#[test]
fn a_run_ranks_the_labels_that_its_models_doubt() {
    let (set, run) = (Set::clean(), tempfile::tempdir().unwrap());
    judged(&set, run.path());
    let at = |name: &str| run.path().join(name).to_str().unwrap().to_owned();
    let (json, sheet) = (at("doctor.json"), at("sheet.png"));
    let told =
        train_well(&["data", set.path().to_str().unwrap(), "--run", &at(""), "--json", &json, "--sheet", &sheet]);
    assert!(
        told.contains("of 57 training images that models judged without having seen them (1 more are gone"),
        "{told}"
    );
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let (normal, anomalous) = (&read["suspects"]["normal"], &read["suspects"]["anomalous"]);
    assert_eq!((normal.as_array().unwrap().len(), anomalous.as_array().unwrap().len()), (10, 10));
    assert_eq!((&normal[0]["path"], &normal[0]["beyond"]), (&"train/good/007.png".into(), &1.0.into()));
    assert_eq!(
        (&normal[1]["path"], &anomalous[0]["path"]),
        (&"train/good/044.png".into(), &"train/dent/003.png".into())
    );
    // 0.2 is below the normal scores 0.21 to 0.44 and the 9.
    assert_eq!(anomalous[0]["beyond"], 25.0 / 45.0);
    let drawn = image::open(&sheet).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), (8 * 178 + 8, 4 * 178 + 16));
    // The border of the first normal one, and of the first anomalous one below two rows.
    assert_eq!(drawn.get_pixel(8 + 70, 9).0, [60, 170, 90]);
    assert_eq!(drawn.get_pixel(8 + 70, 2 * 178 + 17).0, [220, 70, 60]);
}

#[test]
fn a_run_that_says_nothing_of_the_set_is_refused_in_one_sentence() {
    let (set, run) = (Set::clean(), tempfile::tempdir().unwrap());
    let (data, folder) = (set.path().to_str().unwrap(), run.path().to_str().unwrap());
    let told = || refused(&["data", data, "--run", folder]);
    let file = run.path().join("judged.json");
    assert!(told().contains("was") && told().contains("ckaad-train export writes it"), "{}", told());
    std::fs::write(&file, "[{\"path\": 3}]").unwrap();
    assert!(told().contains("is no list of judged images"), "{}", told());
    std::fs::write(&file, "[{\"path\": \"train/good/elsewhere.png\", \"fold\": 1, \"score\": 0.5}]").unwrap();
    assert!(told().contains("none of the 1 images"), "{}", told());
    File::create(&file).unwrap().set_len((64 << 20) + 1).unwrap();
    assert!(told().contains("longer than the 67108864 bytes"), "{}", told());
}
