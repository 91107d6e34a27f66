//! A bundle from the repository into a file of its own, going on where it was broken off.
//!
//! The part lies under its digest, so parts of different bundles never meet. It is judged only when it is whole: by length and digest.

use crate::disk::{fails, hashed};
use crate::offer::Candidate;
use crate::remote::{FetchError, Remote, Resume, Sink, free_space};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Kept free on the disk beside the bundle.
const RESERVE: u64 = 16 << 20;
/// Bytes after which a part reaches the disk: what a power cut can cost.
const SYNC_EVERY: u64 = 4 << 20;

/// Why a bundle did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum DownloadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{target} came with another digest than was signed; it is thrown away")]
    Digest { target: String },
}

impl DownloadError {
    /// Whether it may go better later with nothing changed at the publisher's.
    pub fn is_passing(&self) -> bool {
        matches!(self, DownloadError::Fetch(_))
    }
}

/// Where the parts of bundles lie.
#[derive(Clone, Debug)]
pub struct Parts {
    folder: PathBuf,
}

impl Parts {
    /// In a folder that is there.
    pub fn new(folder: PathBuf) -> Parts {
        Parts { folder }
    }

    /// The part of a bundle; whole once [`Parts::fetch`] said so.
    pub fn path(&self, candidate: &Candidate) -> PathBuf {
        self.folder.join(format!("{}.part", candidate.digest))
    }

    fn etag_path(&self, candidate: &Candidate) -> PathBuf {
        self.folder.join(format!("{}.etag", candidate.digest))
    }

    /// Fetches what is missing of a bundle. `progress` hears how many bytes are there.
    ///
    /// # Errors
    /// It did not come whole: what came stays and is the beginning of the next attempt. Or it is not what was signed.
    pub async fn fetch(
        &self,
        remote: &Remote,
        candidate: &Candidate,
        progress: impl FnMut(u64) + Send,
    ) -> Result<PathBuf, DownloadError> {
        let path = self.path(candidate);
        let disk = |e: io::Error| FetchError::Disk { path: path.clone(), reason: e.to_string() };
        self.keep_only(candidate);
        let (mut have, mut hash) = begun(&path).map_err(disk)?;
        if have > candidate.length {
            self.forget(candidate);
            (have, hash) = (0, Sha256::new());
        }
        self.room(candidate, have)?;
        let opened = fails("part-open").and_then(|()| OpenOptions::new().create(true).append(true).open(&path));
        let file = opened.map_err(disk)?;
        let mut sink = Partial { file, have, synced: have, hash, progress };
        if have < candidate.length {
            let etag = std::fs::read_to_string(self.etag_path(candidate)).ok().filter(|_| have > 0);
            let resume = Resume { have, etag };
            let name = format!("targets/{}.{}", candidate.digest, candidate.target);
            let named = |etag: Option<&str>| {
                fails("part-etag")?;
                match etag {
                    Some(etag) => std::fs::write(self.etag_path(candidate), etag),
                    None => remove(&self.etag_path(candidate)),
                }
            };
            let fetched = remote.large(&name, candidate.length, &resume, &mut sink, named).await;
            fails("part-end").and_then(|()| sink.file.sync_data()).map_err(disk)?;
            fetched?;
        }
        if hex::encode(sink.hash.finalize()) != candidate.digest {
            self.forget(candidate);
            return Err(DownloadError::Digest { target: candidate.target.clone() });
        }
        Ok(path)
    }

    /// Throws a part away.
    pub fn forget(&self, candidate: &Candidate) {
        // What cannot be removed is in the way of nothing but the disk's space, and is tried again.
        let _ = remove(&self.path(candidate));
        let _ = remove(&self.etag_path(candidate));
    }

    /// Parts of other bundles are of no use any more.
    fn keep_only(&self, candidate: &Candidate) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(&candidate.digest) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn room(&self, candidate: &Candidate, have: u64) -> Result<(), FetchError> {
        let needed = candidate.length - have + RESERVE;
        match free_space(&self.folder) {
            Some(free) if free < needed => {
                Err(FetchError::Space { url: candidate.target.clone(), path: self.folder.clone(), needed, free })
            }
            _ => Ok(()),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Length and digest of what is there.
fn begun(path: &Path) -> io::Result<(u64, Sha256)> {
    match hashed(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((0, Sha256::new())),
        begun => begun,
    }
}

struct Partial<P> {
    file: File,
    have: u64,
    synced: u64,
    hash: Sha256,
    progress: P,
}

impl<P: FnMut(u64) + Send> Sink for Partial<P> {
    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        fails("part")?;
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        if self.have - self.synced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.synced = self.have;
        }
        (self.progress)(self.have);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.have, self.synced, self.hash) = (0, 0, Sha256::new());
        Ok(())
    }
}
