//! The order of the rooms, in every crate: a module uses only modules on floors below its own (the tables in the `lib.rs` files are the ones
//! that count), and no file imports from a file that imports from it, however far round.
//!
//! What is read are `use` declarations and paths in the code. A child may import from its own parents: they are where it lives.

use ckaad_testing::in_repository;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;

/// The crates, by the folders of their sources.
pub fn sources() -> Vec<PathBuf> {
    let crates = fs::read_dir(in_repository("crates")).unwrap().map(|entry| entry.unwrap().path().join("src"));
    crates.chain([in_repository("src")]).collect()
}

#[test]
fn a_module_uses_only_floors_below_its_own() {
    let (mut wrong, mut tables) = (vec![], 0);
    for src in sources() {
        let table = table(&fs::read_to_string(src.join("lib.rs")).unwrap());
        if table.is_empty() {
            continue;
        }
        tables += 1;
        let tree = Tree::read(&src);
        for (file, module) in &tree.modules {
            let Some(room) = module.first() else { continue };
            let Some(&floor) = table.get(room) else {
                wrong.push(format!("{}: {room} is not in the table of its lib.rs", src.display()));
                continue;
            };
            for used in tree.uses(file) {
                match used.first().and_then(|room| Some((room, *table.get(room)?))) {
                    Some((other, _)) if other == room => {}
                    Some((_, below)) if below < floor => {}
                    Some((other, level)) => {
                        wrong.push(format!("{}: {room} (floor {floor}) uses {other} (floor {level})", file.display()));
                    }
                    None => {}
                }
            }
        }
    }
    assert!(tables >= 2, "the tables were not found");
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "the floor rule is broken:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_in_a_circle_of_imports() {
    let circles: Vec<String> = sources().iter().flat_map(|src| Tree::read(src).circles()).collect();
    assert!(circles.is_empty(), "{} circle(s):\n{}", circles.len(), circles.join("\n"));
}

/// A tree with one circle, by way of a re-export, and every harmless thing that looks like one.
#[test]
fn a_circle_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod room; // use crate::b::X;");
    write("a.rs", "use crate::room::Name; const TEXT: &str = \"crate::b::X\";");
    write(
        "b.rs",
        "fn f() -> crate::a::T { crate::a::T } #[cfg(test)] mod tests { use super::*; use crate::room::Name; }",
    );
    write("room/mod.rs", "mod inner; mod other; pub use inner::Name; pub const MINE: u32 = 1;");
    write("room/inner.rs", "use super::other::Thing; use super::MINE; pub struct Name;");
    write("room/other.rs", "use crate::a::{T as U}; pub struct Thing;");
    let tree = Tree::read(dir.path());
    let circles = tree.circles();
    assert_eq!(circles.len(), 1, "{circles:?}");
    for file in ["a.rs", "inner.rs", "other.rs"] {
        assert!(circles[0].contains(file), "{circles:?}");
    }
    assert!(!circles[0].contains("b.rs") && !circles[0].contains("mod.rs"), "{circles:?}");
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

/// The modules of a crate, and what each file names.
struct Tree {
    /// The path of its module below the crate, empty for `lib.rs`.
    modules: BTreeMap<PathBuf, Vec<String>>,
    files: BTreeMap<Vec<String>, PathBuf>,
    named: BTreeMap<PathBuf, Vec<Named>>,
}

/// A path that a file names, from the crate's root on.
#[derive(Clone)]
struct Named {
    path: Vec<String>,
    /// It is a `pub use`: others find it here under its last name, or under all names.
    exported: bool,
}

impl Tree {
    fn read(src: &Path) -> Tree {
        let mut tree = Tree { modules: BTreeMap::new(), files: BTreeMap::new(), named: BTreeMap::new() };
        let mut parsed = vec![];
        for file in rust_files(src) {
            let mut module: Vec<String> = file
                .strip_prefix(src)
                .unwrap()
                .with_extension("")
                .iter()
                .map(|p| p.to_str().unwrap().to_owned())
                .collect();
            let test = module.iter().any(|part| part == "tests" || part.ends_with("_tests") || part == "bin");
            if test || module == ["main"] {
                continue;
            }
            if module.last().is_some_and(|last| last == "mod" || last == "lib") {
                module.pop();
            }
            let text = fs::read_to_string(&file).unwrap();
            parsed.push((file.clone(), module.clone(), syn::parse_file(&text).unwrap()));
            tree.modules.insert(file.clone(), module.clone());
            tree.files.insert(module, file);
        }
        for (file, module, syntax) in parsed {
            let mut reader = Reader { module, files: &tree.files, named: vec![] };
            reader.visit_file(&syntax);
            let named = reader.named;
            tree.named.insert(file, named);
        }
        tree
    }

    /// Modules that `file` takes something from; re-exports are followed to where the thing is.
    fn uses(&self, file: &Path) -> BTreeSet<Vec<String>> {
        self.named[file].iter().filter_map(|named| self.home(&named.path, 8)).collect()
    }

    /// The module that the last name of `path` comes from.
    fn home(&self, path: &[String], patience: u32) -> Option<Vec<String>> {
        let known = (0..=path.len()).rev().find(|&n| self.files.contains_key(&path[..n]))?;
        let (module, rest) = path.split_at(known);
        let Some(name) = rest.first().filter(|_| patience > 0) else { return Some(module.to_vec()) };
        let exports = self.named[&self.files[module]].iter().filter(|n| n.exported);
        for export in exports {
            let all = export.path.last().is_some_and(|last| last == "*");
            if all || export.path.last() == Some(name) {
                let mut target = export.path.clone();
                if all {
                    target.pop();
                    // Only if that module has the name: otherwise it comes from another one.
                    let defines = self.files.get(&target).is_some_and(|file| defines(file, name));
                    if !defines {
                        continue;
                    }
                    target.push(name.clone());
                }
                if target != path {
                    return self.home(&target, patience - 1);
                }
            }
        }
        Some(module.to_vec())
    }

    /// Each circle once, as the files in it.
    fn circles(&self) -> Vec<String> {
        let below = |file: &PathBuf| -> BTreeSet<PathBuf> {
            let module = &self.modules[file];
            let used = self.uses(file).into_iter().filter(|used| !module.starts_with(used));
            used.map(|used| self.files[&used].clone()).collect()
        };
        let direct: BTreeMap<&PathBuf, BTreeSet<PathBuf>> = self.modules.keys().map(|f| (f, below(f))).collect();
        let reach = |start: &PathBuf| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![start.clone()]);
            while let Some(file) = next.pop() {
                next.extend(direct[&file].iter().filter(|f| seen.insert((*f).clone())).cloned());
            }
            seen
        };
        let all: BTreeMap<&PathBuf, BTreeSet<PathBuf>> = self.modules.keys().map(|f| (f, reach(f))).collect();
        let mut found = BTreeSet::new();
        for (&file, reached) in &all {
            let circle: Vec<&PathBuf> = reached.iter().filter(|other| all[other].contains(file)).collect();
            if !circle.is_empty() {
                found.insert(circle.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" ↔ "));
            }
        }
        found.into_iter().collect()
    }
}

/// Whether the file has an item of this name.
fn defines(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap();
    ["struct", "enum", "trait", "fn", "const", "type", "static", "mod"].iter().any(|kind| {
        text.match_indices(&format!("{kind} {name}"))
            .any(|(at, found)| !text[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    }) || text.contains(&format!("use {name}"))
}

/// Gathers what a file names, as paths from the crate's root.
struct Reader<'a> {
    module: Vec<String>,
    files: &'a BTreeMap<Vec<String>, PathBuf>,
    named: Vec<Named>,
}

impl Reader<'_> {
    fn note(&mut self, path: &[String], exported: bool) {
        let (first, rest) = path.split_first().expect("a path has a first part");
        let mut base = match first.as_str() {
            "crate" => vec![],
            "self" => self.module.clone(),
            "super" => {
                let supers = path.iter().take_while(|part| *part == "super").count();
                let rest = path[supers..].to_vec();
                // Deeper than the file: an inline module, whose parent is the file itself.
                let kept = self.module.len().saturating_sub(supers);
                let path = [self.module[..kept].to_vec(), rest].concat();
                self.named.push(Named { path, exported });
                return;
            }
            child => {
                let mut module = self.module.clone();
                module.push(child.to_owned());
                if !self.files.contains_key(&module) {
                    return;
                }
                module
            }
        };
        base.extend_from_slice(rest);
        self.named.push(Named { path: base, exported });
    }

    fn tree(&mut self, tree: &syn::UseTree, path: &mut Vec<String>, exported: bool) {
        match tree {
            syn::UseTree::Path(p) => {
                path.push(p.ident.to_string());
                self.tree(&p.tree, path, exported);
                path.pop();
            }
            syn::UseTree::Name(n) => self.leaf(n.ident.to_string(), path, exported),
            syn::UseTree::Rename(n) => self.leaf(n.ident.to_string(), path, exported),
            syn::UseTree::Glob(_) => self.leaf("*".into(), path, exported),
            syn::UseTree::Group(g) => g.items.iter().for_each(|item| self.tree(item, path, exported)),
        }
    }

    fn leaf(&mut self, name: String, path: &[String], exported: bool) {
        let mut whole = path.to_vec();
        if name != "self" {
            whole.push(name);
        }
        self.note(&whole, exported);
    }
}

fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test")))
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        // Tests may look at anything. A `super` inside an inline module means this file.
        if !only_for_tests(&item.attrs) && item.content.is_some() {
            let here = item.ident.to_string();
            self.module.push(here);
            syn::visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !only_for_tests(&item.attrs) {
            let exported = !matches!(item.vis, syn::Visibility::Inherited);
            self.tree(&item.tree, &mut vec![], exported);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if parts.len() > 1 && ["crate", "super", "self"].contains(&parts[0].as_str()) {
            self.note(&parts, false);
        }
        syn::visit::visit_path(self, path);
    }
}

pub fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        return entries.iter().flat_map(|entry| rust_files(entry)).collect();
    }
    if path.extension().is_some_and(|e| e == "rs") { vec![path.to_owned()] } else { vec![] }
}
