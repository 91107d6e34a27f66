//! Parts that several views show: one verdict a part, by its worst view.

use super::payload::{CloudEvent, ModelRef};
use ckaad_bundle::{MAX_VIEWS, view_shown};
use ckaad_inspect::Verdict;
use ckaad_inspect::imaging::Frame;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Parts that may wait for views at one time; one more, and the oldest is told as it is. So many that were told without some views are remembered, too.
const MOST_WAITING: usize = 64;

/// The `type` of an event about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PartEventKind {
    #[serde(rename = "part.verdict")]
    Verdict,
}

/// What is to be done with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartJudgement {
    /// Every view was seen, and none is defective.
    Good,
    /// A view is defective, whatever the others are.
    Defective,
    /// Views are missing, and none that was seen is defective.
    Incomplete,
}

/// One verdict a part, at `part/<station>/verdict`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartVerdict {
    /// Where the part was looked at: the camera's name.
    pub station: String,
    /// Which part it is, by its source: a folder's name.
    pub part: String,
    pub judgement: PartJudgement,
    /// The view by which the part is what it is: a defective one before all others, then the largest calibrated score; empty where none was judged.
    pub worst_view: String,
    /// Of the worst view; 0 where there is none.
    pub calibrated_score: f32,
    /// As they came; none where the model looks across all views of a part and one of them is missing.
    #[schemars(length(max = MAX_VIEWS))]
    pub views: Vec<ViewVerdict>,
    /// Views that are expected and were not seen in time, or could not be judged.
    #[schemars(length(max = MAX_VIEWS))]
    pub missing: Vec<String>,
    /// Changes at every start of the agent.
    #[schemars(with = "String")]
    pub run: Uuid,
    /// SHA-256 of the configuration in force.
    pub config_digest: String,
}

impl CloudEvent<PartVerdict, PartEventKind> {
    /// An event of its own, made now; `prefix` is that of the topics.
    pub fn part(prefix: &str, data: PartVerdict) -> Self {
        CloudEvent::new(format!("/{prefix}/part/{}", data.station), PartEventKind::Verdict, data)
    }
}

/// What one view of a part says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ViewVerdict {
    pub view: String,
    pub frame_id: String,
    #[schemars(with = "String")]
    pub captured_at: Timestamp,
    pub score: f32,
    pub threshold: f32,
    /// The score on a scale that views and models share: 0 is the median of normal images, 1 the threshold; no such scale where the threshold was set
    /// by hand below that median.
    pub calibrated_score: f32,
    /// As of a frame.
    pub defective: bool,
    /// As of a frame: what reaches the threshold is too small to count, so that a calibrated score above 1 is no defect.
    pub too_small: bool,
    /// That judged this view.
    pub model: ModelRef,
}

impl ViewVerdict {
    pub fn new(view: &str, frame: &Frame, verdict: &Verdict, model: &ModelRef) -> ViewVerdict {
        ViewVerdict {
            view: view.into(),
            frame_id: frame.id.clone(),
            captured_at: frame.captured_at,
            score: verdict.score,
            threshold: verdict.threshold,
            calibrated_score: verdict.calibrated_score(),
            defective: verdict.is_defective(),
            too_small: verdict.too_small,
            model: model.clone(),
        }
    }
}

/// What was seen of a part; `T` is what its owner wants back with each view.
#[derive(Debug)]
pub struct Assembled<T> {
    part: String,
    seen: Vec<(ViewVerdict, Option<T>)>,
    missing: Vec<String>,
}

impl<T> Assembled<T> {
    /// A part of which no view could be judged.
    pub fn unjudged(part: String, missing: Vec<String>) -> Assembled<T> {
        Assembled { part, seen: vec![], missing }
    }

    /// The verdict, and what came with the views that were not told before.
    pub fn verdict(self, station: &str, run: Uuid, config_digest: &str) -> (PartVerdict, Vec<T>) {
        let Assembled { part, seen, missing } = self;
        let (views, owed): (Vec<ViewVerdict>, Vec<Option<T>>) = seen.into_iter().unzip();
        let owed = owed.into_iter().flatten().collect();
        let order = |a: &&ViewVerdict, b: &&ViewVerdict| {
            a.defective.cmp(&b.defective).then(a.calibrated_score.total_cmp(&b.calibrated_score))
        };
        let worst = views.iter().max_by(order);
        let judgement = match worst {
            Some(view) if view.defective => PartJudgement::Defective,
            Some(_) if missing.is_empty() => PartJudgement::Good,
            _ => PartJudgement::Incomplete,
        };
        let (worst_view, calibrated_score) =
            worst.map_or_else(Default::default, |view| (view.view.clone(), view.calibrated_score));
        let verdict = PartVerdict {
            station: station.into(),
            part,
            judgement,
            worst_view,
            calibrated_score,
            views,
            missing,
            run,
            config_digest: config_digest.into(),
        };
        (verdict, owed)
    }
}

/// Puts parts together from their views, which come in any order.
#[derive(Debug)]
pub struct Assembler<T> {
    views: Vec<String>,
    patience: Duration,
    /// The oldest first.
    waiting: VecDeque<Waiting<T>>,
    /// What was told of parts that lacked views, the oldest first: one that comes later is no part of its own.
    told: VecDeque<(String, Vec<ViewVerdict>)>,
}

#[derive(Debug)]
struct Waiting<T> {
    part: String,
    /// When its last view came.
    last: Instant,
    /// With what its owner wants back, where that was not given back yet.
    seen: Vec<(ViewVerdict, Option<T>)>,
}

impl<T> Assembler<T> {
    /// A part has these views; it is told as it is when for so long none has come.
    pub fn new(views: Vec<String>, patience: Duration) -> Assembler<T> {
        Assembler { views, patience, waiting: VecDeque::new(), told: VecDeque::new() }
    }

    /// Which of the views a picture shows, by [`view_shown`].
    pub fn view_of(&self, name: &str) -> Option<String> {
        view_shown(&self.views, name).map(|view| self.views[view].clone())
    }

    /// Takes a view of a part. What is complete by it comes back; so does what was begun, where the view came once more before the part was complete, and what
    /// waited longest, where too many wait.
    pub fn judged(&mut self, part: &str, view: ViewVerdict, owed: T, now: Instant) -> Vec<Assembled<T>> {
        let mut done = vec![];
        let at = self.waiting.iter().position(|w| w.part == part);
        if let Some(at) = at.filter(|&at| self.waiting[at].seen.iter().any(|(seen, _)| seen.view == view.view)) {
            let begun = self.waiting.remove(at);
            done.extend(begun.map(|w| self.assembled(w)));
        }
        let owed = Some(owed);
        match self.waiting.iter_mut().find(|w| w.part == part) {
            Some(waiting) => {
                waiting.last = now;
                waiting.seen.push((view, owed));
            }
            None => {
                let mut seen = self.told_of(part, &view);
                seen.push((view, owed));
                self.waiting.push_back(Waiting { part: part.into(), last: now, seen });
            }
        }
        let complete = |w: &Waiting<T>| w.seen.len() >= self.views.len();
        let full = self.waiting.iter().position(complete).or((self.waiting.len() > MOST_WAITING).then_some(0));
        let full = full.and_then(|at| self.waiting.remove(at));
        done.extend(full.map(|w| self.assembled(w)));
        done
    }

    /// What was told of the part without this view; nothing, where it was told with it: then the part is shown once more.
    fn told_of(&mut self, part: &str, view: &ViewVerdict) -> Vec<(ViewVerdict, Option<T>)> {
        let told = self.told.iter().position(|(told, _)| told == part).and_then(|at| self.told.remove(at));
        let views = told.map(|(_, views)| views).unwrap_or_default();
        if views.iter().any(|told| told.view == view.view) {
            return vec![];
        }
        views.into_iter().map(|view| (view, None)).collect()
    }

    /// Parts that no view came of for too long.
    pub fn overdue(&mut self, now: Instant) -> Vec<Assembled<T>> {
        let late = |w: &Waiting<T>| now.saturating_duration_since(w.last) >= self.patience;
        let (late, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(late);
        self.waiting = waiting.into();
        late.into_iter().map(|w| self.assembled(w)).collect()
    }

    /// All that wait: nothing will come any more.
    pub fn rest(&mut self) -> Vec<Assembled<T>> {
        std::mem::take(&mut self.waiting).into_iter().map(|w| self.assembled(w)).collect()
    }

    fn assembled(&mut self, waiting: Waiting<T>) -> Assembled<T> {
        let Waiting { part, seen, .. } = waiting;
        let was_seen = |view: &&String| seen.iter().any(|(v, _)| &v.view == *view);
        let missing: Vec<String> = self.views.iter().filter(|view| !was_seen(view)).cloned().collect();
        if !missing.is_empty() {
            self.told.push_back((part.clone(), seen.iter().map(|(view, _)| view.clone()).collect()));
            if self.told.len() > MOST_WAITING {
                self.told.pop_front();
            }
        }
        Assembled { part, seen, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, calibrated_score: f32, defective: bool) -> ViewVerdict {
        let captured_at = "2026-01-02T03:04:05Z".parse().unwrap();
        let (score, threshold) = (calibrated_score, 1.0);
        ViewVerdict {
            view: name.into(),
            frame_id: name.into(),
            captured_at,
            score,
            threshold,
            calibrated_score,
            defective,
            too_small: false,
            model: ModelRef { name: "washer".into(), version: "1.0.0".into(), digest: "ab".into() },
        }
    }

    fn assembler() -> Assembler<u64> {
        Assembler::new(["top", "left", "right"].map(String::from).into(), Duration::from_secs(10))
    }

    fn told(done: Vec<Assembled<u64>>) -> Vec<(PartVerdict, Vec<u64>)> {
        done.into_iter().map(|done| done.verdict("press", Uuid::nil(), "cd")).collect()
    }

    #[test]
    fn a_part_is_as_its_worst_view_and_parts_may_overlap() {
        let (mut parts, now) = (assembler(), Instant::now());
        assert!(parts.judged("a", view("left", 0.2, false), 1, now).is_empty());
        assert!(parts.judged("b", view("left", 0.9, false), 2, now).is_empty());
        assert!(parts.judged("b", view("top", 0.3, false), 3, now).is_empty());
        // Defective by another threshold, though its score is the smaller one.
        assert!(parts.judged("a", view("top", 0.1, true), 4, now).is_empty());
        let told_b = told(parts.judged("b", view("right", 0.4, false), 5, now));
        let told_a = told(parts.judged("a", view("right", 0.5, false), 6, now));
        let [(b, owed_b)] = &told_b[..] else { panic!("{told_b:?}") };
        let [(a, owed_a)] = &told_a[..] else { panic!("{told_a:?}") };
        assert_eq!((b.judgement, b.worst_view.as_str(), b.calibrated_score), (PartJudgement::Good, "left", 0.9));
        assert_eq!((a.judgement, a.worst_view.as_str(), a.calibrated_score), (PartJudgement::Defective, "top", 0.1));
        assert_eq!((owed_b, owed_a), (&vec![2, 3, 5], &vec![1, 4, 6]));
        assert!(a.missing.is_empty() && b.missing.is_empty());
        assert_eq!((a.station.as_str(), a.part.as_str(), a.views.len()), ("press", "a", 3));
        assert!(parts.rest().is_empty());
    }

    #[test]
    fn missing_views_are_named_and_a_defect_counts_without_them() {
        let (mut parts, now) = (assembler(), Instant::now());
        parts.judged("a", view("left", 0.2, false), 1, now);
        let later = now + Duration::from_secs(6);
        parts.judged("b", view("right", 1.5, true), 2, later);
        assert!(parts.overdue(now + Duration::from_secs(9)).is_empty());
        let a = told(parts.overdue(now + Duration::from_secs(10)));
        assert_eq!((a.len(), a[0].0.judgement), (1, PartJudgement::Incomplete));
        assert_eq!(a[0].0.missing, ["top", "right"]);
        let b = told(parts.rest());
        assert_eq!((b.len(), b[0].0.judgement), (1, PartJudgement::Defective));
        assert_eq!(b[0].0.missing, ["top", "left"]);
        // A new view gives a part more time.
        parts.judged("c", view("left", 0.2, false), 3, now);
        parts.judged("c", view("top", 0.2, false), 4, later);
        assert!(parts.overdue(now + Duration::from_secs(15)).is_empty());
        assert_eq!(parts.overdue(later + Duration::from_secs(10)).len(), 1);
    }

    #[test]
    fn a_view_that_comes_again_begins_the_part_anew() {
        let (mut parts, now) = (assembler(), Instant::now());
        parts.judged("a", view("left", 0.2, false), 1, now);
        let first = told(parts.judged("a", view("left", 0.3, false), 2, now));
        assert_eq!((first.len(), &first[0].1), (1, &vec![1]));
        assert_eq!(first[0].0.missing, ["top", "right"]);
        parts.judged("a", view("top", 0.1, false), 3, now);
        let whole = told(parts.judged("a", view("right", 0.1, false), 4, now));
        assert_eq!((whole.len(), &whole[0].1, whole[0].0.judgement), (1, &vec![2, 3, 4], PartJudgement::Good));
    }

    #[test]
    fn a_view_that_comes_late_is_told_with_all_that_was_seen() {
        let (mut parts, now) = (assembler(), Instant::now());
        parts.judged("a", view("left", 1.2, true), 1, now);
        parts.judged("a", view("right", 0.2, false), 2, now);
        let first = told(parts.rest());
        assert_eq!((first[0].0.judgement, &first[0].1), (PartJudgement::Defective, &vec![1, 2]));
        let second = told(parts.judged("a", view("top", 0.1, false), 3, now));
        let [(verdict, owed)] = &second[..] else { panic!("{second:?}") };
        assert_eq!((verdict.judgement, verdict.worst_view.as_str()), (PartJudgement::Defective, "left"));
        // What came with the others was given back with the first verdict.
        assert_eq!((verdict.views.len(), verdict.missing.len(), owed), (3, 0, &vec![3]));
        // Complete, it is forgotten.
        parts.judged("a", view("top", 0.1, false), 4, now);
        assert_eq!(told(parts.rest())[0].0.views.len(), 1);
        // As many are remembered as may wait.
        for n in 0..=MOST_WAITING as u64 {
            parts.judged(&n.to_string(), view("left", 0.1, false), n, now);
            assert_eq!(parts.rest().len(), 1);
        }
        assert_eq!(parts.told.len(), MOST_WAITING);
    }

    #[test]
    fn parts_that_wait_are_bounded() {
        let (mut parts, now) = (assembler(), Instant::now());
        for n in 0..MOST_WAITING as u64 {
            assert!(parts.judged(&n.to_string(), view("left", 0.1, false), n, now).is_empty());
        }
        let oldest = told(parts.judged("one more", view("left", 0.1, false), 99, now));
        assert_eq!((oldest.len(), oldest[0].0.part.as_str()), (1, "0"));
        assert_eq!(parts.rest().len(), MOST_WAITING);
    }

    #[test]
    fn a_view_is_told_by_the_name_of_its_picture() {
        let parts: Assembler<()> =
            Assembler::new(["C1", "C10", "top", "top_left"].map(String::from).into(), Duration::ZERO);
        for (name, view) in [
            ("C1", Some("C1")),
            ("bolt_0007_C10_20260102", Some("C10")),
            ("top_left", Some("top_left")),
            ("bolt_top_left_1", Some("top_left")),
            ("bolt_top_1", Some("top")),
            ("XC1", None),
            ("bolt_0007", None),
            ("", None),
        ] {
            assert_eq!(parts.view_of(name).as_deref(), view, "{name}");
        }
    }
}
