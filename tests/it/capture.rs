//! A camera without hardware: tests/fixtures/v4l2shim.c stands in for the driver, below the unmodified binary.

use crate::util::*;

#[test]
fn camera_stall_freeze_and_unplug_are_published_and_it_comes_back() {
    let site = Site::new();
    let library = preloadable(site.path(), "v4l2shim.c");
    let control = site.path().join("control");
    let camera = |state: &str| std::fs::write(&control, state).unwrap();
    camera("ok");

    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let device = "source = \"camera\"\nresults = true\n[camera.cam.device]\ndevice = \"/dev/video77\"\nwidth = 320\nheight = 180\nframe_deadline_ms = 500\nfrozen_after_frames = 10\n";
    let mut command = agent(&["run", "--config", &site.write(broker.port, device, "")]);
    command.env("LD_PRELOAD", &library).env("SHIM_DEV", "/dev/video77").env("SHIM_CTL", &control);
    let mut agent = Running::spawn(command);

    let last = || payloads(&subscriber, "camera/cam/state").last().cloned().unwrap_or_default();
    let results = || payloads(&subscriber, "/result").len();
    wait_until("judged frames", || results() > 3);
    for (trouble, state) in [("stall", "stalled"), ("frozen", "frozen"), ("gone", "unplugged")] {
        camera(trouble);
        wait_until(state, || last()["state"] == state);
        assert!(last()["reason"].as_str().unwrap().contains("/dev/video77"), "{}", last());
        let before = results();
        camera("ok");
        wait_until("running again", || last()["state"] == "running");
        wait_until("frames again", || results() > before + 2);
    }
    // A driver that is silent for ever does not keep the agent from ending.
    camera("stall");
    wait_until("stalled", || last()["state"] == "stalled");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
}

#[test]
fn a_missing_camera_is_a_state_and_not_the_end() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let device = "source = \"camera\"\n[camera.cam.device]\ndevice = \"/dev/video78\"\n";
    let config = site.write(broker.port, device, "");
    let mut running = run(&config);
    wait_until("unplugged", || payloads(&subscriber, "camera/cam/state").iter().any(|s| s["state"] == "unplugged"));
    running.signal("TERM");
    assert_eq!(running.ended(), Some(0));
    let checked = agent(&["check", "--config", &config]).output().unwrap();
    let report = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(1));
    assert!(report.contains("FAIL  source of cam: ") && report.contains("ok    broker"), "{report}");
}
