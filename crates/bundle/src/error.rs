//! What can be wrong with a bundle.

use super::limits::{MAX_BYTES, MAX_GOLDEN};
use semver::VersionReq;
use std::borrow::Cow;
use std::path::PathBuf;

/// Why a bundle cannot be read or written, and which one. Like every error of ckaad-edge its message holds its cause,
/// and it has no `source`: whoever prints a chain would say the cause twice.
#[derive(Debug, thiserror::Error)]
#[error("the bundle {path} cannot be used: {problem}")]
pub struct BundleError {
    /// The bundle's file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a bundle, one variant and one sentence for each way to be damaged or hostile.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum Problem {
    #[error("it cannot be opened: {0}")]
    Open(std::io::Error),
    #[error("it cannot be written: {0}")]
    Write(std::io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("the file is empty")]
    Empty,
    #[error("the file is {bytes} bytes long; at most {MAX_BYTES} are accepted")]
    TooLong { bytes: u64 },
    #[error("it is compressed with gzip; a bundle is an uncompressed tar")]
    Gzip,
    #[error("it is not a tar: the first 512 bytes are no header")]
    NotTar,
    #[error("the header behind {after} is damaged: its checksum is wrong")]
    Header { after: String },
    #[error("the size of {member} in its tar header is not an octal number")]
    HeaderSize { member: String },
    #[error("it is cut off within {member}: {declared} bytes were declared, {left} are left")]
    Truncated { member: String, declared: u64, left: u64 },
    #[error("it is cut off behind {after}: the two zero blocks that end a tar are missing")]
    NoEnd { after: String },
    #[error("{bytes} bytes follow the end of the archive; none was expected")]
    Trailing { bytes: usize },
    #[error("{member} is {kind}; only regular files are accepted")]
    NotRegular { member: String, kind: &'static str },
    #[error("the path {member:?} leads out of the bundle or is not plain; only the paths of the format are accepted")]
    Path { member: String },
    #[error("its first member is {found}; manifest.json was expected")]
    First { found: String },
    #[error("{member} occurs twice")]
    Duplicate { member: String },
    #[error("{member} is not listed in the manifest")]
    Unlisted { member: String },
    #[error("the manifest lists {member}, which has no place in a bundle")]
    Unknown { member: String },
    #[error("the manifest lists {member}, which has no place in a bundle without {without}")]
    Needless { member: String, without: &'static str },
    #[error("{found} stands where {expected} was expected")]
    Order { found: String, expected: String },
    #[error("{member} is missing")]
    Missing { member: String },
    #[error("{png} has no answer: {json} is missing behind it")]
    Unpaired { png: String, json: String },
    #[error("the manifest lists {found} golden samples; at most {MAX_GOLDEN} are accepted")]
    TooManyGolden { found: usize },
    #[error("{member} is {bytes} bytes long; at most {limit} are accepted")]
    MemberTooLong { member: String, bytes: u64, limit: u64 },
    #[error("{member} is {actual} bytes long, but the manifest says {listed}")]
    Size { member: String, listed: u64, actual: u64 },
    #[error("the SHA-256 of {member} is {actual}, but the manifest says {listed}")]
    Digest { member: String, listed: String, actual: String },
    #[error("{member} has no content")]
    EmptyModel { member: String },
    #[error("{member} is no PNG picture")]
    NotPng { member: String },
    #[error("{member} is nested too deeply: {levels} levels, at most {limit} are accepted")]
    TooDeep { member: String, levels: usize, limit: usize },
    #[error("{member} does not follow its schema: {reason}")]
    Json { member: String, reason: String },
    #[error("it has bundle format {found}, and ckaad-edge {} reads up to format {supported}: update the agent", env!("CARGO_PKG_VERSION"))]
    Format { found: u64, supported: u32 },
    #[error("it needs ckaad-edge {needed}; this is {}", env!("CARGO_PKG_VERSION"))]
    Engine { needed: VersionReq },
    #[error("{field} in manifest.json is {found}; {expected} was expected")]
    Value { field: Cow<'static, str>, found: String, expected: &'static str },
    #[error("{member}: {field} is {found}; {expected} was expected")]
    Golden { member: String, field: &'static str, found: String, expected: &'static str },
}
