//! What the tests of several crates need: where the repository's files are, ONNX Runtime as a judge, a disk whose power can be cut,
//! libraries that stand in for a driver.
#![deny(unsafe_code)]

pub mod onnx;
pub mod onnx_runtime;
pub mod volume;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository, by its path from the root.
pub fn in_repository(path: &str) -> PathBuf {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this crate is two folders below the root");
    root.join(path)
}

/// The model that comes with the program.
pub fn demo_bundle() -> PathBuf {
    in_repository("models/demo.ckaad")
}

/// Programs that tests call, and the Debian packages that bring them; `dev` installs these.
const PROGRAMS: [(&str, &str); 9] = [
    ("cc", "gcc"),
    ("chromium", "chromium"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_passwd", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_rr", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
];

/// A program that a test needs.
///
/// # Panics
/// It is not on this machine; the sentence names the package that brings it.
pub fn program(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    let package = PROGRAMS.iter().find(|(known, _)| *known == name).map_or(name, |(_, package)| package);
    let Some(found) = found else {
        panic!("the program {name} is missing; Debian's package `{package}` brings it, and `./dev test` installs it")
    };
    Command::new(found)
}

/// Says why the running test, or a part of it, cannot run here. Its name goes into the file that `CKAAD_SKIPPED` names, where it names one: so
/// that CI runs elsewhere what one machine could not.
///
/// # Panics
/// The file cannot be written.
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    let Some(list) = std::env::var_os("CKAAD_SKIPPED") else { return };
    let test = std::thread::current().name().unwrap_or("main").to_owned();
    let file = std::fs::File::options().create(true).append(true).open(list);
    // One write: tests run beside one another.
    file.and_then(|mut file| file.write_all(format!("{test}\n").as_bytes())).expect("CKAAD_SKIPPED can be written");
}

/// A library for LD_PRELOAD, built into `folder` from a C file of tests/fixtures.
///
/// # Panics
/// The compiler is missing, or refuses the file.
pub fn preloadable(folder: &Path, source: &str) -> PathBuf {
    let library = folder.join(source).with_extension("so");
    let mut cc = program("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&library).arg(in_repository("tests/fixtures").join(source));
    assert!(cc.arg("-ldl").status().expect("cc starts").success());
    library
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "the program no-such-program is missing; Debian's package `no-such-program` brings it")]
    fn a_missing_program_is_one_sentence_with_its_package() {
        super::program("no-such-program");
    }
}
