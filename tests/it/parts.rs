//! Parts that several views show: one verdict a part.

use crate::device::across_views;
use crate::util::*;
use ckaad_inspect::synthetic::{DefectKind, Line, LineConfig};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Pictures of the synthetic line, good or defective, at `folder/NAME.png` of the site.
fn pictures(site: &Site, folder: &str, seed: u64, names: &[(&str, Option<DefectKind>)]) {
    let folder = site.path().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut line = Line::new(LineConfig { seed, ..LineConfig::default() });
    for (name, defect) in names {
        // Written elsewhere first: a hot folder must not see half of it.
        let new = site.path().join("new.png");
        line.make(*defect).image.save(&new).unwrap();
        std::fs::rename(new, folder.join(format!("{name}.png"))).unwrap();
    }
}

/// One camera that reads `folder`, whose parts have three views.
fn config(site: &Site, port: u16, folder: &Path, directory: &str, patience_s: f64) -> String {
    let camera = format!(
        "source = \"directory\"\n[camera.cam.directory]\npath = {folder:?}\n{directory}\n[camera.cam.heatmap]\nenabled = false\n\
         [camera.cam.parts]\nviews = [\"top\", \"left\", \"right\"]\npatience_s = {patience_s:?}\n"
    );
    site.write(port, &camera, "")
}

fn subscribe(broker: &Mosquitto) -> Running {
    broker.subscriber(&["part/+/verdict", "camera/+/anomaly"], "%t %r %p", &[])
}

fn verdicts(subscriber: &Running) -> Vec<Value> {
    payloads(subscriber, "part/cam/verdict")
}

#[test]
fn one_verdict_a_part_by_its_worst_view() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = subscribe(&broker);
    let parts = site.path().join("parts");
    pictures(&site, "parts/a", 1, &[("left", None), ("right", None), ("top", None)]);
    let dent = Some(DefectKind::Dent);
    pictures(&site, "parts/b", 2, &[("bolt_b_left_1", None), ("bolt_b_right_1", dent), ("bolt_b_top_1", None)]);
    pictures(&site, "parts/c", 3, &[("left", None), ("top", None)]);
    // No part's: it is judged like any frame.
    pictures(&site, "parts", 4, &[("alone", dent)]);
    let mut agent = run(&config(&site, broker.port, &parts, "", 60.0));
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    wait_until("three verdicts", || verdicts(&subscriber).len() == 3);
    let events = verdicts(&subscriber);
    let said: Vec<_> = events
        .iter()
        .map(|event| {
            let data = &event["data"];
            [&data["part"], &data["judgement"]].map(|v| v.as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(said, [["a", "good"], ["b", "defective"], ["c", "incomplete"]]);
    for event in &events {
        assert_eq!((&event["type"], &event["source"]), (&"part.verdict".into(), &format!("/{PREFIX}/part/cam").into()));
        let views = event["data"]["views"].as_array().unwrap();
        let worst = views.iter().find(|view| view["view"] == event["data"]["worst_view"]).unwrap();
        assert_eq!(worst["calibrated_score"], event["data"]["calibrated_score"]);
        let defective = |view: &Value| view["calibrated_score"].as_f64().unwrap() >= 1.0;
        assert!(views.iter().all(|view| view["defective"] == defective(view)), "{views:#?}");
    }
    assert_eq!(events[1]["data"]["worst_view"], "right");
    assert_eq!(events[1]["data"]["views"].as_array().unwrap().len(), 3);
    assert_eq!(events[2]["data"]["missing"], serde_json::json!(["right"]));
    // A view has its own event besides; so has the frame that is of no part.
    assert_eq!(alerted(&subscriber), ["alone.png", "b/bolt_b_right_1.png"]);
    assert!(agent.saw("the frame alone.png is no view of a part and counts alone"), "{:#?}", agent.lines());
}

#[test]
fn a_view_that_does_not_come_is_named_and_one_that_cannot_be_read_is_missing() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = subscribe(&broker);
    let parts = site.path().join("parts");
    pictures(&site, "parts/a", 1, &[("left", None), ("right", None)]);
    std::fs::write(parts.join("a/top.png"), b"no picture").unwrap();
    let watch = "mode = \"watch\"\nsettle_ms = 50";
    let mut agent = run(&config(&site, broker.port, &parts, watch, 2.5));
    wait_until("a verdict", || verdicts(&subscriber).len() == 1);
    assert_eq!(verdicts(&subscriber)[0]["data"]["missing"], serde_json::json!(["top"]));
    // The same part is shown once more, and whole.
    pictures(&site, "parts/a", 5, &[("left", None), ("right", None), ("top", None)]);
    wait_until("another verdict", || verdicts(&subscriber).len() == 2);
    assert_eq!(verdicts(&subscriber)[1]["data"]["judgement"], "good");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
}

/// Files of a part stay in the hot folder until its verdict is on disk, so whatever ends the agent, the part is judged as a whole.
#[test]
fn a_part_whose_agent_is_killed_is_judged_again_as_a_whole() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = subscribe(&broker);
    let parts = site.path().join("parts");
    pictures(&site, "parts/a", 1, &[("left", None), ("right", Some(DefectKind::Dent))]);
    let watch = "mode = \"watch\"\nsettle_ms = 50\nafter = \"remove\"\nremove_folders = true";
    let config = config(&site, broker.port, &parts, watch, 60.0);
    let agent = run(&config);
    wait_until("the view's own event", || alerted(&subscriber) == ["a/right.png"]);
    agent.signal("KILL");
    drop(agent);
    let files = || std::fs::read_dir(parts.join("a")).unwrap().count();
    assert_eq!((files(), verdicts(&subscriber).len()), (2, 0));
    let mut agent = run(&config);
    pictures(&site, "parts/a", 7, &[("top", None)]);
    wait_until("the verdict", || verdicts(&subscriber).len() == 1);
    let data = &verdicts(&subscriber)[0]["data"];
    assert_eq!((&data["judgement"], &data["worst_view"]), (&"defective".into(), &"right".into()));
    assert_eq!((data["views"].as_array().unwrap().len(), data["missing"].as_array().unwrap().len()), (3, 0));
    wait_until("its folder is gone", || !parts.join("a").exists());
    assert!(parts.exists());
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
}

/// Grey pictures, a white square on those that are named.
fn grey(site: &Site, folder: &str, names: &[(&str, bool)]) {
    let folder = site.path().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, square) in names {
        let white = |x: u32, y: u32| *square && (16..32).contains(&x) && (8..24).contains(&y);
        let picture = image::RgbImage::from_fn(48, 32, |x, y| image::Rgb([if white(x, y) { 255 } else { 60 }; 3]));
        picture.save(folder.join(format!("{name}.png"))).unwrap();
    }
}

#[test]
fn a_model_that_looks_across_views_judges_whole_parts() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = subscribe(&broker);
    let parts = site.path().join("parts");
    let across = site.path().join("across.ckaad");
    std::fs::write(&across, across_views("0.2.0")).unwrap();
    // A square that all views have is none that one lacks: none is unlike the others.
    grey(&site, "parts/a", &[("left", true), ("right", true), ("top", true)]);
    grey(&site, "parts/b", &[("b_left_1", true), ("b_right_1", false), ("b_top_1", false)]);
    grey(&site, "parts/c", &[("left", true), ("top", false)]);
    grey(&site, "parts", &[("alone", true)]);
    let config = config(&site, broker.port, &parts, "", 60.0);
    let own = format!("{:?}", bundle());
    let write = |change: &dyn Fn(String) -> String| {
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, change(text)).unwrap();
    };
    write(&|text| text.replace(&own, &format!("{across:?}")));
    let mut agent_running = run(&config);
    assert_eq!(agent_running.ended(), Some(0), "{:#?}", agent_running.lines());
    wait_until("three verdicts", || verdicts(&subscriber).len() == 3);
    let events = verdicts(&subscriber);
    let data: Vec<&Value> = events.iter().map(|event| &event["data"]).collect();
    let said: Vec<_> = data.iter().map(|d| [&d["part"], &d["judgement"]].map(|v| v.as_str().unwrap())).collect();
    assert_eq!(said, [["a", "good"], ["b", "defective"], ["c", "incomplete"]]);
    let views: Vec<&Vec<Value>> = data.iter().map(|d| d["views"].as_array().unwrap()).collect();
    assert_eq!(views.iter().map(|views| views.len()).collect::<Vec<_>>(), [3, 3, 0]);
    assert!(views[0].iter().all(|view| view["score"].as_f64().unwrap() < 1e-5), "{:#}", data[0]);
    assert_eq!(data[1]["worst_view"], "left");
    assert_eq!(alerted(&subscriber), ["b/b_left_1.png"]);
    // Without one of its views nothing is known of a part, and its worst view is none.
    assert_eq!(data[2]["missing"], serde_json::json!(["top", "left", "right"]));
    assert_eq!((&data[2]["worst_view"], &data[2]["calibrated_score"]), (&"".into(), &0.0.into()));
    let lines = agent_running.lines();
    let told = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(told("views of the part are missing, without which 2 cannot be judged"), 1, "{lines:#?}");
    assert_eq!(told("the frame alone.png is no view of a part and is not judged: the model looks at all views"), 1);
    assert!(agent_running.saw("6 frames judged, 1 defective, 3 skipped"), "{lines:#?}");

    // By hand, in any order.
    let pictures = ["b/b_top_1", "c/left", "b/b_left_1", "b/b_right_1"].map(|name| parts.join(format!("{name}.png")));
    let infer = |pictures: &[PathBuf]| {
        let mut command = agent(&["infer", "--bundle", across.to_str().unwrap(), "--json"]);
        let output = command.args(pictures).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (said, complaint) = infer(&pictures);
    assert!(complaint.contains("c/left.png could not be judged: the model takes the views top, left, right of a part"));
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let defective: Vec<bool> = said.iter().map(|line| line["verdict"] == "defective").collect();
    assert_eq!(defective, [false, true, false], "{said:#?} {complaint}");

    // A camera that shows other views is told so before anything is published.
    write(&|text| text.replace(", \"right\"]", "]"));
    let sentence = "camera.cam.parts.views is top, left; the model takes top, left, right of a part at once";
    for command in ["check", "run"] {
        let output = agent(&[command, "--config", &config]).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && said.contains(sentence), "{command}: {said}");
    }
}

/// A side that nobody photographs any more leaves every part unjudged; the line is to hear of it as of a camera that is gone.
#[test]
fn a_station_that_judges_no_part_says_so() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let states = broker.subscriber(&["camera/+/state"], "%t %r %p", &[]);
    let across = site.path().join("across.ckaad");
    std::fs::write(&across, across_views("0.2.0")).unwrap();
    for part in 0..6 {
        grey(&site, &format!("parts/{part}"), &[("left", false), ("top", false)]);
    }
    let config = config(&site, broker.port, &site.path().join("parts"), "", 60.0);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&format!("{:?}", bundle()), &format!("{across:?}"))).unwrap();
    let mut agent = run(&config);
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    let reason = "5 parts in a row could not be judged: views are missing, at last right of 4";
    let told = |state: &Value| state["state"] == "disabled" && state["reason"] == reason;
    assert_eq!(payloads(&states, "camera/cam/state").iter().filter(|state| told(state)).count(), 1);
}

/// What was written anew while the frames before it waited for their part was taken for what had been judged, and removed.
#[test]
fn files_that_are_written_anew_while_their_part_waits_are_judged() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = subscribe(&broker);
    let parts = site.path().join("parts");
    let watch = "mode = \"watch\"\nsettle_ms = 50\nafter = \"remove\"";
    // With a result a frame it can be told that the first two were judged.
    let config = config(&site, broker.port, &parts, watch, 60.0);
    let results = broker.subscriber(&["camera/+/result"], "%t %r %p", &[]);
    let mut command = agent(&["run", "--config", &config]);
    command.env("CKAAD__CAMERA__CAM__RESULTS", "true");
    pictures(&site, "parts/a", 1, &[("left", None), ("top", None)]);
    let mut agent = Running::spawn(command);
    wait_until("two frames", || payloads(&results, "/result").len() == 2);
    pictures(&site, "parts/a", 9, &[("left", None), ("right", Some(DefectKind::Dent)), ("top", None)]);
    wait_until("two verdicts", || verdicts(&subscriber).len() == 2);
    let [first, second] = &verdicts(&subscriber)[..] else { unreachable!() };
    assert_eq!(first["data"]["missing"], serde_json::json!(["right"]));
    assert_eq!(second["data"]["views"].as_array().unwrap().len(), 3, "{second:#}");
    assert_eq!((&second["data"]["judgement"], &second["data"]["worst_view"]), (&"defective".into(), &"right".into()));
    wait_until("an empty folder", || std::fs::read_dir(parts.join("a")).unwrap().next().is_none());
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.saw("5 frames judged, 1 defective, 0 skipped"), "{:#?}", agent.lines());
}
