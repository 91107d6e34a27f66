//! Bounded reading.

use super::error::{BundleError, Problem};
use super::format1::Manifest1;
use super::limits::{MAX_BYTES, MAX_DEPTH, MAX_GOLDEN, limit};
use super::{
    Bundle, FOREST, FORMAT, GPU_MODEL, Golden, GoldenAnswer, GpuModel, MANIFEST, MODEL, Manifest, Member, REPORT,
    SEGMENTS, ScoreRule, check, golden_gpu, golden_json, golden_png, sha256,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tar::{EntryType, Header};

const BLOCK: usize = 512;

impl Bundle {
    /// Reads a bundle file, checking every bound and digest.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged or hostile in one of the ways of [`Problem`]; the sentence names the
    /// file.
    pub fn read(path: &Path) -> Result<Bundle, BundleError> {
        let fail = |problem| BundleError { path: path.to_owned(), problem };
        let bytes = load(path).map_err(fail)?;
        Bundle::from_bytes(&bytes).map_err(fail)
    }

    /// As [`Bundle::read`], from memory.
    ///
    /// # Errors
    /// As [`Bundle::read`], without a file's name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle, Problem> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Problem::TooLong { bytes: bytes.len() as u64 });
        }
        match bytes {
            [] => return Err(Problem::Empty),
            [0x1f, 0x8b, ..] => return Err(Problem::Gzip),
            _ => {}
        }
        let mut archive = Archive { bytes, at: 0, last: String::new() };
        let (path, text) = archive.next()?.ok_or(Problem::Missing { member: MANIFEST.into() })?;
        if path != MANIFEST {
            return Err(Problem::First { found: path });
        }
        let manifest = read_manifest(text)?;
        check_listing(&manifest)?;

        let mut contents = Vec::new();
        for (i, member) in manifest.members.iter().enumerate() {
            let (path, content) = archive.next()?.ok_or_else(|| Problem::Missing { member: member.path.clone() })?;
            if path != member.path {
                return Err(misplaced(path, member, &manifest.members, i));
            }
            if content.len() as u64 != member.size {
                return Err(Problem::Size { member: path, listed: member.size, actual: content.len() as u64 });
            }
            let actual = sha256(content);
            if actual != member.sha256 {
                return Err(Problem::Digest { member: path, listed: member.sha256.clone(), actual });
            }
            contents.push(content);
        }
        if let Some((path, _)) = archive.next()? {
            let seen = path == MANIFEST || manifest.members.iter().any(|m| m.path == path);
            return Err(if seen { Problem::Duplicate { member: path } } else { Problem::Unlisted { member: path } });
        }
        unpack(manifest, &contents, sha256(bytes))
    }
}

fn load(path: &Path) -> Result<Vec<u8>, Problem> {
    // Asked before opening: opening a named pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(Problem::Open)?.is_file() {
        return Err(Problem::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Problem::Open)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Problem::Open)?;
    if bytes.len() as u64 > MAX_BYTES {
        let bytes = std::fs::metadata(path).map_err(Problem::Open)?.len();
        return Err(Problem::TooLong { bytes });
    }
    Ok(bytes)
}

fn unpack(manifest: Manifest, contents: &[&[u8]], digest: String) -> Result<Bundle, Problem> {
    let branch = manifest.score.image.is_some();
    let mut bundle = Bundle {
        manifest,
        model: Vec::new(),
        golden: Vec::new(),
        forest: None,
        segments: None,
        gpu: None,
        report: None,
        digest,
    };
    for (member, content) in bundle.manifest.members.iter().zip(contents) {
        let owned = || content.to_vec();
        match member.path.as_str() {
            MODEL | GPU_MODEL if content.is_empty() => return Err(Problem::EmptyModel { member: member.path.clone() }),
            MODEL => bundle.model = owned(),
            GPU_MODEL => bundle.gpu = Some(GpuModel { model: owned(), golden: Vec::new() }),
            FOREST => {
                json::<IgnoredAny>(FOREST, content)?;
                bundle.forest = Some(owned());
            }
            SEGMENTS => bundle.segments = Some(png(SEGMENTS, content)?),
            REPORT => bundle.report = Some(json(REPORT, content)?),
            path if path.ends_with(".png") => {
                // Its answer is the next member.
                let expected = GoldenAnswer { score: 0.0, grid: Vec::new(), image_score: None };
                bundle.golden.push(Golden { png: png(path, content)?, expected });
            }
            path => {
                let answer: GoldenAnswer = json(path, content)?;
                check::golden(path, &answer, branch)?;
                match (&mut bundle.gpu, bundle.golden.last_mut()) {
                    (Some(gpu), _) if path.starts_with("golden-gpu/") => gpu.golden.push(answer),
                    (_, Some(golden)) => golden.expected = answer,
                    _ => {}
                }
            }
        }
    }
    let (golden, views) = (bundle.golden.len(), bundle.manifest.views as usize);
    if golden % views.max(1) != 0 {
        let (field, found) = ("the number of golden samples".into(), golden.to_string());
        return Err(Problem::Value { field, found, expected: "a multiple of views" });
    }
    Ok(bundle)
}

/// A picture's first bytes are looked at; whoever uses it decodes it.
fn png(member: &str, content: &[u8]) -> Result<Vec<u8>, Problem> {
    if content.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(content.to_vec());
    }
    Err(Problem::NotPng { member: member.into() })
}

fn read_manifest(text: &[u8]) -> Result<Manifest, Problem> {
    // Another format has other keys, so its number is asked before the keys are.
    let loose: serde_json::Value = json(MANIFEST, text)?;
    let manifest = match loose.get("format").and_then(|v| v.as_u64()) {
        Some(found) if found > u64::from(FORMAT) => return Err(Problem::Format { found, supported: FORMAT }),
        Some(1) => json::<Manifest1>(MANIFEST, text)?.into(),
        _ => json(MANIFEST, text)?,
    };
    check::manifest(&manifest)?;
    Ok(manifest)
}

fn json<T: DeserializeOwned>(member: &str, text: &[u8]) -> Result<T, Problem> {
    let levels = check::json_depth(text);
    if levels > MAX_DEPTH {
        return Err(Problem::TooDeep { member: member.into(), levels, limit: MAX_DEPTH });
    }
    serde_json::from_slice(text).map_err(|e| Problem::Json { member: member.into(), reason: e.to_string() })
}

/// The manifest lists exactly the members of its format, in their order.
pub(super) fn check_listing(manifest: &Manifest) -> Result<(), Problem> {
    let members = &manifest.members;
    let pictures = members.iter().filter(|m| m.path.starts_with("golden/") && m.path.ends_with(".png")).count();
    if pictures > MAX_GOLDEN {
        return Err(Problem::TooManyGolden { found: pictures });
    }
    let listed = |path: &str| members.iter().any(|m| m.path == path);
    let expected = expected_members(manifest, pictures, listed);
    for (i, member) in members.iter().enumerate() {
        let path = &member.path;
        check_path(path)?;
        if members[..i].iter().any(|m| &m.path == path) {
            return Err(Problem::Duplicate { member: path.clone() });
        }
        if !expected.contains(path) {
            return Err(unexpected(manifest, path));
        }
        if !check::is_sha256(&member.sha256) {
            return Err(Problem::Value {
                field: "members.sha256".into(),
                found: format!("{:?}", member.sha256),
                expected: "64 digits of lower-case hexadecimal",
            });
        }
    }
    for (i, path) in expected.iter().enumerate() {
        if !listed(path) {
            return Err(match path.strip_prefix("golden/").and_then(|name| name.strip_suffix(".json")) {
                // As many pictures as are listed are expected, so this answer's is there.
                Some(stem) => Problem::Unpaired { png: format!("golden/{stem}.png"), json: path.clone() },
                None => Problem::Missing { member: path.clone() },
            });
        }
        if members[i].path != *path {
            return Err(Problem::Order { found: members[i].path.clone(), expected: path.clone() });
        }
    }
    Ok(())
}

/// The members that a manifest with so many golden pictures should list, in their order.
fn expected_members(manifest: &Manifest, pictures: usize, listed: impl Fn(&str) -> bool) -> Vec<String> {
    let gpu = manifest.format >= 2 && listed(GPU_MODEL);
    let mut expected = vec![MODEL.to_owned()];
    if gpu {
        expected.push(GPU_MODEL.into());
    }
    if has_forest(manifest) {
        expected.extend([FOREST.into(), SEGMENTS.into()]);
    }
    expected.extend((0..pictures).flat_map(|i| [golden_png(i), golden_json(i)]));
    if gpu {
        expected.extend((0..pictures).map(golden_gpu));
    }
    if listed(REPORT) {
        expected.push(REPORT.into());
    }
    expected
}

/// Why the member at `path` has no place in the listing.
fn unexpected(manifest: &Manifest, path: &str) -> Problem {
    let member = path.to_owned();
    match path {
        // With such a rule both are expected.
        FOREST | SEGMENTS => Problem::Needless { member, without: "a score rule of kind forest" },
        _ if path.starts_with("golden-gpu/") && !manifest.members.iter().any(|m| m.path == GPU_MODEL) => {
            Problem::Needless { member, without: GPU_MODEL }
        }
        _ => Problem::Unknown { member },
    }
}

fn has_forest(manifest: &Manifest) -> bool {
    matches!(manifest.score.rule, ScoreRule::Forest { .. })
}

/// Why `found` does not stand where `expected`, member number `at`, should.
fn misplaced(found: String, expected: &Member, members: &[Member], at: usize) -> Problem {
    if found == MANIFEST || members[..at].iter().any(|m| m.path == found) {
        Problem::Duplicate { member: found }
    } else if members.iter().any(|m| m.path == found) {
        Problem::Order { found, expected: expected.path.clone() }
    } else {
        Problem::Unlisted { member: found }
    }
}

fn check_path(path: &str) -> Result<(), Problem> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if path.len() <= 100 && path.chars().all(known) && path.split('/').all(plain) {
        return Ok(());
    }
    Err(Problem::Path { member: path.chars().take(100).collect() })
}

/// Walks the blocks of a tar in memory. The `tar` crate decodes the header's fields; its own iterator would follow the
/// extensions (long names, sparse files) that a bundle does not use.
struct Archive<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The member read last, for error sentences.
    last: String,
}

impl<'a> Archive<'a> {
    /// The next regular file with its content; `None` at the proper end.
    fn next(&mut self) -> Result<Option<(String, &'a [u8])>, Problem> {
        let rest = &self.bytes[self.at..];
        let Some(block) = rest.get(..BLOCK) else {
            return Err(if self.at == 0 { Problem::NotTar } else { Problem::NoEnd { after: self.last.clone() } });
        };
        if block.iter().all(|&b| b == 0) {
            return self.end(rest);
        }
        let header = Header::from_byte_slice(block);
        if !header.cksum().is_ok_and(|sum| sum == checksum(block)) {
            return Err(if self.at == 0 { Problem::NotTar } else { Problem::Header { after: self.last.clone() } });
        }
        let path = String::from_utf8_lossy(&header.path_bytes()).into_owned();
        check_path(&path)?;
        if let Some(kind) = irregular(header.entry_type()) {
            return Err(Problem::NotRegular { member: path, kind });
        }
        // The high bit marks a binary number, which no member is long enough to need.
        let declared = match header.entry_size() {
            Ok(size) if header.as_old().size[0] & 0x80 == 0 => size,
            _ => return Err(Problem::HeaderSize { member: path }),
        };
        if declared > limit(&path) {
            return Err(Problem::MemberTooLong { limit: limit(&path), member: path, bytes: declared });
        }
        let rest = &rest[BLOCK..];
        let Some(content) = rest.get(..declared as usize) else {
            return Err(Problem::Truncated { member: path, declared, left: rest.len() as u64 });
        };
        self.at = (self.at + BLOCK + content.len().next_multiple_of(BLOCK)).min(self.bytes.len());
        self.last.clone_from(&path);
        Ok(Some((path, content)))
    }

    fn end(&self, rest: &[u8]) -> Result<Option<(String, &'a [u8])>, Problem> {
        match rest.len().checked_sub(2 * BLOCK) {
            Some(0) if rest.iter().all(|&b| b == 0) => Ok(None),
            Some(0) => Err(Problem::Trailing { bytes: BLOCK }),
            Some(bytes) => Err(Problem::Trailing { bytes }),
            None => Err(Problem::NoEnd { after: self.last.clone() }),
        }
    }
}

/// The sum of a header's bytes with its own field read as spaces.
fn checksum(block: &[u8]) -> u32 {
    let field = 148..156;
    block.iter().enumerate().map(|(i, &b)| if field.contains(&i) { 32 } else { u32::from(b) }).sum()
}

fn irregular(kind: EntryType) -> Option<&'static str> {
    match kind {
        EntryType::Regular => None,
        EntryType::Symlink => Some("a symbolic link"),
        EntryType::Link => Some("a hard link"),
        EntryType::Directory => Some("a folder"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Some("a device or pipe"),
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader => {
            Some("an extended tar header")
        }
        _ => Some("of an unknown tar type"),
    }
}
