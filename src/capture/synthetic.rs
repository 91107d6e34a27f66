use super::BadValue;
use super::pace::check_rate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "demo")]
pub(super) use source::SyntheticSource;

/// The synthetic line as a source; what it draws is `ckaad_inspect::synthetic`'s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// The same seed gives the same parts.
    pub seed: u64,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Share of defective parts, 0 to 1.
    pub defect_rate: f32,
    /// Parts a second; 0 is as fast as they are judged.
    pub fps: f64,
    /// The line ends after this many parts; 0 is never.
    pub frames: u64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        SyntheticConfig { seed: 1, width: 320, height: 320, defect_rate: 0.1, fps: 2.0, frames: 0 }
    }
}

impl SyntheticConfig {
    pub(super) fn check(&self) -> Result<(), BadValue> {
        if cfg!(not(feature = "demo")) {
            let reason = "is \"synthetic\", which this build leaves out (the feature `demo`)".into();
            return Err(BadValue { key: "source", reason });
        }
        // As the line draws them.
        let side = 64..=4096;
        for (key, value) in [("synthetic.width", self.width), ("synthetic.height", self.height)] {
            if !side.contains(&value) {
                return Err(BadValue { key, reason: format!("is {value}; expected 64 to 4096") });
            }
        }
        if !(0.0..=1.0).contains(&self.defect_rate) {
            let reason = format!("is {}; expected 0 to 1", self.defect_rate);
            return Err(BadValue { key: "synthetic.defect_rate", reason });
        }
        check_rate("synthetic.fps", self.fps)
    }
}

#[cfg(feature = "demo")]
mod source {
    use super::SyntheticConfig;
    use crate::capture::pace::Pace;
    use crate::capture::{Next, Source};
    use ckaad_inspect::imaging::{Frame, Truth};
    use ckaad_inspect::synthetic::{Line, LineConfig};
    use jiff::Timestamp;

    pub struct SyntheticSource {
        line: Line,
        pace: Pace,
        sequence: u64,
        frames: u64,
    }

    impl SyntheticSource {
        pub fn new(config: &SyntheticConfig) -> Self {
            let line = Line::new(LineConfig {
                seed: config.seed,
                width: config.width,
                height: config.height,
                defect_rate: config.defect_rate,
                ..LineConfig::default()
            });
            SyntheticSource { line, pace: Pace::new(config.fps), sequence: 0, frames: config.frames }
        }
    }

    impl Source for SyntheticSource {
        fn next(&mut self) -> Next {
            if self.frames > 0 && self.sequence >= self.frames {
                return Next::End;
            }
            if !self.pace.wait() {
                return Next::Idle;
            }
            let part = self.line.next_part();
            let sequence = self.sequence;
            self.sequence += 1;
            let truth = match part.defect {
                Some(kind) => Truth::Defective(kind.to_string()),
                None => Truth::Good,
            };
            Next::Frame(Frame {
                id: format!("part-{sequence:06}"),
                sequence,
                captured_at: Timestamp::now(),
                image: part.image,
                truth: Some(truth),
                part: None,
            })
        }
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;
    use crate::capture::{Next, Source};
    use ckaad_inspect::imaging::Truth;

    #[test]
    fn the_line_ends_after_its_parts_and_says_what_they_are() {
        for defect_rate in [0.0, 1.0] {
            let config = SyntheticConfig { defect_rate, width: 64, height: 80, fps: 0.0, frames: 3, seed: 2 };
            let mut line = SyntheticSource::new(&config);
            for n in 0..3 {
                let Next::Frame(part) = line.next() else { panic!("a part is due") };
                assert_eq!((part.id, part.sequence), (format!("part-{n:06}"), n));
                assert_eq!(part.image.dimensions(), (64, 80));
                match part.truth.unwrap() {
                    Truth::Good => assert!(defect_rate == 0.0),
                    Truth::Defective(kind) => assert!(defect_rate == 1.0 && !kind.is_empty()),
                }
            }
            assert!(matches!(line.next(), Next::End) && matches!(line.next(), Next::End));
        }
        let mut endless =
            SyntheticSource::new(&SyntheticConfig { fps: 0.0, width: 64, height: 64, ..Default::default() });
        assert!((0..5).all(|_| matches!(endless.next(), Next::Frame(_))));
        let mut slow = SyntheticSource::new(&SyntheticConfig { fps: 1.0, width: 64, height: 64, ..Default::default() });
        assert!(matches!(slow.next(), Next::Frame(_)) && matches!(slow.next(), Next::Idle));
    }

    #[test]
    fn values_that_no_line_can_have_are_named() {
        let good = SyntheticConfig::default();
        let range = |value: u32| format!("is {value}; expected 64 to 4096");
        for (config, key, reason) in [
            (SyntheticConfig { width: 63, ..good.clone() }, "synthetic.width", range(63)),
            (SyntheticConfig { height: 4097, ..good.clone() }, "synthetic.height", range(4097)),
            (
                SyntheticConfig { defect_rate: 1.5, ..good.clone() },
                "synthetic.defect_rate",
                "is 1.5; expected 0 to 1".into(),
            ),
            (
                SyntheticConfig { fps: -1.0, ..good.clone() },
                "synthetic.fps",
                "is -1; expected 0 or a rate up to 10000".into(),
            ),
        ] {
            assert_eq!(config.check(), Err(BadValue { key, reason }));
        }
        assert_eq!(SyntheticConfig { width: 64, height: 4096, defect_rate: 1.0, ..good }.check(), Ok(()));
    }
}
