//! `demo`: everything in one process, nothing to install. A broker (rumqttd), the synthetic line, the model that comes with
//! the program, and the same `run` as in earnest, over a configuration made in memory. What is printed came through the broker.

use super::config::{CameraTable, FileConfig, Settings, SourceKind};
use super::{Agent, Outcome, RunError};
use crate::events::{Anomaly, CloudEvent};
use crate::judge::{Tap, Taps};
use crate::mqtt::{Incoming, LinkError, MqttConfig, Subscriber};
use ckaad_inspect::console::{OutputError, say};
use ckaad_inspect::imaging::Truth;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The model that comes with the program; how it was made is in `models/README.md`.
static BUNDLE: &[u8] = include_bytes!("../../models/demo.ckaad");
/// Site, line and device of the demo.
const PREFIX: &str = "ckaad/demo/line-1/station-1";
/// How long the last heatmaps may be on their way to the subscriber.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// What `demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// 0: until it is stopped.
    pub frames: u64,
    pub port: u16,
    pub out: PathBuf,
    /// None: the bundle that comes with the program.
    pub bundle: Option<PathBuf>,
    pub seed: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot write to {0}: {1}")]
    Out(PathBuf, std::io::Error),
    #[error("cannot start the demo: {0}")]
    Start(std::io::Error),
    #[error("the demo's own broker does not answer: {0}")]
    Broker(LinkError),
    #[error("the demo's configuration is no good: {0}")]
    Config(super::ConfigError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Judged frames that may wait for the demo to look at them.
const LOOKED_AT: usize = 64;

/// What the line knew of each part, by the frame's id, and how many parts were missed.
#[derive(Default)]
struct Truths {
    defective: HashMap<String, bool>,
    missed: u64,
}

/// Runs the demo.
///
/// # Errors
/// It cannot start.
pub fn demo(options: &DemoOptions) -> Result<Outcome, DemoError> {
    std::fs::create_dir_all(&options.out).map_err(|e| DemoError::Out(options.out.clone(), e))?;
    let scratch = tempfile::tempdir().map_err(DemoError::Start)?;
    let bundle = match &options.bundle {
        Some(path) => path.clone(),
        None => {
            let path = scratch.path().join("demo.ckaad");
            std::fs::write(&path, BUNDLE).map_err(DemoError::Start)?;
            path
        }
    };
    let port = free_port(options.port)?;
    start_broker(port).map_err(DemoError::Start)?;
    let settings = settings(options, bundle, scratch.path(), port).map_err(DemoError::Config)?;
    let subscriber = MqttConfig { client_id: "demo-subscriber".into(), ..settings.mqtt.clone() };

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(DemoError::Start)?;
    runtime.block_on(async {
        let subscriber = subscribe(&subscriber).await.map_err(DemoError::Broker)?;
        say(format_args!("A broker listens at 127.0.0.1:{port}. In another terminal:"))?;
        say(format_args!("    mosquitto_sub -V mqttv5 -p {port} -t '{PREFIX}/camera/+/anomaly' -v"))?;
        say(format_args!("Heatmaps are written to {}/. Ctrl-C ends the demo.", options.out.display()))?;
        let taps = Arc::<Taps>::default();
        // Without an end nobody asks for the truth, and it must not grow for ever.
        let truths = (options.frames > 0).then(|| tokio::spawn(look(taps.open(LOOKED_AT, |_| true))));
        let out = options.out.clone();
        let (stop_listening, stopped) = tokio::sync::oneshot::channel();
        // Whoever read what we print may leave: then the demo ends.
        let (unheard, nobody_listens) = tokio::sync::oneshot::channel();
        let listener = tokio::spawn(async move {
            let heard = listen(subscriber, out, stopped).await;
            if heard.is_err() {
                let _ = unheard.send(());
            }
            heard
        });
        let interrupted = async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                Ok(()) = nobody_listens => {}
            }
        };
        let report = Agent::build(settings, taps)?.run(interrupted).await?;
        let _ = stop_listening.send(());
        let alerted = listener.await.unwrap_or_else(|_| Ok(HashSet::new()))?;
        // Its tap ended with the agent.
        let truths = match truths {
            Some(truths) => truths.await.unwrap_or_default(),
            None => Truths::default(),
        };
        summary(&report, &alerted, &truths)?;
        Ok(Outcome::Well)
    })
}

/// Notes what the line knew of each part, until the agent ends.
async fn look(mut tap: Tap) -> Truths {
    let mut truths = Truths::default();
    while let Some(judged) = tap.next().await {
        let defective = judged.frame.truth.as_ref().is_some_and(Truth::is_defective);
        truths.defective.insert(judged.frame.id.clone(), defective);
    }
    truths.missed = tap.lost();
    truths
}

/// The port that was asked for; if it is taken, says so and takes a free one.
fn free_port(wanted: u16) -> Result<u16, DemoError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
        Ok(listener) => listener.local_addr().map(|a| a.port()).map_err(DemoError::Start),
        Err(_) => {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
            let port = free.map_err(DemoError::Start)?.port();
            say(format_args!("Port {wanted} is taken; the demo uses {port}."))?;
            Ok(port)
        }
    }
}

/// rumqttd has no way to stop: its thread ends with the process.
fn start_broker(port: u16) -> std::io::Result<()> {
    let connections = rumqttd::ConnectionSettings {
        connection_timeout_ms: 5000,
        max_payload_size: 8 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = rumqttd::ServerSettings {
        name: "demo".into(),
        listen: (Ipv4Addr::LOCALHOST, port).into(),
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let config = rumqttd::Config {
        router: rumqttd::RouterConfig {
            max_connections: 64,
            max_outgoing_packet_count: 200,
            max_segment_size: 16 << 20,
            max_segment_count: 4,
            ..rumqttd::RouterConfig::default()
        },
        v5: Some(HashMap::from([("1".into(), server)])),
        ..rumqttd::Config::default()
    };
    let mut broker = rumqttd::Broker::new(config);
    std::thread::Builder::new().name("demo broker".into()).spawn(move || {
        if let Err(e) = broker.start() {
            tracing::error!("the demo's broker ended: {e}");
        }
    })?;
    Ok(())
}

/// The demo as anybody could write it into a file.
fn settings(options: &DemoOptions, bundle: PathBuf, scratch: &Path, port: u16) -> Result<Settings, super::ConfigError> {
    let mut raw = FileConfig::default();
    raw.device.topic_prefix = PREFIX.into();
    raw.mqtt.host = "127.0.0.1".into();
    raw.mqtt.port = port;
    raw.outbox.path = scratch.join("outbox.sqlite");
    let mut camera = CameraTable { bundle, source: SourceKind::Synthetic, ..CameraTable::default() };
    camera.synthetic.frames = options.frames;
    camera.synthetic.seed = options.seed;
    camera.synthetic.defect_rate = 0.2;
    // With an end, as fast as it goes; without, at a pace that can be read.
    camera.synthetic.fps = if options.frames > 0 { 0.0 } else { 2.0 };
    raw.camera.insert("demo".into(), camera);
    Settings::resolve(&raw, Path::new("the demo"))
}

/// The broker needs a moment to listen.
async fn subscribe(config: &MqttConfig) -> Result<Subscriber, LinkError> {
    let mut tries = 0;
    loop {
        match Subscriber::connect(config, &format!("{PREFIX}/#")).await {
            Ok(subscriber) => return Ok(subscriber),
            Err(why) if tries == 50 => return Err(why),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Prints what comes from the broker until told to stop, and a little longer for what is on its way; gives back which
/// frames were alerted.
async fn listen(
    mut subscriber: Subscriber,
    out: PathBuf,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) -> Result<HashSet<String>, OutputError> {
    let mut alerted = HashSet::new();
    let mut frames = HashMap::new();
    let mut until = None;
    loop {
        let last = async {
            match until {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = subscriber.next() => match message {
                Some(message) => show(message, &out, &mut alerted, &mut frames)?,
                None => return Ok(alerted),
            },
            _ = &mut stopped, if until.is_none() => until = Some(tokio::time::Instant::now() + LAST_MESSAGES),
            () = last => return Ok(alerted),
        }
        if until.is_some() && frames.is_empty() {
            return Ok(alerted);
        }
    }
}

/// `frames` holds the events whose heatmap has not come yet.
fn show(
    message: Incoming,
    out: &Path,
    alerted: &mut HashSet<String>,
    frames: &mut HashMap<String, String>,
) -> Result<(), OutputError> {
    if message.topic.ends_with("/anomaly") {
        let Ok(event) = serde_json::from_slice::<CloudEvent<Anomaly>>(&message.payload) else { return Ok(()) };
        let data = event.data;
        let at: Vec<String> =
            data.regions.iter().map(|r| format!("{}x{}+{}+{}", r.width, r.height, r.x, r.y)).collect();
        say(format_args!(
            "{}  {:?}  {}  score {:.3} (threshold {:.3}) by the {}, severity {:.0} %, at {}",
            event.time.strftime("%H:%M:%S"),
            event.r#type,
            data.frame_id,
            data.score,
            data.threshold,
            data.decided_by,
            data.severity * 100.0,
            if at.is_empty() { "no single place".into() } else { at.join(" ") }
        ))?;
        if data.heatmap {
            frames.insert(event.id.to_string(), data.frame_id.clone());
        }
        alerted.insert(data.frame_id);
    } else if message.topic.ends_with("/heatmap") {
        // An id that we have seen in an event, and therefore one of our file names.
        let Some(frame) = message.event_id.and_then(|id| frames.remove(&id)) else { return Ok(()) };
        let path = out.join(format!("{frame}.png"));
        if let Err(e) = std::fs::write(&path, &message.payload) {
            say(format_args!("cannot write {}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn summary(report: &super::Report, alerted: &HashSet<String>, truths: &Truths) -> Result<(), OutputError> {
    for camera in &report.cameras {
        say(format_args!("{camera}"))?;
    }
    say(format_args!("{}", report.outbox_line()))?;
    let share = |defective: bool| {
        let of: Vec<_> = truths.defective.iter().filter(|(_, d)| **d == defective).collect();
        let hit = of.iter().filter(|(id, _)| alerted.contains(*id)).count();
        (hit, of.len(), 100.0 * hit as f64 / of.len().max(1) as f64)
    };
    if truths.missed > 0 {
        say(format_args!("{} parts are left out below: they were judged quicker than looked at", truths.missed))?;
    }
    if !truths.defective.is_empty() {
        let ((hits, defective, hit_percent), (false_alerts, good, false_percent)) = (share(true), share(false));
        say(format_args!("measured: {hits} of {defective} defective parts alerted ({hit_percent:.1} %)"))?;
        say(format_args!("measured: {false_alerts} of {good} good parts alerted ({false_percent:.1} %)"))?;
    }
    let ms = report.cameras.iter().map(|c| c.median_inspect_ms).fold(0.0, f64::max);
    say(format_args!("measured: {ms:.1} ms a frame (median)"))
}
