//! A device with updates, its broker and its publisher, for tests.

use crate::util::*;
use ckaad_bundle::{Bundle, Draft, Precision, Score, ScoreRule};
use ckaad_testing::onnx::unlike_the_others;
use ckaad_update::publish::{KeyFolder, Publication, Repository};
use semver::Version;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub const PASSPHRASE: &str = "a passphrase of the tests";

/// The demo's bundle as another version of itself, changed.
pub fn variant(version: &str, change: impl FnOnce(&mut Draft)) -> Vec<u8> {
    let mut draft = Draft::from(Bundle::read(&bundle()).unwrap());
    draft.manifest.version = Version::parse(version).unwrap();
    change(&mut draft);
    draft.pack().unwrap()
}

/// A bundle that takes three views at once, each 48 wide and 32 high: its map is how far a view's brightness is from the mean of all.
pub fn across_views(version: &str) -> Vec<u8> {
    variant(version, |draft| {
        draft.model = unlike_the_others(3);
        draft.golden.clear();
        let m = &mut draft.manifest;
        (m.views, m.view_names) = (3, ["top", "left", "right"].map(String::from).to_vec());
        (m.input.width, m.input.height, m.output_stride, m.precision) = (48, 32, 4, Precision::F32);
        m.score = Score { sigma_px: 0.0, rule: ScoreRule::TopK { top_k: 16 }, image: None };
        (m.calibration.threshold, m.calibration.pixel_threshold) = (0.3, 0.3);
        m.calibration.quantiles = (0..21).map(|i| i as f32 * 0.005).collect();
    })
}

/// Keys, a repository, and nginx in front of it.
pub struct Publisher {
    pub folder: PathBuf,
    pub keys: KeyFolder,
    pub port: u16,
    _nginx: Running,
}

impl Publisher {
    pub fn start(site: &Site) -> Publisher {
        let folder = site.path().join("publisher");
        std::fs::create_dir_all(folder.join("repository")).unwrap();
        let keys = KeyFolder::new(&folder.join("keys"), PASSPHRASE);
        block_on(Repository::init_keys(&keys, 1, 1)).unwrap();
        let port = free_port();
        let config = format!(
            "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log {dir}/access.log; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};\n\
             uwsgi_temp_path {dir}; scgi_temp_path {dir}; server {{ listen 127.0.0.1:{port}; root {dir}/repository; }} }}\n",
            dir = folder.display()
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        // Its workers would else be nobody's, who may not read a folder of ours.
        let mut nginx = program("nginx");
        nginx.arg("-p").arg(&folder).arg("-c").arg(&path).args(["-g", "user root;"]);
        let nginx = Running::spawn(nginx);
        wait_until(&format!("nginx listens: {:?}", nginx.lines()), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Publisher { folder, keys, port, _nginx: nginx }
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.join("repository")
    }

    pub fn open(&self) -> Repository {
        Repository::open(&self.repository(), &self.keys).unwrap()
    }

    pub fn publish(&self, bundle: &[u8]) -> String {
        self.publish_as(bundle, &Publication { model: "press".into(), ..Publication::default() })
    }

    pub fn publish_as(&self, bundle: &[u8], what: &Publication) -> String {
        let path = self.folder.join("bundle.ckaad");
        std::fs::write(&path, bundle).unwrap();
        block_on(self.open().publish(&path, what, &self.keys)).unwrap().digest
    }

    /// `[update]` of a device.
    pub fn settings(&self, state: &Path, more: &str) -> String {
        format!(
            "[update]\nurl = \"http://127.0.0.1:{}/\"\nroot_file = {:?}\nstate = {state:?}\npoll_interval_s = 1\n{more}\n\
             [update.trial]\nframes = 10\n",
            self.port,
            self.keys.root_path(),
        )
    }
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A device beside a line that never ends.
pub struct Device {
    pub site: Site,
    pub broker: Mosquitto,
    pub publisher: Publisher,
    pub config: String,
}

impl Device {
    /// `more`: keys of `[update]`; `tables`: further TOML.
    pub fn new(more: &str, tables: &str) -> Device {
        let site = Site::new();
        let broker = Mosquitto::start(site.path());
        let publisher = Publisher::start(&site);
        // One good bundle, under another model's name: the repository is there from the beginning.
        publisher
            .publish_as(&variant("0.0.1", |_| {}), &Publication { model: "other".into(), ..Publication::default() });
        let config = Device::configure(&site, broker.port, &publisher, &site.path().join("state"), more, tables);
        Device { site, broker, publisher, config }
    }

    pub fn configure(site: &Site, port: u16, publisher: &Publisher, state: &Path, more: &str, tables: &str) -> String {
        let camera = "model = \"press\"\nsource = \"synthetic\"\nresults = true\n[camera.cam.heatmap]\nenabled = false\n\
                      [camera.cam.synthetic]\nfps = 60\n";
        site.write(port, camera, &format!("{}\n{tables}", publisher.settings(state, more)))
    }

    /// Changes its configuration before the next start.
    pub fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// As if it had just been bought: nothing on its disk, and a broker that knows nothing of it.
    pub fn forget_all(&mut self) {
        let _ = std::fs::remove_dir_all(self.site.path().join("state"));
        for file in ["outbox.sqlite", "outbox.sqlite-wal", "outbox.sqlite-shm"] {
            let _ = std::fs::remove_file(self.site.path().join(file));
        }
        self.broker = Mosquitto::start(self.site.path());
        let state = self.site.path().join("state");
        self.config = Device::configure(&self.site, self.broker.port, &self.publisher, &state, "", "");
    }

    /// As [`Device::forget_all`], with the updates' state elsewhere.
    pub fn move_to(&mut self, state: &Path) {
        self.forget_all();
        self.config = Device::configure(&self.site, self.broker.port, &self.publisher, state, "", "");
    }

    pub fn states(&self) -> Running {
        self.broker.subscriber(&["model/press/state", "camera/+/state", "camera/+/anomaly", "state"], "%t %r %p", &[])
    }

    pub fn start(&self) -> Running {
        run(&self.config)
    }
}

pub fn model_states(subscriber: &Running) -> Vec<Value> {
    payloads(subscriber, "model/press/state")
}

pub fn last(subscriber: &Running) -> Value {
    model_states(subscriber).pop().unwrap_or_default()
}

pub fn wait_for_state(subscriber: &Running, agent: &Running, state: &str, version: &str) -> Value {
    wait_until(&format!("{state} {version}, after {:#?} and {:#?}", last(subscriber), agent.lines()), || {
        let last = last(subscriber);
        last["state"] == state && last["version"] == version
    });
    last(subscriber)
}

/// Sends a command and gives the answer, by MQTT 5's request and response.
pub fn ask(device: &Device, topic: &str, payload: &str) -> Value {
    let mut text = String::new();
    // An agent that has just started may not hear us yet: who asks asks again under the same id.
    for _ in 0..10 {
        let mut ask = program("mosquitto_rr");
        ask.args(["-V", "mqttv5", "-h", "127.0.0.1", "-q", "1", "-W", "5", "-e", "answers/here"]);
        ask.args([
            "-p",
            &device.broker.port.to_string(),
            "-D",
            "publish",
            "correlation-data",
            "number 7",
            "-F",
            "%D %p",
        ]);
        let output = ask.args(["-t", &format!("{PREFIX}/cmd/{topic}"), "-m", payload]).output().unwrap();
        text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.is_empty() {
            break;
        }
    }
    let answer = text.strip_prefix("number 7 ").unwrap_or_else(|| panic!("{text:?}"));
    serde_json::from_str(answer).unwrap_or_else(|e| panic!("{e}: {text}"))
}
