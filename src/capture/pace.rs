use super::BadValue;
use std::time::{Duration, Instant};

/// The longest that a source keeps its caller waiting.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// Holds a pulled source to a rate. Falling behind is not made up for: a line that was slow does not get a burst.
#[derive(Debug)]
pub(super) struct Pace {
    period: Duration,
    due: Instant,
}

impl Pace {
    /// `fps` 0 is as fast as the line takes frames.
    pub(super) fn new(fps: f64) -> Pace {
        let period = if fps > 0.0 { Duration::from_secs_f64(1.0 / fps) } else { Duration::ZERO };
        Pace { period, due: Instant::now() }
    }

    /// True when the next frame is due; otherwise it has waited for a while.
    pub(super) fn wait(&mut self) -> bool {
        let now = Instant::now();
        if now < self.due {
            std::thread::sleep((self.due - now).min(PATIENCE));
        }
        let now = Instant::now();
        if now < self.due {
            return false;
        }
        self.due = (self.due + self.period).max(now);
        true
    }
}

/// A rate that can be held: the slowest is a frame in ten days.
pub(super) fn check_rate(key: &'static str, fps: f64) -> Result<(), BadValue> {
    if fps == 0.0 || (1e-6..=10_000.0).contains(&fps) {
        return Ok(());
    }
    Err(BadValue { key, reason: format!("is {fps}; expected 0 or a rate up to 10000") })
}
