//! The way from a folder of images to a subscriber, and what happens when things end.

use crate::util::*;
use serde_json::Value;

#[test]
fn directory_alerts_reach_a_subscriber_with_their_heatmaps() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let (subscriber, heatmaps) = (broker.subscribe(), broker.subscribe_heatmaps());
    let images = site.images("parts/scratch", &["a", "b"]);
    site.images("parts/good", &["c"]);
    let config = site.config(broker.port, images.parent().unwrap(), "", "");
    let mut command = agent(&["run", "--config", &config]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__LABELLED", "true");
    let mut agent = Running::spawn(command);
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());

    assert_eq!(alerted(&subscriber), ["good/c.png", "scratch/a.png", "scratch/b.png"]);
    let events = payloads(&subscriber, "/anomaly");
    assert_eq!(events.iter().map(|e| e["data"]["sequence"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(
        events.iter().all(|e| e["specversion"] == "1.0" && e["data"]["model"]["digest"].as_str().unwrap().len() == 64)
    );
    assert!(events.iter().all(|e| e["data"]["decided_by"] == "map"), "{events:#?}");
    wait_until("three heatmaps", || heatmaps.lines().iter().filter(|l| l.contains("/heatmap")).count() == 3);
    for event in &events {
        let id = event["id"].as_str().unwrap();
        let line = heatmaps.lines().into_iter().find(|l| l.contains(id)).expect("a heatmap names its event");
        assert!(line.contains("image/png") && line.contains("event-id"), "{line}");
    }
    let states: Vec<_> = payloads(&subscriber, "box/state").iter().map(|s| s["state"].clone()).collect();
    assert_eq!(states, ["online", "stopped"]);
    assert_eq!(payloads(&subscriber, "camera/cam/state").last().unwrap()["state"], "disabled");
    assert!(agent.saw("of 2 defective by label 2 alerted, of 1 good 1 alerted"), "{:#?}", agent.lines());
}

/// Events and results of forty defective parts, with areas below `ignored` square millimetres left out.
fn measured(ignored: f64) -> (Vec<Value>, Vec<Value>, Running) {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let camera = format!(
        "source = \"synthetic\"\nresults = true\nmm_per_px = 0.5\nignore_below_mm2 = {ignored:?}\n\
         [camera.cam.synthetic]\nframes = 40\ndefect_rate = 1.0\nfps = 20\n[camera.cam.heatmap]\nenabled = false\n"
    );
    let mut agent = run(&site.write(broker.port, &camera, ""));
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    // Results are sent at most once, and not before there is a connection.
    wait_until("most results", || payloads(&subscriber, "/result").len() >= 30);
    (payloads(&subscriber, "/anomaly"), payloads(&subscriber, "/result"), agent)
}

#[test]
fn regions_have_an_area_and_those_that_are_too_small_do_not_count() {
    let (events, ..) = measured(0.0);
    let areas = |event: &Value| -> Vec<f64> {
        let regions = event["data"]["regions"].as_array().unwrap();
        let px = |r: &Value| r["area_px"].as_f64().unwrap();
        assert!(regions.iter().all(|r| (r["area_mm2"].as_f64().unwrap() - px(r) / 4.0).abs() < 1e-3), "{regions:?}");
        regions.iter().map(px).collect()
    };
    // What the image branch says has no size, and so has a peak that no pixel threshold was reached by.
    let by_map: Vec<(&Value, f64)> = events
        .iter()
        .filter(|event| event["data"]["decided_by"] == "map")
        .map(|event| (&event["data"]["frame_id"], areas(event).into_iter().fold(0.0, f64::max) / 4.0))
        .collect();
    let mut sizes: Vec<f64> = by_map.iter().map(|(_, area)| *area).collect();
    sizes.sort_by(f64::total_cmp);
    assert!(sizes.len() > 20, "{sizes:?}");
    // Half of them are smaller.
    let limit = sizes[sizes.len() / 2];
    let (events, results, agent) = measured(limit);
    let left: Vec<&Value> = events.iter().map(|event| &event["data"]["frame_id"]).collect();
    for (frame, area) in &by_map {
        let counts = *area >= limit;
        assert_eq!(left.contains(frame), counts, "{frame}: {area} mm2 of {limit}");
        let Some(result) = results.iter().find(|result| result["frame_id"] == **frame) else { continue };
        assert_eq!(result["defective"], counts);
        assert_eq!(result["too_small"], !counts, "{result}");
        assert!(result["score"].as_f64() >= result["threshold"].as_f64());
    }
    let small = by_map.iter().filter(|(_, area)| *area < limit).count();
    let said = format!("{} defective, 0 skipped, 0 dropped, {small} good for their regions are too small", left.len());
    assert!(agent.saw(&said), "{said}: {:#?}", agent.lines());
}

#[test]
fn several_numbers_of_threads_are_compared() {
    let bundle = bundle();
    let bench = |more: &[&str]| {
        let arguments = ["bench", "--bundle", bundle.to_str().unwrap(), "--threads", "1,2", "--runs", "7"];
        let output = agent(&[&arguments[..], more].concat()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let said = bench(&[]);
    // Five rounds in turns, of two frames each.
    assert!(said.contains("10 runs over") && said.contains("\n2 threads: the engine is "), "{said}");
    assert!(said.ends_with(" times as fast as with 1\n"), "{said}");
    let lines = bench(&["--json"]);
    let threads: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["threads"].clone()).collect();
    assert_eq!(threads, [1, 2]);
}

#[test]
fn the_older_protocol_names_the_event_in_the_heatmaps_topic() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let (subscriber, heatmaps) = (broker.subscribe(), broker.subscribe_heatmaps());
    let images = site.images("parts", &["a"]);
    let config = site.config(broker.port, &images, "", "");
    let mut command = agent(&["run", "--config", &config]);
    command.env("CKAAD__MQTT__PROTOCOL", "3.1.1");
    let mut agent = Running::spawn(command);
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    let id = payloads(&subscriber, "/anomaly")[0]["id"].as_str().unwrap().to_owned();
    heatmaps.wait_for(&format!("heatmap/{id}"));
}

#[test]
fn sigterm_publishes_stopped() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["a"]);
    let config = site.config(broker.port, &images, "", "[camera.cam.heatmap]\nenabled = false\n");
    let mut command = agent(&["run", "--config", &config]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "loop").env("CKAAD__CAMERA__CAM__DIRECTORY__FPS", "5");
    let mut agent = Running::spawn(command);
    subscriber.wait_for("opened");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    wait_until("stopped", || payloads(&subscriber, "box/state").last().is_some_and(|s| s["state"] == "stopped"));
    // Retained: whoever comes later learns the same.
    let later = broker.subscribe();
    wait_until("the retained state", || payloads(&later, "box/state").last().is_some_and(|s| s["state"] == "stopped"));
}

#[test]
fn a_killed_agent_is_offline() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["a"]);
    let mut command = agent(&["run", "--config", &site.config(broker.port, &images, "", "")]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "watch");
    let agent = Running::spawn(command);
    subscriber.wait_for("online");
    agent.signal("KILL");
    subscriber.wait_for("offline");
}

#[test]
fn hot_folder_judges_what_comes_and_removes_it_afterwards() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["early"]);
    let mut command = agent(&["run", "--config", &site.config(broker.port, &images, "", "")]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "watch").env("CKAAD__CAMERA__CAM__DIRECTORY__AFTER", "remove");
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__SETTLE_MS", "100");
    let _agent = Running::spawn(command);
    subscriber.wait_for("early.png");
    site.images("parts", &["late"]);
    subscriber.wait_for("late.png");
    wait_until("an empty folder", || std::fs::read_dir(&images).unwrap().next().is_none());
}

#[test]
fn an_incident_is_opened_updated_and_closed_when_its_source_ends() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["a", "b", "c"]);
    let mut agent = run(&site.config(broker.port, &images, "grouping = \"incident\"", ""));
    assert_eq!(agent.ended(), Some(0));
    let kinds: Vec<_> = payloads(&subscriber, "/anomaly").iter().map(|e| e["type"].clone()).collect();
    assert_eq!(kinds, ["opened", "updated", "updated", "closed"]);
    let closed = payloads(&subscriber, "/anomaly").pop().unwrap();
    assert_eq!(
        (&closed["data"]["reason"], &closed["data"]["defective_frames"]),
        (&"the source ended".into(), &3.into())
    );
}

#[test]
fn a_hot_folder_keeps_the_image_whose_event_is_only_in_memory() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &["a"]);
    let mut command = agent(&["run", "--config", &site.config(broker.port, &images, "", "")]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "watch").env("CKAAD__CAMERA__CAM__DIRECTORY__AFTER", "remove");
    command.env("CKAAD__OUTBOX__PATH", "/proc/none/outbox.sqlite");
    let mut agent = Running::spawn(command);
    subscriber.wait_for("a.png");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(images.join("a.png").exists());
}

#[test]
fn frames_that_cannot_be_read_are_published_and_the_camera_comes_back() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let images = site.images("parts", &[]);
    for n in 0..5 {
        std::fs::write(images.join(format!("{n}.png")), b"not an image").unwrap();
    }
    let mut command = agent(&["run", "--config", &site.config(broker.port, &images, "", "")]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "watch").env("CKAAD__CAMERA__CAM__DIRECTORY__SETTLE_MS", "50");
    let mut agent = Running::spawn(command);
    let last = || payloads(&subscriber, "camera/cam/state").last().cloned().unwrap_or_default();
    wait_until("disabled", || last()["state"] == "disabled");
    let reason = last()["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("5 frames in a row could not be read, this is the last: "), "{reason}");
    assert!(reason.contains("4.png is not an image that can be decoded"), "{reason}");
    site.images("parts", &["good"]);
    wait_until("running", || last()["state"] == "running");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
}
