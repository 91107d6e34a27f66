//! Models in ONNX Runtime, by the library from PyPI, which knows the processor alone: all but a GPU is as on a device that has one.

use crate::device::variant;
use crate::util::*;
use ckaad_bundle::{Bundle, Calibration, GpuModel};
use ckaad_testing::{onnx_runtime, preloadable};
use serde_json::Value;
use std::path::Path;

/// A line of twenty parts, all of them defective, judged in ONNX Runtime.
fn config(site: &Site, port: u16, library: &Path, more: &str) -> String {
    let camera = "source = \"synthetic\"\n[camera.cam.heatmap]\nenabled = false\n[camera.cam.synthetic]\nframes = 20\nfps = 60\ndefect_rate = 1.0\n";
    let cache = site.path().join("engines");
    let more = format!(
        "[engine]\nthreads = 1\nbackend = \"onnxruntime\"\n[engine.onnxruntime]\nlibrary = {library:?}\ncache = {cache:?}\n{more}\n"
    );
    site.write(port, camera, &more)
}

/// What each frame scored, by its name.
fn scores(subscriber: &Running) -> Vec<(String, f64)> {
    let of = |event: &Value| {
        let data = &event["data"];
        (data["frame_id"].as_str().unwrap().to_owned(), data["score"].as_f64().unwrap())
    };
    payloads(subscriber, "/anomaly").iter().map(of).collect()
}

#[test]
fn models_run_in_onnx_runtime_where_their_golden_samples_come_out_the_same() {
    let Some(library) = onnx_runtime::library() else { return };
    let judged = |more: &str, backend: &str| {
        let site = Site::new();
        let broker = Mosquitto::start(site.path());
        let subscriber = broker.subscribe();
        let config = config(&site, broker.port, &library, "providers = [\"cpu\"]");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("backend = \"onnxruntime\"", more)).unwrap();
        let mut agent = run(&config);
        assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
        let states = payloads(&subscriber, "camera/cam/state");
        assert!(states.iter().all(|s| s["backend"] == backend && s["backend_declined"] == ""), "{states:#?}");
        (scores(&subscriber), agent.saw("model demo 0.1.0 runs in onnxruntime cpu"))
    };
    let (there, said) = judged("backend = \"onnxruntime\"", "onnxruntime cpu");
    let (here, never) = judged("backend = \"cpu\"", "cpu");
    assert!(said && !never && there.len() == 20, "{there:?}");
    for ((frame, there), (same, here)) in there.iter().zip(&here) {
        assert!(frame == same && (there - here).abs() < 0.01 * here.abs(), "{frame}: {there}, {here}");
    }
}

/// Regression: frames judged by the network for a GPU were held against the threshold of the one in int8, whose scores are others.
#[test]
fn the_network_for_a_gpu_has_a_threshold_of_its_own() {
    let Some(library) = onnx_runtime::library() else { return };
    let own = Bundle::read(&bundle()).unwrap();
    let (of_int8, of_gpu) = (own.manifest.calibration.threshold, own.manifest.calibration.threshold - 0.125);
    let path = tempfile::NamedTempFile::new().unwrap();
    let packed = variant("0.2.0", |draft| {
        let golden = own.golden.iter().map(|golden| golden.expected.clone()).collect();
        draft.gpu = Some(GpuModel { model: draft.model.clone(), golden });
        draft.manifest.gpu_calibration = Some(Calibration { threshold: of_gpu, ..draft.manifest.calibration.clone() });
    });
    std::fs::write(path.path(), packed).unwrap();
    for (backend, expected) in [("onnxruntime", of_gpu), ("cpu", of_int8)] {
        let site = Site::new();
        let broker = Mosquitto::start(site.path());
        let subscriber = broker.subscribe();
        let config = config(&site, broker.port, &library, "providers = [\"cpu\"]");
        let text = std::fs::read_to_string(&config)
            .unwrap()
            .replace(&format!("{:?}", bundle()), &format!("{:?}", path.path()));
        std::fs::write(&config, text.replace("backend = \"onnxruntime\"", &format!("backend = {backend:?}"))).unwrap();
        let mut agent = run(&config);
        assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
        let thresholds: Vec<f32> =
            payloads(&subscriber, "/anomaly").iter().map(|e| e["data"]["threshold"].as_f64().unwrap() as f32).collect();
        assert_eq!(thresholds, [expected; 20], "{backend}");
    }
}

#[test]
fn what_does_not_work_is_said_once_and_the_processor_judges() {
    let Some(library) = onnx_runtime::library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("libonnxruntime.so");
    let [old, hollow] = ["old_onnxruntime.c", "hollow_onnxruntime.c"].map(|c| preloadable(folder.path(), c));
    let slow = preloadable(folder.path(), "slowdisk.c");
    // The demo's own network takes the place of one for a GPU; of the second its answers are not the ones that it gives.
    let with_gpu = |wrong: f32| {
        let golden = Bundle::read(&bundle()).unwrap().golden;
        let answers = golden.into_iter().map(|g| g.expected);
        let answers = answers.map(|mut answer| {
            answer.score += wrong;
            answer
        });
        variant("0.2.0", |draft| {
            draft.gpu = Some(GpuModel { model: draft.model.clone(), golden: answers.collect() });
        })
    };
    let [right, wrong] = [("right", 0.0), ("wrong", 1e3)].map(|(name, by)| {
        let path = folder.path().join(name).with_extension("ckaad");
        std::fs::write(&path, with_gpu(by)).unwrap();
        path
    });
    let demo = bundle();
    let cpu = "providers = [\"cpu\"]";
    for (what, bundle, library, more, failpoints, expected) in [
        ("missing", &demo, &missing, cpu, "", "libonnxruntime.so: there is no such file"),
        ("old", &demo, &old, cpu, "", "expected version >= '1.17.x', but got '1.10.0'"),
        ("hollow", &demo, &hollow, cpu, "", "hollow_onnxruntime.so: it failed half-way"),
        ("another library", &demo, &slow, cpu, "", "does not export `OrtGetApiBase`"),
        (
            "no network for a GPU",
            &demo,
            &library,
            "",
            "",
            "the bundle has no network for a GPU (`ckaad-train export --gpu`)",
        ),
        ("no such provider", &right, &library, "", "", "cuda: "),
        ("wrong answers", &wrong, &library, cpu, "", "golden samples are judged otherwise than where it was made"),
        (
            "a driver that hangs",
            &demo,
            &library,
            "providers = [\"cpu\"]\nload_timeout_s = 1",
            "accelerator=sleep(600000)",
            "it was not ready within 1 s (engine.onnxruntime.load_timeout_s)",
        ),
    ] {
        let site = Site::new();
        let broker = Mosquitto::start(site.path());
        let subscriber = broker.subscribe();
        let config = config(&site, broker.port, library, more);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace(&format!("{demo:?}"), &format!("{bundle:?}"))).unwrap();
        let mut command = agent(&["run", "--config", &config]);
        command.env("FAILPOINTS", failpoints);
        let mut agent = Running::spawn(command);
        assert_eq!(agent.ended(), Some(0), "{what}: {:#?}", agent.lines());
        let told: Vec<String> =
            agent.lines().into_iter().filter(|line| line.contains("is judged by the processor: ")).collect();
        assert!(told.len() == 1 && told[0].contains(expected), "{what}: {:#?}", agent.lines());
        // The binding panics over a library that lies, which is caught; its backtrace stays in the log.
        assert!(what == "hollow" || !agent.saw("panicked at"), "{what}: {:#?}", agent.lines());
        let states = payloads(&subscriber, "camera/cam/state");
        let declined = |s: &Value| s["backend"] == "cpu" && s["backend_declined"].as_str().unwrap().contains(expected);
        assert!(!states.is_empty() && states.iter().all(declined), "{what}: {states:#?}");
        assert_eq!(scores(&subscriber).len(), 20, "{what}");
    }
}

#[test]
fn check_and_bench_say_what_would_compute() {
    let Some(library) = onnx_runtime::library() else { return };
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let checked = |more: &str| {
        let config = config(&site, broker.port, &library, more);
        let output = agent(&["check", "--config", &config]).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (well, said) = checked("providers = [\"cpu\"]");
    assert!(well && said.contains("ok    backend of cam: onnxruntime cpu, "), "{said}");
    let (well, said) = checked("");
    let expected = "FAIL  backend of cam: the processor judges: ";
    assert!(!well && said.contains(expected) && said.contains("has no network for a GPU"), "{said}");

    let bundle = bundle();
    let bench =
        ["bench", "--bundle", &bundle.to_string_lossy(), "--runs", "3", "--json", "--onnxruntime"].map(String::from);
    let more = [library.to_string_lossy().into_owned(), "--providers".into(), "cpu".into()];
    let arguments: Vec<String> = bench.into_iter().chain(more).collect();
    let output = agent(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert!(line["provider"] == "cpu" && line["stages"]["engine"]["median_ms"].as_f64().unwrap() > 0.0, "{line}");
}
