use super::grouping::{Change, ChangeKind, Incident};
use ckaad_inspect::imaging::Frame;
use ckaad_inspect::{DecidedBy, MAX_REGIONS, Region, Verdict};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A payload as it goes over the wire.
pub fn to_json(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).expect("our payloads have string keys and no failing serialiser")
}

/// The envelope: CloudEvents 1.0, JSON format, structured mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloudEvent<D, T = ChangeKind> {
    /// Always `1.0`.
    pub specversion: String,
    /// Unique; a message that is delivered twice has the same one both times.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// `/<topic prefix>/camera/<name>`; of a part `/<topic prefix>/part/<station>`.
    pub source: String,
    pub r#type: T,
    /// When the event was made; `captured_at` within is when a picture was taken.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: String,
    pub data: D,
}

/// A part, or a stretch of material, that is not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Anomaly {
    pub camera: String,
    /// Image score; larger is more anomalous.
    pub score: f32,
    /// The image is defective from this score on.
    pub threshold: f32,
    /// How far above the threshold, as a share of its distance from the median of normal images: 0 at it, 1 at twice
    /// that distance from the median or more.
    pub severity: f32,
    /// What the score is owed to most: `map`, `image` (the network's own score of the image), or the segment of the map
    /// with a label, as `segment 3`.
    #[serde(default = "map")]
    pub decided_by: String,
    /// Largest peak first.
    #[schemars(length(max = MAX_REGIONS))]
    pub regions: Vec<RegionBox>,
    pub frame_id: String,
    pub frame_width: u32,
    pub frame_height: u32,
    #[schemars(with = "String")]
    pub captured_at: Timestamp,
    /// Shared by `opened`, `updated` and `closed` of one incident.
    #[schemars(with = "String")]
    pub incident: Uuid,
    /// Defective frames of the incident so far.
    pub defective_frames: u64,
    /// The largest score of the incident so far.
    pub peak_score: f32,
    /// Why it was closed, where it was not by enough good frames: the source ended, or nobody inspects it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Numbers the anomaly events of this camera since the agent's start, from 0: a gap means that one was lost.
    pub sequence: u64,
    /// Changes at every start of the agent.
    #[schemars(with = "String")]
    pub run: Uuid,
    pub model: ModelRef,
    /// SHA-256 of the configuration in force.
    pub config_digest: String,
    /// True when a heatmap follows on the camera's `heatmap` topic with this event's id.
    pub heatmap: bool,
}

/// An event that was stored before there was anything else.
fn map() -> String {
    DecidedBy::Map.to_string()
}

/// A connected anomalous area, in pixels of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegionBox {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
    pub area_px: f32,
    /// Square millimetres, where the configuration says how large a pixel is: of the map's area above the model's pixel threshold, which is wider than the
    /// defect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area_mm2: Option<f32>,
    /// Largest value of the anomaly map inside.
    pub peak: f32,
}

impl RegionBox {
    /// `mm_per_px`: the side of a frame's pixel, where it is known.
    pub fn new(r: &Region, mm_per_px: Option<f64>) -> RegionBox {
        let area_mm2 = mm_per_px.map(|side| (f64::from(r.area_px) * side * side) as f32);
        RegionBox { x: r.x, y: r.y, width: r.width, height: r.height, area_px: r.area_px, area_mm2, peak: r.peak }
    }
}

/// Which model judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelRef {
    pub name: String,
    pub version: String,
    /// SHA-256 of the bundle.
    pub digest: String,
}

/// Everything that an anomaly event says besides what became of the incident.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    pub camera: &'a str,
    pub frame: &'a Frame,
    pub verdict: &'a Verdict,
    /// Side of a pixel of the frame in millimetres, where it is known.
    pub mm_per_px: Option<f64>,
    pub model: &'a ModelRef,
    pub config_digest: &'a str,
    /// A heatmap follows.
    pub heatmap: bool,
}

/// Which start of the agent, and which event of the camera since.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub incarnation: Uuid,
    pub sequence: u64,
}

impl Anomaly {
    /// What `change` is to be said with.
    pub fn new(change: Change, sighting: &Sighting<'_>, stamp: Stamp) -> Anomaly {
        let Sighting { camera, frame, verdict, mm_per_px, model, config_digest, heatmap } = *sighting;
        Anomaly {
            camera: camera.into(),
            score: verdict.score,
            threshold: verdict.threshold,
            severity: verdict.severity(),
            decided_by: verdict.decided_by.to_string(),
            regions: verdict.regions.iter().take(MAX_REGIONS).map(|r| RegionBox::new(r, mm_per_px)).collect(),
            frame_id: frame.id.clone(),
            frame_width: frame.image.width(),
            frame_height: frame.image.height(),
            captured_at: frame.captured_at,
            incident: change.incident.id,
            defective_frames: change.incident.defective_frames,
            peak_score: change.incident.peak_score,
            reason: None,
            sequence: stamp.sequence,
            run: stamp.incarnation,
            model: model.clone(),
            config_digest: config_digest.into(),
            heatmap,
        }
    }

    /// The last word on an incident that no frame closes: what was said last, and `reason`.
    pub fn closed(self, reason: &str, stamp: Stamp) -> Anomaly {
        let (sequence, run) = (stamp.sequence, stamp.incarnation);
        Anomaly { reason: Some(reason.into()), sequence, run, heatmap: false, ..self }
    }

    /// The incident as far as it was known when this was said.
    pub fn incident(&self) -> Incident {
        Incident { id: self.incident, defective_frames: self.defective_frames, peak_score: self.peak_score }
    }
}

impl CloudEvent<Anomaly> {
    /// An event of its own, made now; `prefix` is that of the topics.
    pub fn anomaly(prefix: &str, kind: ChangeKind, data: Anomaly) -> Self {
        CloudEvent::new(format!("/{prefix}/camera/{}", data.camera), kind, data)
    }
}

impl<D, T> CloudEvent<D, T> {
    /// An event of its own, made now.
    pub(super) fn new(source: String, kind: T, data: D) -> Self {
        CloudEvent {
            specversion: "1.0".into(),
            id: Uuid::now_v7(),
            source,
            r#type: kind,
            time: Timestamp::now(),
            datacontenttype: "application/json".into(),
            data,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DevicePhase {
    Online,
    /// Ended on purpose.
    Stopped,
    /// The broker lost the device: power, network, or the agent died.
    Offline,
}

/// Retained at `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceState {
    pub state: DevicePhase,
    /// Of the agent.
    pub version: String,
    /// Since when; for `offline` when the connection was made that broke.
    #[schemars(with = "String")]
    pub since: Timestamp,
    #[schemars(with = "String")]
    pub run: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CameraPhase {
    /// No frame was judged yet.
    Starting,
    /// Frames are judged, or a hot folder is watched.
    Running,
    /// No new frame within the deadline.
    Stalled,
    /// The same frame again and again.
    Frozen,
    /// Not there, or it cannot be opened.
    Unplugged,
    /// Not inspected any more: the source ended, the agent stopped, or the model failed.
    Disabled,
}

/// Retained at `camera/<name>/state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraState {
    pub state: CameraPhase,
    /// One sentence for the operator; empty while all is well.
    pub reason: String,
    /// Frames a second that were judged lately.
    pub fps: f64,
    #[schemars(with = "String")]
    pub since: Timestamp,
    pub model: ModelRef,
    /// What computes the model: `cpu`, or `onnxruntime` and its provider.
    #[serde(default = "cpu")]
    pub backend: String,
    /// Why it is not what the configuration asks for; empty while it is.
    #[serde(default)]
    pub backend_declined: String,
}

/// Agents that knew nothing else did not say so.
fn cpu() -> String {
    "cpu".into()
}

/// One line a frame, at `camera/<name>/result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrameResult {
    pub frame_id: String,
    #[schemars(with = "String")]
    pub captured_at: Timestamp,
    pub score: f32,
    pub threshold: f32,
    /// The score reaches the threshold, and not only by regions that are too small to count.
    pub defective: bool,
    /// All regions are smaller than `ignore_below_mm2`, and without them the score would not reach the threshold.
    #[serde(default)]
    pub too_small: bool,
    /// Milliseconds from the frame to the verdict.
    pub inspect_ms: f64,
}

/// At `health`, from time to time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    #[schemars(with = "String")]
    pub time: Timestamp,
    pub version: String,
    pub uptime_s: u64,
    /// Largest resident memory so far.
    pub peak_rss_bytes: u64,
    /// Of all networks together.
    pub threads: usize,
    /// Frames that are judged at one time, at most.
    pub judges: usize,
    pub cameras: Vec<CameraHealth>,
    pub outbox: OutboxHealth,
    /// How often a part of the agent failed and was started again, by its name.
    pub restarts: BTreeMap<String, u64>,
    /// Frames that something which only looks on had no room for; their events are not concerned.
    pub lost_by_taps: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraHealth {
    pub name: String,
    /// Frames judged since the start.
    pub judged: u64,
    pub defective: u64,
    /// Frames whose score reached the threshold by regions alone that are smaller than `ignore_below_mm2`; they are not among the defective ones.
    #[serde(default)]
    pub too_small: u64,
    /// Unreadable images and frames.
    pub skipped: u64,
    /// Frames that the camera gave while an older one was judged.
    pub dropped: u64,
    /// Mean milliseconds a frame, from the image to the verdict.
    pub mean_inspect_ms: f64,
    /// Mean milliseconds that a frame waited before, because others were judged.
    pub mean_wait_ms: f64,
}

/// What waits for the broker, and what was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutboxHealth {
    pub waiting: u64,
    pub bytes: u64,
    /// Waiting in memory only, because the disk has not taken them yet.
    pub in_memory: u64,
    pub dropped_heatmaps: u64,
    pub dropped_updates: u64,
    /// Messages larger than the broker takes.
    pub dropped_oversize: u64,
    /// `opened` that neither disk nor memory could take.
    pub lost_opened: u64,
    /// Damaged outboxes that were set aside.
    pub set_aside: u64,
    /// Writes that the disk refused.
    pub failed_writes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn stored() -> Value {
        json!({
            "camera": "left", "score": 0.9, "threshold": 0.5, "severity": 1.0, "decided_by": "segment 3", "regions": [],
            "frame_id": "7", "frame_width": 640, "frame_height": 480, "captured_at": "2026-01-02T03:04:05Z",
            "incident": Uuid::nil(), "defective_frames": 2, "peak_score": 0.9, "sequence": 4, "run": Uuid::nil(),
            "model": {"name": "washer", "version": "1.0.0", "digest": "ab"}, "config_digest": "cd", "heatmap": false
        })
    }

    /// The last word is what was said last, but for why it ends, which event and start of the agent this is, and that no
    /// picture comes with it.
    #[test]
    fn the_last_word_on_an_incident_is_what_was_said_last() {
        let mut said = stored();
        said["heatmap"] = json!(true);
        let said: Anomaly = serde_json::from_value(said).unwrap();
        let stamp = Stamp { incarnation: Uuid::from_u128(7), sequence: 9 };
        let mut expected = stored();
        for (key, value) in
            [("reason", json!("the agent stops")), ("sequence", json!(9)), ("run", json!(stamp.incarnation))]
        {
            expected[key] = value;
        }
        let closed: Value = serde_json::from_slice(&to_json(&said.closed("the agent stops", stamp))).unwrap();
        // Single precision is written with as many digits as it has.
        for key in ["score", "peak_score"] {
            expected[key] = closed[key].clone();
        }
        assert_eq!(closed, expected);
    }

    /// An incident that is open when the agent is updated was stored by the one before.
    #[test]
    fn an_incident_that_was_stored_before_decided_by_is_read() {
        let mut old = stored();
        assert_eq!(serde_json::from_value::<Anomaly>(old.clone()).unwrap().decided_by, "segment 3");
        old.as_object_mut().unwrap().remove("decided_by");
        assert_eq!(serde_json::from_value::<Anomaly>(old).unwrap().decided_by, "map");
    }
}
