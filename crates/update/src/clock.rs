//! What time it is, on a device whose clock may be wrong.
//!
//! Expiry is compared with `max(system clock, floor)`. The floor is the newest time that was *signed*: when the agent was released, or
//! when the newest accepted timestamp was issued. The system's clock is never stored: once it was a year ahead, a device that remembers it
//! refuses every update for a year.

use jiff::{SignedDuration, Timestamp};

/// When this version was released; RELEASING.md says when it moves. A device without a battery behind its clock starts from here.
pub const RELEASED: &str = "2026-11-28T00:00:00Z";

/// Behind the floor by more than this, the system's clock is said to be behind.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// Longest time between a timestamp's issue and its expiry with which the issue counts.
pub const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(24 * 400);

/// The time of the system and the floor below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What the system says.
    pub system: Timestamp,
    /// Before this it cannot be.
    pub floor: Timestamp,
}

impl Clock {
    /// `issued`: of the newest timestamp that was accepted.
    pub fn new(system: Timestamp, issued: Option<Timestamp>) -> Clock {
        let released: Timestamp = RELEASED.parse().expect("the constant is a time");
        Clock { system, floor: issued.map_or(released, |issued| issued.max(released)) }
    }

    /// The time that expiry is compared with.
    pub fn now(&self) -> Timestamp {
        self.system.max(self.floor)
    }

    /// How far the system's clock is behind what was signed, where that is more than a day.
    pub fn behind(&self) -> Option<SignedDuration> {
        let behind = self.floor.duration_since(self.system);
        (behind > TOLERANCE).then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_that_is_behind_stands_at_the_floor_and_one_ahead_is_believed() {
        let issued = at("2027-03-01T00:00:00Z");
        let behind = Clock::new(at("1970-01-01T00:00:10Z"), Some(issued));
        assert_eq!(behind.now(), issued);
        assert!(behind.behind().is_some());
        let first_start = Clock::new(at("1970-01-01T00:00:10Z"), None);
        assert_eq!(first_start.now(), at(RELEASED));
        let ahead = Clock::new(at("2031-01-01T00:00:00Z"), Some(issued));
        assert_eq!((ahead.now(), ahead.behind()), (at("2031-01-01T00:00:00Z"), None));
        let little = Clock::new(at("2027-02-28T12:00:00Z"), Some(issued));
        assert_eq!((little.now(), little.behind()), (issued, None));
    }
}
