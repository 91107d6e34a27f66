//! The daemon: configuration, wiring, shutdown, watchdog, and the commands around it.
//!
//! Responsible for: which part runs in which thread, and how everything ends. Not responsible for: any of the parts.
//!
//! ```text
//!  one thread a camera                    the outbox's thread       tokio runtime
//! ┌──────────────────────────────┐        ┌──────────────────┐      ┌──────────────────────────────────┐
//! │ Source ─► Inspector ─► events ├─ put ──► SQLite           ├──────► Session ─► broker                 │
//! └───────┬──────────────▲───────┘        └───────┬──────────┘      │ health, watchdog, signals        │
//!         │              └──── receipts ──────────┘                 │                                  │
//!         ├─ progress ─► metrics ───────────────────────────────────►                                  │
//!         └─ taps ─► whoever only looks (a model on trial, the demo) └──────────────────────────────────┘
//! ```
//! Each box is a part (`parts`): it is started again when it fails, and the third time within ten minutes ends the process.
//!
//! The end, always in this order: sources stop, cameras finish their frame, the session delivers up to the deadline, `stopped` is
//! published, the connection says goodbye, the outbox closes. What is unacknowledged stays in it.
//!
//! | file | command |
//! |---|---|
//! | `run` with `parts`, `pipeline`, `commands`, `progress`, `metrics`, `notify` | `run` |
//! | `demo` | `demo`: the same `run` over a configuration made in memory |
//! | `check`, `infer`, `bench`, `cameras`, `inspect_bundle`, `models` | the commands of these names |

mod bench;
mod cameras;
mod check;
mod commands;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod infer;
mod inspect_bundle;
mod metrics;
mod models;
mod notify;
mod parts;
mod pipeline;
mod progress;
mod restarts;
mod run;

pub use bench::{BenchOptions, bench};
pub use cameras::cameras;
pub use check::check;
pub use config::{CameraSettings, CameraTable, ConfigError, FileConfig, Settings, SourceKind, config_schema};
#[cfg(feature = "demo")]
pub use demo::{DemoOptions, demo};
pub use infer::{InferOptions, infer};
pub use inspect_bundle::{show, verify};
pub use models::{ModelCommand, models};
pub use notify::init_logs;
pub use progress::CameraReport;
pub use run::{Agent, Report, RunError, run_until_signal};

/// How a command ended, when it could be carried out at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Well,
    /// Exit code 1: the thing asked about is not well.
    NotWell,
}

/// The largest resident memory of this process so far, in bytes; 0 where the kernel does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// [`ckaad_inspect::quantile`] of `values`, which are sorted on the way; 0 when there are none.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    ckaad_inspect::quantile(values, share).unwrap_or(0.0)
}
