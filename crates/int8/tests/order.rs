//! The files of this crate have an order, and each imports only from those before it: what a reader meets first needs
//! nothing that comes later, and any prefix could be a crate of its own.

use std::path::{Path, PathBuf};

const ORDER: [&str; 14] = [
    "shape", "weights", "isa", "buffer", "pack", "kernels", "cut", "operator", "ops", "region", "memory", "program",
    "pool", "run",
];

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

#[test]
fn every_file_imports_only_from_those_before_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    files(&source, &mut all);
    let mut wrong = vec![];
    let mut seen = 0;
    for file in all {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "tests"].contains(&room) {
            continue;
        }
        let place = |room: &str| ORDER.iter().position(|&r| r == room);
        let here = place(room).unwrap_or_else(|| panic!("{} is not in the order", inside.display()));
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests at a file's end may use everything.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for import in text.split("crate::").skip(1) {
            let name: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            seen += 1;
            if place(&name).is_none_or(|there| there > here) {
                wrong.push(format!("{}: {name}", inside.display()));
            }
        }
    }
    assert!(seen > 50 && wrong.is_empty(), "{seen} imports, of which against the order:\n{}", wrong.join("\n"));
}
