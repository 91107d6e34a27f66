//! What fails, fails here: parts of the agent that panic, and the disk below its updates, at every step that is to be durable. The binary is built
//! with the feature `failpoints` for that (`./dev test` does); the variable FAILPOINTS says where, how often, and how.

use crate::device::*;
use crate::util::*;
use ckaad_testing::volume::Volume;
use serde_json::Value;
use std::collections::BTreeSet;

/// Runs the agent with places that fail.
fn run_with(config: &str, failpoints: &str) -> Running {
    let mut command = agent(&["run", "--config", config]);
    command.env("FAILPOINTS", failpoints);
    Running::spawn(command)
}

/// A synthetic line with an end, all of whose parts are defective.
fn site(frames: u32, more: &str) -> (Site, Mosquitto, String) {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let camera =
        format!("source = \"synthetic\"\n[camera.cam.synthetic]\nframes = {frames}\nfps = 20\ndefect_rate = 1.0\n");
    let config = site.write(broker.port, &camera, more);
    (site, broker, config)
}

#[test]
fn a_camera_that_panics_is_started_again_and_its_events_go_on() {
    let (_site, broker, config) = site(40, "[camera.cam.heatmap]\nenabled = false\n");
    let subscriber = broker.subscribe();
    let mut agent = run_with(&config, "camera-judge=10*off->1*panic->off");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(
        agent.saw("camera cam: it panicked: failpoint camera-judge panic; it is started again in 1 s"),
        "{:#?}",
        agent.lines()
    );
    let states = payloads(&subscriber, "camera/cam/state");
    let told = |s: &Value| {
        let reason = s["reason"].as_str().unwrap_or_default();
        s["state"] == "disabled" && reason.starts_with("its inspection failed and is started again: it panicked")
    };
    assert!(states.iter().any(told), "{states:#?}");
    // Ten before, forty of the source that was opened anew; numbers and counts go on.
    let sequence: Vec<u64> =
        payloads(&subscriber, "/anomaly").iter().map(|e| e["data"]["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (0..50).collect::<Vec<_>>());
    assert!(agent.saw("cam: 50 frames judged"), "{:#?}", agent.lines());
}

#[test]
fn a_camera_that_panics_for_ever_ends_the_agent_while_another_lives() {
    let more =
        format!("[camera.other]\nsource = \"synthetic\"\nbundle = {:?}\n[camera.other.synthetic]\nfps = 5\n", bundle());
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let images = site.images("parts", &["a"]);
    let config = site.config(broker.port, &images, "", &more);
    // The third frame of whichever camera, and from then on each third.
    let mut agent = run_with(&config, "camera-judge=2*off->panic");
    assert_eq!(agent.ended(), Some(1), "{:#?}", agent.lines());
    assert!(
        agent.saw("it was the third time within ten minutes") && agent.saw("failed three times within ten minutes"),
        "{:#?}",
        agent.lines()
    );
}

#[test]
fn an_outbox_that_panics_is_started_again_and_says_what_it_lost() {
    let (_site, broker, config) = site(40, "[camera.cam.heatmap]\nenabled = false\n");
    let subscriber = broker.subscribe();
    let mut agent = run_with(&config, "outbox-put=3*off->1*panic->off");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.saw("outbox: it panicked"), "{:#?}", agent.lines());
    let frames: BTreeSet<String> = alerted(&subscriber).into_iter().collect();
    let lost = 40 - frames.len();
    assert!(lost > 0 && agent.saw(&format!("outbox: 0 wait, {lost} dropped")), "{lost} lost: {:#?}", agent.lines());
}

#[test]
fn a_session_and_health_that_panic_lose_nothing() {
    let (_site, broker, config) = site(60, "[camera.cam.heatmap]\nenabled = false\n");
    let text = std::fs::read_to_string(&config).unwrap().replace("[agent]\n", "[agent]\nhealth_interval_s = 1\n");
    std::fs::write(&config, text).unwrap();
    let subscriber = broker.subscribe();
    let mut agent = run_with(&config, "session=1*panic->off;health=1*panic->off");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.saw("session: it panicked") && agent.saw("health: it panicked"), "{:#?}", agent.lines());
    assert_eq!(alerted(&subscriber).len(), 60);
    let health = payloads(&subscriber, "health").pop().unwrap();
    assert_eq!((&health["restarts"]["session"], &health["restarts"]["health"]), (&1.into(), &1.into()), "{health}");
}

#[test]
fn updates_and_commands_that_panic_are_started_again() {
    let device = Device::new("", "[commands]\nallow = [\"update-model\"]\n");
    let subscriber = device.states();
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let agent = run_with(&device.config, "updates=1*panic->off;commands=1*panic->off;begin=1*off->off");
    agent.wait_for("updates: it panicked");
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    // The first is not answered; who asks asks again.
    ask(&device, "update-model/1", "");
    assert!(agent.saw("commands: it panicked"), "{:#?}", agent.lines());
}

/// To load and examine a model takes seconds on a small device, longer than a stop may take.
#[test]
fn while_a_new_model_is_examined_commands_are_heard_and_the_agent_can_end() {
    let device = Device::new("", "[commands]\nallow = [\"update-model\"]\n");
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let mut agent = run_with(&device.config, "examine=sleep(60000)");
    agent.wait_for("a new bundle is on trial");
    let answer = ask(&device, "update-model/1", "");
    assert!(answer["message"].as_str().is_some_and(|said| said.contains("is looked at")), "{answer}");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    // It was no unclean end: the trial begins anew.
    let subscriber = device.states();
    let agent = device.start();
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    assert!(!agent.saw("ended while 0.2.0 was on trial"), "{:#?}", agent.lines());
}

#[test]
fn a_rollback_by_command_gives_up_a_model_that_is_examined() {
    let device = Device::new("", "[commands]\nallow = [\"rollback-model\"]\n");
    let subscriber = device.states();
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let agent = run_with(&device.config, "examine=1*sleep(4000)->off");
    agent.wait_for("a new bundle is on trial");
    ask(&device, "rollback-model/1", "");
    let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
    assert!(refused["reason"].as_str().unwrap().contains("given up for a rollback"), "{refused}");
    // What was examined meanwhile is not put in force: the next look at the repository begins a trial of its own.
    wait_for_state(&subscriber, &agent, "committed", "0.2.0");
    let trials = agent.lines().iter().filter(|line| line.contains("a new bundle is on trial")).count();
    assert_eq!(trials, 2, "{:#?}", agent.lines());
}

/// A step towards a new model, as the disk sees it, and how it fails.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    OnceByError,
    ForeverByError,
    OnceByCut,
    ForeverByCut,
}

/// In the order in which they come. In the middle of a download the tenth piece is meant.
const STEPS: [&str; 11] = [
    "trust",
    "begin",
    "part-open",
    "part-etag",
    "part",
    "part-end",
    "verified",
    "stage",
    "staged",
    "begin-trial",
    "commit",
];

/// Lets one step fail and looks at what judges: at every start exactly the old or exactly the new model, and at the end, when the disk is well again,
/// the new one; but for one that was cut off in its trial twice.
fn step_fails(device: &mut Device, new: &str, step: &str, fails: Fails) {
    device.forget_all();
    let old = ckaad_bundle::Bundle::read(&bundle()).unwrap().digest;
    // Cut at every start, a download in pieces gets on; so the first piece of each start is meant there.
    let before = if step == "part" && fails != Fails::ForeverByCut { "9*off->" } else { "" };
    let failpoints = match fails {
        Fails::OnceByError => format!("{step}={before}1*return->off"),
        Fails::ForeverByError => format!("{step}={before}return"),
        Fails::OnceByCut | Fails::ForeverByCut => format!("{step}={before}return(cut)"),
    };
    let judges = |subscriber: &Running, agent: &Running, digest: &[&str]| {
        wait_until(&format!("{step}: a frame is judged: {:#?}", agent.lines()), || {
            let last = payloads(subscriber, "camera/cam/state").pop().unwrap_or_default();
            last["state"] == "running" && digest.iter().any(|digest| last["model"]["digest"] == *digest)
        });
    };
    let times = match fails {
        Fails::ForeverByCut => 3,
        _ => 1,
    };
    for start in 0..times {
        let subscriber = device.states();
        let mut agent = run_with(&device.config, &failpoints);
        match fails {
            Fails::OnceByError => {
                judges(&subscriber, &agent, &[&old, new]);
                wait_for_state(&subscriber, &agent, "committed", "0.2.0");
                judges(&subscriber, &agent, &[new]);
            }
            Fails::ForeverByError => {
                judges(&subscriber, &agent, &[&old]);
                wait_until(&format!("{step}: it is told: {:#?}", agent.lines()), || {
                    agent.saw("the disk fails, as a test wants it to")
                });
                std::thread::sleep(std::time::Duration::from_secs(1));
                judges(&subscriber, &agent, &[&old]);
                agent.signal("TERM");
                assert_eq!(agent.ended(), Some(0), "{step}: {:#?}", agent.lines());
            }
            Fails::OnceByCut | Fails::ForeverByCut => {
                // A later start may not get there: the bundle is barred, or the part is whole already.
                let past = || start > 0 && matches!(last(&subscriber)["state"].as_str(), Some("refused" | "committed"));
                wait_until(&format!("{step}: it is cut off: {:#?}", agent.lines()), || agent.is_over() || past());
            }
        }
        assert!(!agent.saw("panicked"), "{step}: {:#?}", agent.lines());
    }
    let subscriber = device.states();
    let agent = device.start();
    if step == "commit" && fails == Fails::ForeverByCut {
        wait_for_state(&subscriber, &agent, "refused", "0.1.0");
        judges(&subscriber, &agent, &[&old]);
    } else {
        wait_for_state(&subscriber, &agent, "committed", "0.2.0");
        judges(&subscriber, &agent, &[new]);
    }
}

fn every_step(fails: Fails) {
    let mut device = Device::new("", "");
    let new = device.publisher.publish(&variant("0.2.0", |_| {}));
    STEPS.iter().for_each(|step| step_fails(&mut device, &new, step, fails));
}

#[test]
fn every_step_whose_disk_fails_once() {
    every_step(Fails::OnceByError);
}

#[test]
fn every_step_whose_disk_fails_for_ever() {
    every_step(Fails::ForeverByError);
}

#[test]
fn every_step_at_which_the_power_fails_once() {
    every_step(Fails::OnceByCut);
}

#[test]
fn every_step_at_which_the_power_fails_at_every_start() {
    every_step(Fails::ForeverByCut);
}

/// The power fails for real: the state lies on an ext4 that the kernel cuts off while the agent stands at a step, and the agent is gone with it.
#[test]
fn the_power_fails_at_every_step_of_the_running_agent() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::make(folder.path()) else { return };
    let mut device = Device::new("", "");
    let new = device.publisher.publish(&variant("0.2.0", |_| {}));
    let (mut kept_old, mut kept_new) = (0, 0);
    for step in STEPS.iter().chain(&["swap"]) {
        device.move_to(&volume.at.join(step));
        let subscriber = device.states();
        let before = if *step == "part" { "9*off->" } else { "" };
        let mut agent = run_with(&device.config, &format!("{step}={before}return(hold)"));
        agent.wait_for(&format!("held at {step}"));
        wait_until("the old model judges on", || {
            let last = payloads(&subscriber, "camera/cam/state").pop().unwrap_or_default();
            last["state"] == "running" && last["model"]["version"] == "0.1.0"
        });
        volume.cut();
        agent.signal("KILL");
        agent.ended();
        volume.mount_again();
        // Without a repository, so that it is seen which one the disk has.
        let repository = device.publisher.repository();
        let away = repository.with_extension("away");
        std::fs::rename(&repository, &away).unwrap();
        let subscriber = device.states();
        wait_until("what the agent before said last", || !payloads(&subscriber, "camera/cam/state").is_empty());
        let mut agent = device.start();
        let mut judges = Value::Null;
        wait_until(&format!("{step}: it judges: {:#?}", agent.lines()), || {
            let last = payloads(&subscriber, "camera/cam/state").into_iter().skip(1).last().unwrap_or_default();
            judges = last["model"]["version"].clone();
            last["state"] == "running"
        });
        if judges == "0.2.0" {
            kept_new += 1
        } else {
            kept_old += 1
        }
        assert_eq!(judges, if *step == "swap" { "0.2.0" } else { "0.1.0" }, "{step}");
        agent.signal("TERM");
        assert_eq!(agent.ended(), Some(0), "{step}: {:#?}", agent.lines());
        std::fs::rename(&away, &repository).unwrap();
        let subscriber = device.states();
        let mut agent = device.start();
        let committed = wait_for_state(&subscriber, &agent, "committed", "0.2.0");
        assert_eq!(committed["digest"], new.as_str(), "{step}");
        agent.signal("TERM");
        agent.ended();
        // Its disk is small, and an update asks for room.
        std::fs::remove_dir_all(volume.at.join(step)).unwrap();
    }
    eprintln!(
        "after {} cuts the old bundle judged {kept_old} times, the new one {kept_new} times",
        kept_old + kept_new
    );
}

/// The ways back, each failing once by an error and by a cut: refusing, withdrawing, ending in a trial.
#[test]
fn the_ways_back_whose_disk_fails() {
    for failpoints in ["refuse=1*return->off", "refuse=return(cut)"] {
        let device = Device::new("", "");
        device
            .publisher
            .publish(&variant("0.2.0", |draft| draft.golden.iter_mut().for_each(|g| g.expected.score += 1.0)));
        let subscriber = device.states();
        let mut agent = run_with(&device.config, failpoints);
        wait_until(&format!("{failpoints}: {:#?}", agent.lines()), || agent.is_over() || agent.saw("the disk fails"));
        drop(agent);
        let agent = device.start();
        let refused = wait_for_state(&subscriber, &agent, "refused", "0.1.0");
        assert!(refused["reason"].as_str().unwrap().contains("golden samples"), "{refused}");
    }
    for failpoints in
        ["withdraw=1*return->off", "withdraw=return(cut)", "roll-back=1*return->off", "roll-back=return(cut)"]
    {
        let device = Device::new("", "");
        let subscriber = device.states();
        device.publisher.publish(&variant("0.2.0", |_| {}));
        let mut agent = device.start();
        wait_for_state(&subscriber, &agent, "committed", "0.2.0");
        agent.signal("TERM");
        agent.ended();
        block_on(device.publisher.open().revoke("0.2.0", &device.publisher.keys)).unwrap();
        let mut agent = run_with(&device.config, failpoints);
        wait_until(&format!("{failpoints}: {:#?}", agent.lines()), || {
            agent.is_over() || last(&subscriber)["state"] == "rolled-back"
        });
        drop(agent);
        let agent = device.start();
        wait_for_state(&subscriber, &agent, "rolled-back", "0.1.0");
    }
    let device = Device::new("", "");
    device.change("frames = 10", "frames = 100000");
    device.publisher.publish(&variant("0.2.0", |_| {}));
    let mut agent = run_with(&device.config, "suspend-trial=return");
    agent.wait_for("a new bundle is on trial");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    // It could not be kept that this end was a good one: it counts as the first of two.
    let agent = device.start();
    agent.wait_for("ended while 0.2.0 was on trial; it is tried once more");
}
