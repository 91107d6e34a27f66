//! The floor rule of `src/lib.rs`: a module uses only modules on floors below its own. The table there is the one that counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_module_uses_only_floors_below_its_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = table(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&src).unwrap().map(|entry| entry.unwrap().path()) {
        let module = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["lib", "bin"].contains(&module.as_str()) {
            continue;
        }
        let Some(&floor) = floors.get(&module) else {
            wrong.push(format!("{module} is not in the table of src/lib.rs"));
            continue;
        };
        for file in rust_files(&entry) {
            for used in uses(&fs::read_to_string(&file).unwrap()) {
                match floors.get(&used) {
                    _ if used == module => {}
                    Some(&below) if below < floor => {}
                    Some(&other) => {
                        wrong.push(format!("{}: {module} (floor {floor}) uses {used} (floor {other})", file.display()))
                    }
                    None => wrong.push(format!("{}: {module} uses crate::{used}, which no floor has", file.display())),
                }
            }
        }
    }
    assert!(floors.len() >= 9, "the table of src/lib.rs was not understood: {floors:?}");
    assert!(wrong.is_empty(), "the floor rule is broken:\n{}", wrong.join("\n"));
}

#[test]
fn every_way_of_naming_a_module_is_seen() {
    let text = r#"
        use crate::imaging::{Frame, fit};
        use crate::{bundle::Bundle, engine::{Plan, int8}, inspect};
        // use crate::agent::Nothing;
        /* crate::mqtt::x */ fn f() -> crate::events::Event { let a = "crate::train::y // "; crate::capture::open() }
        pub(crate) fn g(xcrate: u8) {}
    "#;
    assert_eq!(uses(text), ["imaging", "bundle", "engine", "inspect", "events", "capture"]);
}

/// The rows ``| floor | [`module`] | ... |``.
fn table(text: &str) -> BTreeMap<String, u32> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("//! |")?.split('|').map(str::trim);
        let floor = cells.next()?.parse().ok()?;
        Some((cells.next()?.trim_matches(['[', ']', '`']).to_owned(), floor))
    };
    text.lines().filter_map(row).collect()
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| rust_files(&entry.unwrap().path())).collect();
    }
    if path.extension().is_some_and(|e| e == "rs") { vec![path.to_owned()] } else { Vec::new() }
}

/// The modules that `crate::...` names, in order.
fn uses(text: &str) -> Vec<String> {
    let text = code(text);
    let mut out = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            out.push(identifier(rest));
            continue;
        };
        let (mut level, mut start) = (0, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => level += 1,
                '}' if level == 0 => break,
                '}' => level -= 1,
                ',' if level == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    out.push(identifier(&group[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    out
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The text without comments and strings.
fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            rest.find("\"'").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[skip..];
    }
    out
}
