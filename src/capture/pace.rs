use super::BadValue;
use std::time::{Duration, Instant};

/// The longest that a source keeps its caller waiting.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// Holds a pulled source to a rate. What is behind by a period or more is not made up for: a line that was slow does not get a burst.
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
        self.due += self.period;
        if self.due < now {
            self.due = now + self.period;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn due(pace: &mut Pace) -> u32 {
        (1..).find(|_| pace.wait()).unwrap()
    }

    #[test]
    fn a_rate_is_held_and_no_rate_is_as_fast_as_it_goes() {
        let mut free = Pace::new(0.0);
        assert!((0..10_000).all(|_| free.wait()));

        let begun = Instant::now();
        let mut pace = Pace::new(50.0);
        assert_eq!(due(&mut pace), 1, "the first is due at once");
        for _ in 0..10 {
            due(&mut pace);
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((0.199..1.5).contains(&took), "ten periods of 20 ms: {took}");
        // A little late is made up for, so that the rate is held.
        let mut slow = Pace::new(0.5);
        let due_at = slow.due;
        std::thread::sleep(Duration::from_millis(5));
        assert!(slow.wait());
        assert_eq!(slow.due, due_at + Duration::from_secs(2));
        // A line that was slow gets no burst.
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        for _ in 0..4 {
            due(&mut pace);
        }
        assert!(begun.elapsed() >= Duration::from_millis(55));
    }

    /// Nobody is kept waiting for longer than the patience: who asks can look at a stop flag in between.
    #[test]
    fn a_slow_rate_answers_in_between() {
        let mut pace = Pace::new(0.1);
        assert!(pace.wait());
        let begun = Instant::now();
        assert!(!pace.wait());
        assert!((0.199..5.0).contains(&begun.elapsed().as_secs_f64()));
    }

    #[test]
    fn a_rate_is_nothing_or_up_to_ten_thousand() {
        for good in [0.0, 1e-6, 1.0, 10_000.0] {
            assert_eq!(check_rate("fps", good), Ok(()));
        }
        for bad in [-1.0, 9e-7, 10_000.5, f64::NAN, f64::INFINITY] {
            let reason = format!("is {bad}; expected 0 or a rate up to 10000");
            assert_eq!(check_rate("fps", bad), Err(BadValue { key: "fps", reason }));
        }
    }
}
