//! The trainer as a person runs it: its real binary, what it answers and what it complains of.

use std::process::{Command, Output};

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckaad-train"));
    command.args(arguments);
    command
}

pub fn train(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the trainer starts")
}

pub fn train_well(arguments: &[&str]) -> String {
    let output = train(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ckaad-train {arguments:?} failed: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one sentence on standard error with which the trainer refuses; the program's name is taken off.
#[track_caller]
pub fn refused(arguments: &[&str]) -> String {
    complaint(&train(arguments))
}

/// As [`refused`], of a program that has ended.
#[track_caller]
pub fn complaint(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let sentence = stderr.strip_prefix("ckaad-train: ").and_then(|s| s.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("not one line of the trainer's: {stderr:?}"));
    assert!(!sentence.contains('\n'), "more than one line: {stderr}");
    sentence.to_owned()
}
