//! A bar with the time left on a terminal, a plain line now and then elsewhere.

use indicatif::ProgressStyle;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where progress is shown.
#[derive(Clone, Copy)]
pub struct ProgressDisplay {
    terminal: bool,
}

/// One running task.
pub struct ProgressBar {
    bar: indicatif::ProgressBar,
    plain: bool,
    name: String,
    started: Instant,
    spoken: Mutex<Instant>,
}

/// Time between two plain lines.
const QUIET: Duration = Duration::from_secs(15);

impl ProgressDisplay {
    /// A terminal where standard error is one.
    pub fn detect() -> ProgressDisplay {
        ProgressDisplay { terminal: std::io::stderr().is_terminal() }
    }

    /// Begins a task of `length` steps.
    pub fn bar(&self, name: &str, length: usize) -> ProgressBar {
        let bar =
            if self.terminal { indicatif::ProgressBar::new(length as u64) } else { indicatif::ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {pos}/{len} {msg} {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_length(length as u64);
        bar.set_prefix(name.to_owned());
        let now = Instant::now();
        ProgressBar { bar, plain: !self.terminal, name: name.into(), started: now, spoken: Mutex::new(now) }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        tell(format_args!("{line}"));
    }
}

impl ProgressBar {
    /// So many steps are done.
    pub fn advance(&self, steps: usize) {
        self.bar.inc(steps as u64);
        if !self.plain {
            return;
        }
        let Ok(mut spoken) = self.spoken.lock() else { return };
        if spoken.elapsed() >= QUIET {
            *spoken = Instant::now();
            let (done, length) = (self.bar.position().max(1), self.bar.length().unwrap_or(0));
            let left = self.started.elapsed().mul_f64(length.saturating_sub(done) as f64 / done as f64);
            tell(format_args!("{}: {done}/{length} {} {} s left", self.name, self.bar.message(), left.as_secs()));
        }
    }

    /// What stands beside the steps from now on.
    pub fn message(&self, message: String) {
        self.bar.set_message(message);
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line on standard error; where that is gone there is nobody to tell.
fn tell(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
