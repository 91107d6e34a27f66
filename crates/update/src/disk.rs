//! The few things that are done to a disk, each whole or not at all, also when the power fails; and on the disk when the call returns.
//!
//! A trait, so that tests can cut the power at each of them ([`crate::slots`]) and let each of them fail.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// See the module. Paths are below folders that [`Disk::make_folder`] made.
pub trait Disk: Send + Sync {
    /// Makes a folder with all above it.
    ///
    /// # Errors
    /// The disk's.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// # Errors
    /// The disk's; `NotFound` where there is no such file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The file has these bytes, or the call fails and it has the old ones.
    ///
    /// # Errors
    /// The disk's.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Renames a file that others may have written without care.
    ///
    /// # Errors
    /// The disk's.
    fn adopt(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// No error where there is no such file.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a folder, sorted.
    ///
    /// # Errors
    /// The disk's.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// SHA-256 of a file, lower-case hexadecimal.
    ///
    /// # Errors
    /// The disk's.
    fn digest(&self, path: &Path) -> io::Result<String>;
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let above = path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(PathBuf::from("."), Path::to_owned);
        self.make_folder(&above)?;
        match std::fs::create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => sync_folder(&above),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        ckaad_bundle::replace(path, |file| file.write_all(bytes))
    }

    fn adopt(&self, from: &Path, to: &Path) -> io::Result<()> {
        File::open(from)?.sync_all()?;
        std::fs::rename(from, to)?;
        sync_folder(to.parent().unwrap_or(Path::new(".")))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => sync_folder(path.parent().unwrap_or(Path::new("."))),
        }
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(folder)?;
        let mut names: Vec<String> =
            entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    fn digest(&self, path: &Path) -> io::Result<String> {
        Ok(hex::encode(hashed(path)?.1.finalize()))
    }
}

/// Length and digest of a file, so that more can follow.
pub(crate) fn hashed(path: &Path) -> io::Result<(u64, Sha256)> {
    let (mut file, mut hash, mut length, mut piece) = (File::open(path)?, Sha256::new(), 0, vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((length, hash)),
            n => {
                hash.update(&piece[..n]);
                length += n as u64;
            }
        }
    }
}

/// In programs built for tests (feature `failpoints`), a disk that fails at this step as the variable `FAILPOINTS` says: `return` is an error,
/// `return(cut)` the end of the process with nothing more done, `return(hold)` a word on standard error and no way on.
///
/// # Errors
/// As a test wants it; never in a program that is built otherwise.
pub fn fails(step: &str) -> io::Result<()> {
    let _ = step;
    fail::fail_point!(step, |how| match how.as_deref() {
        Some("cut") => std::process::abort(),
        Some("hold") => {
            eprintln!("held at {step}");
            loop {
                std::thread::park();
            }
        }
        _ => Err(io::Error::other("the disk fails, as a test wants it to")),
    });
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
