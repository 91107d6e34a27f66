//! What a person writes. Every key has a default; `configs/agent.toml` shows them all, and a test holds it to this file.

use crate::capture::{CameraConfig, DirectoryConfig, SyntheticConfig};
use crate::events::Grouping;
use crate::mqtt::Protocol;
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
        Mqtt {
            host: "localhost".into(),
            port: 1883,
            protocol: Protocol::V5,
            client_id: String::new(),
            username: String::new(),
            password_file: PathBuf::new(),
            keep_alive_s: 30,
            connect_timeout_s: 5,
            reconnect_max_s: 30,
            max_packet_bytes: 8 << 20,
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

/// One camera: where its frames come from, what judges them, and what is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CameraTable {
    pub enabled: bool,
    /// The model's file.
    pub bundle: PathBuf,
    /// Which of the tables `device`, `directory`, `synthetic` below counts.
    pub source: SourceKind,
    /// Score from which a frame is defective; 0 is the bundle's own, which was chosen for its false-alarm budget.
    pub threshold: f32,
    /// Threads of the network.
    pub threads: usize,
    /// `part`: every defective frame is an event. `incident`: opened, updated, closed.
    pub grouping: Grouping,
    /// `incident` only: good frames in a row that close it.
    pub close_after: u32,
    /// Publish one line a frame at `result`.
    pub results: bool,
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
            source: SourceKind::Camera,
            threshold: 0.0,
            threads: 1,
            grouping: Grouping::Part,
            close_after: 5,
            results: false,
            heatmap: Heatmap::default(),
            device: CameraConfig::default(),
            directory: DirectoryConfig::default(),
            synthetic: SyntheticConfig::default(),
        }
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
