//! Bounded reading of folders, tables and paths that a data set names.

use super::{DataError, DataLocation, Sample};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff"];
/// Ten times the largest public set, in one folder or one table.
pub const MAX_ENTRIES: usize = 1_000_000;
const MAX_TABLE_BYTES: u64 = 64 << 20;
/// Names and values that an error's sentence tells.
const TOLD: usize = 5;
const TOLD_CHARS: usize = 40;

/// A path's last part.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What lies in `folder`, sorted; hidden files and what archivers of macOS leave behind are passed over.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = |cause| DataError::Read { path: folder.to_owned(), cause };
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if found.len() == MAX_ENTRIES {
            return Err(DataError::TooMany { path: folder.to_owned(), most: MAX_ENTRIES });
        }
        let name = name(&path);
        if !name.starts_with('.') && name != "__MACOSX" {
            found.insert(path);
        }
    }
    Ok(found.into_iter().collect())
}

pub fn folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(entries(folder)?.into_iter().filter(|p| p.is_dir()).collect())
}

/// The first few of `names`, for an error's sentence.
pub fn few<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let mut names = names.into_iter();
    let short = |n: S| n.as_ref().chars().take(TOLD_CHARS).collect::<String>();
    let told: Vec<String> = names.by_ref().take(TOLD).map(short).collect();
    match (told.len(), names.count()) {
        (0, _) => "nothing".into(),
        (_, 0) => told.join(", "),
        (_, more) => format!("{} and {more} more", told.join(", ")),
    }
}

/// The first few names in `folder`.
pub fn found(folder: &Path) -> String {
    entries(folder).map_or_else(|_| "no folder".into(), |entries| few(entries.iter().map(|e| name(e))))
}

/// The images of `folder`, and those of its sub-folders with the sub-folder's name as their group; none when there is
/// no such folder.
fn images(folder: &Path) -> Result<Vec<(PathBuf, Option<String>)>, DataError> {
    let mut found = vec![];
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in entries(folder)? {
        if entry.is_dir() {
            let within = entries(&entry)?.into_iter().filter(|p| is_image(p));
            found.extend(within.map(|path| (path, Some(name(&entry)))));
        } else if is_image(&entry) {
            found.push((entry, None));
        }
    }
    Ok(found)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && path.is_file()
}

/// `folder/stem` with the first image extension that there is.
pub fn image_named(folder: &Path, stem: &str) -> Option<PathBuf> {
    named(folder, stem, &EXTENSIONS)
}

/// As [`image_named`], of the formats that keep zeros zero.
pub fn mask_named(folder: &Path, stem: &str) -> Option<PathBuf> {
    named(folder, stem, &["png", "bmp", "tif", "tiff"])
}

fn named(folder: &Path, stem: &str, extensions: &[&str]) -> Option<PathBuf> {
    let with = |e: &str| folder.join(format!("{stem}.{e}"));
    extensions.iter().flat_map(|e| [with(e), with(&e.to_uppercase())]).find(|p| p.is_file())
}

/// The images of one class folder; `defect` is `None` for the normal class.
pub fn class(folder: &Path, defect: Option<&str>) -> Result<Vec<Sample>, DataError> {
    let sample = |(path, group)| Sample { group, ..Sample::new(path, defect.map(str::to_owned)) };
    Ok(images(folder)?.into_iter().map(sample).collect())
}

/// The images of every `folder/<class>/`; none when there is no such folder.
pub fn classes(folder: &Path, is_normal: impl Fn(&str) -> bool) -> Result<Vec<Sample>, DataError> {
    let mut samples = vec![];
    if folder.is_dir() {
        for class_folder in folders(folder)? {
            let class_name = name(&class_folder);
            samples.extend(class(&class_folder, (!is_normal(&class_name)).then_some(&class_name))?);
        }
    }
    Ok(samples)
}

/// True when `root` or a folder in it is a set or category by itself.
pub fn here_or_below(root: &Path, is_category: fn(&Path) -> bool) -> bool {
    is_category(root) || folders(root).is_ok_and(|f| f.iter().any(|p| is_category(p)))
}

/// Which of `known` is asked for; the only one need not be named.
pub fn choose(source: &DataLocation, known: &[String]) -> Result<usize, DataError> {
    let (root, list) = (source.root.clone(), || known.join(", "));
    match &source.category {
        None if known.len() == 1 => Ok(0),
        None => Err(DataError::SeveralCategories { root, known: list() }),
        Some(asked) => known.iter().position(|k| k == asked).ok_or_else(|| DataError::NoCategory {
            root,
            asked: asked.clone(),
            known: list(),
        }),
    }
}

/// Refuses a category.
///
/// # Errors
/// A category was asked for, of a layout that has none.
pub fn no_category(source: &DataLocation) -> Result<(), DataError> {
    if source.category.is_some() { Err(DataError::OneCategory(source.root.clone())) } else { Ok(()) }
}

/// A text file of at most 64 MiB.
pub fn text(path: &Path) -> Result<String, DataError> {
    let read = |cause| DataError::Read { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read)?;
    file.take(MAX_TABLE_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_TABLE_BYTES {
        return Err(DataError::TooLong { path: path.to_owned(), most: MAX_TABLE_BYTES });
    }
    Ok(text)
}

/// The rows of a CSV file with a header line: the values of `columns`, in their order.
pub fn table<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<[String; N]>, DataError> {
    let malformed = |reason: String| DataError::Listing { path: path.to_owned(), reason };
    let text = text(path)?;
    // Spreadsheets write a byte-order mark.
    let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let header = reader.headers().map_err(|e| malformed(e.to_string()))?.clone();
    let mut at = [0; N];
    for (at, column) in at.iter_mut().zip(columns) {
        *at = header.iter().position(|h| h.trim() == column).ok_or_else(|| {
            malformed(format!("the columns {} expected, {} found", columns.join(", "), few(header.iter())))
        })?;
    }
    let mut rows = vec![];
    for record in reader.records() {
        let record = record.map_err(|e| malformed(e.to_string()))?;
        if rows.len() == MAX_ENTRIES {
            return Err(DataError::TooMany { path: path.to_owned(), most: MAX_ENTRIES });
        }
        rows.push(at.map(|i| record.get(i).unwrap_or_default().trim().to_owned()));
    }
    Ok(rows)
}

/// `entry` of the listing file `listing` as a path below `root`.
pub fn below(root: &Path, entry: &str, listing: &Path) -> Result<PathBuf, DataError> {
    let inside = |c| matches!(c, Component::Normal(_) | Component::CurDir);
    if entry.is_empty() || !Path::new(entry).components().all(inside) {
        let entry = entry.chars().take(4 * TOLD_CHARS).collect();
        return Err(DataError::Outside { listing: listing.to_owned(), entry, root: root.to_owned() });
    }
    Ok(root.join(entry))
}

/// As [`below`], and the file is there.
pub fn file_below(root: &Path, entry: &str, listing: &Path) -> Result<PathBuf, DataError> {
    let path = below(root, entry, listing)?;
    if path.is_file() { Ok(path) } else { Err(DataError::Missing { listing: listing.to_owned(), path }) }
}
