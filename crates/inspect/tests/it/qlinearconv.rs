//! The int8 engine against ONNX Runtime, one small model an operator: `tests/reference/qlinearconv.py` says which.
//!
//! Needs a Python, as [`ckaad_testing::onnx_runtime`] does.

use ckaad_bundle::Bundle;
use ckaad_inspect::engine::Plan;
use ckaad_testing::{demo_bundle, in_repository};
use std::process::Command;

#[derive(serde::Deserialize)]
struct Model {
    name: String,
    /// What one step of the last quantisation is worth.
    step: f32,
    /// Operators on bytes that stay with tract.
    left: Vec<String>,
}

#[test]
fn every_operator_is_taken_and_gives_what_onnx_runtime_gives() {
    let Some(python) = ckaad_testing::onnx_runtime::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = in_repository("tests/reference/qlinearconv.py");
    let status = Command::new(&python).arg(script).arg(folder.path()).status().expect("CKAAD_PYTHON starts");
    assert!(status.success(), "the script did not make its models");
    let read = |name: String| std::fs::read(folder.path().join(name)).unwrap();
    let models: Vec<Model> = serde_json::from_slice(&read("models.json".into())).unwrap();
    assert!(models.len() >= 60, "{} models", models.len());
    let (mut all, mut different, mut wrong) = (0, 0, vec![]);
    for Model { name, step, left } in models {
        let (onnx, image) = (read(format!("{name}.onnx")), read(format!("{name}.rgb")));
        let plan = match Plan::load(&onnx, 1) {
            Ok(plan) => plan,
            Err(e) => {
                wrong.push(format!("{name}: {e}"));
                continue;
            }
        };
        let unfused: Vec<&str> = plan.unfused().iter().filter_map(|x| x.split(':').next()).collect();
        if unfused != left {
            wrong.push(format!("{name}: tract runs {:?}", plan.unfused()));
        }
        let ours = plan.run(&image).unwrap().swap_remove(0);
        let theirs: Vec<f32> =
            read(format!("{name}.f32")).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        assert!(ours.iter().chain(&theirs).all(|v| v.is_finite()), "{name}");
        let steps = |(a, b): (&f32, &f32)| ((a - b) / step).abs().round();
        let worst = ours.iter().zip(&theirs).map(steps).fold(0.0, f32::max);
        let unequal = ours.iter().zip(&theirs).filter(|&pair| steps(pair) > 0.0).count();
        println!("{name}: {unequal} of {} differ, by at most {worst} steps", ours.len());
        if worst > 1.0 {
            wrong.push(format!("{name}: {worst} steps of difference"));
        }
        // Threads share the work and change nothing.
        if Plan::load(&onnx, 3).unwrap().run(&image).unwrap() != [ours.as_slice()] {
            wrong.push(format!("{name}: three threads give other values than one"));
        }
        (all, different) = (all + ours.len(), different + unequal);
    }
    println!("{different} of {all} values differ");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(different * 1000 <= all, "{different} of {all} values differ");
}

#[test]
fn of_the_shipped_bundle_the_int8_engine_takes_every_quantised_operator() {
    let plan = Plan::load(&Bundle::read(&demo_bundle()).unwrap().model, 1).unwrap();
    assert!(plan.unfused().is_empty(), "tract runs {:?}", plan.unfused());
}
