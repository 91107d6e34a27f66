use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How verdicts become events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grouping {
    /// One frame is one part: every defective frame is an `opened` of its own, and nothing is updated or closed.
    #[default]
    Part,
    /// Frames of running material: the first defective one opens an incident, further ones update it, and enough good
    /// ones in a row close it.
    Incident,
}

/// The `type` of an anomaly event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Opened,
    Updated,
    Closed,
}

/// What one verdict did to the incidents of its camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub kind: Kind,
    /// The same for all events of one incident.
    pub incident: Uuid,
    /// Defective frames of the incident so far.
    pub defective_frames: u64,
    /// The largest score of the incident so far.
    pub peak_score: f32,
}

/// The incident state machine of one camera.
///
/// ```text
///            defective: opened               good, close_after in a row: closed
///   Quiet ───────────────────────► Open ─────────────────────────────────► Quiet
///                                   │ ▲ defective: updated; good: counted
///                                   └─┘
/// ```
/// With [`Grouping::Part`] it never leaves `Quiet`.
#[derive(Debug)]
pub struct Grouper {
    grouping: Grouping,
    close_after: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Quiet,
    Open { incident: Uuid, defective_frames: u64, peak_score: f32, good_in_a_row: u32 },
}

impl Grouper {
    pub fn new(grouping: Grouping, close_after: u32) -> Grouper {
        Grouper { grouping, close_after: close_after.max(1), state: State::Quiet }
    }

    /// Takes the next verdict; says what is to be published, if anything.
    pub fn judge(&mut self, defective: bool, score: f32) -> Option<Change> {
        match (&mut self.state, defective) {
            (State::Quiet, false) => None,
            (State::Quiet, true) => {
                let change =
                    Change { kind: Kind::Opened, incident: Uuid::now_v7(), defective_frames: 1, peak_score: score };
                if self.grouping == Grouping::Incident {
                    let Change { incident, defective_frames, peak_score, .. } = change;
                    self.state = State::Open { incident, defective_frames, peak_score, good_in_a_row: 0 };
                }
                Some(change)
            }
            (State::Open { incident, defective_frames, peak_score, good_in_a_row }, true) => {
                *defective_frames += 1;
                *peak_score = peak_score.max(score);
                *good_in_a_row = 0;
                let (incident, defective_frames, peak_score) = (*incident, *defective_frames, *peak_score);
                Some(Change { kind: Kind::Updated, incident, defective_frames, peak_score })
            }
            (State::Open { incident, defective_frames, peak_score, good_in_a_row }, false) => {
                *good_in_a_row += 1;
                if *good_in_a_row < self.close_after {
                    return None;
                }
                let (incident, defective_frames, peak_score) = (*incident, *defective_frames, *peak_score);
                self.state = State::Quiet;
                Some(Change { kind: Kind::Closed, incident, defective_frames, peak_score })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defective_part_is_opened_on_its_own() {
        let mut grouper = Grouper::new(Grouping::Part, 3);
        let changes: Vec<_> = [true, true, false, true].map(|d| grouper.judge(d, 1.0)).into_iter().flatten().collect();
        assert_eq!(changes.iter().map(|c| c.kind).collect::<Vec<_>>(), [Kind::Opened; 3]);
        assert_ne!(changes[0].incident, changes[1].incident);
    }

    #[test]
    fn an_incident_opens_updates_and_closes_after_enough_good_frames() {
        let mut grouper = Grouper::new(Grouping::Incident, 2);
        let verdicts = [(true, 1.0), (true, 3.0), (false, 0.0), (true, 2.0), (false, 0.0), (false, 0.0), (false, 0.0)];
        let changes: Vec<_> = verdicts.map(|(d, s)| grouper.judge(d, s)).into_iter().flatten().collect();
        use Kind::*;
        assert_eq!(changes.iter().map(|c| c.kind).collect::<Vec<_>>(), [Opened, Updated, Updated, Closed]);
        assert!(changes.iter().all(|c| c.incident == changes[0].incident));
        assert_eq!((changes[3].defective_frames, changes[3].peak_score), (3, 3.0));
    }
}
