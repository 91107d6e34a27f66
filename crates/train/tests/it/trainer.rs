//! The trainer's promises, shown on small sets with the real binaries.

use crate::backbones::formula_weights;
use crate::program::{complaint, refused, train, train_well};
use ckaad_bundle::{Bundle, Precision, ScoreRule};
use ckaad_inspect::engine::{Provider, RuntimeOptions};
use ckaad_inspect::{GoldenResult, InspectOptions, Inspector};
use ckaad_testing::onnx_runtime;
use ckaad_train::backbones::Backbone;
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tract_onnx::pb::ModelProto;
use tract_onnx::pb::tensor_proto::DataType;

/// synth → fit → export → evaluate, then the same score from `evaluate` and from the agent's `infer`, digit for digit.
#[test]
fn the_whole_way_from_a_folder_to_a_judged_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, run, config) = (at("data"), at("run"), at("config.toml"));
    synth(&data);
    std::fs::write(&config, CONFIG.to_owned() + ALL_INT8).unwrap();
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu"]);
    for (precision, bundle) in [("f32", at("f32.ckaad")), ("int8", at("int8.ckaad"))] {
        train_well(&["export", "--run", &run, "--out", &bundle, "--precision", precision]);
        let (json, page) = (at("scores.json"), at("page.html"));
        train_well(&["evaluate", "--bundle", &bundle, "--data", &data, "--json", &json, "--report", &page]);
        let written = std::fs::read_to_string(&json).unwrap();
        let evaluation: serde_json::Value = serde_json::from_str(&written).unwrap();
        let samples = evaluation["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 20 + 6 * 2);
        let html = std::fs::read_to_string(&page).unwrap();
        assert!(html.contains("<svg") && html.contains("data:image/jpeg;base64,"));
        assert_eq!(html.contains("layers in float"), precision == "int8");
        let read = Bundle::read(Path::new(&bundle)).unwrap();
        let expected = if precision == "f32" { Precision::F32 } else { Precision::Int8 };
        assert_eq!(read.manifest.precision, expected);
        if let Some((worst, range)) = onnx_runtime::difference_to_onnx_runtime(Path::new(&bundle)) {
            println!("{precision}: largest difference to ONNX Runtime {worst}, range {range}");
            // A training image lies close to the bank: the root of a squared distance near 0 magnifies what rounding leaves.
            let limit = if precision == "f32" { 1e-3 * range } else { 0.01 * range };
            assert!(worst <= limit, "{precision}: largest difference {worst} in a range of {range}");
        }
        infer_gives_the_same_texts(&bundle, &data, samples, &written);
    }
    the_same_map_as_for_tensorrt(&run, &at("f32.ckaad"), &at("model.onnx"));
    // A bar that cannot be reached is exit code 1.
    let bundle = at("int8.ckaad");
    let output = train(&["evaluate", "--bundle", &bundle, "--data", &data, "--min-auroc", "1.01"]);
    assert_eq!(output.status.code(), Some(1));
}

/// `--format qdq`: a plain ONNX file whose map in ONNX Runtime is that of the f32 bundle but for quantisation noise.
fn the_same_map_as_for_tensorrt(run: &str, f32_bundle: &str, model: &str) {
    let f32 = refused(&["export", "--run", run, "--out", model, "--format", "qdq", "--precision", "f32"]);
    assert_eq!(f32, "--format qdq is int8; leave --precision f32 out");
    let said = train_well(&["export", "--run", run, "--out", model, "--format", "qdq"]);
    assert!(said.contains("int8 against f32 on held-out images"), "{said}");
    assert!(!said.contains("sha256"), "it is no bundle: {said}");
    if let Some((difference, spread)) =
        onnx_runtime::difference_in_onnx_runtime(Path::new(model), Path::new(f32_bundle))
    {
        println!("QDQ in ONNX Runtime: mean difference to f32 {difference}, standard deviation {spread}");
        // Besides, each has a bank of features in its own numbers, so not quite of the same patches.
        assert!(0.0 < difference && difference < 0.5 * spread, "{difference} at a standard deviation of {spread}");
    }
}

/// Layers that the config wants in float, a calibration by histogram, and a search for more that no loss can satisfy.
#[test]
fn layers_stay_in_float_and_the_report_says_which() {
    let quantise = "[quantise]\ncalibration = \"mse\"\nimages = 8\nfloat_layers = [\"blocks.1\"]\nmax_float_layers = 14\n\
        auroc_loss = 0.0\naupro_loss = 0.0\n";
    let (folder, output) = train_on(&(CONFIG.replace("epochs = 4", "epochs = 1") + quantise), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let said = train_well(&["export", "--run", &at("run"), "--out", &at("mixed.ckaad")]);
    let bundle = Bundle::read(Path::new(&at("mixed.ckaad"))).unwrap();
    let report = &bundle.report.unwrap()["quantisation"];
    let float: Vec<&str> = report["float_layers"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert!(float.contains(&"blocks.1.0.expand") && float.contains(&"blocks.1.1.add"), "{float:?}");
    assert!((7..=14).contains(&float.len()) && said.contains("layers in float: "), "{float:?} {said}");
    assert_eq!(report["calibration"], "mse");
    assert!(report["regions"].as_str().unwrap().contains("no masks are held out"));
    if let Some((worst, range)) = onnx_runtime::difference_to_onnx_runtime(Path::new(&at("mixed.ckaad"))) {
        println!("mixed: largest difference to ONNX Runtime {worst}, range {range}");
        // Float sums are not added up in the same order: where one lies between two bytes, the next int8 layer may get
        // the other.
        assert!(worst <= 0.05 * range, "largest difference {worst} in a range of {range}");
    }
    // `export` reads this section anew: it may be changed in the run.
    let config = std::fs::read_to_string(at("run/config.toml")).unwrap();
    let export = |from: &str, to: &str| {
        std::fs::write(at("run/config.toml"), config.replace(from, to)).unwrap();
        refused(&["export", "--run", &at("run"), "--out", &at("refused.ckaad")])
    };
    let told = export("blocks.1", "blocks.99");
    let sentence =
        "quantise.float_layers names blocks.99, which is no layer of this network; its layers are stem, blocks.0.0.";
    assert!(told.starts_with(sentence) && told.matches("its layers are").count() == 1, "{told}");
    let sentence = format!("{}: quantise.images is 0; 1 to 100000 expected", at("run/config.toml"));
    assert_eq!(export("images = 8", "images = 0"), sentence);
}

/// The options that the whole way above does not take: instance norm, both discriminators, made anomalies, features
/// computed while training runs, a combined score.
#[test]
fn the_papers_parts_reach_the_bundle_too() {
    let config = "methods = [\"ckaad\"]\n".to_owned()
        + &CONFIG
            .replace("[ckaad.net]\n", "[ckaad.net]\nnorm = \"instance\"\nblocks = 2\n")
            .replace("epochs = 4", "epochs = 2")
        + "[ckaad.discriminator]\nkind = \"both\"\njoint = false\nwidth = 0\nplaces = 0\nnoise = 0.0\n\
           [anomalies]\nsource = \"perlin\"\nsynthetic_share = 0.2\n\
           [augment]\nbrightness = 0.1\nrotate_deg = 5.0\n[score]\nrule = \"combined\"\n";
    let manifest = through_the_bundle(&config, &[]);
    assert_eq!(manifest.methods, ["ckaad-both"]);
    assert!(matches!(manifest.score.rule, ScoreRule::Combined { .. }));
}

/// Every norm of the decoder and both maps.
#[test]
fn reconstruction_by_inversion_reaches_the_bundle_too() {
    for (norm, map) in [("batch", "scales"), ("layer", "joint"), ("frozen", "scales")] {
        let config = format!(
            "methods = [\"invad\"]\n{}[invad]\nmap = \"{map}\"\n[invad.net]\nstyle = 8\nlatent = 4\nnorm = \"{norm}\"\n",
            CONFIG.replace("epochs = 4", "epochs = 2")
        );
        let manifest = through_the_bundle(&config, &[]);
        assert_eq!(manifest.methods, ["invad"], "{norm}");
    }
}

/// Two methods that learn in two stages each, one of them with a bank behind its last step, and one that has stages of the backbone for its own.
#[test]
fn masks_adapted_patches_and_deviations_reach_the_bundle_too() {
    let config = format!(
        "methods = [\"sparsity\", \"tocoad\", \"devnet\"]\n{}[sparsity.net]\nsize = \"tiny\"\n[tocoad]\nvectors = 64\npainted = 40\n[score.weights]\nmask = 1.0\nadapted = 0.5\ndeviation = 0.5\n",
        CONFIG.replace("epochs = 4", "epochs = 6")
    );
    let manifest = through_the_bundle(&config, &[]);
    assert_eq!(manifest.methods, ["sparsity", "tocoad", "devnet"]);
}

/// Views of a part are trained on, judged and packed together.
#[test]
fn a_network_of_several_views_reaches_the_bundle() {
    let config = format!(
        "methods = [\"bank\", \"mahalanobis\", \"mvad\"]\nviews = [\"C1\", \"C2\"]\n{}[bank]\nvectors = 64\n[score.weights]\ndistance = 1.0\ncross-view = 1.0\n",
        CONFIG.replace("epochs = 4", "epochs = 2")
    );
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let few = ["--width", "256", "--height", "256", "--train-good", "30", "--train-defective", "1"];
    let set = |out: &str, views: &str| {
        let test = ["--test-good", "10", "--test-defective", "1", "--seed", "3"];
        train_well(&[&["synth", "--out", out, "--views", views][..], &few[..], &test[..]].concat());
    };
    set(&at("data"), "2");
    let (folder, output) = fitted(folder, &(config.clone() + ALL_INT8));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bundle = exported(&folder);
    let m = &bundle.manifest;
    assert_eq!((m.views, m.view_names.as_slice()), (2, &["C1", "C2"].map(String::from)[..]));
    // With the distance the network scores every view as a whole, too.
    assert_eq!(
        (m.methods.as_slice(), m.score.image.is_some()),
        (&["bank", "mahalanobis", "mvad"].map(String::from)[..], true)
    );
    assert_eq!(bundle.golden.len() % 2, 0);

    // A part of which a view is missing is left out, and said so; the names of others are told before anything is trained.
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let listing = at("data/line.json");
    let text = std::fs::read_to_string(&listing).unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let test = list["test"].as_array_mut().unwrap();
    test.remove(0);
    std::fs::write(&listing, list.to_string()).unwrap();
    let said = train_well(&["evaluate", "--bundle", &at("int8.ckaad"), "--data", &at("data")]);
    assert!(said.contains("1 images are left out: their parts are not there from all views of the model"), "{said}");
    std::fs::write(at("config.toml"), config.replace("C2", "C7")).unwrap();
    let fit = ["fit", "--config", &at("config.toml"), "--data", &at("data"), "--out", &at("again"), "--device", "cpu"];
    let output = train(&fit);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("has 0 parts in its training images that are there, and normal, from all of views (C1, C7); at least 10 are needed\n"), "{said}");
    std::fs::write(at("config.toml"), config.replace(", \"C2\"", "")).unwrap();
    let said = refused(&fit);
    assert!(said.contains("views is [\"C1\"]; the names of 2 to 16 views expected, for the method mvad"), "{said}");
}

/// All that the set can teach is trained; what is exported is what the folds say, and why is said.
#[test]
fn methods_are_chosen_by_the_folds() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    synth(&at("data"));
    let config = "false_alarm_budget = 0.05\ninput = { width = 64, height = 64 }\nvalidation.folds = 2\n\
                  train = { epochs = 3, batch = 30, anomalous_batch = 4, least_steps = 0 }\n\
                  ckaad = { net.size = \"tiny\", discriminator.width = 8 }\nbank.vectors = 64\ninvad.net = { style = 8, latent = 4 }\n\
                  mil = { width = 8, context = 8, painted = 20, painted_batch = 4 }\nsparsity = { net.size = \"tiny\", width = 8 }\n\
                  tocoad = { vectors = 64, width = 8, painted = 20, painted_batch = 4 }\nquantise.mixed = false\n";
    std::fs::write(at("config.toml"), config).unwrap();
    std::fs::write(at("short.toml"), format!("{config}budget.ms = 0.000001\n")).unwrap();
    let (config, data, run) = (at("config.toml"), at("data"), at("run"));
    let fit = ["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu", "--method", "auto"];
    let said = train_well(&fit);
    let last = said.lines().last().unwrap();
    for list in ["", " + ckaad", " + mil", " + invad", " + sparsity", " + tocoad", " + devnet"] {
        assert!(said.contains(&format!("\n  bank + mahalanobis + pooled{list}: ")), "{said}");
    }
    assert!(last.starts_with("chosen: bank + mahalanobis + pooled"), "{last}");

    let choice: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("run/choice.json")).unwrap()).unwrap();
    let chosen: Vec<&str> = choice["methods"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    assert!(last.starts_with(&format!("chosen: {};", chosen.join(" + "))), "{last}: {chosen:?}");
    train_well(&["export", "--run", &run, "--out", &at("chosen.ckaad")]);
    let manifest = Bundle::read(Path::new(&at("chosen.ckaad"))).unwrap().manifest;
    assert!(!manifest.methods.is_empty());
    let of_chosen = |name: &String| chosen.iter().any(|kind| name == kind || name.starts_with(&format!("{kind}-")));
    assert!(manifest.methods.iter().all(of_chosen), "{:?} of {chosen:?}", manifest.methods);

    // Regression: a run that was stopped before its choice was exported with all methods at once.
    let choice_file = folder.path().join("run/choice.json");
    std::fs::remove_file(&choice_file).unwrap();
    let told = refused(&["export", "--run", &run, "--out", &at("early.ckaad")]);
    assert!(told.ends_with("is not chosen yet: run ckaad-train fit --method auto --resume first"), "{told}");
    // What somebody wrote by hand is looked at like a config.
    std::fs::write(&choice_file, "{\"methods\": [\"pooled\"], \"budget_ms\": null, \"tried\": []}").unwrap();
    let told = refused(&["export", "--run", &run, "--out", &at("early.ckaad")]);
    assert!(told.contains("run/choice.json: methods is [Pooled]; at least one that gives a map expected"), "{told}");
    // Nothing is trained again, and the choice is the same.
    let again = train_well(&[&fit[..], &["--resume"]].concat());
    assert_eq!(again.lines().last(), Some(last));
    let short = at("short.toml");
    let output = train(&[
        "fit",
        "--config",
        &short,
        "--data",
        &data,
        "--out",
        &at("other"),
        "--device",
        "cpu",
        "--method",
        "auto",
    ]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("ckaad-train: budget.ms is 0.000001: the smallest input"),
        "{output:?}"
    );
    let output = train(&[&fit[..fit.len() - 1], &["bank,none"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("\"none\" is no method; auto is expected, or some of ckaad, bank, "), "{told}");
    let told = refused(&["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu", "--resume"]);
    assert!(
        told.contains("was made with another list of methods (methods, or --method); resume with the same"),
        "{told}"
    );
    let told = refused(&[&fit[..fit.len() - 1], &["pooled"]].concat());
    assert!(told.starts_with("--method: methods is [Pooled]; at least one that gives a map expected"), "{told}");
}

/// Two lines of parts, one model: each image keeps the name of its set, and `evaluate` has a row a set.
#[test]
fn one_model_of_several_sets() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    synth(&at("first"));
    let counts = ["--train-good", "50", "--train-defective", "2", "--test-good", "24", "--test-defective", "3"];
    let second = at("second");
    train_well(&[&["synth", "--seed", "4", "--out", &second][..], &counts].concat());
    std::fs::write(at("config.toml"), format!("methods = [\"bank\"]\n{CONFIG}[bank]\nvectors = 64\n{ALL_INT8}"))
        .unwrap();
    let both = ["--data".to_owned(), at("first"), "--data".to_owned(), at("second")];
    let with_both = |args: &[&str]| -> String {
        let args: Vec<&str> = args.iter().copied().chain(both.iter().map(String::as_str)).collect();
        train_well(&args)
    };
    with_both(&["fit", "--config", &at("config.toml"), "--out", &at("run"), "--device", "cpu"]);
    train_well(&["export", "--run", &at("run"), "--out", &at("both.ckaad")]);
    let said = with_both(&[
        "evaluate",
        "--bundle",
        &at("both.ckaad"),
        "--json",
        &at("both.json"),
        "--report",
        &at("both.html"),
    ]);
    let rows = ["  first ", "  second ", "  mean "].map(|row| said.lines().find(|line| line.starts_with(row)).unwrap());
    let images = ["  20 normal,   12 anomalous", "  24 normal,   18 anomalous", "  44 normal,   30 anomalous"];
    assert!(rows.iter().zip(images).all(|(row, images)| row.contains(images)), "{rows:?}");
    // Each row is what the set has alone.
    let numbers =
        |json: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(at(json)).unwrap()).unwrap() };
    for (i, set) in ["first", "second"].into_iter().enumerate() {
        train_well(&["evaluate", "--bundle", &at("both.ckaad"), "--data", &at(set), "--json", &at("alone.json")]);
        let (alone, row) = (numbers("alone.json"), &numbers("both.json")["categories"][i]);
        assert_eq!(row["category"], set);
        assert_eq!(row["image_auroc"], alone["image"]["auroc"]);
        assert_eq!(row["aupro"], alone["pixel"]["aupro_30"]);
        assert_eq!(row["at_threshold"], alone["at_threshold"]);
    }
    let json = numbers("both.json");
    assert_eq!(json["samples"][0]["category"], "first");
    assert_eq!(json["defects"][0]["defect"], "first/chip");
    assert!(std::fs::read_to_string(at("both.html")).unwrap().contains("<td>second</td>"));
    let told = refused(&[
        "evaluate",
        "--bundle",
        &at("both.ckaad"),
        "--data",
        &at("first"),
        "--data",
        &at("second"),
        "--category",
        "x",
    ]);
    assert_eq!(told, "--category goes with one data set; of several, each can be a category's own folder");
}

/// Segments, trees and the picture of the segments travel in the bundle, and the agent's inspection says which decided.
#[test]
fn a_forest_over_segments_reaches_the_bundle_too() {
    let polygons =
        "polygons = [[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]], [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]]]\n";
    for (segments, more, expected) in [("foreground", "", 2), ("k-means", "", 3), ("polygons", polygons, 3)] {
        let config = format!(
            "methods = [\"bank\"]\n{CONFIG}[bank]\nvectors = 64\n[score]\nrule = \"forest\"\nsegments = \"{segments}\"\nclusters = 3\n{more}"
        );
        let (folder, output) = train_on(&config, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        train_well(&["export", "--run", &at("run"), "--out", &at("forest.ckaad")]);
        train_well(&["evaluate", "--bundle", &at("forest.ckaad"), "--data", &at("data")]);
        let bundle = Bundle::read(Path::new(&at("forest.ckaad"))).unwrap();
        assert!(
            matches!(bundle.manifest.score.rule, ScoreRule::Forest { segments, .. } if segments == expected),
            "{:?}",
            bundle.manifest.score
        );
        let inspector = Inspector::new(&bundle, &InspectOptions::default()).unwrap();
        assert!(inspector.check_golden(&bundle).unwrap().iter().all(|golden| golden.passed));
    }
    let config = format!("methods = [\"bank\"]\n{CONFIG}[score]\nrule = \"forest\"\n");
    let (folder, output) = train_on(&config, &[]);
    let path = folder.path().join("config.toml");
    let told = "score.segments is None; foreground, k-means or polygons expected with the rule forest";
    assert_eq!(complaint(&output), format!("{}: {told}", path.display()));
}

/// Another backbone with weights of the user's own, in f32 and in int8.
#[test]
fn a_resnet_reaches_the_bundle_too() {
    let config = CONFIG.replace("epochs = 4", "epochs = 2");
    let (_folder, without) = train_on(&format!("backbone = \"resnet18\"\n{config}"), &[]);
    assert_eq!(
        complaint(&without),
        "the backbone resnet18 does not come with this program: set the key weights to a torchvision state dict \
         (.pth or .safetensors)"
    );
    let config = format!("backbone = \"resnet18\"\nweights = \"WEIGHTS\"\n{config}");
    let manifest = through_the_bundle(&config, &formula_weights(Backbone::ResNet18));
    assert_eq!(manifest.backbone, "resnet18");
}

/// A head that labels and painted defects teach gives a map and an image score; beside it pooled features vote. All learn
/// from the numbers of int8, and two pool the same features in ways of their own, and the bundle names what has a part in the answer.
#[test]
fn a_head_taught_by_labels_reaches_the_bundle_too() {
    let config = "methods = [\"mil\", \"mahalanobis\", \"pooled\"]\n".to_owned()
        + &CONFIG
            .replace("strides = [4, 8, 16]", "strides = [8, 16]")
            .replace("[ckaad.net]\nwidths = [8, 16, 24]\nbottleneck = 32\n", "")
        + "[mil]\nwidth = 16\ncontext = 8\nplaces = 6\npainted = 20\npainted_batch = 4\n[mahalanobis]\none_in = 20\n";
    let manifest = through_the_bundle(&config, &[]);
    assert!(manifest.methods.contains(&"mil".to_owned()), "{:?}", manifest.methods);
    assert_eq!(manifest.terms.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["instance"]);
}

/// Masks of labelled images: counted, taught, and part of what a run is of.
#[test]
fn masks_of_labelled_images_teach_and_a_run_does_not_go_on_with_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, run) = (at("data"), at("run"));
    train_well(&[
        &["synth", "--out", &data, "--width", "256", "--height", "256", "--train-good", "40", "--test-good", "1"][..],
        &["--train-defective", "2", "--train-masks", "1", "--test-defective", "1"],
    ]
    .concat());
    let config = "name = \"masks\"\nmethods = [\"mil\"]\n[input]\nwidth = 64\nheight = 64\n[features]\nstrides = [8, 16]\nflips = \"horizontal\"\n\
        [mil]\nwidth = 8\ncontext = 8\nplaces = 6\npainted = 6\npainted_batch = 4\n\
        [train]\nepochs = 1\nbatch = 8\nanomalous_batch = 2\nleast_steps = 0\n[validation]\nfolds = 2\n";
    std::fs::write(at("config.toml"), config).unwrap();
    let fit = ["fit", "--config", &at("config.toml"), "--data", &data, "--out", &run, "--device", "cpu"];
    let told = |arguments: &[&str]| {
        let output = train(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = told(&fit);
    assert!(said.contains("6 of 6 masks of labelled images teach places\n"), "{said}");

    let mask = at("data/ground_truth_train/crack/000_mask.png");
    image::GrayImage::from_pixel(256, 256, image::Luma([255])).save(&mask).unwrap();
    let resumed = refused(&[&fit[..], &["--resume"]].concat());
    assert!(resumed.contains("another training data set"), "{resumed}");

    // One whose mask marks a single pixel: too little for places of 8 x 8 pixels of an image made a quarter as large.
    let dot = image::GrayImage::from_fn(256, 256, |x, y| image::Luma([if (x, y) == (9, 9) { 255 } else { 0 }]));
    dot.save(&mask).unwrap();
    let fit = fit.map(|word| if word == run { at("again") } else { word.to_owned() });
    let said = told(&fit.each_ref().map(String::as_str));
    let few = "5 of 6 masks of labelled images teach places; 1 mark too little for the map's grid\n";
    assert!(said.contains(few), "{said}");
}

/// Fits `config` on a small synthetic set; WEIGHTS in it stands for a file with the bytes `weights`.
fn train_on(config: &str, weights: &[u8]) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("own.safetensors"), weights).unwrap();
    synth(&at("data"));
    let config = config.replace("WEIGHTS", &at("own.safetensors"));
    fitted(folder, &config)
}

/// Fits `config` on the set that is there.
fn fitted(folder: tempfile::TempDir, config: &str) -> (tempfile::TempDir, Output) {
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("config.toml"), config).unwrap();
    let output =
        train(&["fit", "--config", &at("config.toml"), "--data", &at("data"), "--out", &at("run"), "--device", "cpu"]);
    (folder, output)
}

/// Fits, exports in int8, evaluates, and compares with ONNX Runtime.
fn through_the_bundle(config: &str, weights: &[u8]) -> ckaad_bundle::Manifest {
    let (folder, output) = train_on(&(config.to_owned() + ALL_INT8), weights);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    exported(&folder).manifest
}

/// Exports in int8, evaluates, and compares with ONNX Runtime.
fn exported(folder: &tempfile::TempDir) -> Bundle {
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    train_well(&["export", "--run", &at("run"), "--out", &at("int8.ckaad"), "--gpu"]);
    train_well(&["evaluate", "--bundle", &at("int8.ckaad"), "--data", &at("data"), "--report", &at("page.html")]);
    let page = std::fs::read_to_string(at("page.html")).unwrap();
    assert!(page.contains("Training"), "the report shows how the training went");
    if let Some((worst, range)) = onnx_runtime::difference_to_onnx_runtime(Path::new(&at("int8.ckaad"))) {
        println!("largest difference to ONNX Runtime {worst}, range {range}");
        assert!(worst <= 0.01 * range, "largest difference {worst} in a range of {range}");
    }
    let bundle = Bundle::read(Path::new(&at("int8.ckaad"))).unwrap();
    // The same images, judged by other networks.
    let (own, gpu) = (&bundle.manifest.calibration, bundle.manifest.gpu_calibration.as_ref().unwrap());
    assert_eq!((own.images, own.rank), (gpu.images, gpu.rank));
    assert!(own.quantiles != gpu.quantiles && own.pixel_threshold != gpu.pixel_threshold, "{gpu:?}");
    agrees_in_f16(&bundle);
    bundle
}

/// In ONNX Runtime, on the processor, the network for a GPU says what the exact one says, and its layers are f16.
fn agrees_in_f16(bundle: &Bundle) {
    let gpu = bundle.gpu.as_ref().expect("it was asked for");
    let graph = ModelProto::decode(gpu.model.as_slice()).unwrap().graph.unwrap();
    let halves = graph.initializer.iter().filter(|t| t.data_type == DataType::Float16 as i32).count();
    let layers = graph.node.iter().filter(|node| node.op_type == "Conv").count();
    assert!(halves > layers && layers > 10, "{halves} tensors in f16, {layers} convolutions");
    let Some(library) = onnx_runtime::library() else { return };
    let runtime = RuntimeOptions { library, providers: vec![Provider::Cpu], cache: None, threads: 1 };
    let options = InspectOptions { runtime: Some(runtime), ..InspectOptions::default() };
    let inspector = Inspector::new(bundle, &options).unwrap();
    assert_eq!(Some(inspector.threshold()), bundle.manifest.gpu_calibration.as_ref().map(|own| own.threshold));
    let results = inspector.check_golden(bundle).unwrap();
    // Thresholds of these small sets lie too close to what is normal for the golden samples' own measure.
    let near = |score: f32, expected: f32| (score - expected).abs() <= 0.02 * expected.abs();
    let agrees = |golden: &GoldenResult| golden.score.is_some_and(|score| near(score, golden.expected));
    assert!(!results.is_empty() && results.iter().all(agrees), "{results:#?}");
}

/// Every config that is shipped can be read, with no unknown key and every value in its bounds.
#[test]
fn shipped_training_configs_are_valid() {
    let folder = ckaad_testing::in_repository("configs/train");
    let configs: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(configs.len() >= 5);
    for path in configs {
        ckaad_train::config::TrainConfig::load(&path).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn values_out_of_bounds_are_named_with_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    for (text, expected) in [
        ("[ckaad.loss]\ngamma = 0.0", "ckaad.loss.gamma is 0.0; above 0 and at most 1 expected"),
        ("[ckaad.discriminator]\nkernel = 2", "ckaad.discriminator.kernel is 2; 1 or 3 expected"),
        ("[ckaad.discriminator]\nstride = 4", "ckaad.discriminator.stride is 4; one of features.strides expected"),
        (
            "[features]\nstrides = [4, 16]",
            "features.strides is [4, 16]; neighbours among the backbone's strides expected, for instance [8, 16] or [4, 8, 16]",
        ),
        ("[anomalies]\nshare = 2.0", "anomalies.share is 2.0; 0 (all) to 1 expected"),
        ("[score.weights]\nenergy = -1.0", "score.weights is {\"energy\": -1.0}; 0 to 1000 each expected"),
        ("[quantise]\nauroc_loss = -0.1", "quantise.auroc_loss is -0.1; 0 to 1 expected"),
        (
            "methods = [\"sparsity\"]\n[anomalies]\nsource = \"perlin\"",
            "anomalies.source is Perlin; auto or labelled expected, for the methods sparsity and devnet learn from labelled anomalies",
        ),
        (
            "methods = [\"sparsity\"]\n[sparsity]\nshare = 0.7",
            "sparsity.share is 0.7; above 0 and at most 0.5 expected",
        ),
        (
            "methods = [\"sparsity\"]\n[sparsity.net]\nwidths = [8]",
            "sparsity.net.widths is [8]; one width a stride of features.strides expected, or none",
        ),
        ("methods = [\"devnet\"]\n[devnet]\nfrom = 32", "devnet.from is 32; one of features.strides below 32 expected"),
        ("methods = [\"tocoad\"]\n[tocoad]\nstride = 4", "tocoad.stride is 4; one of features.strides expected"),
        (
            "methods = [\"tocoad\"]\n[augment]\nrotate_deg = 5.0",
            "augment is [5.0, 0.0, 0.0]; all 0 expected, for the method tocoad compares an image with the same one in another light, place by place",
        ),
        ("[bank]\nvectors = 0", "bank.vectors is 0; 1 to 65536 expected"),
        (
            "methods = [\"pooled\"]",
            "methods is [Pooled]; at least one that gives a map expected: ckaad, bank, mil, invad, sparsity, tocoad, devnet or mvad",
        ),
        (
            "methods = [\"bank\", \"pooled\"]\n[score.weights]\ndistance = 0.0",
            "score.weights is {\"distance\": 0.0}; a weight above 0, or none, for a map of the methods expected",
        ),
        ("methods = [\"bank\", \"bank\"]", "methods is [Bank, Bank]; each method once expected"),
        ("[pooled]\nstrides = [64]", "pooled.strides is [64]; strides of the backbone expected, for instance [16, 32]"),
        ("[pooled]\ndirections = 5000", "pooled.directions is 5000; at most 4096 expected"),
        (
            "methods = [\"bank\", \"mahalanobis\"]\n[mahalanobis]\nstrides = []",
            "mahalanobis.strides is []; strides of the backbone expected, for instance [16, 32]",
        ),
        (
            "methods = [\"bank\", \"mahalanobis\"]\n[mahalanobis]\ndirections = 5000",
            "mahalanobis.directions is 5000; at most 4096 expected",
        ),
        ("[ckaad.discriminator]\nplaces = 100000", "ckaad.discriminator.places is 100000; at most 65536 expected"),
        (
            "[score]\nsegments = \"polygons\"",
            "score.polygons is 0; 1 to 15 polygons expected with the segments polygons",
        ),
        (
            "[score]\npolygons = [[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]]]",
            "score.segments is None; polygons expected, for there are score.polygons",
        ),
        (
            "[score]\nsegments = \"polygons\"\npolygons = [[[0.0, 0.0], [640.0, 0.0], [0.5, 1.0]]]",
            "score.polygons is [[[0.0, 0.0], [640.0, 0.0], [0.5, 1.0]]]; at least three corners each expected, across and down from 0 to 1",
        ),
        (
            "[score]\nsegments = \"polygons\"\npolygons = [[[0.5, 0.5], [0.5, 0.5], [0.6, 0.6]]]",
            "score.polygons is [[[0.5, 0.5], [0.5, 0.5], [0.6, 0.6]]]; polygons of at least a ten-thousandth of the image each expected",
        ),
        ("[validation]\nfolds = 1", "validation.folds is 1; 2 to 20 expected"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = ckaad_train::config::TrainConfig::load(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {expected}", path.display()));
    }
}

/// The images are 320x320: no time is short enough for more than that, and a run that goes on keeps what it had.
#[test]
fn a_budget_chooses_the_size_of_the_input() {
    let config = "methods = [\"bank\"]\n[budget]\nms = 100000.0\n[features]\nstrides = [16]\n[bank]\nvectors = 8\nstride = 16\n\
        [validation]\nfolds = 2\n";
    let (folder, output) = train_on(config, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("input 320x320: ") && said.contains("the images are 320x320"),
        "{said}"
    );
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, run, config) = (at("data"), at("run"), at("config.toml"));
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu", "--resume"]);
    train_well(&["export", "--run", &run, "--out", &at("b.ckaad"), "--precision", "f32"]);
    let input = Bundle::read(Path::new(&at("b.ckaad"))).unwrap().manifest.input;
    assert_eq!((input.width, input.height), (320, 320));
    std::fs::write(at("less.toml"), "methods = [\"bank\"]\n[budget]\nms = 0.000001\n").unwrap();
    let told =
        refused(&["fit", "--config", &at("less.toml"), "--data", &data, "--out", &at("other"), "--device", "cpu"]);
    assert!(told.starts_with("budget.ms is 0.000001: the smallest input that was tried takes "), "{told}");
}

/// A run that is resumed ends with the weights of one that was never stopped.
#[test]
fn a_resumed_run_ends_where_an_unbroken_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, config, short) = (at("data"), at("config.toml"), at("short.toml"));
    synth(&data);
    std::fs::write(&config, CONFIG).unwrap();
    let (whole, broken) = (at("whole"), at("broken"));
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &whole, "--device", "cpu"]);
    // Stopped in the middle of the first model: what a kill leaves is that state, since every file is renamed into place.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ckaad-train"))
        .args(["fit", "--config", &config, "--data", &data, "--out", &broken, "--device", "cpu"])
        .spawn()
        .unwrap();
    while !Path::new(&broken).join("fold-1/progress.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "fit ended before its first checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        refused(&["fit", "--config", &config, "--data", &data, "--out", &broken, "--device", "cpu"]),
        format!("{broken} holds a run already; give --resume to go on with it, or another --out")
    );
    train_well(&["fit", "--config", &config, "--data", &data, "--out", &broken, "--device", "cpu", "--resume"]);
    let losses = |run: &str, model: &str| {
        let text = std::fs::read_to_string(Path::new(run).join(model).join("progress.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["finished"], true);
        value["history"].clone()
    };
    for model in ["fold-1", "fold-2", "whole"] {
        assert_eq!(losses(&whole, model), losses(&broken, model), "{model}");
    }
    // Regression: with more epochs a finished run went on, and was exported as if it had been trained to its end.
    let more = at("more.toml");
    std::fs::write(&more, CONFIG.replace("epochs = 4", "epochs = 400")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ckaad-train"))
        .args(["fit", "--config", &more, "--data", &data, "--out", &whole, "--device", "cpu", "--resume"])
        .spawn()
        .unwrap();
    let progress = || -> serde_json::Value {
        let text = std::fs::read(Path::new(&whole).join("fold-1/progress.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    };
    while progress()["epochs_done"].as_u64().is_none_or(|epochs| epochs <= 4) {
        assert!(child.try_wait().unwrap().is_none(), "fit ended before its next checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let told = refused(&["export", "--run", &whole, "--out", &at("early.ckaad")]);
    assert!(told.contains("is not trained to its end (fold-1 is missing)"), "{told}");

    // Another config is not silently mixed into the run.
    std::fs::write(&short, CONFIG.replace("seed = 7", "seed = 8")).unwrap();
    assert_eq!(
        refused(&["fit", "--config", &short, "--data", &data, "--out", &broken, "--device", "cpu", "--resume"]),
        format!("{broken} was made with another config; resume with the same, or give another --out")
    );
}

#[test]
fn a_typo_in_the_training_config_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.toml").to_string_lossy().into_owned();
    std::fs::write(&config, "[train]\nepoch = 3\n").unwrap();
    assert_eq!(
        refused(&["fit", "--config", &config, "--data", "x", "--out", "y"]),
        format!("unknown key `train.epoch` in {config}; did you mean `epochs`?")
    );
}

/// What no label can teach is said before anything is trained, and where no map is left nothing begins.
#[test]
fn a_model_without_a_map_is_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    synth(&at("data"));
    for defective in std::fs::read_dir(folder.path().join("data/train")).unwrap().map(|entry| entry.unwrap().path()) {
        if !defective.ends_with("good") {
            std::fs::remove_dir_all(defective).unwrap();
        }
    }
    let (config, data, run) = (at("config.toml"), at("data"), at("run"));
    std::fs::write(&config, format!("methods = [\"sparsity\", \"mahalanobis\"]\n{CONFIG}")).unwrap();
    let output = train(&["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let expected = "ckaad-train: nothing of sparsity, mahalanobis gives a map here: sparsity is left out, for it needs 1 labelled anomalies, there are 0; list \
                    the method bank too, which needs no label";
    assert_eq!(told.lines().last(), Some(expected));
    assert!(!Path::new(&run).join("run.json").exists());
    // Without a label there is nothing to choose by: what needs none is trained and taken.
    let fit = ["fit", "--config", &config, "--data", &data, "--out", &run, "--device", "cpu", "--method", "auto"];
    let said = train_well(&fit);
    let last = "chosen: bank + mahalanobis; with fewer than 5 anomalous images nothing tells whether others help";
    assert_eq!(said.lines().last(), Some(last), "{said}");
}

/// The baseline is the list with the bank alone: it has no epochs, and no line and no file says otherwise.
#[test]
fn a_baseline_reports_no_epoch() {
    let (folder, output) = train_on(&format!("methods = [\"bank\"]\n{CONFIG}[bank]\nvectors = 32\n"), &[]);
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with(&format!("{}: 3 models in ", at("run"))), "{said}");
    assert!(!said.contains("epoch"), "{said}");
    train_well(&["export", "--run", &at("run"), "--out", &at("bank.ckaad"), "--precision", "f32"]);
    let bundle = Bundle::read(Path::new(&at("bank.ckaad"))).unwrap();
    let report = bundle.report.unwrap();
    assert_eq!((&report["training"]["epochs"], &report["training"]["history"]), (&0.into(), &serde_json::json!([])));
    let names: Vec<&str> = bundle.manifest.terms.iter().map(|t| t.name.as_str()).collect();
    assert_eq!((bundle.manifest.methods, names), (vec!["bank".to_owned()], vec!["distance"]));
    // Every training image stands behind the threshold.
    assert_eq!((bundle.manifest.calibration.images, &report["evidence"]["anomalous_images"]), (60, &12.into()));
}

/// Nobody looks at anomalous training images then, made ones included, so their features are not computed.
#[test]
fn without_a_discriminator_only_normal_images_are_trained_on() {
    let config = "methods = [\"ckaad\"]\n".to_owned()
        + &CONFIG.replace("epochs = 4", "epochs = 1")
        + "[ckaad.discriminator]\nkind = \"none\"\n";
    for source in ["auto", "perlin"] {
        let (folder, output) = train_on(&format!("{config}[anomalies]\nsource = \"{source}\"\n"), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = |name: &str| std::fs::metadata(folder.path().join("run/cache").join(name)).map_or(0, |m| m.len());
        assert!(bytes("normal.f16") > 0);
        assert_eq!((bytes("anomalous.f16"), bytes("made-anomalies.f16")), (0, 0), "{source}");
    }
}

pub fn synth(data: &str) {
    train_well(&[
        "synth",
        "--out",
        data,
        "--seed",
        "3",
        "--train-good",
        "60",
        "--train-defective",
        "2",
        "--test-good",
        "20",
        "--test-defective",
        "2",
    ]);
}

/// Integers are the same everywhere: only without layers in float can every byte be that of ONNX Runtime.
const ALL_INT8: &str = "[quantise]\nmixed = false\n";

const CONFIG: &str = "name = \"small\"\nseed = 7\nfalse_alarm_budget = 0.05\n\
    [input]\nwidth = 96\nheight = 96\n\
    [features]\nstrides = [4, 8, 16]\n\
    [ckaad.net]\nwidths = [8, 16, 24]\nbottleneck = 32\n\
    [train]\nepochs = 4\nbatch = 8\nanomalous_batch = 2\nleast_steps = 0\ncheckpoint_every = 2\n\
    [validation]\nfolds = 2\n";

/// The agent lies beside the trainer once the workspace is built, which `./dev test` does.
fn agent() -> PathBuf {
    let agent = Path::new(env!("CARGO_BIN_EXE_ckaad-train")).with_file_name("ckaad-agent");
    assert!(
        agent.exists(),
        "{} is missing: run the tests of the whole workspace, or cargo build first",
        agent.display()
    );
    agent
}

/// `infer` and `evaluate` give the same scores and write them in the same way: their texts are compared.
fn infer_gives_the_same_texts(bundle: &str, data: &str, samples: &[serde_json::Value], evaluation: &str) {
    let images: Vec<String> = samples.iter().map(|s| format!("{data}/{}", s["path"].as_str().unwrap())).collect();
    let output = Command::new(agent()).args(["infer", "--json", "--bundle", bundle]).args(&images).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let inferred = String::from_utf8_lossy(&output.stdout).into_owned();
    let (inferred, evaluated) = (scores(&inferred), scores(evaluation));
    assert_eq!(inferred.len(), samples.len());
    assert_eq!(inferred, evaluated);
}

/// The text of every `score` in a JSON text.
fn scores(json: &str) -> Vec<&str> {
    json.split("\"score\":")
        .skip(1)
        .map(|rest| rest.trim_start().split([',', '}']).next().unwrap().trim_end())
        .collect()
}
