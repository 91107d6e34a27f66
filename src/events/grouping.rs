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
pub enum ChangeKind {
    Opened,
    Updated,
    Closed,
}

/// Defective frames in a row of one camera, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// The same for all events of the incident.
    pub id: Uuid,
    /// Defective frames so far.
    pub defective_frames: u64,
    /// The largest score so far.
    pub peak_score: f32,
}

/// What one verdict did to the incidents of its camera.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub kind: ChangeKind,
    pub incident: Incident,
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
    Open { incident: Incident, good_in_a_row: u32 },
}

impl Grouper {
    /// `open` is the incident that was open when the agent ended, if it is to go on.
    pub fn new(grouping: Grouping, close_after: u32, open: Option<Incident>) -> Grouper {
        let state = open.map_or(State::Quiet, |incident| State::Open { incident, good_in_a_row: 0 });
        Grouper { grouping, close_after: close_after.max(1), state }
    }

    /// Takes the next verdict; says what is to be published, if anything.
    pub fn judge(&mut self, defective: bool, score: f32) -> Option<Change> {
        match (&mut self.state, defective) {
            (State::Quiet, false) => None,
            (State::Quiet, true) => {
                let incident = Incident { id: Uuid::now_v7(), defective_frames: 1, peak_score: score };
                if self.grouping == Grouping::Incident {
                    self.state = State::Open { incident, good_in_a_row: 0 };
                }
                Some(Change { kind: ChangeKind::Opened, incident })
            }
            (State::Open { incident, good_in_a_row }, true) => {
                incident.defective_frames += 1;
                incident.peak_score = incident.peak_score.max(score);
                *good_in_a_row = 0;
                Some(Change { kind: ChangeKind::Updated, incident: *incident })
            }
            (State::Open { good_in_a_row, .. }, false) => {
                *good_in_a_row += 1;
                if *good_in_a_row < self.close_after { None } else { self.close() }
            }
        }
    }

    /// Ends the open incident, if there is one: no further frame will.
    pub fn close(&mut self) -> Option<Change> {
        match std::mem::replace(&mut self.state, State::Quiet) {
            State::Open { incident, .. } => Some(Change { kind: ChangeKind::Closed, incident }),
            State::Quiet => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defective_part_is_opened_on_its_own() {
        let mut grouper = Grouper::new(Grouping::Part, 3, None);
        let changes: Vec<_> = [true, true, false, true].map(|d| grouper.judge(d, 1.0)).into_iter().flatten().collect();
        assert_eq!(changes.iter().map(|c| c.kind).collect::<Vec<_>>(), [ChangeKind::Opened; 3]);
        assert_ne!(changes[0].incident.id, changes[1].incident.id);
    }

    #[test]
    fn an_incident_opens_updates_and_closes_after_enough_good_frames() {
        let mut grouper = Grouper::new(Grouping::Incident, 2, None);
        let verdicts = [(true, 1.0), (true, 3.0), (false, 0.0), (true, 2.0), (false, 0.0), (false, 0.0), (false, 0.0)];
        let changes = verdicts.map(|(d, s)| grouper.judge(d, s));
        use ChangeKind::*;
        let kinds = changes.map(|change| change.map(|c| c.kind));
        assert_eq!(kinds, [Some(Opened), Some(Updated), None, Some(Updated), None, Some(Closed), None]);
        let changes: Vec<_> = changes.into_iter().flatten().collect();
        assert!(changes.iter().all(|c| c.incident.id == changes[0].incident.id));
        let closed = changes[3].incident;
        assert_eq!((closed.defective_frames, closed.peak_score), (3, 3.0));
    }

    #[test]
    fn an_incident_that_was_open_before_goes_on() {
        let before = Incident { id: Uuid::now_v7(), defective_frames: 4, peak_score: 2.0 };
        let mut grouper = Grouper::new(Grouping::Incident, 2, Some(before));
        let updated = grouper.judge(true, 1.0).unwrap();
        assert_eq!((updated.kind, updated.incident), (ChangeKind::Updated, Incident { defective_frames: 5, ..before }));
        assert_eq!(grouper.close().unwrap().kind, ChangeKind::Closed);
        assert_eq!(grouper.close(), None);
    }
}
