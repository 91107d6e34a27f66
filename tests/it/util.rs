//! The real binary and a real broker, for tests that read as promises.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const PREFIX: &str = "ckaad/test/line/box";
/// Long enough for a machine with much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub use ckaad_testing::{demo_bundle as bundle, in_repository, preloadable, program};

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until `done`; panics with `what` when it takes too long.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `ckaad-agent`, without the environment of whoever runs the tests.
pub fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ckaad-agent"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null());
    command
}

/// Runs the agent, which has to fail with exit code 2 and this one line on standard error, no more and no less.
pub fn refuses(command: &mut Command, sentence: &str) {
    let output = command.output().unwrap();
    assert_eq!(
        (stderr(&output).as_str(), output.status.code()),
        (format!("ckaad-agent: {sentence}\n").as_str(), Some(2))
    );
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process whose output is gathered line by line; it is killed with its guard.
pub struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Gathers standard output and standard error.
    pub fn spawn(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let lines = lines.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    lines.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
                    line.clear();
                }
            });
        }
        Running { child, lines }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn saw(&self, part: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|l| l.contains(part))
    }

    pub fn wait_for(&self, part: &str) {
        wait_until(&format!("{part:?} in {:#?}", self.lines()), || self.saw(part));
    }

    /// By name, as `kill` takes it: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        // The shell's own: a slim system has no other.
        let done = program("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(done.success());
    }

    /// Whether it has ended by itself.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(&format!("the end, after {:#?}", self.lines()), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // The readers see the end of the streams shortly after.
        std::thread::sleep(Duration::from_millis(50));
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// mosquitto on a port of its own, with persistence.
pub struct Mosquitto {
    pub port: u16,
    config: PathBuf,
    process: Option<Running>,
}

impl Mosquitto {
    pub fn start(dir: &Path) -> Mosquitto {
        let mut broker = Mosquitto::prepared(dir, free_port(), "allow_anonymous true");
        broker.up();
        broker
    }

    /// Written but not started: a broker that is away.
    pub fn prepared(dir: &Path, port: u16, more: &str) -> Mosquitto {
        let data = dir.join(format!("broker-{port}"));
        std::fs::create_dir_all(&data).unwrap();
        let config = data.join("mosquitto.conf");
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nautosave_interval 1\nautosave_on_changes true\n\
             max_queued_messages 0\n{more}\n",
            data.display()
        );
        std::fs::write(&config, text).unwrap();
        Mosquitto { port, config, process: None }
    }

    pub fn up(&mut self) {
        let mut command = program("mosquitto");
        command.arg("-c").arg(&self.config);
        self.process = Some(Running::spawn(command));
        wait_until("mosquitto listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok());
    }

    pub fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    /// Dies at once and forgets everything.
    pub fn lose_all(&mut self) {
        self.signal("KILL");
        self.process = None;
        let _ = std::fs::remove_file(self.config.with_file_name("mosquitto.db"));
    }

    /// Everything but heatmaps, as `topic retained payload`.
    pub fn subscribe(&self) -> Running {
        self.subscriber(&["state", "health", "camera/+/state", "camera/+/anomaly", "camera/+/result"], "%t %r %p", &[])
    }

    /// Heatmaps, as `topic bytes content-type user-properties`.
    pub fn subscribe_heatmaps(&self) -> Running {
        self.subscriber(&["camera/+/heatmap/#"], "%t %l %C %P", &[])
    }

    pub fn subscriber(&self, topics: &[&str], format: &str, more: &[&str]) -> Running {
        let mut command = program("mosquitto_sub");
        command
            .args([
                "-V",
                "mqttv5",
                "-h",
                "127.0.0.1",
                "-q",
                "1",
                "-p",
                &self.port.to_string(),
                "-F",
                format,
                "-t",
                "ready",
            ])
            .args(more);
        for topic in topics {
            command.args(["-t", &format!("{PREFIX}/{topic}")]);
        }
        let subscriber = Running::spawn(command);
        // A marker that comes back shows that the subscription is in place.
        wait_until("the subscriber hears us", || {
            let mut hello = program("mosquitto_pub");
            hello.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", "ready", "-m", "ready"]).args(more);
            hello.output().unwrap().status.success() && {
                std::thread::sleep(Duration::from_millis(50));
                subscriber.saw("ready")
            }
        });
        subscriber
    }
}

/// The JSON payloads at topics that end in `leaf`.
pub fn payloads(subscriber: &Running, leaf: &str) -> Vec<serde_json::Value> {
    let lines = subscriber.lines();
    let ours = lines.iter().filter_map(|l| {
        let mut parts = l.splitn(3, ' ');
        let (topic, _, payload) = (parts.next()?, parts.next()?, parts.next()?);
        topic.ends_with(leaf).then(|| serde_json::from_str(payload).unwrap_or_else(|e| panic!("{e}: {payload}")))
    });
    ours.collect()
}

/// Ids of the parts that were alerted, without repetitions, sorted.
pub fn alerted(subscriber: &Running) -> Vec<String> {
    let mut ids: Vec<String> = payloads(subscriber, "/anomaly")
        .iter()
        .filter(|e| e["type"] == "opened")
        .map(|e| e["data"]["frame_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// A folder with a configuration in it.
pub struct Site {
    pub dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Site {
        Site { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Small pictures at `folder/NAME.png`, every one another.
    pub fn images(&self, folder: &str, names: &[&str]) -> PathBuf {
        let folder = self.path().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (n, name) in names.iter().enumerate() {
            let picture =
                image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, n as u8 * 20]));
            picture.save(folder.join(format!("{name}.png"))).unwrap();
        }
        folder
    }

    /// A configuration with one camera, `cam`, that reads `images` and alerts on everything. `camera` and `more` are further TOML.
    pub fn config(&self, port: u16, images: &Path, camera: &str, more: &str) -> String {
        let camera = format!(
            "source = \"directory\"\nthreshold = 0.000001\n{camera}\n[camera.cam.directory]\npath = {images:?}\n"
        );
        self.write(port, &camera, more)
    }

    /// As [`Site::config`], with all of `[camera.cam]` given, and the bundle set.
    pub fn write(&self, port: u16, camera: &str, more: &str) -> String {
        let text = format!(
            "[device]\ntopic_prefix = \"{PREFIX}\"\n[outbox]\npath = {:?}\n[agent]\nshutdown_deadline_ms = 3000\n\
             [camera.cam]\nbundle = {:?}\n{camera}\n[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nreconnect_max_s = 1\n{more}\n",
            self.path().join("outbox.sqlite"),
            bundle(),
        );
        let path = self.path().join("agent.toml");
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub fn run(config: &str) -> Running {
    Running::spawn(agent(&["run", "--config", config]))
}
