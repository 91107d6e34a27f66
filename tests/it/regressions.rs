//! One test for each bug that got out and is seen through the program, named after what was seen. Those of one room stand in the room; their
//! comment begins with "Regression:".

use crate::util::*;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Each cause was printed two or three times: once by its own message, once more by every error around it.
#[test]
fn a_cause_is_printed_once() {
    let site = Site::new();
    let images = site.images("parts", &["a"]);
    let config = site.config(1, &images, "", "");
    let cause = "the bundle /nope cannot be used: it cannot be opened: No such file or directory (os error 2)";
    refuses(&mut agent(&["infer", "--bundle", "/nope", "x.png"]), cause);
    refuses(&mut agent(&["bench", "--bundle", "/nope"]), cause);
    refuses(&mut agent(&["bundle", "verify", "/nope"]), cause);
    refuses(
        agent(&["run", "--config", &config]).env("CKAAD__CAMERA__CAM__BUNDLE", "/nope"),
        &format!("camera cam: {cause}"),
    );
}

/// The same once more, where the update repository or its root was no good.
#[test]
fn a_cause_of_no_updates_is_printed_once() {
    let site = Site::new();
    let images = site.images("parts", &["a"]);
    let root = site.path().join("root.json");
    let url = |url: &str| {
        let more = format!("[update]\nurl = {url:?}\nroot_file = {root:?}\nstate = {:?}\n", site.path().join("state"));
        site.config(1, &images, "model = \"press\"\n", &more)
    };
    let config = url("http://127.0.0.1:1/");
    let refused = |why: &str| {
        let sentence = format!("the root of trust {} cannot be used: {why}", root.display());
        refuses(&mut agent(&["run", "--config", &config]), &sentence);
    };
    refused("No such file or directory (os error 2)");
    std::fs::write(&root, "{}").unwrap();
    refused("missing field `signed` at line 1 column 2");
    // A wrong scheme was found late and named neither the file nor the key.
    let config = url("ftp://updates.example/");
    let wrong = "`update.url` is \"ftp://updates.example/\"; expected https:, http:, file: at its beginning";
    refuses(&mut agent(&["run", "--config", &config]), &format!("{config}: {wrong}"));
}

/// `infer --json > full-disk` ended with 0 and nothing written.
#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let site = Site::new();
    let image = site.images("parts", &["a"]).join("a.png");
    let (bundle, image) = (bundle().display().to_string(), image.display().to_string());
    let config = site.config(1, &site.path().join("parts"), "", "");
    for args in [
        &["infer", "--json", "--bundle", &bundle, &image][..],
        &["bench", "--bundle", &bundle, "--runs", "1"],
        &["bundle", "inspect", &bundle],
        &["bundle", "verify", &bundle],
        &["schema", "events"],
        &["check", "--config", &config],
        &["demo", "--frames", "1", "--port", "0", "--out", site.path().to_str().unwrap()],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = agent(args).stdout(full).output().unwrap();
        let expected = "ckaad-agent: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((stderr(&output).as_str(), output.status.code()), (expected, Some(2)), "{args:?}");
    }
}

/// The other half of the same: whoever reads may stop reading.
#[test]
fn a_reader_that_went_away_is_no_error() {
    let site = Site::new();
    let out = site.path().display().to_string();
    let bundle = bundle().display().to_string();
    for args in [
        &["schema", "events"][..],
        &["bundle", "inspect", &bundle],
        &["demo", "--frames", "40", "--port", "0", "--out", &out],
    ] {
        let mut child = agent(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)), "{args:?}");
    }
}

/// `/dev/video0` and its link in `/dev/v4l/by-id` passed for two cameras.
#[test]
fn two_names_of_one_camera_are_one_camera() {
    let site = Site::new();
    let link = site.path().join("usb-camera-by-id");
    std::os::unix::fs::symlink("/dev/video3", &link).unwrap();
    let camera = |name: &str, device: &Path| {
        format!("[camera.{name}]\nbundle = {:?}\n[camera.{name}.device]\ndevice = {device:?}\n", bundle())
    };
    let path = site.path().join("a.toml");
    std::fs::write(&path, camera("left", Path::new("/dev/video3")) + &camera("right", &link)).unwrap();
    let path = path.to_str().unwrap();
    // Where the device is not there, the link leads nowhere, and still names it.
    let sentence = format!("{path}: `camera.right` uses /dev/video3, which `camera.left` uses already");
    refuses(&mut agent(&["run", "--config", path]), &sentence);

    let parts = site.images("parts", &["a"]);
    let folder = |name: &str, path: &Path| {
        format!(
            "[camera.{name}]\nsource = \"directory\"\n[camera.{name}.directory]\nmode = \"watch\"\npath = {path:?}\n"
        )
    };
    std::fs::write(path, folder("left", &parts) + &folder("right", &parts.join("../parts"))).unwrap();
    let sentence = format!("{path}: `camera.right` uses {}, which `camera.left` uses already", parts.display());
    refuses(&mut agent(&["run", "--config", path]), &sentence);
}

/// A socket in systemd's place.
struct Systemd(std::os::unix::net::UnixDatagram);

impl Systemd {
    fn listen(site: &Site, command: &mut Command) -> Systemd {
        let path = site.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        command.env("NOTIFY_SOCKET", &path);
        Systemd(socket)
    }

    /// What was said within `time`.
    fn hear(&self, time: Duration) -> Vec<String> {
        let (begun, mut heard) = (Instant::now(), vec![]);
        let mut buffer = [0; 4096];
        while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            self.0.set_read_timeout(Some(left)).unwrap();
            if let Ok(n) = self.0.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
        }
        heard
    }
}

/// READY went out before any frame, and a camera that was never seen was published, retained, as `running`.
#[test]
fn a_camera_is_starting_until_it_is_judged_and_ready_waits_for_it() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &[]);
    std::fs::create_dir_all(&images).unwrap();
    let library = preloadable(site.path(), "v4l2shim.c");
    let control = site.path().join("control");
    std::fs::write(&control, "stall").unwrap();
    let device = format!(
        "source = \"camera\"\n[camera.cam.device]\ndevice = \"/dev/video79\"\nwidth = 320\nheight = 180\nframe_deadline_ms = 6000\n\
         [camera.folder]\nbundle = {:?}\nsource = \"directory\"\n[camera.folder.directory]\nmode = \"watch\"\npath = {images:?}\n",
        bundle()
    );
    let mut command = agent(&["run", "--config", &site.write(broker.port, &device, "")]);
    command.env("LD_PRELOAD", &library).env("SHIM_DEV", "/dev/video79").env("SHIM_CTL", &control);
    let systemd = Systemd::listen(&site, &mut command);
    let mut agent = Running::spawn(command);
    let states = |camera: &str| -> Vec<String> {
        let states = payloads(&subscriber, &format!("camera/{camera}/state"));
        states.iter().map(|s| s["state"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("the folder is watched", || states("folder").last().is_some_and(|s| s == "running"));
    wait_until("starting", || states("cam") == ["starting"]);
    assert!(!systemd.hear(Duration::from_millis(500)).iter().any(|said| said.contains("READY=1")));
    wait_until("stalled", || states("cam") == ["starting", "stalled"]);
    let said = systemd.hear(Duration::from_secs(1));
    let ready = said.iter().find(|said| said.contains("READY=1")).expect("it has said why not");
    assert!(ready.contains("STATUS=cam: no new frame from /dev/video79 for 6000 ms; folder runs"), "{said:?}");
    std::fs::write(&control, "ok").unwrap();
    wait_until("running", || states("cam") == ["starting", "stalled", "running"]);
    let said = systemd.hear(Duration::from_secs(1));
    assert!(said.iter().any(|said| said.contains("STATUS=cam runs; folder runs")), "{said:?}");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
}

/// An incident that was open when the agent ended stayed open for ever on the subscribers' side.
#[test]
fn an_open_incident_goes_on_after_a_restart_or_is_closed_with_the_reason() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["a"]);
    let config =
        site.config(broker.port, &images, "grouping = \"incident\"", "[camera.cam.heatmap]\nenabled = false\n");
    let start = |variables: &[(&str, &str)]| {
        let mut command = agent(&["run", "--config", &config]);
        command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "loop").env("CKAAD__CAMERA__CAM__DIRECTORY__FPS", "10");
        command.envs(variables.iter().copied());
        Running::spawn(command)
    };
    let events = || payloads(&subscriber, "/anomaly");
    let count = |kind: &str| events().iter().filter(|e| e["type"] == kind).count();
    for (n, end) in ["KILL", "TERM"].iter().enumerate() {
        let mut agent = start(&[]);
        let before = count("updated");
        wait_until("updates", || count("updated") >= before + 2);
        agent.signal(end);
        agent.ended();
        assert_eq!((count("opened"), count("closed")), (1, 0), "round {n}: {:#?}", events());
    }
    let frames: Vec<u64> = events().iter().map(|e| e["data"]["defective_frames"].as_u64().unwrap()).collect();
    assert!(frames.is_sorted(), "the count goes on over the restart: {frames:?}");

    // Another camera is inspected from now on.
    let mut agent = start(&[("CKAAD__CAMERA__CAM__GROUPING", "part"), ("CKAAD__CAMERA__CAM__THRESHOLD", "1000000")]);
    wait_until("closed", || count("closed") == 1);
    let closed = events().into_iter().find(|e| e["type"] == "closed").unwrap();
    assert_eq!(closed["data"]["reason"], "its camera groups no incidents any more");
    assert_eq!(closed["data"]["incident"], events()[0]["data"]["incident"]);
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    let mut agent = start(&[("CKAAD__CAMERA__CAM__THRESHOLD", "1000000")]);
    agent.wait_for("the camera runs");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert_eq!((count("opened"), count("closed")), (1, 1), "closed once and for all");
}

/// `check` set the journal mode of whatever SQLite file it was pointed at, and made a table in it.
#[test]
fn check_changes_no_file_that_it_looks_at() {
    let site = Site::new();
    let images = site.images("parts", &["a"]);
    let config = site.config(1, &images, "", "");
    // The header of an empty database of somebody else, with one table of a page each.
    let foreign = site.path().join("foreign.sqlite");
    let made = rusqlite::Connection::open(&foreign).unwrap();
    made.execute_batch("CREATE TABLE stock (part TEXT); INSERT INTO stock VALUES ('washer')").unwrap();
    drop(made);
    let files = || {
        let mut names: Vec<_> = std::fs::read_dir(site.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        (names, std::fs::read(&foreign).unwrap())
    };
    let before = files();
    let output = agent(&["check", "--config", &config]).env("CKAAD__OUTBOX__PATH", &foreign).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = foreign.display();
    let sentence = format!(
        "FAIL  outbox: cannot open the outbox {path}: its table `message` has the columns () where (id rank topic content_type \
         event_id payload) was expected: it is not an outbox of this agent"
    );
    assert!(text.lines().any(|l| l == sentence), "{text}");
    assert_eq!(files(), before);
}

/// SQLite's fsync ran in the loop that feeds the watchdog: a slow disk made systemd kill a healthy agent.
#[test]
fn a_disk_that_takes_40_s_for_a_write_does_not_get_a_healthy_agent_killed() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["a", "b"]);
    let control = site.path().join("slow");
    let more = "[camera.cam.heatmap]\nenabled = false\n";
    let mut command = agent(&["run", "--config", &site.config(broker.port, &images, "results = true", more)]);
    command
        .env("LD_PRELOAD", preloadable(site.path(), "slowdisk.c"))
        .env("SLOW_NAME", "outbox.sqlite")
        .env("SLOW_CTL", &control)
        .env("WATCHDOG_USEC", "3000000")
        .env("CKAAD__AGENT__HEALTH_INTERVAL_S", "1")
        .env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "loop")
        .env("CKAAD__CAMERA__CAM__DIRECTORY__FPS", "2");
    let systemd = Systemd::listen(&site, &mut command);
    let mut agent = Running::spawn(command);
    let events = || payloads(&subscriber, "/anomaly").len();
    let results = || payloads(&subscriber, "/result").len();
    wait_until("events", || events() > 2);
    std::fs::write(&control, "40000").unwrap();
    wait_until("a write that waits", || {
        let waiting = payloads(&subscriber, "/health").last().map_or(0, |h| h["outbox"]["waiting"].as_u64().unwrap());
        waiting > 2
    });
    std::fs::remove_file(&control).unwrap();
    let (judged, stored) = (results(), events());
    systemd.hear(Duration::from_millis(10));
    // The write began before the last health and takes until then.
    let said = systemd.hear(Duration::from_secs(33));
    let fed = said.iter().filter(|said| said.contains("WATCHDOG=1")).count();
    assert!((25..=40).contains(&fed), "fed once a second: {fed}");
    assert!(results() >= judged + 50, "frames are judged meanwhile: {judged}, {}", results());
    assert!(events() <= stored + 1, "nothing is sent that is not stored: {stored}, {}", events());
    wait_until("the disk is done", || events() > stored + 50);
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.saw("outbox: 0 wait, 0 dropped"), "{:#?}", agent.lines());
    let sequences: Vec<u64> =
        payloads(&subscriber, "/anomaly").iter().map(|e| e["data"]["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (0..sequences.len() as u64).collect::<Vec<_>>());
}

/// The schema said "at most 32" regions where there are at most 16.
#[test]
fn the_schema_says_how_many_regions_there_are() {
    let output = agent(&["schema", "events"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["anomaly"]["$defs"]["Anomaly"]["properties"]["regions"]["maxItems"], ckaad_inspect::MAX_REGIONS);
}

/// Values of a source were looked at when it was started, and named without their camera.
#[test]
fn a_wrong_value_of_a_source_is_named_with_its_camera_before_anything_starts() {
    let site = Site::new();
    let path = site.path().join("a.toml");
    let text = path.to_str().unwrap();
    for (camera, key, reason) in [
        ("[camera.a.device]\nframe_deadline_ms = 1", "device.frame_deadline_ms", "is 1; expected 50 or more"),
        ("[camera.a.device]\nwidth = 640", "device.width", "is 640 and `device.height` is 0; expected both, or both 0"),
        ("[camera.a.device]\ndevice = \"\"", "device.device", "is empty; expected a camera such as /dev/video0"),
        ("[camera.a]\nsource = \"directory\"", "directory.path", "is empty; expected a directory of images"),
        (
            "[camera.a]\nsource = \"directory\"\ndirectory = { path = \"x\", fps = -1.0 }",
            "directory.fps",
            "is -1; expected 0 or a rate up to 10000",
        ),
        (
            "[camera.a]\nsource = \"directory\"\ndirectory = { path = \"x\", after = \"remove\" }",
            "directory.after",
            "works in the mode \"watch\" only; it is a hot folder's setting",
        ),
        (
            "[camera.a]\nsource = \"synthetic\"\nsynthetic = { width = 7 }",
            "synthetic.width",
            "is 7; expected 64 to 4096",
        ),
        (
            "[camera.a]\nsource = \"synthetic\"\nsynthetic = { defect_rate = 2.0 }",
            "synthetic.defect_rate",
            "is 2; expected 0 to 1",
        ),
    ] {
        std::fs::write(&path, camera).unwrap();
        let sentence = format!("{text}: `camera.a.{key}` {reason}");
        refuses(&mut agent(&["run", "--config", text]), &sentence);
        let checked = agent(&["check", "--config", text]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&checked.stdout), format!("FAIL  config: {sentence}\n"));
    }
}

/// The closing line of each camera, and of the outbox, stood twice in the log.
#[test]
fn the_closing_lines_are_logged_once() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let images = site.images("parts", &["a"]);
    let mut agent = run(&site.config(broker.port, &images, "", ""));
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    for part in ["1 frames judged", "outbox: 0 wait"] {
        assert_eq!(agent.lines().iter().filter(|l| l.contains(part)).count(), 1, "{part}: {:#?}", agent.lines());
    }
}
