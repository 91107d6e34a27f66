//! What an operator gets wrong is answered with one clear sentence and the documented exit code.

use crate::util::*;

/// Writes `text` as the configuration, which has to be refused with this sentence; `{}` in it is the file's path.
fn refuses_file(text: &str, sentence: &str) {
    let site = Site::new();
    let path = site.path().join("a.toml");
    let path = path.to_str().unwrap();
    std::fs::write(path, text).unwrap();
    refuses(&mut agent(&["run", "--config", path]), &sentence.replace("{}", path));
}

#[test]
fn typo_in_config_names_nearest_key() {
    for (text, key, nearest) in [
        ("[mqtt]\nhsot = \"x\"", "mqtt.hsot", "host"),
        ("[mqqt]\nhost = \"x\"", "mqqt", "mqtt"),
        ("[camera.left]\ntreshold = 1.0", "camera.left.treshold", "threshold"),
        ("[camera.left.directory]\npaths = \"x\"", "camera.left.directory.paths", "path"),
    ] {
        refuses_file(text, &format!("unknown key `{key}` in {{}}; did you mean `{nearest}`?"));
    }
}

#[test]
fn an_unknown_variable_is_named() {
    let site = Site::new();
    let config = site.config(1, &site.images("parts", &["a"]), "", "");
    let sentence = "unknown key `mqtt.hots` in the environment variable CKAAD__MQTT__HOTS; did you mean `host`?";
    refuses(agent(&["run", "--config", &config]).env("CKAAD__MQTT__HOTS", "x"), sentence);
}

#[test]
fn wrong_values_name_file_and_key() {
    let camera = "[camera.a]\nsource = \"synthetic\"\n";
    for (table, sentence) in [
        ("[mqtt]\nkeep_alive_s = 1", "{}: `mqtt.keep_alive_s` is 1; expected 5 to 65535"),
        ("[engine]\nthreads = 300", "{}: `engine.threads` is 300; expected up to 256, or 0 for one a core"),
        (
            "[engine]\nbackend = \"onnxruntime\"\n[engine.onnxruntime]\nproviders = [\"cuda\", \"gpu\"]",
            "{}: `engine.onnxruntime.providers` is [\"cuda\", \"gpu\"]; expected some of tensorrt, cuda and cpu, each once",
        ),
        (
            "[engine]\nbackend = \"onnxruntime\"\n[engine.onnxruntime]\nproviders = [\"cpu\", \"cpu\"]",
            "{}: `engine.onnxruntime.providers` is [\"cpu\", \"cpu\"]; expected some of tensorrt, cuda and cpu, each once",
        ),
        (
            "[engine]\nbackend = \"onnxruntime\"\n[engine.onnxruntime]\nlibrary = \"libonnxruntime.so\"",
            "{}: `engine.onnxruntime.library` is \"libonnxruntime.so\"; expected a path from the root, /...",
        ),
        (
            "[engine]\nthreads = 2\njudges = 3",
            "{}: `engine.judges` is 3; expected up to 2: a judge has at least one thread",
        ),
        (
            "[update]\nurl = \"http://127.0.0.1/\"\n[update.trial]\nbudget_ms = -1.0",
            "{}: `update.trial.budget_ms` is -1; expected 0 (none) to 60000",
        ),
        (
            "[camera.b]\nsource = \"synthetic\"\nmm_per_px = -0.1",
            "{}: `camera.b.mm_per_px` is -0.1; expected 0 (not known) or up to 1000",
        ),
        (
            "[camera.b]\nsource = \"synthetic\"\nmm_per_px = 0.1\nignore_below_mm2 = nan",
            "{}: `camera.b.ignore_below_mm2` is NaN; expected 0 (nothing) or an area",
        ),
        (
            "[camera.b]\nsource = \"synthetic\"\nparts.views = [\"top\"]",
            "{}: `camera.b.parts.views` is given, but only the source \"directory\" says which part a frame shows: a folder each",
        ),
        (
            "[camera.b]\nsource = \"directory\"\ndirectory.path = \"/x\"\nparts.views = [\"top\", \"top\"]",
            "{}: `camera.b.parts.views` names the view \"top\" twice",
        ),
        (
            "[camera.b]\nsource = \"directory\"\ndirectory.path = \"/x\"\nparts.views = [\"\"]",
            "{}: `camera.b.parts.views` names the view \"\"; expected 1 to 64 bytes",
        ),
        (
            "[camera.b]\nsource = \"directory\"\ndirectory.path = \"/x\"\nparts.views = [\"v0\", \"v1\", \"v2\", \"v3\", \"v4\", \"v5\", \"v6\", \"v7\", \"v8\", \"v9\", \"v10\", \"v11\", \"v12\", \"v13\", \"v14\", \"v15\", \"v16\"]",
            "{}: `camera.b.parts.views` has 17 views; expected up to 16",
        ),
        (
            "[camera.b]\nsource = \"directory\"\nparts.views = [\"top\"]\ndirectory = { path = \"/x\", labelled = true }",
            "{}: `camera.b.directory.labelled` is true, but with `parts.views` a folder is a part and no truth",
        ),
        (
            "[camera.b]\nsource = \"directory\"\ndirectory = { path = \"/x\", remove_folders = true }",
            "{}: `camera.b.directory.remove_folders` is true, but `directory.after` keeps what lies in them",
        ),
        (
            "[camera.b]\nsource = \"directory\"\ndirectory.path = \"/x\"\nparts.patience_s = nan",
            "{}: `camera.b.parts.patience_s` is NaN; expected 0.1 to 3600",
        ),
        (
            "[camera.b]\nsource = \"directory\"\ndirectory.path = \"/x\"\nparts.patience_s = 0.0",
            "{}: `camera.b.parts.patience_s` is 0; expected 0.1 to 3600",
        ),
        (
            "[camera.b]\nsource = \"synthetic\"\nignore_below_mm2 = 2.5",
            "{}: `camera.b.ignore_below_mm2` is 2.5; it needs camera.b.mm_per_px, the size of a pixel",
        ),
        (
            "[camera.b]\nsource = \"synthetic\"\nmm_per_px = 0.00005\nignore_below_mm2 = 1.0",
            "{}: `camera.b.ignore_below_mm2` is 1: with camera.b.mm_per_px of 0.00005 that are 400000000 pixels; up to 64000000 expected",
        ),
        ("[mqtt]\nport = \"many\"", "{}: invalid type: string \"many\", expected an integer for key `mqtt.port`"),
        ("[mqtt]\nprotocol = \"4\"", "{}: enum Protocol does not have variant constructor 4 for key `mqtt.protocol`"),
        (
            "[device]\nsite = \"a+b\"",
            "{}: `device` is no good: the topic prefix \"ckaad/a+b/line/device\" contains a wildcard, `+` or `#`, or a zero byte",
        ),
        (
            "[agent]\nlog = \"warning\"",
            "{}: `agent.log` has \"warning\"; expected error, warn, info, debug, trace, or module=level",
        ),
        (
            "[agent]\nlog = \"info,ckaad_edge=loud\"",
            "{}: `agent.log` is \"info,ckaad_edge=loud\", which is no filter: error parsing level filter: expected one of \"off\", \
             \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
        ),
    ] {
        refuses_file(&format!("{camera}{table}"), sentence);
    }
    for (text, sentence) in [
        (
            "[camera.\"Big Name\"]\nsource = \"synthetic\"",
            "{}: `camera.Big Name` is no name for a camera; expected up to 64 of a-z, 0-9, `-` and `_` (it becomes a topic level)",
        ),
        ("", "{}: `camera` has no enabled table; expected at least one [camera.NAME]"),
        ("[camera.a]\n[camera.b]", "{}: `camera.b` uses /dev/video0, which `camera.a` uses already"),
        (
            "[[[",
            "{} is not valid TOML: TOML parse error at line 1, column 3   | 1 | [[[   |   ^ unquoted keys cannot be empty, expected \
             letters, numbers, `-`, `_`",
        ),
    ] {
        refuses_file(text, sentence);
    }
    let sentence = "cannot read the configuration /nowhere/a.toml: No such file or directory (os error 2)";
    refuses(&mut agent(&["run", "--config", "/nowhere/a.toml"]), sentence);
}

#[test]
fn a_missing_bundle_and_a_missing_folder_are_named() {
    let site = Site::new();
    let images = site.images("parts", &["a"]);
    let config = site.config(1, &images, "", "");
    let bundle =
        "the bundle /nowhere/b.ckaad cannot be used: it cannot be opened: No such file or directory (os error 2)";
    let run = || agent(&["run", "--config", &config]);
    refuses(run().env("CKAAD__CAMERA__CAM__BUNDLE", "/nowhere/b.ckaad"), &format!("camera cam: {bundle}"));
    refuses(
        run().env("CKAAD__CAMERA__CAM__DIRECTORY__PATH", "/nowhere/parts"),
        "camera cam: /nowhere/parts is not a directory; `directory.path` must be one that exists",
    );
    let empty = site.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    refuses(
        run().env("CKAAD__CAMERA__CAM__DIRECTORY__PATH", &empty),
        &format!("camera cam: no image (PNG, JPEG, BMP or TIFF) lies in or under {}", empty.display()),
    );
    let image = images.join("a.png");
    refuses(&mut agent(&["infer", "--bundle", "/nowhere/b.ckaad", image.to_str().unwrap()]), bundle);
}

#[test]
fn an_unreadable_image_is_named_and_the_others_are_judged() {
    let site = Site::new();
    let images = site.images("parts", &["a", "c"]);
    let broken = images.join("b.png");
    std::fs::write(&broken, b"not an image").unwrap();
    let paths: Vec<String> = ["a", "b", "c"].map(|n| images.join(format!("{n}.png")).display().to_string()).to_vec();
    let bundle = bundle();
    let output = agent(&["infer", "--json", "--bundle", bundle.to_str().unwrap()]).args(&paths).output().unwrap();
    let sentences = format!(
        "{} is not an image that can be decoded (PNG, JPEG, BMP or TIFF expected): The image format could not be determined\n\
         ckaad-agent: 1 of 3 images could not be judged\n",
        paths[1]
    );
    assert_eq!((stderr(&output), output.status.code()), (sentences, Some(2)));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let decided: Vec<_> =
        lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["decided_by"].clone()).collect();
    assert_eq!(decided, ["map", "map"]);

    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let mut agent = run(&site.config(broker.port, &images, "", ""));
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.lines().iter().any(|l| l.contains("b.png") && l.contains("it was skipped")), "{:#?}", agent.lines());
    assert!(agent.saw("2 frames judged, 2 defective, 1 skipped"));
    assert_eq!(alerted(&subscriber), ["a.png", "c.png"]);
}
