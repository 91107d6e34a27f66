//! From what was written to what runs: every value checked once, here, so that nothing behind it has to doubt.

use super::ConfigError;
use super::file::{Backend, CameraTable, Engine, FileConfig, Heatmap, Mqtt, Operation, PartsTable, SourceKind, Update};
use crate::capture::{Resource, SourceConfig};
use crate::events::{Grouping, Topics};
use crate::judge::{AcceleratorSettings, EngineSettings};
use crate::mqtt::{Limits, MqttConfig, TlsFiles};
use crate::ota::{TrialConfig, UpdateSettings};
use ckaad_bundle::MAX_VIEWS;
use ckaad_inspect::engine::Provider;
use ckaad_inspect::imaging::MAX_PIXELS;
use ckaad_update::offer::{Device, is_name};
use ckaad_update::remote::RemoteConfig;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// What runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub topics: Topics,
    pub mqtt: MqttConfig,
    pub outbox_path: PathBuf,
    pub outbox_limits: Limits,
    pub cameras: Vec<CameraSettings>,
    pub engine: EngineSettings,
    /// Where something else than the own engine is to compute.
    pub accelerator: Option<AcceleratorSettings>,
    pub update: Option<UpdateSettings>,
    pub commands: Vec<Operation>,
    pub shutdown_deadline: Duration,
    pub health_interval: Option<Duration>,
    pub log: String,
    /// SHA-256 over everything that was written and every default, lower-case hexadecimal.
    pub digest: String,
}

#[derive(Clone, Debug)]
pub struct CameraSettings {
    pub name: String,
    pub bundle: PathBuf,
    /// Its name in the update repository.
    pub model: Option<String>,
    pub source: SourceConfig,
    pub threshold: Option<f32>,
    /// Side of a pixel.
    pub mm_per_px: Option<f64>,
    /// Regions of fewer pixels of the frame do not count.
    pub smallest_region_px: f32,
    pub grouping: Grouping,
    pub close_after: u32,
    pub results: bool,
    pub parts: Option<PartsSettings>,
    pub heatmap: Heatmap,
}

/// Of parts that several views show.
#[derive(Clone, Debug)]
pub struct PartsSettings {
    /// At least one.
    pub views: Vec<String>,
    pub patience: Duration,
}

impl CameraSettings {
    /// Whether it shows the views that a model takes of a part at once; of one that takes one image, any.
    ///
    /// # Errors
    /// In a sentence with the key, what it shows in their place.
    pub fn shows(&self, names: &[String]) -> Result<(), String> {
        let views = self.parts.as_ref().map_or(&[][..], |parts| &parts.views);
        let alike = views.len() == names.len() && names.iter().all(|name| views.contains(name));
        if names.is_empty() || alike {
            return Ok(());
        }
        let (key, names) = (format!("camera.{}.parts.views", self.name), names.join(", "));
        Err(match views {
            [] => format!("{key} is empty; the model takes {names} of a part at once"),
            views => format!("{key} is {}; the model takes {names} of a part at once", views.join(", ")),
        })
    }
}

impl Settings {
    /// # Errors
    /// One sentence with `place` (the file) and the key.
    pub fn resolve(file: &FileConfig, place: &Path) -> Result<Settings, ConfigError> {
        let bad = |key: &str, reason: String| ConfigError::Value {
            place: place.display().to_string(),
            reason: format!("`{key}` {reason}"),
        };
        let device = &file.device;
        let prefix = match device.topic_prefix.as_str() {
            "" => format!("ckaad/{}/{}/{}", device.site, device.line, device.name),
            given => given.to_owned(),
        };
        let topics = Topics::new(&prefix).map_err(|e| bad("device", format!("is no good: {e}")))?;
        let mqtt = mqtt(&file.mqtt, &prefix, &bad)?;
        if file.outbox.path.as_os_str().is_empty() {
            return Err(bad("outbox.path", "is empty; expected a file".into()));
        }
        if file.outbox.max_bytes < 1 << 20 {
            return Err(bad("outbox.max_bytes", format!("is {}; expected 1048576 or more", file.outbox.max_bytes)));
        }
        log_filter(&file.agent.log).map_err(|why| bad("agent.log", why))?;
        let mut cameras = Vec::new();
        let mut taken: HashMap<Resource, String> = HashMap::new();
        for (name, written) in file.camera.iter().filter(|(_, c)| c.enabled) {
            let camera = camera(name, written, &bad)?;
            if let Some(resource) = camera.source.resource()
                && let Some(other) = taken.insert(resource.clone(), name.clone())
            {
                return Err(bad(
                    &format!("camera.{name}"),
                    format!("uses {resource}, which `camera.{other}` uses already"),
                ));
            }
            cameras.push(camera);
        }
        if cameras.is_empty() {
            return Err(bad("camera", "has no enabled table; expected at least one [camera.NAME]".into()));
        }
        let engine = engine(&file.engine, cameras.len(), &bad)?;
        let accelerator = accelerator(&file.engine, &bad)?;
        let update = update(file, &prefix, &bad)?;
        managed_models(&cameras, update.is_some(), &bad)?;
        let canonical = serde_json::to_vec(file).expect("a configuration is plain data");
        Ok(Settings {
            topics,
            mqtt,
            outbox_path: file.outbox.path.clone(),
            outbox_limits: Limits { max_bytes: file.outbox.max_bytes },
            cameras,
            engine,
            accelerator,
            update,
            commands: file.commands.allow.clone(),
            shutdown_deadline: Duration::from_millis(file.agent.shutdown_deadline_ms),
            health_interval: (file.agent.health_interval_s > 0)
                .then(|| Duration::from_secs(file.agent.health_interval_s)),
            log: file.agent.log.clone(),
            digest: hex::encode(Sha256::digest(canonical)),
        })
    }

    /// The file at `path`, read and resolved.
    ///
    /// # Errors
    /// One sentence with the file and the key.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        Settings::resolve(&FileConfig::read(path)?, path)
    }

    /// True when every source ends by itself.
    pub fn ends(&self) -> bool {
        self.cameras.iter().all(|c| c.source.ends())
    }
}

/// The filter's own reading takes any bare word for a module's name, so that `warning` would mean "nothing but of `warning`".
fn log_filter(filter: &str) -> Result<(), String> {
    let level = |word: &str| word.trim().parse::<LevelFilter>().is_ok();
    if let Some(word) = filter.split(',').find(|part| !part.contains(['=', '[', ']']) && !level(part)) {
        return Err(format!("has {word:?}; expected error, warn, info, debug, trace, or module=level"));
    }
    EnvFilter::try_new(filter).map(drop).map_err(|e| format!("is {filter:?}, which is no filter: {e}"))
}

/// A path, where one was written.
fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn mqtt(table: &Mqtt, prefix: &str, bad: &impl Fn(&str, String) -> ConfigError) -> Result<MqttConfig, ConfigError> {
    if table.host.is_empty() {
        return Err(bad("mqtt.host", "is empty; expected the broker's name or address".into()));
    }
    if table.port == 0 {
        return Err(bad("mqtt.port", "is 0; expected 1 to 65535".into()));
    }
    // rumqttc asserts the lower bound; the protocol has 16 bits.
    if !(5..=65_535).contains(&table.keep_alive_s) {
        return Err(bad("mqtt.keep_alive_s", format!("is {}; expected 5 to 65535", table.keep_alive_s)));
    }
    if table.max_packet_bytes < 64 << 10 {
        return Err(bad("mqtt.max_packet_bytes", format!("is {}; expected 65536 or more", table.max_packet_bytes)));
    }
    if table.username.is_empty() && given(&table.password_file).is_some() {
        return Err(bad("mqtt.password_file", "is given without `mqtt.username`".into()));
    }
    let client = match (given(&table.tls.client_cert_file), given(&table.tls.client_key_file)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            return Err(bad(
                "mqtt.tls",
                "has one of client_cert_file and client_key_file; expected both or neither".into(),
            ));
        }
    };
    if !table.tls.enabled && (client.is_some() || given(&table.tls.ca_file).is_some()) {
        return Err(bad("mqtt.tls", "names files, but `mqtt.tls.enabled` is false".into()));
    }
    let client_id = if table.client_id.is_empty() { prefix.replace('/', "-") } else { table.client_id.clone() };
    Ok(MqttConfig {
        host: table.host.clone(),
        port: table.port,
        protocol: table.protocol,
        client_id,
        username: (!table.username.is_empty()).then(|| table.username.clone()),
        password_file: given(&table.password_file),
        tls: table.tls.enabled.then(|| TlsFiles { ca: given(&table.tls.ca_file), client }),
        keep_alive: Duration::from_secs(table.keep_alive_s),
        connect_timeout: Duration::from_secs(table.connect_timeout_s.max(1)),
        reconnect_max: Duration::from_secs(table.reconnect_max_s.max(1)),
        max_packet_bytes: table.max_packet_bytes,
    })
}

fn engine(
    table: &Engine,
    cameras: usize,
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<EngineSettings, ConfigError> {
    let Engine { threads, judges, .. } = *table;
    if threads > 256 {
        return Err(bad("engine.threads", format!("is {threads}; expected up to 256, or 0 for one a core")));
    }
    if judges > 256 || (threads > 0 && judges > threads) {
        let most = if threads > 0 { threads } else { 256 };
        return Err(bad(
            "engine.judges",
            format!("is {judges}; expected up to {most}: a judge has at least one thread"),
        ));
    }
    Ok(EngineSettings::of(threads, judges, cameras))
}

/// None where the own engine judges. Whether the library is there is seen when it is loaded: it is no reason to stop a line.
fn accelerator(
    table: &Engine,
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<Option<AcceleratorSettings>, ConfigError> {
    let table = match table.backend {
        Backend::Cpu => return Ok(None),
        Backend::OnnxRuntime => &table.onnxruntime,
    };
    if !cfg!(feature = "onnxruntime") {
        return Err(bad("engine.backend", "is onnxruntime; this agent was built without it, expected cpu".into()));
    }
    let wrong = || {
        let found = &table.providers;
        bad("engine.onnxruntime.providers", format!("is {found:?}; expected some of tensorrt, cuda and cpu, each once"))
    };
    let providers: Vec<Provider> =
        table.providers.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(|_: String| wrong())?;
    let once = |p| providers.iter().filter(|other| *other == p).count() == 1;
    if providers.is_empty() || !providers.iter().all(once) {
        return Err(wrong());
    }
    for (key, path) in [("library", &table.library), ("cache", &table.cache)] {
        if !path.is_absolute() {
            let found = path.display();
            return Err(bad(
                &format!("engine.onnxruntime.{key}"),
                format!("is {found:?}; expected a path from the root, /..."),
            ));
        }
    }
    if !(1..=86_400).contains(&table.load_timeout_s) {
        return Err(bad(
            "engine.onnxruntime.load_timeout_s",
            format!("is {}; expected 1 to 86400", table.load_timeout_s),
        ));
    }
    Ok(Some(AcceleratorSettings {
        library: table.library.clone(),
        providers,
        cache: table.cache.clone(),
        load_timeout: Duration::from_secs(table.load_timeout_s),
    }))
}

/// None where there are no updates.
fn update(
    file: &FileConfig,
    prefix: &str,
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<Option<UpdateSettings>, ConfigError> {
    let table: &Update = &file.update;
    if table.url.is_empty() {
        if table.require_signed {
            return Err(bad(
                "update.require_signed",
                "is true without `update.url`: nothing says what is signed".into(),
            ));
        }
        return Ok(None);
    }
    for (key, name) in [("update.group", &table.group), ("update.hardware", &table.hardware)] {
        if !(name.is_empty() || is_name(name)) {
            return Err(bad(key, format!("is {name:?}; expected up to 64 of a-z, 0-9, `-` and `_`, or nothing")));
        }
    }
    if table.state.as_os_str().is_empty() {
        return Err(bad("update.state", "is empty; expected a folder".into()));
    }
    let remote = repository(table, bad)?;
    let trial = trial(table, bad)?;
    Ok(Some(UpdateSettings {
        remote,
        root_file: table.root_file.clone(),
        state: table.state.clone(),
        poll: Duration::from_secs(table.poll_interval_s),
        require_signed: table.require_signed,
        device: Device {
            id: prefix.into(),
            group: table.group.clone(),
            hardware: table.hardware.clone(),
            agent: env!("CARGO_PKG_VERSION").parse().expect("cargo checks it"),
        },
        trial,
    }))
}

/// Where updates come from, and how often.
fn repository(table: &Update, bad: &impl Fn(&str, String) -> ConfigError) -> Result<RemoteConfig, ConfigError> {
    let url = |key: &str, text: &str, schemes: &[&str]| {
        let url = text.parse::<url::Url>().map_err(|e| bad(key, format!("is {text:?}: {e}")))?;
        let known = schemes.contains(&url.scheme());
        let wrong = || bad(key, format!("is {text:?}; expected {}: at its beginning", schemes.join(":, ")));
        known.then_some(url).ok_or_else(wrong)
    };
    let numbers = [
        ("update.poll_interval_s", table.poll_interval_s, 1..=31_536_000),
        ("update.patience_s", table.patience_s, 1..=3600),
    ];
    within(&numbers, bad)?;
    if !(table.max_rate_kib_s == 0 || (16..=1 << 30).contains(&table.max_rate_kib_s)) {
        return Err(bad("update.max_rate_kib_s", format!("is {}; expected 0 or 16 and more", table.max_rate_kib_s)));
    }
    Ok(RemoteConfig {
        url: url("update.url", &table.url, &["https", "http", "file"])?,
        ca_file: given(&table.ca_file),
        proxy: match table.proxy.as_str() {
            "" => None,
            text => Some(url("update.proxy", text, &["http", "https"])?),
        },
        patience: Duration::from_secs(table.patience_s),
        rate: (table.max_rate_kib_s > 0).then_some(table.max_rate_kib_s << 10),
    })
}

/// What a new model has to show.
fn trial(table: &Update, bad: &impl Fn(&str, String) -> ConfigError) -> Result<TrialConfig, ConfigError> {
    let numbers = [
        ("update.trial.frames", u64::from(table.trial.frames), 1..=100_000),
        ("update.trial.deadline_s", table.trial.deadline_s, 1..=604_800),
    ];
    within(&numbers, bad)?;
    if !(1.0..=1000.0).contains(&table.trial.slower) {
        return Err(bad("update.trial.slower", format!("is {}; expected 1 to 1000", table.trial.slower)));
    }
    let budget_ms = table.trial.budget_ms;
    if !(0.0..=60_000.0).contains(&budget_ms) {
        return Err(bad("update.trial.budget_ms", format!("is {budget_ms}; expected 0 (none) to 60000")));
    }
    Ok(TrialConfig {
        frames: table.trial.frames,
        deadline: Duration::from_secs(table.trial.deadline_s),
        slower: table.trial.slower,
        budget_ms: (budget_ms > 0.0).then_some(budget_ms),
    })
}

/// Every value is in its range.
fn within(
    numbers: &[(&str, u64, RangeInclusive<u64>)],
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<(), ConfigError> {
    let wrong = numbers.iter().find(|(_, value, range)| !range.contains(value));
    wrong.map_or(Ok(()), |(key, value, range)| {
        Err(bad(key, format!("is {value}; expected {} to {}", range.start(), range.end())))
    })
}

/// A model has one bundle on this device, whoever judges with it.
fn managed_models(
    cameras: &[CameraSettings],
    updates: bool,
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<(), ConfigError> {
    let mut seen: HashMap<&str, &CameraSettings> = HashMap::new();
    for camera in cameras {
        let Some(model) = &camera.model else { continue };
        let key = format!("camera.{}.model", camera.name);
        if !updates {
            return Err(bad(&key, format!("is {model:?}, but `update.url` is empty")));
        }
        if let Some(other) = seen.insert(model, camera)
            && other.bundle != camera.bundle
        {
            let why = format!("is {model:?}, as that of `camera.{}`, which has another bundle", other.name);
            return Err(bad(&key, why));
        }
    }
    if updates && seen.is_empty() {
        return Err(bad("update.url", "is given, but no camera has a `model` to update".into()));
    }
    Ok(())
}

fn parts(
    table: &CameraTable,
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<Option<PartsSettings>, ConfigError> {
    let PartsTable { views, patience_s } = &table.parts;
    let wrong = |view: &&String| view.is_empty() || view.len() > 64;
    if let Some(view) = views.iter().find(wrong) {
        return Err(bad("parts.views", format!("names the view {view:?}; expected 1 to 64 bytes")));
    }
    if let Some(view) = views.iter().enumerate().find_map(|(i, view)| views[..i].contains(view).then_some(view)) {
        return Err(bad("parts.views", format!("names the view {view:?} twice")));
    }
    if views.len() > MAX_VIEWS {
        return Err(bad("parts.views", format!("has {} views; expected up to {MAX_VIEWS}", views.len())));
    }
    if !(0.1..=3600.0).contains(patience_s) {
        return Err(bad("parts.patience_s", format!("is {patience_s}; expected 0.1 to 3600")));
    }
    if !views.is_empty() && table.source != SourceKind::Directory {
        let why = "is given, but only the source \"directory\" says which part a frame shows: a folder each";
        return Err(bad("parts.views", why.into()));
    }
    if !views.is_empty() && table.directory.labelled {
        return Err(bad(
            "directory.labelled",
            "is true, but with `parts.views` a folder is a part and no truth".into(),
        ));
    }
    let patience = Duration::from_secs_f64(*patience_s);
    Ok((!views.is_empty()).then(|| PartsSettings { views: views.clone(), patience }))
}

fn camera(
    name: &str,
    table: &CameraTable,
    bad: &impl Fn(&str, String) -> ConfigError,
) -> Result<CameraSettings, ConfigError> {
    let key = |k: &str| format!("camera.{name}.{k}");
    if !is_name(name) {
        let why = "is no name for a camera; expected up to 64 of a-z, 0-9, `-` and `_` (it becomes a topic level)";
        return Err(bad(&format!("camera.{name}"), why.into()));
    }
    if !(table.model.is_empty() || is_name(&table.model)) {
        let given = &table.model;
        return Err(bad(
            &key("model"),
            format!("is {given:?}; expected up to 64 of a-z, 0-9, `-` and `_`, or nothing"),
        ));
    }
    if !(table.threshold.is_finite() && table.threshold >= 0.0) {
        return Err(bad(&key("threshold"), format!("is {}; expected 0 (the bundle's) or a score", table.threshold)));
    }
    let (side, ignored) = (table.mm_per_px, table.ignore_below_mm2);
    if !(0.0..=1000.0).contains(&side) {
        return Err(bad(&key("mm_per_px"), format!("is {side}; expected 0 (not known) or up to 1000")));
    }
    if !(0.0..=1e12).contains(&ignored) {
        return Err(bad(&key("ignore_below_mm2"), format!("is {ignored}; expected 0 (nothing) or an area")));
    }
    if ignored > 0.0 && side == 0.0 {
        return Err(bad(
            &key("ignore_below_mm2"),
            format!("is {ignored}; it needs {}, the size of a pixel", key("mm_per_px")),
        ));
    }
    let smallest_region_px = if ignored > 0.0 { ignored / (side * side) } else { 0.0 };
    if smallest_region_px > MAX_PIXELS as f64 {
        let why = format!(
            "is {ignored}: with {} of {side} that are {smallest_region_px:.0} pixels; up to {MAX_PIXELS} expected",
            key("mm_per_px")
        );
        return Err(bad(&key("ignore_below_mm2"), why));
    }
    if !(1..=100).contains(&table.heatmap.jpeg_quality) {
        return Err(bad(&key("heatmap.jpeg_quality"), format!("is {}; expected 1 to 100", table.heatmap.jpeg_quality)));
    }
    if !(16..=16_384).contains(&table.heatmap.max_side) {
        return Err(bad(&key("heatmap.max_side"), format!("is {}; expected 16 to 16384", table.heatmap.max_side)));
    }
    let source = match table.source {
        SourceKind::Camera => SourceConfig::Camera(table.device.clone()),
        SourceKind::Directory => SourceConfig::Directory(table.directory.clone()),
        SourceKind::Synthetic => SourceConfig::Synthetic(table.synthetic.clone()),
    };
    source.check().map_err(|wrong| bad(&key(wrong.key), wrong.reason))?;
    let parts = parts(table, &|k, why| bad(&key(k), why))?;
    Ok(CameraSettings {
        name: name.to_owned(),
        bundle: table.bundle.clone(),
        model: (!table.model.is_empty()).then(|| table.model.clone()),
        source,
        threshold: (table.threshold > 0.0).then_some(table.threshold),
        mm_per_px: (side > 0.0).then_some(side),
        smallest_region_px: smallest_region_px as f32,
        grouping: table.grouping,
        close_after: table.close_after.max(1),
        results: table.results,
        parts,
        heatmap: table.heatmap.clone(),
    })
}
