//! Writing a file so that no one ever finds half of it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Ends the name of a file that is being written.
const PARTIAL: &str = ".partial";

/// Replaces the file `path` by what `write` writes, whole or not at all: an older file stays as it is until the new one
/// lies on the disk, also when the power fails half-way. The new file is readable for everybody and writable for its
/// owner (0644).
///
/// It is written beside its name, as `.NAME.XXXXXX.partial`, and renamed. What a call that was killed left behind is
/// removed by the next one, so one writer a path is all that may be at work at a time.
///
/// # Errors
/// Those of `write`; and the folder is not there or cannot be written, or the disk is full. The temporary file is
/// removed then.
pub fn replace<E: From<io::Error>>(path: &Path, write: impl FnOnce(&mut File) -> Result<(), E>) -> Result<(), E> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    remove_leftovers(folder, &prefix);
    let mut file = tempfile::Builder::new().prefix(&prefix).suffix(PARTIAL).tempfile_in(folder)?;
    write(file.as_file_mut())?;
    // A temporary file is private; what replaces it is for other users as well, the agent's for one.
    #[cfg(unix)]
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The new name is an entry of the folder, which has to reach the disk as well.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Housekeeping: a folder that may be written but not listed, or another user's file, is no reason not to write.
fn remove_leftovers(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(PARTIAL)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(folder).unwrap().map(name).collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.ckaad");
        for text in ["first", "second, longer", "3"] {
            replace(&path, |file| file.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["model.ckaad"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn an_older_file_stays_whole_when_writing_fails_and_no_temporary_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.ckaad");
        replace(&path, |file| file.write_all(b"whole")).unwrap();
        let failed = replace(&path, |file| {
            file.write_all(b"ha")?;
            Err(io::Error::other("the other half is missing"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the other half is missing");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(names(folder.path()), ["model.ckaad"]);
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_only_that() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [".a.bin.x1y2z3.partial", ".b.bin.x1y2z3.partial", "a.bin.partial"] {
            fs::write(at(name), "left").unwrap();
        }
        replace(&at("a.bin"), |file| file.write_all(b"whole")).unwrap();
        let mut names = names(folder.path());
        names.sort();
        assert_eq!(names, [".b.bin.x1y2z3.partial", "a.bin", "a.bin.partial"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let error = replace(Path::new("/no/such/folder/a.bin"), |file| file.write_all(b"x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
