//! One camera's thread: source → model in force → events → outbox.
//!
//! It never waits for a disk or a network. What it hands to the outbox comes with a receipt, and only when the disk has answered may the
//! source forget the frame (a hot folder: dispose of the file).

use super::config::{CameraSettings, PictureFormat};
use super::progress::CameraProgress;
use crate::capture::{Condition, Next, Source};
use crate::events::{
    Anomaly, Assembled, Assembler, CameraPhase, Change, ChangeKind, CloudEvent, FrameResult, Grouper, Grouping,
    ModelRef, PartJudgement, PartVerdict, Sighting, Stamp, Topics, ViewVerdict, to_json,
};
use crate::judge::{EnginePool, Gathered, Gatherer, Judged, Model, ModelSlot, Taps};
use crate::mqtt::{Message, Note, Priority, Receipt, SessionHandle, StoreHandle};
use ckaad_bundle::view_shown;
use ckaad_inspect::imaging::{self, Frame, PartView, RgbImage};
use ckaad_inspect::{Limits, Verdict};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the camera's state is published while nothing changes, for its frame rate.
const STATE_EVERY: Duration = Duration::from_secs(30);
/// After so many frames in a row that could not be read, or that the network could not judge, the camera counts as not inspected.
const FAILURES: u32 = 5;
/// How long the end waits for the disk to answer for the last frames; a hot folder's files would else be judged again.
const LAST_RECEIPTS: Duration = Duration::from_secs(2);

/// The ways out of the agent, which all cameras share.
#[derive(Clone)]
pub(super) struct Publisher {
    pub topics: Topics,
    pub store: StoreHandle,
    pub session: SessionHandle,
    /// Of this start of the agent.
    pub incarnation: Uuid,
    pub config_digest: String,
}

impl Publisher {
    /// Hands an anomaly event to the outbox, together with what is to be known of its incident after a restart.
    fn event(&self, kind: ChangeKind, data: Anomaly, keep_incident: bool) -> (String, Receipt) {
        let key = format!("{INCIDENT_NOTE}{}", data.camera);
        let notes = match kind {
            ChangeKind::Closed => vec![Note { key, value: None }],
            _ if keep_incident => vec![Note { key, value: Some(String::from_utf8_lossy(&to_json(&data)).into()) }],
            _ => vec![],
        };
        let topic = self.topics.anomaly(&data.camera);
        let priority = match kind {
            ChangeKind::Opened => Priority::Opened,
            ChangeKind::Updated => Priority::Updated,
            ChangeKind::Closed => Priority::Closed,
        };
        let event = CloudEvent::anomaly(self.topics.prefix(), kind, data);
        let event_id = event.id.to_string();
        (event_id, self.store.put(vec![cloud_event(priority, topic, &event)], notes))
    }

    /// Hands a part's verdict to the outbox: a defective part's is kept as what opens an incident is. Where there is no room for another's, its files stay with
    /// the source, as those of all that the disk did not take.
    fn part(&self, verdict: PartVerdict) -> Receipt {
        let topic = self.topics.part_verdict(&verdict.station);
        let priority = match verdict.judgement {
            PartJudgement::Defective => Priority::Opened,
            PartJudgement::Good | PartJudgement::Incomplete => Priority::Closed,
        };
        let event = CloudEvent::part(self.topics.prefix(), verdict);
        self.store.put(vec![cloud_event(priority, topic, &event)], vec![])
    }

    /// Closes an incident of the last start that no camera takes up again.
    pub(super) fn close_orphan(&self, last: Anomaly, reason: &str) {
        tracing::info!(camera = last.camera, "the incident {} is closed: {reason}", last.incident);
        let stamp = Stamp { incarnation: self.incarnation, sequence: 0 };
        // Stored before anything else of this start is: nobody waits for it.
        drop(self.event(ChangeKind::Closed, last.closed(reason, stamp), false));
    }
}

fn cloud_event<D: Serialize, T: Serialize>(priority: Priority, topic: String, event: &CloudEvent<D, T>) -> Message {
    let (content_type, event_id) = ("application/json".into(), event.id.to_string());
    Message { priority, topic, content_type, event_id, payload: to_json(event) }
}

/// Begins the key of the note that holds a camera's open incident: the [`Anomaly`] that was said last, as JSON.
pub(super) const INCIDENT_NOTE: &str = "incident/";

/// What a camera's events go on from when its thread is started again.
#[derive(Default)]
pub(super) struct Incidents {
    /// Number of the next event.
    sequence: AtomicU64,
    /// What was said last of the open incident.
    last: Mutex<Option<Anomaly>>,
}

impl Incidents {
    /// `open` was open when the agent ended.
    pub(super) fn new(open: Option<Anomaly>) -> Incidents {
        Incidents { sequence: AtomicU64::new(0), last: Mutex::new(open) }
    }

    /// Replaced as a whole: a lock poisoned by a panic elsewhere is taken as it is.
    fn last(&self) -> MutexGuard<'_, Option<Anomaly>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that a camera's thread works with.
pub(super) struct CameraPipeline {
    pub settings: CameraSettings,
    /// Its name.
    pub camera: Arc<str>,
    pub source: Box<dyn Source>,
    pub slot: Arc<ModelSlot>,
    pub engine: Arc<EnginePool>,
    pub taps: Arc<Taps>,
    pub publisher: Publisher,
    pub incidents: Arc<Incidents>,
    pub stop: CancellationToken,
    pub progress: Arc<CameraProgress>,
}

/// What changes from frame to frame.
struct State {
    /// Frames in a row that the network could not judge.
    failures: u32,
    /// Frames in a row that the source could not read.
    unreadable: u32,
    grouper: Grouper,
    phase: CameraPhase,
    reason: String,
    since: Timestamp,
    said_at: Instant,
    said_judged: u64,
    /// The model that was named last.
    said_model: ModelRef,
    /// Frames whose events the disk has not answered for.
    owed: VecDeque<Owed>,
    /// Parts of which views are still to come.
    parts: Option<Assembler<Owed>>,
    /// Frames that a model of several views judges when their part is whole.
    gathering: Gatherer<Arc<Frame>>,
    /// The views for which they are gathered; none where the model takes one.
    gathering_names: Vec<String>,
    /// Frames that are no view of a part.
    strays: u32,
    /// Parts in a row of which nothing was judged, for they were not whole.
    not_whole: u32,
}

/// Frames that the source may forget when all of these are on disk.
struct Owed {
    /// By their sequences.
    frames: Vec<u64>,
    receipts: Vec<Receipt>,
    /// One of the receipts was answered with no.
    refused: bool,
}

impl Owed {
    fn new(frame: u64, receipt: Option<Receipt>) -> Owed {
        Owed { frames: vec![frame], receipts: receipt.into_iter().collect(), refused: false }
    }

    /// Whether all is answered.
    fn settled(&mut self) -> bool {
        self.receipts.retain_mut(|receipt| match receipt.on_disk() {
            None => true,
            Some(on_disk) => {
                self.refused |= !on_disk;
                false
            }
        });
        self.receipts.is_empty()
    }
}

impl CameraPipeline {
    /// Runs until the source ends or it is told to stop.
    pub(super) fn run(mut self) {
        let open = self.incidents.last().as_ref().map(Anomaly::incident);
        let mut state = State {
            failures: 0,
            unreadable: 0,
            grouper: Grouper::new(self.settings.grouping, self.settings.close_after, open),
            phase: CameraPhase::Starting,
            reason: String::new(),
            since: Timestamp::now(),
            said_at: Instant::now(),
            said_judged: 0,
            said_model: self.slot.current().reference.clone(),
            owed: VecDeque::new(),
            parts: self.settings.parts.as_ref().map(|parts| Assembler::new(parts.views.clone(), parts.patience)),
            gathering: Gatherer::new(self.settings.parts.as_ref().map_or(Duration::ZERO, |parts| parts.patience)),
            gathering_names: vec![],
            strays: 0,
            not_whole: 0,
        };
        self.say_state(&mut state);
        let ended = loop {
            if self.stop.is_cancelled() {
                break false;
            }
            match self.source.next() {
                Next::Frame(frame) => self.take(Arc::new(frame), &mut state),
                Next::Idle => {}
                Next::Skipped(why) => self.unreadable(&why.to_string(), &mut state),
                Next::Condition(condition) => self.condition(condition, &mut state),
                Next::End => break true,
            }
            for part in state.gathering.overdue(Instant::now()) {
                self.unjudged(part, &mut state);
            }
            let late = state.parts.as_mut().map(|parts| parts.overdue(Instant::now()));
            self.say_parts(late.unwrap_or_default(), &mut state);
            self.release_stored(&mut state);
            if state.said_at.elapsed() >= STATE_EVERY {
                self.say_state(&mut state);
            }
            self.progress.set_dropped(self.source.dropped());
            // A model that fails is no progress: the watchdog starts us anew.
            if state.failures < FAILURES {
                self.progress.went_round();
            }
        };
        self.finish(ended, state);
    }

    /// `ended`: the source has given its last frame, so no frame will close an open incident; a stop leaves it open for the next start.
    fn finish(&mut self, ended: bool, mut state: State) {
        let why = if ended { "the source ended" } else { "the agent stopped" };
        if ended
            && let Some(change) = state.grouper.close()
            && let Some(last) = self.incidents.last().take()
        {
            let stamp = self.stamp();
            drop(self.publisher.event(change.kind, last.closed(why, stamp), false));
        }
        if ended {
            self.give_up_gathering(&mut state);
            let rest = state.parts.as_mut().map(Assembler::rest);
            self.say_parts(rest.unwrap_or_default(), &mut state);
        }
        let begun = Instant::now();
        while !state.owed.is_empty() && begun.elapsed() < LAST_RECEIPTS {
            std::thread::sleep(Duration::from_millis(5));
            self.release_stored(&mut state);
        }
        self.enter(CameraPhase::Disabled, why.into(), &mut state);
        // Not within the macro: it asks for nothing where nobody wants to hear it.
        let report = self.progress.ended(why);
        tracing::info!("{report}");
    }

    /// Tells the source which frames it may forget: those whose events are on disk. What the disk did not take stays with the source.
    fn release_stored(&mut self, state: &mut State) {
        while state.owed.front_mut().is_some_and(Owed::settled) {
            let Some(owed) = state.owed.pop_front() else { return };
            if !owed.refused {
                owed.frames.into_iter().for_each(|sequence| self.release(sequence));
            }
        }
    }

    fn release(&mut self, sequence: u64) {
        if let Err(why) = self.source.judged(sequence) {
            tracing::warn!(camera = self.settings.name, "{why}");
        }
    }

    fn skip(&self, why: &str) {
        self.progress.skipped();
        tracing::warn!(camera = self.settings.name, "{why}; it was skipped");
    }

    /// The source could not read a frame.
    fn unreadable(&self, why: &str, state: &mut State) {
        state.unreadable = state.unreadable.saturating_add(1);
        self.failed(state.unreadable, "read", why, state);
    }

    /// A frame could not be read or judged: told for each at first, then once for all.
    fn failed(&self, in_a_row: u32, what: &str, why: &str, state: &mut State) {
        if in_a_row < FAILURES {
            return self.skip(why);
        }
        self.progress.skipped();
        if in_a_row == FAILURES {
            let reason = format!("{FAILURES} frames in a row could not be {what}, this is the last: {why}");
            tracing::error!(camera = self.settings.name, "{reason}");
            self.enter(CameraPhase::Disabled, reason, state);
        }
    }

    /// Judges a frame, or the part that is whole with it.
    fn take(&mut self, frame: Arc<Frame>, state: &mut State) {
        state.unreadable = 0;
        // Taken anew for each frame: an update may have put another one in force.
        let model = self.slot.current();
        let names = &model.inspector.manifest().view_names;
        if *names != state.gathering_names {
            // What waits was gathered for another model, and in its order.
            self.give_up_gathering(state);
            state.gathering_names.clone_from(names);
        }
        if names.is_empty() {
            return self.judge(&[frame], &model, state);
        }
        if let Err(why) = self.settings.shows(names) {
            state.failures = state.failures.saturating_add(1);
            return self.failed(state.failures, "judged", &why, state);
        }
        let view = |shown: &PartView| Some((shown.part.clone(), view_shown(names, &shown.name)?));
        let Some((part, view)) = frame.part.as_ref().and_then(view) else {
            return self.stray(&frame, "and is not judged: the model looks at all views of a part at once", state);
        };
        for gathered in state.gathering.take(&part, view, frame, names.len(), Instant::now()) {
            match gathered.whole(names.len()) {
                Ok(frames) => self.judge(&frames, &model, state),
                Err(gathered) => self.unjudged(gathered, state),
            }
        }
    }

    /// A frame that shows no view of a part; the first are named.
    fn stray(&self, frame: &Frame, what: &str, state: &mut State) {
        state.strays = state.strays.saturating_add(1);
        let camera = &self.settings.name;
        let last = if state.strays == FAILURES { "; further ones are not named" } else { "" };
        if state.strays <= FAILURES {
            tracing::warn!(camera, "the frame {} is no view of a part {what}{last}", frame.id);
        }
        if !state.gathering_names.is_empty() {
            self.progress.skipped();
        }
    }

    fn give_up_gathering(&mut self, state: &mut State) {
        for part in state.gathering.rest() {
            self.unjudged(part, state);
        }
    }

    /// Frames of a part that is not whole: it is told as incomplete. Nothing was judged, so the source keeps them.
    fn unjudged(&mut self, gathered: Gathered<Arc<Frame>>, state: &mut State) {
        let (camera, names) = (&self.settings.name, state.gathering_names.clone());
        let (part, missing, there) = (gathered.part.clone(), gathered.missing(&names).join(", "), gathered.views.len());
        tracing::warn!(camera, part, missing, "views of the part are missing, without which {there} cannot be judged");
        gathered.views.iter().for_each(|_| self.progress.skipped());
        state.not_whole = state.not_whole.saturating_add(1);
        if state.not_whole == FAILURES {
            let reason = format!(
                "{FAILURES} parts in a row could not be judged: views are missing, at last {missing} of {part}"
            );
            tracing::error!(camera, "{reason}");
            self.enter(CameraPhase::Disabled, reason, state);
        }
        self.say_parts(vec![Assembled::unjudged(part, names)], state);
    }

    /// Judges one frame, or all views of a part, in the order in which the model takes them.
    fn judge(&mut self, frames: &[Arc<Frame>], model: &Arc<Model>, state: &mut State) {
        fail::fail_point!("camera-judge");
        let turn = self.engine.turn();
        let begun = Instant::now();
        let threshold = self.settings.threshold.unwrap_or(model.inspector.threshold());
        let limits = Limits { threshold, smallest_region_px: self.settings.smallest_region_px };
        let images: Vec<&RgbImage> = frames.iter().map(|frame| &frame.image).collect();
        let verdicts = match model.inspector.inspect_part(&images, limits) {
            Ok(verdicts) => verdicts,
            Err(why) => {
                state.failures = state.failures.saturating_add(1);
                let ids: Vec<&str> = frames.iter().map(|frame| frame.id.as_str()).collect();
                let why = format!("the frame {} could not be judged: {why}", ids.join(", "));
                frames.iter().skip(1).for_each(|_| self.progress.skipped());
                self.failed(state.failures, "judged", &why, state);
                let part = frames.first().and_then(|frame| frame.part.as_ref()).filter(|_| frames.len() > 1);
                if let Some(PartView { part, .. }) = part {
                    self.say_parts(vec![Assembled::unjudged(part.clone(), state.gathering_names.clone())], state);
                }
                return;
            }
        };
        let count = frames.len().max(1) as u32;
        let (waited, took) = (turn.waited / count, begun.elapsed() / count);
        drop(turn);
        (state.failures, state.unreadable, state.not_whole) = (0, 0, 0);
        for (frame, verdict) in frames.iter().zip(verdicts) {
            self.judged(frame.clone(), Arc::new(verdict), model.clone(), [waited, took], state);
        }
    }

    /// What follows from a verdict; `waited` and `took` are the frame's.
    fn judged(
        &mut self,
        frame: Arc<Frame>,
        verdict: Arc<Verdict>,
        model: Arc<Model>,
        [waited, took]: [Duration; 2],
        state: &mut State,
    ) {
        // The other phases are the source's to end.
        if matches!(state.phase, CameraPhase::Starting | CameraPhase::Disabled) {
            self.condition(Condition::Running, state);
        }
        if model.reference != state.said_model {
            self.say_state(state);
        }
        let defective = verdict.is_defective();
        if verdict.too_small {
            self.progress.too_small();
            tracing::debug!(camera = self.settings.name, frame = frame.id, "all regions are smaller than what counts");
        }
        self.progress.judged(took, waited, defective, frame.truth.as_ref());
        let change = state.grouper.judge(defective, verdict.score);
        let receipt = change.map(|change| self.publish(change, &frame, &verdict, &model));
        if self.settings.results {
            let result = FrameResult {
                frame_id: frame.id.clone(),
                captured_at: frame.captured_at,
                score: verdict.score,
                threshold: verdict.threshold,
                defective,
                too_small: verdict.too_small,
                inspect_ms: took.as_secs_f64() * 1000.0,
            };
            let publisher = &self.publisher;
            publisher.session.best_effort(publisher.topics.result(&self.settings.name), to_json(&result));
        }
        let owed = Owed::new(frame.sequence, receipt);
        match self.as_view(&frame, &verdict, &model.reference, state) {
            Some((part, view)) => {
                let done = state.parts.as_mut().map(|parts| parts.judged(&part, view, owed, Instant::now()));
                self.say_parts(done.unwrap_or_default(), state);
            }
            None if owed.receipts.is_empty() => self.release(frame.sequence),
            None => state.owed.push_back(owed),
        }
        // Behind all that is owed to this frame.
        self.taps.put(&Judged { camera: self.camera.clone(), frame, verdict, model });
    }

    /// The frame as a view of a part, where parts have several and it is one of theirs. The first that are none are named.
    fn as_view(
        &self,
        frame: &Frame,
        verdict: &Verdict,
        model: &ModelRef,
        state: &mut State,
    ) -> Option<(String, ViewVerdict)> {
        let parts = state.parts.as_ref()?;
        let view = |shown: &PartView| Some((shown.part.clone(), parts.view_of(&shown.name)?));
        let Some((part, view)) = frame.part.as_ref().and_then(view) else {
            self.stray(frame, "and counts alone", state);
            return None;
        };
        Some((part, ViewVerdict::new(&view, frame, verdict, model)))
    }

    /// Their verdicts to the outbox, behind which the source may forget their frames.
    fn say_parts(&self, done: Vec<Assembled<Owed>>, state: &mut State) {
        for part in done {
            let (verdict, owed) =
                part.verdict(&self.settings.name, self.publisher.incarnation, &self.publisher.config_digest);
            let PartVerdict { part, judgement, worst_view, missing, .. } = &verdict;
            let (camera, missing) = (&self.settings.name, missing.join(", "));
            match judgement {
                PartJudgement::Good => tracing::debug!(camera, part, worst_view, "the part is good"),
                PartJudgement::Defective => tracing::info!(camera, part, worst_view, missing, "the part is defective"),
                // Of a part of which nothing was judged it was said.
                PartJudgement::Incomplete if verdict.views.is_empty() => {}
                PartJudgement::Incomplete => tracing::warn!(camera, part, missing, "views of the part are missing"),
            }
            let mut all = Owed { frames: vec![], receipts: vec![self.publisher.part(verdict)], refused: false };
            for Owed { frames, receipts, refused } in owed {
                all.frames.extend(frames);
                all.receipts.extend(receipts);
                all.refused |= refused;
            }
            state.owed.push_back(all);
        }
    }

    /// Numbers an event.
    fn stamp(&self) -> Stamp {
        let sequence = self.incidents.sequence.fetch_add(1, Relaxed);
        Stamp { incarnation: self.publisher.incarnation, sequence }
    }

    /// The event first, its heatmap behind it. The receipt is the event's; a heatmap may be lost to make room.
    fn publish(&self, change: Change, frame: &Frame, verdict: &Verdict, model: &Model) -> Receipt {
        let name = &self.settings.name;
        let heatmap = self.settings.heatmap.enabled && change.kind == ChangeKind::Opened;
        let (model, config_digest) = (&model.reference, &self.publisher.config_digest);
        let mm_per_px = self.settings.mm_per_px;
        let sighting = Sighting { camera: name, frame, verdict, mm_per_px, model, config_digest, heatmap };
        let data = Anomaly::new(change, &sighting, self.stamp());
        let (score, threshold) = (verdict.score, verdict.threshold);
        tracing::info!(camera = name, frame = frame.id, score, threshold, "{:?}", change.kind);
        let groups = self.settings.grouping == Grouping::Incident;
        *self.incidents.last() = (groups && change.kind != ChangeKind::Closed).then(|| data.clone());
        let (event_id, receipt) = self.publisher.event(change.kind, data, groups);
        if heatmap {
            match self.picture(frame, verdict) {
                Ok((content_type, payload)) => {
                    let (priority, topic) = (Priority::Heatmap, self.publisher.topics.heatmap(name));
                    let message = Message { priority, topic, content_type: content_type.into(), event_id, payload };
                    drop(self.publisher.store.put(vec![message], vec![]));
                }
                Err(why) => tracing::warn!(camera = name, "the heatmap of {} could not be made: {why}", frame.id),
            }
        }
        receipt
    }

    fn picture(&self, frame: &Frame, verdict: &Verdict) -> image::ImageResult<(&'static str, Vec<u8>)> {
        let heatmap = &self.settings.heatmap;
        let picture = ckaad_inspect::heatmap(&frame.image, verdict, heatmap.max_side);
        Ok(match heatmap.format {
            PictureFormat::Png => ("image/png", imaging::encode_png(&picture)?),
            PictureFormat::Jpeg => ("image/jpeg", imaging::encode_jpeg(&picture, heatmap.jpeg_quality)?),
        })
    }

    fn condition(&self, condition: Condition, state: &mut State) {
        let (phase, reason) = match condition {
            Condition::Running => (CameraPhase::Running, String::new()),
            Condition::Stalled(why) => (CameraPhase::Stalled, why),
            Condition::Frozen(why) => (CameraPhase::Frozen, why),
            Condition::Unplugged(why) => (CameraPhase::Unplugged, why),
        };
        match phase {
            CameraPhase::Running => tracing::info!(camera = self.settings.name, "the camera runs"),
            _ => tracing::warn!(camera = self.settings.name, "{reason}"),
        }
        self.enter(phase, reason, state);
    }

    fn enter(&self, phase: CameraPhase, reason: String, state: &mut State) {
        (state.phase, state.reason, state.since) = (phase, reason, Timestamp::now());
        self.say_state(state);
    }

    fn say_state(&self, state: &mut State) {
        let judged = self.progress.health().judged;
        let seconds = state.said_at.elapsed().as_secs_f64();
        let fps = if seconds > 0.5 { (judged - state.said_judged) as f64 / seconds } else { 0.0 };
        (state.said_at, state.said_judged) = (Instant::now(), judged);
        self.progress.set_phase(state.phase, &state.reason);
        let (phase, reason, since) = (state.phase, state.reason.clone(), state.since);
        let model = self.slot.current();
        state.said_model = model.reference.clone();
        let said = model.camera_state(phase, reason, fps, since);
        let publisher = &self.publisher;
        publisher.session.retain(publisher.topics.camera_state(&self.settings.name), to_json(&said));
    }
}
