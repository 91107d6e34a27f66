//! How the trainer ends: on standard output's troubles, and with which sentence.

use crate::program::{command, complaint, refused};
use ckaad_inspect::synthetic::{DatasetConfig, write_dataset};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

/// Arguments of an evaluation that answers with a few lines: the shipped bundle on a few pictures below `folder`.
fn evaluation(folder: &Path) -> Vec<String> {
    let data = folder.join("data");
    let config =
        DatasetConfig { train_good: 1, train_defective: 0, test_good: 2, test_defective: 1, ..Default::default() };
    write_dataset(&data, &config).unwrap();
    let bundle = ckaad_testing::demo_bundle();
    ["evaluate", "--bundle", bundle.to_str().unwrap(), "--data", data.to_str().unwrap()].map(str::to_owned).to_vec()
}

#[test]
fn a_reader_that_leaves_is_no_error_and_the_files_are_written_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (arguments, json) = (evaluation(folder.path()), folder.path().join("scores.json"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = command(&arguments)
        .args(["--json", json.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    assert!(json.exists());
}

#[test]
fn a_full_disk_behind_standard_output_is_one_sentence_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = evaluation(folder.path());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(&arguments).stdout(full).output().unwrap();
    assert_eq!(complaint(&output), "cannot write to standard output: No space left on device (os error 28)");
}

/// One line, with the cause said once, whichever room it comes from.
#[test]
fn every_refusal_is_one_sentence_with_its_cause_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (missing, empty, config, bad) = (at("missing"), at("empty.toml"), at("config.toml"), at("bad.ckaad"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&bad, "no tar").unwrap();
    let gone = "No such file or directory (os error 2)";
    let fit = |config: &str| refused(&["fit", "--config", config, "--data", &missing, "--out", &at("run")]);
    assert_eq!(fit(&missing), format!("cannot read the training config {missing}: {gone}"));
    assert_eq!(fit(&empty), format!("cannot read {missing}: {gone}"));
    std::fs::write(&config, "[train]\nepochs = \"many\"\n").unwrap();
    assert_eq!(
        fit(&config),
        format!("{config} is no training config: line 2: invalid type: string \"many\", expected usize")
    );
    std::fs::write(&config, "[ckaad.loss]\ngamma = 0.0\n").unwrap();
    assert_eq!(fit(&config), format!("{config}: ckaad.loss.gamma is 0.0; above 0 and at most 1 expected"));
    assert_eq!(
        refused(&["export", "--run", &missing, "--out", &at("out.ckaad")]),
        format!("cannot read {missing}/config.toml: {gone}; is {missing} a folder that ckaad-train fit wrote?")
    );
    let evaluate = |bundle: &str| refused(&["evaluate", "--bundle", bundle, "--data", &missing]);
    assert_eq!(evaluate(&missing), format!("the bundle {missing} cannot be used: it cannot be opened: {gone}"));
    assert_eq!(
        evaluate(&bad),
        format!("the bundle {bad} cannot be used: it is not a tar: the first 512 bytes are no header")
    );
    assert_eq!(
        refused(&["synth", "--out", &format!("{empty}/below")]),
        format!("cannot create the folder {empty}/below: Not a directory (os error 20)")
    );
}
