use super::pace::{Pace, valid_rate};
use super::{CaptureError, Next, Source};
use ckaad_inspect::imaging::{Frame, Truth};
use ckaad_inspect::synthetic::{Line, LineConfig};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

pub(super) struct SyntheticSource {
    line: Line,
    pace: Pace,
    sequence: u64,
    frames: u64,
}

impl SyntheticSource {
    pub(super) fn new(config: &SyntheticConfig) -> Result<Self, CaptureError> {
        let side = 32..=4096;
        if !side.contains(&config.width) || !side.contains(&config.height) {
            let (w, h) = (config.width, config.height);
            return Err(CaptureError::Config(format!("synthetic.width x height is {w}x{h}; expected 32 to 4096 each")));
        }
        if !(0.0..=1.0).contains(&config.defect_rate) {
            let rate = config.defect_rate;
            return Err(CaptureError::Config(format!("synthetic.defect_rate is {rate}; expected 0 to 1")));
        }
        if !valid_rate(config.fps) {
            return Err(CaptureError::Config(format!(
                "synthetic.fps is {}; expected 0 or a rate up to 10000",
                config.fps
            )));
        }
        let line = Line::new(LineConfig {
            seed: config.seed,
            width: config.width,
            height: config.height,
            defect_rate: config.defect_rate,
            ..LineConfig::default()
        });
        Ok(SyntheticSource { line, pace: Pace::new(config.fps), sequence: 0, frames: config.frames })
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
        })
    }
}
