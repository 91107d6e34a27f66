//! What a folder that should be a data set is answered with.

use ckaad_inspect::imaging::DecodeError;
use std::path::PathBuf;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum DataError {
    #[error("{root} is no data set in the layout {layout}: expected {expected}; found {found}")]
    Layout { root: PathBuf, layout: &'static str, expected: &'static str, found: String },
    #[error(
        "{root} has none of the known layouts ({known}): see docs/data.md, or name one with --layout; found {found}"
    )]
    Unknown { root: PathBuf, known: String, found: String },
    #[error("{root} holds several categories: choose one with --category, of {known}")]
    SeveralCategories { root: PathBuf, known: String },
    #[error("{root} has no category {asked:?}; found {known}")]
    NoCategory { root: PathBuf, asked: String, known: String },
    #[error(
        "two of the data sets are called {0:?}, and by its name each is told from the others: give one another name, by a link for instance"
    )]
    SameName(String),
    #[error("{path} is in two of the data sets, {first} and {second}: each image must be of one")]
    InTwoSets { path: PathBuf, first: String, second: String },
    #[error("{0} is one set without categories: leave --category away")]
    OneCategory(PathBuf),
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path} is longer than the {most} bytes that are accepted")]
    TooLong { path: PathBuf, most: u64 },
    #[error("{path} lists more than the {most} entries that are accepted")]
    TooMany { path: PathBuf, most: usize },
    #[error("{path}: {reason}")]
    Listing { path: PathBuf, reason: String },
    #[error("{listing} names {entry:?}; a path below {root} expected, without .. and not absolute")]
    Outside { listing: PathBuf, entry: String, root: PathBuf },
    #[error("{listing} names {path}, and no such file is there")]
    Missing { listing: PathBuf, path: PathBuf },
    #[error("{root} holds {found} normal training images; at least {needed} are needed")]
    TooFew { root: PathBuf, found: usize, needed: usize },
    #[error("the mask {mask} is {}x{} pixels, another of the same image {}x{}", found.0, found.1, expected.0, expected.1)]
    MaskSizes { mask: PathBuf, found: (u32, u32), expected: (u32, u32) },
    #[error("the mask {mask} is {}x{} pixels, its image {}x{}", found.0, found.1, expected.0, expected.1)]
    MaskSize { mask: PathBuf, found: (u32, u32), expected: (u32, u32) },
    #[error("the folder {0} holds no mask, and an image names it as its own")]
    NoMask(PathBuf),
    #[error("no training anomaly is of the class {asked:?}; found {known}")]
    NoClass { asked: String, known: String },
    #[error("the share of labelled anomalies is {0}; above 0 and below 1 expected")]
    Share(f64),
    #[error(transparent)]
    Image(#[from] DecodeError),
}
