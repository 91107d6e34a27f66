//! Standard output of the two programs, and how they end.
//!
//! A line that cannot be written is an error like any other: a full disk behind `> file` must not look like an answer.
//! Only a reader that has gone away (`| head`) is the end that somebody wished for.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Standard output belongs to the process, and so does the knowledge that nobody reads it any more; an error type that
/// wraps [`OutputError`] may hide it.
static READER_LEFT: AtomicBool = AtomicBool::new(false);

/// Standard output took no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(std::io::Error);

/// Writes one line of a command's answer to standard output.
///
/// # Errors
/// It could not be written; a command ends then, and [`end`] knows whether that is an error.
pub fn say(line: std::fmt::Arguments<'_>) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| {
        READER_LEFT.fetch_or(e.kind() == ErrorKind::BrokenPipe, Relaxed);
        OutputError(e)
    })
}

/// The exit code of `program` when it ended with `error`, which is said on standard error: 2, or 0 when only the reader
/// of standard output has left.
pub fn end(program: &str, error: &(dyn Error + 'static)) -> ExitCode {
    if READER_LEFT.load(Relaxed) {
        return ExitCode::SUCCESS;
    }
    // Our messages hold their causes; what has a source besides is a context that was put around it.
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        sentence = format!("{sentence}: {cause}");
        source = cause.source();
    }
    // Where standard error is gone as well there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{program}: {sentence}");
    ExitCode::from(2)
}
