//! What a person writes. Every key has a default; `configs/agent.toml` shows them all, and a test holds it to this file.

use crate::capture::{CameraConfig, DirectoryConfig, SyntheticConfig};
use crate::events::Grouping;
use crate::mqtt::{MqttConfig, Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    pub device: Device,
    pub mqtt: Mqtt,
    pub outbox: Outbox,
    pub agent: Agent,
    pub engine: Engine,
    pub update: Update,
    pub commands: Commands,
    /// One table a camera, `[camera.NAME]`.
    pub camera: BTreeMap<String, CameraTable>,
}

/// Who this is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    pub site: String,
    pub line: String,
    pub name: String,
    /// Where on the broker everything lies; empty is `ckaad/<site>/<line>/<name>`.
    pub topic_prefix: String,
}

impl Default for Device {
    fn default() -> Self {
        Device { site: "site".into(), line: "line".into(), name: "device".into(), topic_prefix: String::new() }
    }
}

/// The broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    pub host: String,
    pub port: u16,
    /// `5` or `3.1.1`.
    pub protocol: Protocol,
    /// Empty is made from the topic prefix. Two clients of one name throw each other out.
    pub client_id: String,
    /// Empty is none.
    pub username: String,
    /// A file with the password in its first line, readable by the agent only; empty is none.
    pub password_file: PathBuf,
    pub keep_alive_s: u64,
    pub connect_timeout_s: u64,
    /// Longest wait between two attempts to connect.
    pub reconnect_max_s: u64,
    /// Larger messages are dropped and counted; the broker may set a smaller limit.
    pub max_packet_bytes: u32,
    pub tls: Tls,
}

impl Default for Mqtt {
    fn default() -> Self {
        let plain = MqttConfig::plain("localhost", 1883, "");
        Mqtt {
            host: plain.host,
            port: plain.port,
            protocol: plain.protocol,
            client_id: plain.client_id,
            username: String::new(),
            password_file: PathBuf::new(),
            keep_alive_s: plain.keep_alive.as_secs(),
            connect_timeout_s: plain.connect_timeout.as_secs(),
            reconnect_max_s: plain.reconnect_max.as_secs(),
            max_packet_bytes: plain.max_packet_bytes,
            tls: Tls::default(),
        }
    }
}

/// TLS to the broker. All files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub enabled: bool,
    /// Empty: the system's certificate authorities.
    pub ca_file: PathBuf,
    /// Certificate and key to show to the broker; both or neither.
    pub client_cert_file: PathBuf,
    pub client_key_file: PathBuf,
}

/// What waits for the broker's acknowledgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    pub path: PathBuf,
    /// When full, the oldest heatmaps go first, then the oldest updates, never an `opened`.
    pub max_bytes: u64,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox { path: "/var/lib/ckaad/outbox.sqlite".into(), max_bytes: 256 << 20 }
    }
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// How long a stop waits for acknowledgements; what is left stays in the outbox.
    pub shutdown_deadline_ms: u64,
    /// 0 publishes no health.
    pub health_interval_s: u64,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,ckaad_edge::mqtt=debug`.
    pub log: String,
}

impl Default for Agent {
    fn default() -> Self {
        Agent { shutdown_deadline_ms: 5000, health_interval_s: 60, log: "info".into() }
    }
}

/// Models over the air.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// Where `ckaad-train publish` wrote: `https://`, `http://` or `file://`; empty is no updates.
    pub url: String,
    /// The publisher's `root.json`, by which all else is checked.
    pub root_file: PathBuf,
    /// A folder of the agent's: bundles, and what is believed of the repository.
    pub state: PathBuf,
    /// Between two looks at the repository.
    pub poll_interval_s: u64,
    /// Refuse to start with a configured bundle that is no target of the repository.
    pub require_signed: bool,
    /// Bundles may be published for a group of devices only; empty is none.
    pub group: String,
    /// Bundles may be published for a hardware only; empty is not said.
    pub hardware: String,
    /// PEM with the authorities of the server's certificate; empty: the system's.
    pub ca_file: PathBuf,
    /// `http://host:port`; empty: what the environment says.
    pub proxy: String,
    /// Largest speed of a download, in KiB a second; 0 is as fast as it goes.
    pub max_rate_kib_s: u64,
    /// How long the server may say nothing.
    pub patience_s: u64,
    pub trial: Trial,
}

impl Default for Update {
    fn default() -> Self {
        Update {
            url: String::new(),
            root_file: "/etc/ckaad/root.json".into(),
            state: "/var/lib/ckaad/update".into(),
            poll_interval_s: 3600,
            require_signed: false,
            group: String::new(),
            hardware: String::new(),
            ca_file: PathBuf::new(),
            proxy: String::new(),
            max_rate_kib_s: 0,
            patience_s: 30,
            trial: Trial::default(),
        }
    }
}

/// What a new model must show before it judges, besides its golden samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Trial {
    /// Live frames that both models judge.
    pub frames: u32,
    /// They must have come by then.
    pub deadline_s: u64,
    /// How many times as long as the model in force it may take for a picture.
    pub slower: f64,
    /// Milliseconds that a picture may take, whatever the model in force takes; 0: no limit.
    pub budget_ms: f64,
}

impl Default for Trial {
    fn default() -> Self {
        Trial { frames: 50, deadline_s: 3600, slower: 2.0, budget_ms: 0.0 }
    }
}

/// Commands over MQTT, at `cmd/<operation>/<id>`. Whoever may publish there is the broker's to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Commands {
    /// What may be asked for; empty is nothing, and then nothing is subscribed to.
    pub allow: Vec<Operation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Look at the update repository now.
    UpdateModel,
    /// Go back to the bundle before.
    RollbackModel,
}

impl Operation {
    /// As topics name it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::UpdateModel => "update-model",
            Operation::RollbackModel => "rollback-model",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    #[default]
    Camera,
    Directory,
    Synthetic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PictureFormat {
    #[default]
    Png,
    Jpeg,
}

/// The threads of all networks together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// 0: one for each core that the agent may use, or fewer where a picture is judged sooner by fewer: it is measured at the start.
    pub threads: usize,
    /// Frames judged at one time, each with its share of the threads; 0: one for each camera, as far as the threads go.
    pub judges: usize,
    pub backend: Backend,
    pub onnxruntime: OnnxRuntime,
}

/// What computes networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The agent's own engine.
    #[default]
    Cpu,
    /// A library of the device, on its GPU, for models whose golden samples come out the same there; the own engine for the others.
    OnnxRuntime,
}

/// Read where `backend` is `onnxruntime`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnnxRuntime {
    /// ONNX Runtime 1.17 or newer, built with the providers.
    pub library: PathBuf,
    /// `tensorrt`, `cuda`, `cpu`: tried in this order.
    pub providers: Vec<String>,
    /// A folder of the agent's for the engines that TensorRT builds, minutes each, at the first start with a bundle.
    pub cache: PathBuf,
    /// For loading a model and judging its golden samples; then the own engine judges.
    pub load_timeout_s: u64,
}

impl Default for OnnxRuntime {
    fn default() -> Self {
        OnnxRuntime {
            library: "/usr/lib/libonnxruntime.so".into(),
            providers: vec!["tensorrt".into(), "cuda".into()],
            cache: "/var/lib/ckaad/engines".into(),
            load_timeout_s: 900,
        }
    }
}

/// One camera: where its frames come from, what judges them, and what is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CameraTable {
    pub enabled: bool,
    /// The model's file. With updates it is what judges when there is no other.
    pub bundle: PathBuf,
    /// The model's name in the update repository; empty: it is not updated.
    pub model: String,
    /// Which of the tables `device`, `directory`, `synthetic` below counts.
    pub source: SourceKind,
    /// Score from which a frame is defective; 0 is the bundle's own, which was chosen for its false-alarm budget.
    pub threshold: f32,
    /// Side of a frame's pixel in millimetres; 0: nobody knows, and events have no `area_mm2`.
    pub mm_per_px: f64,
    /// Regions of fewer square millimetres do not count; a frame is good that has no others and whose score would not reach the threshold without them. 0:
    /// all count.
    pub ignore_below_mm2: f64,
    /// `part`: every defective frame is an event. `incident`: opened, updated, closed.
    pub grouping: Grouping,
    /// `incident` only: good frames in a row that close it.
    pub close_after: u32,
    /// Publish one line a frame at `result`.
    pub results: bool,
    pub parts: PartsTable,
    pub heatmap: Heatmap,
    pub device: CameraConfig,
    pub directory: DirectoryConfig,
    pub synthetic: SyntheticConfig,
}

impl Default for CameraTable {
    fn default() -> Self {
        CameraTable {
            enabled: true,
            bundle: "/var/lib/ckaad/model.ckaad".into(),
            model: String::new(),
            source: SourceKind::Camera,
            threshold: 0.0,
            mm_per_px: 0.0,
            ignore_below_mm2: 0.0,
            grouping: Grouping::Part,
            close_after: 5,
            results: false,
            parts: PartsTable::default(),
            heatmap: Heatmap::default(),
            device: CameraConfig::default(),
            directory: DirectoryConfig::default(),
            synthetic: SyntheticConfig::default(),
        }
    }
}

/// Parts that several views show: besides the events of its frames, one verdict a part at `part/<camera>/verdict`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PartsTable {
    /// Names of the views; none: a frame is a part of its own, and there are no such verdicts.
    pub views: Vec<String>,
    /// When for so long no view of a part has come, those that lack are named as missing.
    pub patience_s: f64,
}

impl Default for PartsTable {
    fn default() -> Self {
        PartsTable { views: vec![], patience_s: 10.0 }
    }
}

/// The picture with the anomaly map over it, published after each `opened`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Heatmap {
    pub enabled: bool,
    pub format: PictureFormat,
    /// `jpeg` only, 1 to 100.
    pub jpeg_quality: u8,
    /// The longer side, in pixels; larger frames are reduced.
    pub max_side: u32,
}

impl Default for Heatmap {
    fn default() -> Self {
        Heatmap { enabled: true, format: PictureFormat::Png, jpeg_quality: 85, max_side: 1024 }
    }
}
