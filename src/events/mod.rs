//! What subscribers see: the payloads, the topics, and how verdicts become events.
//!
//! Responsible for: every JSON type that leaves the device (and therefore for `ckaad-agent schema`), the topic layout, and
//! the grouping of verdicts, and of views of a part. Not responsible for: delivery (`mqtt`).
//!
//! ```text
//! Verdict ─► Grouper ─► Change (opened | updated | closed) ─► CloudEvent<Anomaly> ─► JSON
//! ```
//!
//! | topic under the prefix | retained, QoS | payload |
//! |---|---|---|
//! | `state` | yes, 1 | [`DeviceState`]; also the will |
//! | `camera/<name>/state` | yes, 1 | [`CameraState`] |
//! | `camera/<name>/anomaly` | no, 1 | [`CloudEvent`] of [`Anomaly`] |
//! | `camera/<name>/heatmap` | no, 1 | image bytes; user property `event-id` (with MQTT 3.1.1 at `heatmap/<event-id>`) |
//! | `camera/<name>/result` | no, 0 | [`FrameResult`], off by default |
//! | `part/<station>/verdict` | no, 1 | [`CloudEvent`] of [`PartVerdict`], where parts have several views |
//! | `health` | no, 0 | [`Health`] |
//! | `model/<name>/state` | yes, 1 | [`ModelState`] |
//! | `cmd/<operation>/<id>` | no, 1 | to us: [`UpdateModel`], [`RollbackModel`] |
//! | `cmd/<operation>/<id>/result` | no, 1 | [`CommandResult`]; with MQTT 5 at the response topic, where one is given |

mod grouping;
mod parts;
mod payload;
mod schema;
mod topics;
mod updates;

pub use grouping::{Change, ChangeKind, Grouper, Grouping, Incident};
pub use parts::{Assembled, Assembler, PartEventKind, PartJudgement, PartVerdict, ViewVerdict};
pub use payload::{
    Anomaly, CameraHealth, CameraPhase, CameraState, CloudEvent, DevicePhase, DeviceState, FrameResult, Health,
    ModelRef, OutboxHealth, RegionBox, Sighting, Stamp, to_json,
};
pub use schema::{asyncapi, schemas};
pub use topics::Topics;
pub use updates::{CommandResult, ModelPhase, ModelState, RepositoryState, RollbackModel, SlotRef, UpdateModel};
