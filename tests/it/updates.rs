//! Models over the air, end to end: a publisher, nginx, mosquitto, and the real agent on a line that runs.

use crate::device::*;
use crate::util::*;
use ckaad_bundle::Bundle;
use ckaad_update::publish::Publication;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

#[test]
fn a_new_model_is_fetched_tried_and_put_in_force_between_two_frames() {
    let device = Device::new("", "");
    let (subscriber, mut agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "idle", "0.1.0");
    let digest = device.publisher.publish(&variant("0.2.0", |_| {}));
    let committed = wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    assert_eq!(committed["digest"], digest.as_str());
    let reason = committed["reason"].as_str().unwrap();
    assert!(reason.starts_with("10 live frames judged by both"), "{reason}");
    // The steps, in their order; a quick one may be between two looks.
    let seen: Vec<String> = model_states(&subscriber).iter().map(|s| s["state"].as_str().unwrap().to_owned()).collect();
    let order = ["idle", "downloading", "verified", "staged", "trial", "committed"];
    let places: Vec<usize> = seen.iter().map(|s| order.iter().position(|o| o == s).unwrap()).collect();
    assert!(places.is_sorted() && seen.contains(&"trial".into()), "{seen:?}");
    // The camera says which model judges, and its events come from exactly one of the two, the old one first.
    wait_until("the camera names the new model", || {
        payloads(&subscriber, "camera/cam/state").last().is_some_and(|s| s["model"]["digest"] == digest.as_str())
    });
    wait_until("an event of the new model", || {
        payloads(&subscriber, "/anomaly").last().is_some_and(|e| e["data"]["model"]["digest"] == digest.as_str())
    });
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    let events = payloads(&subscriber, "/anomaly");
    let versions: Vec<&str> = events.iter().map(|e| e["data"]["model"]["version"].as_str().unwrap()).collect();
    assert!(versions.is_sorted(), "{versions:?}");
    let sequence: Vec<u64> = events.iter().map(|e| e["data"]["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (0..sequence.len() as u64).collect::<Vec<_>>());
    assert!(agent.saw(" 0 skipped"), "{:#?}", agent.lines());
    // The next start judges with it, also without repository.
    let subscriber = device.states();
    let publisher = device.publisher;
    std::fs::remove_dir_all(publisher.repository()).unwrap();
    let agent = run(&device.config);
    wait_until("the new model at the next start", || last(&subscriber)["digest"] == digest.as_str());
    wait_until("the trouble is told", || {
        last(&subscriber)["repository"]["trouble"].as_str().is_some_and(|t| t.contains("is not there"))
    });
    assert!(!agent.saw("panicked"));
}

#[test]
fn a_model_whose_golden_samples_fail_is_refused_and_not_tried_again() {
    let device = Device::new("", "");
    let (subscriber, agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "idle", "0.1.0");
    let bad = variant("0.2.0", |draft| draft.golden.iter_mut().for_each(|g| g.expected.score += 1.0));
    let digest = device.publisher.publish(&bad);
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    assert!(refused["reason"].as_str().unwrap().contains("golden samples are judged otherwise"), "{refused}");
    assert_eq!(refused["other"]["digest"], digest.as_str());
    let count = || model_states(&subscriber).iter().filter(|s| s["state"] == "trial").count();
    let tried = count();
    // Several polls later it has not been tried again, and a good one behind it is taken.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(count(), tried);
    device.publisher.publish(&variant("0.3.0", |_| {}));
    wait_for_state(&subscriber, &agent, "committed", "0.3.0");
}

#[test]
fn a_model_that_is_too_slow_for_the_line_is_refused() {
    let device = Device::new("", "");
    device.change("frames = 10", "frames = 10\nbudget_ms = 0.001");
    let (subscriber, agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "idle", "0.1.0");
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    assert!(refused["reason"].as_str().unwrap().ends_with("the line allows 0.001 ms"), "{refused}");
}

#[test]
fn a_model_that_alarms_on_everything_is_refused_by_its_live_frames() {
    let device = Device::new("", "");
    let (subscriber, agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "idle", "0.1.0");
    device.publisher.publish(&variant("0.2.0", |draft| draft.manifest.calibration.threshold = -100.0));
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    assert!(refused["reason"].as_str().unwrap().contains("it alarms on"), "{refused}");
    // What was published meanwhile came from the old model.
    let versions = payloads(&subscriber, "/anomaly");
    assert!(versions.iter().all(|e| e["data"]["model"]["version"] == "0.1.0"));
}

#[test]
fn a_bundle_for_others_or_under_a_wrong_version_is_not_taken() {
    let device = Device::new("group = \"berlin\"\nhardware = \"orin\"", "");
    let (subscriber, agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "idle", "0.1.0");
    let to = |group: &str, hardware: &str| Publication {
        model: "press".into(),
        group: group.into(),
        hardware: hardware.into(),
        ..Publication::default()
    };
    device.publisher.publish_as(&variant("0.2.0", |_| {}), &to("hamburg", ""));
    device.publisher.publish_as(&variant("0.3.0", |_| {}), &to("", "nano"));
    let newer = Publication { agent: Some(">=99".parse().unwrap()), ..to("", "") };
    device.publisher.publish_as(&variant("0.4.0", |_| {}), &newer);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(last(&subscriber)["state"], "idle");
    device.publisher.publish_as(&variant("0.5.0", |_| {}), &to("berlin", "orin"));
    wait_for_state(&subscriber, &agent, "committed", "0.5.0");
}

#[test]
fn killed_in_every_state_the_agent_judges_with_the_old_or_the_new_model_and_goes_on() {
    // So slow that there is time to kill it while it downloads.
    let device = Device::new("max_rate_kib_s = 700", "");
    let new = variant("0.2.0", |_| {});
    device.publisher.publish(&new);
    for state in ["downloading", "trial"] {
        let (subscriber, agent) = (device.states(), device.start());
        wait_until(&format!("{state}: {:#?}", agent.lines()), || {
            model_states(&subscriber).iter().any(|s| s["state"] == state && s["version"] == "0.1.0")
        });
        agent.signal("KILL");
    }
    let (subscriber, agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    assert!(agent.saw("ended while 0.2.0 was on trial; it is tried once more"), "{:#?}", agent.lines());
}

#[test]
fn killed_twice_in_its_trial_a_model_is_barred() {
    let device = Device::new("", "");
    // A trial that waits for more frames than come.
    device.change("frames = 10", "frames = 100000");
    device.publisher.publish(&variant("0.2.0", |_| {}));
    for _ in 0..2 {
        let agent = device.start();
        agent.wait_for("a new bundle is on trial");
        agent.signal("KILL");
    }
    let (subscriber, agent) = (device.states(), device.start());
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    assert_eq!(refused["reason"], "the agent ended 2 times while it was on trial");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(last(&subscriber)["state"], "refused");
    // Ended as it should be, a trial is no failure.
    device.publisher.publish(&variant("0.3.0", |_| {}));
    let mut agent = agent;
    for _ in 0..3 {
        agent.wait_for("a new bundle is on trial");
        agent.signal("TERM");
        assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
        agent = device.start();
    }
    agent.wait_for("a new bundle is on trial");
    assert!(!agent.saw("it is tried once more"));
}

#[test]
fn commands_are_answered_and_done_once() {
    let device = Device::new("", "[commands]\nallow = [\"update-model\", \"rollback-model\"]\n");
    device.change("poll_interval_s = 1", "poll_interval_s = 86400");
    let (subscriber, mut agent) = (device.states(), device.start());
    wait_until("the first look", || last(&subscriber)["repository"]["checked_at"].is_string());
    // Nobody looks again by himself.
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let answer = ask(&device, "update-model/1", "{\"model\": \"press\"}");
    assert_eq!((&answer["ok"], &answer["id"]), (&Value::Bool(true), &Value::from("1")), "{answer}");
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    let answer = ask(&device, "rollback-model/2", "");
    assert_eq!(answer["message"], "demo 0.1.0 is in force");
    let back = wait_for_state(&subscriber, &agent, "rolled-back", "0.1.0");
    assert_eq!((back["reason"].as_str(), back["previous"]["version"].as_str()), (Some("by command"), Some("0.2.0")));
    // The same command once more, also after a restart, is answered and not done.
    assert_eq!(ask(&device, "rollback-model/2", "")["message"], "demo 0.1.0 is in force");
    agent.signal("TERM");
    agent.ended();
    let agent = device.start();
    wait_for_state(&subscriber, &agent, "rolled-back", "0.1.0");
    assert_eq!(ask(&device, "rollback-model/2", "")["message"], "demo 0.1.0 is in force");
    assert_eq!(last(&subscriber)["version"], "0.1.0");
    // What was left by command is not taken again by itself, and is by force.
    assert_eq!(ask(&device, "update-model/3", "")["ok"], true);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(last(&subscriber)["version"], "0.1.0");
    ask(&device, "update-model/4", "{\"force\": true}");
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    // Wrong ones.
    for (topic, payload, sentence) in [
        ("update-model/5", "{\"mode\": 1}", "the payload is none of this command: unknown field `mode`"),
        ("update-model/6", "no json", "the payload is none of this command"),
        ("update-model/7", "{\"model\": \"lid\"}", "there is no model \"lid\" here; there are: press"),
        ("format-disk/8", "", "format-disk is not allowed here; commands.allow has: update-model, rollback-model"),
    ] {
        let answer = ask(&device, topic, payload);
        assert_eq!(answer["ok"], false);
        assert!(answer["message"].as_str().unwrap().contains(sentence), "{answer}");
    }
    let huge = ask(&device, "update-model/9", &format!("\"{}\"", "x".repeat(5000)));
    assert!(huge["message"].as_str().unwrap().contains("expected up to 4096"), "{huge}");
    // A retained command would be done at every start.
    let mut retained = program("mosquitto_pub");
    retained.args(["-h", "127.0.0.1", "-r", "-q", "1", "-p", &device.broker.port.to_string()]);
    retained.args(["-t", &format!("{PREFIX}/cmd/rollback-model/10"), "-m", "{}"]);
    assert!(retained.status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    drop(agent);
    let agent = device.start();
    agent.wait_for("rollback-model 10 is retained on the broker and is not done");
}

#[test]
fn a_withdrawn_model_is_left() {
    let device = Device::new("", "");
    let (subscriber, agent) = (device.states(), device.start());
    device.publisher.publish(&variant("0.2.0", |_| {}));
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    block_on(device.publisher.open().revoke("0.2.0", &device.publisher.keys)).unwrap();
    let back = wait_for_state(&subscriber, &agent, "rolled-back", "0.1.0");
    assert_eq!(back["reason"], "the publisher withdrew it");
    wait_until("the camera names the old model", || {
        payloads(&subscriber, "camera/cam/state").last().is_some_and(|s| s["model"]["version"] == "0.1.0")
    });
}

#[test]
fn a_portal_or_a_forger_in_place_of_the_repository_changes_nothing() {
    let device = Device::new("", "");
    let (subscriber, agent) = (device.states(), device.start());
    device.publisher.publish(&variant("0.2.0", |_| {}));
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    let timestamp = device.publisher.repository().join("metadata/timestamp.json");
    let good = std::fs::read(&timestamp).unwrap();
    for (bytes, sentence) in [
        (b"<html>Log in</html>".to_vec(), "a portal that wants a login"),
        (
            String::from_utf8(good.clone()).unwrap().replace("\"version\": 2", "\"version\": 9").into_bytes(),
            "its timestamp is signed by 0 of the 1 keys",
        ),
    ] {
        std::fs::write(&timestamp, bytes).unwrap();
        wait_until(&format!("{sentence}: {:#?}", last(&subscriber)), || {
            last(&subscriber)["repository"]["trouble"].as_str().is_some_and(|t| t.contains(sentence))
        });
        assert_eq!(last(&subscriber)["version"], "0.2.0");
        std::fs::write(&timestamp, &good).unwrap();
        wait_until("the trouble is over", || last(&subscriber)["repository"]["trouble"] == "");
    }
}

#[test]
fn with_require_signed_a_bundle_by_hand_is_refused_until_it_is_published() {
    let device = Device::new("require_signed = true", "");
    let digest = Bundle::read(&bundle()).unwrap().digest;
    let sentence = format!(
        "updates: the bundle {} is not signed: its digest {digest} is no target of the repository (update.require_signed)",
        bundle().display()
    );
    refuses(&mut agent(&["run", "--config", &device.config]), &sentence);
    device.publisher.publish(&std::fs::read(bundle()).unwrap());
    let (subscriber, running) = (device.states(), device.start());
    wait_until(&format!("it judges: {:#?}", running.lines()), || last(&subscriber)["version"] == "0.1.0");
}

#[test]
fn slots_are_looked_at_and_changed_by_hand() {
    let device = Device::new("", "");
    let (subscriber, mut running) = (device.states(), device.start());
    device.publisher.publish(&variant("0.2.0", |_| {}));
    wait_for_state(&subscriber, &running, "committed", "0.2.0");
    let model = |args: &[&str]| {
        let output = agent(&[&["model"], args, &["--config", &device.config]].concat()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output))
    };
    let (code, said) = model(&["rollback"]);
    let asked =
        "ckaad-agent: the agent runs; ask it by the command rollback-model (`commands.allow`), or stop it first\n";
    assert_eq!((code, said.as_str()), (Some(2), asked));
    running.signal("TERM");
    running.ended();
    let (code, said) = model(&["list"]);
    assert!(code == Some(0) && said.contains("press  in force   0.2.0"), "{said}");
    let (code, said) = model(&["rollback"]);
    assert!(code == Some(0) && said.contains("the bundle of the configuration"), "{said}");
    let (code, said) = model(&["activate", "0.2.0"]);
    assert!(code == Some(0) && said.contains("0.2.0 is in force"), "{said}");
    let (code, said) = model(&["activate", "7.0.0"]);
    assert_eq!((code, said.as_str()), (Some(2), "ckaad-agent: no bundle 7.0.0 is on this device\n"));
}

#[test]
fn the_doctor_looks_at_the_repository() {
    let device = Device::new("", "");
    let check = || {
        let output = agent(&["check", "--config", &device.config]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = check();
    assert!(
        said.contains("ok    updates: ") && said.contains("1 bundle") && said.contains("root 1 with the fingerprint"),
        "{said}"
    );
    let path = device.publisher.repository().join("metadata/timestamp.json");
    std::fs::write(&path, "{}").unwrap();
    assert!(
        check().contains("FAIL  updates: the update repository is refused: its timestamp cannot be read"),
        "{}",
        check()
    );
    std::fs::remove_file(path).unwrap();
    assert!(check().contains("is not there"), "{}", check());
}

#[test]
fn a_state_folder_that_takes_nothing_is_no_reason_not_to_inspect() {
    let device = Device::new("", "[commands]\nallow = [\"update-model\"]\n");
    let text = std::fs::read_to_string(&device.config).unwrap();
    let state = device.site.path().join("state");
    // No folder can be made below a file, not even by root.
    std::fs::write(&state, "a file").unwrap();
    assert!(text.contains(state.to_str().unwrap()));
    let (subscriber, agent) = (device.states(), device.start());
    device.publisher.publish(&variant("0.2.0", |_| {}));
    wait_until(&format!("it judges: {:#?}", agent.lines()), || {
        payloads(&subscriber, "camera/cam/state").last().is_some_and(|s| s["state"] == "running")
    });
    let said = last(&subscriber)["repository"]["trouble"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("cannot be used") && said.contains(state.to_str().unwrap()), "{said}");
    let answer = ask(&device, "update-model/1", "");
    assert!(answer["ok"] == false && answer["message"].as_str().unwrap().contains("cannot be used"), "{answer}");
}

#[test]
fn what_the_repository_says_and_cannot_be_kept_is_not_built_upon() {
    let device = Device::new("", "");
    let (subscriber, agent) = (device.states(), device.start());
    wait_until("the first look", || last(&subscriber)["repository"]["checked_at"].is_string());
    let trust = device.site.path().join("state/trust.json");
    std::fs::remove_file(&trust).unwrap();
    std::fs::create_dir(&trust).unwrap();
    device.publisher.publish(&variant("0.2.0", |_| {}));
    wait_until(&format!("the trouble is told: {:#?}", agent.lines()), || {
        last(&subscriber)["repository"]["trouble"].as_str().is_some_and(|t| t.contains("cannot be kept"))
    });
    // Nor at the next look, which sees nothing new.
    agent.wait_for("cannot be kept");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(last(&subscriber)["state"], "idle");
    std::fs::remove_dir(&trust).unwrap();
    wait_until("it is over", || last(&subscriber)["state"] == "committed");
}

#[test]
fn what_was_on_its_way_and_is_not_offered_any_more_is_given_up() {
    let device = Device::new("", "");
    device.change("frames = 10", "frames = 100000");
    let bundle = variant("0.2.0", |_| {});
    device.publisher.publish(&bundle);
    let mut agent = device.start();
    agent.wait_for("a new bundle is on trial");
    agent.signal("TERM");
    agent.ended();
    let elsewhere = Publication { model: "press".into(), group: "elsewhere".into(), ..Publication::default() };
    device.publisher.publish_as(&bundle, &elsewhere);
    let (subscriber, agent) = (device.states(), device.start());
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    assert_eq!(refused["reason"], "the repository does not offer it to this device any more");
}

/// The README's story, with the trainer's binary beside ours.
#[test]
fn the_story_of_the_readme_comes_to_its_end() {
    let bin = Path::new(env!("CARGO_BIN_EXE_ckaad-agent")).parent().unwrap();
    for program in ["ckaad-train", "examples/repack"] {
        assert!(
            bin.join(program).exists(),
            "{program} is not beside ckaad-agent; build the whole workspace: cargo nextest run --workspace"
        );
    }
    let output = Command::new(in_repository("examples/update-story")).env("CKAAD_BIN", bin).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", stderr(&output));
    for line in [
        "left   committed  judges with 0.3.0",
        "right  refused    judges with 0.2.0",
        "right  rolled-back judges with 0.1.0",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
}

/// Parts that several views show, as long as the line runs: pictures of a hot folder, three a part.
struct PartsLine {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl PartsLine {
    fn start(folder: &Path) -> PartsLine {
        let (stop, folder) = (Arc::new(AtomicBool::new(false)), folder.to_owned());
        let stopped = stop.clone();
        let feed = move || {
            for part in 0.. {
                let here = folder.join(format!("p{part}"));
                std::fs::create_dir_all(&here).unwrap();
                for (i, view) in ["top", "left", "right"].into_iter().enumerate() {
                    if stopped.load(Relaxed) {
                        return;
                    }
                    let grey = 60 + 5 * ((part + i as u32) % 7) as u8;
                    let new = folder.join("new.part");
                    image::RgbImage::from_pixel(48, 32, image::Rgb([grey; 3]))
                        .save_with_format(&new, image::ImageFormat::Png)
                        .unwrap();
                    std::fs::rename(new, here.join(format!("{view}.png"))).unwrap();
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        };
        PartsLine { stop, thread: Some(std::thread::spawn(feed)) }
    }
}

impl Drop for PartsLine {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_model_that_looks_across_views_is_tried_on_whole_parts() {
    let device = Device::new("", "");
    let folder = device.site.path().join("parts");
    std::fs::create_dir_all(&folder).unwrap();
    let own = device.site.path().join("across.ckaad");
    std::fs::write(&own, across_views("0.1.0")).unwrap();
    device.change(&format!("{:?}", bundle()), &format!("{own:?}"));
    device.change("source = \"synthetic\"", "source = \"directory\"");
    device.change(
        "[camera.cam.synthetic]\nfps = 60\n",
        &format!(
            "[camera.cam.directory]\npath = {folder:?}\nmode = \"watch\"\nsettle_ms = 50\nafter = \"remove\"\n\
             [camera.cam.parts]\nviews = [\"left\", \"right\", \"top\"]\n"
        ),
    );
    let (subscriber, agent) = (device.states(), device.start());
    wait_for_state(&subscriber, &agent, "idle", "0.1.0");
    let line = PartsLine::start(&folder);
    // One of a single view fits no camera here; it is not barred, for what is in force decided.
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    let why = "it takes one view of a part at once, the model in force the views top, left, right";
    assert!(refused["reason"].as_str().unwrap().contains(why), "{refused}");
    device.publisher.publish(&across_views("0.3.0"));
    let committed = wait_for_state(&subscriber, &agent, "committed", "0.3.0");
    assert!(committed["reason"].as_str().unwrap().contains("live frames judged by both"), "{committed}");
    drop(line);
}
