use super::*;
use ckaad_testing::preloadable;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

fn config(change: impl FnOnce(&mut CameraConfig)) -> CameraConfig {
    let mut config = CameraConfig { device: "/dev/video77".into(), ..CameraConfig::default() };
    change(&mut config);
    config
}

#[test]
fn values_that_no_camera_can_have_are_named() {
    for (change, key, reason) in [
        (
            (|c| c.device = PathBuf::new()) as fn(&mut CameraConfig),
            "device.device",
            "is empty; expected a camera such as /dev/video0",
        ),
        (|c| c.frame_deadline_ms = 49, "device.frame_deadline_ms", "is 49; expected 50 or more"),
        (|c| c.width = 640, "device.width", "is 640 and `device.height` is 0; expected both, or both 0"),
        (|c| c.height = 480, "device.width", "is 0 and `device.height` is 480; expected both, or both 0"),
    ] {
        assert_eq!(config(change).check(), Err(BadValue { key, reason: reason.into() }));
    }
    assert_eq!(config(|c| c.frame_deadline_ms = 50).check(), Ok(()));
    assert_eq!(config(|c| (c.width, c.height) = (640, 480)).check(), Ok(()));
}

fn offers(formats: &[(&str, u32, u32, u32)]) -> Device {
    let formats =
        formats.iter().map(|&(fourcc, width, height, fps)| DeviceFormat { fourcc: fourcc.into(), width, height, fps });
    Device { path: "/dev/video77".into(), card: "card".into(), driver: "driver".into(), formats: formats.collect() }
}

#[test]
fn the_largest_size_up_to_full_hd_is_chosen_uncompressed_and_fast() {
    let device = offers(&[
        ("MJPG", 1920, 1080, 60),
        ("YUYV", 1920, 1080, 5),
        ("NV12", 1920, 1080, 30),
        ("YUYV", 1920, 1080, 10),
        ("YUYV", 1921, 1080, 5),
        ("YUYV", 1920, 1081, 5),
        ("RGB3", 640, 480, 120),
        ("XXXX", 1920, 1080, 240),
    ]);
    let chosen = |change: fn(&mut CameraConfig)| choose(&device, &config(change)).unwrap();
    let format = |w, h, format, fps| CameraFormat::new(Resolution::new(w, h), format, fps);
    assert_eq!(chosen(|_| ()), format(1920, 1080, FrameFormat::YUYV, 10));
    assert_eq!(chosen(|c| c.fps = 30), format(1920, 1080, FrameFormat::NV12, 30));
    assert_eq!(chosen(|c| c.fps = 60), format(1920, 1080, FrameFormat::MJPEG, 60));
    // A size that was asked for may be larger than one that is chosen by itself.
    assert_eq!(chosen(|c| (c.width, c.height) = (1921, 1080)), format(1921, 1080, FrameFormat::YUYV, 5));
    assert_eq!(chosen(|c| (c.width, c.height) = (640, 480)), format(640, 480, FrameFormat::RAWRGB, 120));

    // The largest has the most pixels, not the longest sides.
    let device = offers(&[("YUYV", 640, 480, 30), ("YUYV", 1900, 100, 30)]);
    assert_eq!(choose(&device, &config(|_| ())).unwrap(), format(640, 480, FrameFormat::YUYV, 30));

    let device = offers(&[("YUYV", 640, 480, 30), ("XXXX", 320, 240, 15)]);
    assert_eq!(
        choose(&device, &config(|c| (c.width, c.height, c.fps) = (320, 240, 15))).unwrap_err(),
        "/dev/video77 has no format for 320x240 at 15 fps that can be read (0 is any); it has: YUYV 640x480 at 30 fps, \
         XXXX 320x240 at 15 fps"
    );
}

#[test]
fn a_camera_has_its_number_whatever_link_leads_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let link = |target: &str, name: &str| {
        let path = folder.path().join(name);
        symlink(target, &path).unwrap();
        path
    };
    fs::write(folder.path().join("video12"), "").unwrap();
    let device = folder.path().join("video12");
    assert_eq!(index_of(&device), Some(12));
    let there = link("video12", "there");
    assert_eq!(index_of(&there), Some(12));
    // Unplugged: the links lead to nothing.
    let gone = link("video13", "gone");
    assert_eq!(index_of(&gone), Some(13));
    fs::create_dir(folder.path().join("by-id")).unwrap();
    assert_eq!(index_of(&link("../gone", "by-id/camera")), Some(13));
    let longest = (0..40).fold(String::from("video14"), |target, n| {
        link(&target, &format!("hop{n}"));
        format!("hop{n}")
    });
    assert_eq!(index_of(&folder.path().join(longest)), Some(14));
    link("there-and-back", "circle");
    assert_eq!(index_of(&link("circle", "there-and-back")), None);
    for none in ["/dev/videoX", "/dev/video", "/dev/radio0", "/"] {
        assert_eq!(index_of(Path::new(none)), None, "{none}");
    }
    for name in ["video2", "video-link", "radio1", "video"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    assert_eq!(indices_in(folder.path()), [2, 12]);
    assert!(indices_in(&folder.path().join("nowhere")).is_empty());
}

/// A source whose grabber is the test.
fn source(change: impl FnOnce(&mut CameraConfig)) -> CameraSource {
    CameraSource {
        config: config(change),
        shared: Arc::new(Shared::default()),
        started: Instant::now(),
        condition: None,
        held: None,
        last_hash: 0,
        same: 0,
    }
}

fn grey(sequence: u64, value: u8) -> RawFrame {
    let format = CameraFormat::new(Resolution::new(4, 2), FrameFormat::RAWRGB, 30);
    RawFrame { data: vec![value; 24], format, captured_at: Timestamp::now(), sequence }
}

fn give(source: &CameraSource, frame: RawFrame) {
    source.shared.set(|slot| {
        slot.alive_at = Some(Instant::now());
        slot.newest = Some(frame);
    });
}

fn frame(next: Next) -> Frame {
    match next {
        Next::Frame(frame) => frame,
        other => panic!("{other:?} instead of a frame"),
    }
}

fn condition(next: Next) -> Condition {
    match next {
        Next::Condition(condition) => condition,
        other => panic!("{other:?} instead of a condition"),
    }
}

#[test]
fn a_change_of_condition_is_told_once_and_before_its_frame() {
    let mut source = source(|c| c.frame_deadline_ms = 5000);
    assert!(matches!(source.next(), Next::Idle), "it is being opened");
    give(&source, grey(3, 9));
    assert_eq!(condition(source.next()), Condition::Running);
    let first = frame(source.next());
    assert_eq!((first.id.as_str(), first.sequence, first.truth), ("frame-00000003", 3, None));
    assert_eq!((first.image.dimensions(), first.image.get_pixel(0, 0).0), ((4, 2), [9; 3]));
    give(&source, grey(4, 10));
    assert_eq!(frame(source.next()).sequence, 4);
    assert!(matches!(source.next(), Next::Idle), "the deadline is not over");
    source.shared.set(|slot| slot.alive_at = slot.alive_at.and_then(|at| at.checked_sub(Duration::from_millis(5001))));
    let stalled = Condition::Stalled("no new frame from /dev/video77 for 5000 ms".into());
    assert_eq!(condition(source.next()), stalled);
    assert!(matches!(source.next(), Next::Idle));
    source.shared.set(|slot| slot.unplugged = Some("it is gone".into()));
    assert_eq!(condition(source.next()), Condition::Unplugged("it is gone".into()));
    source.shared.set(|slot| slot.unplugged = Some("it is still gone".into()));
    assert!(matches!(source.next(), Next::Idle), "the sentence alone is no change");
    source.shared.set(|slot| slot.unplugged = None);
    give(&source, grey(5, 11));
    assert_eq!(condition(source.next()), Condition::Running);
    assert_eq!(frame(source.next()).sequence, 5);
    source.shared.set(|slot| slot.dropped = 7);
    assert_eq!(source.dropped(), 7);
}

#[test]
fn a_driver_that_hangs_while_it_opens_is_a_stall() {
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    let mut opening = source(|_| ());
    opening.started = ago(9);
    assert!(matches!(opening.next(), Next::Idle));
    opening.started = ago(11);
    assert!(matches!(condition(opening.next()), Condition::Stalled(_)));
    // A camera that may take longer for a frame may take longer to open.
    let mut patient = source(|c| c.frame_deadline_ms = 20_000);
    patient.started = ago(11);
    assert!(matches!(patient.next(), Next::Idle));
}

#[test]
fn the_same_picture_again_and_again_is_frozen() {
    let mut source = source(|c| c.frozen_after_frames = 2);
    for n in 0..2 {
        give(&source, grey(n, 1));
        if n == 0 {
            assert_eq!(condition(source.next()), Condition::Running);
        }
        assert_eq!(frame(source.next()).sequence, n);
    }
    give(&source, grey(2, 1));
    let frozen = Condition::Frozen("/dev/video77 has given the same frame 2 times".into());
    assert_eq!(condition(source.next()), frozen);
    give(&source, grey(3, 1));
    assert!(matches!(source.next(), Next::Idle));
    give(&source, grey(4, 2));
    assert_eq!(condition(source.next()), Condition::Running);
    assert_eq!(frame(source.next()).sequence, 4);
    give(&source, grey(5, 2));
    assert_eq!(frame(source.next()).sequence, 5, "it is counted anew");

    source.config.frozen_after_frames = 0;
    for n in 6..10 {
        give(&source, grey(n, 2));
        assert_eq!(frame(source.next()).sequence, n);
    }
}

#[test]
fn a_frame_that_cannot_be_decoded_is_passed_over() {
    let mut source = source(|_| ());
    give(&source, RawFrame { data: vec![0; 23], ..grey(8, 0) });
    let Next::Skipped(why) = source.next() else { panic!("not skipped") };
    let sentence = "the frame 8 of /dev/video77 cannot be decoded: 23 bytes came, 4x2 RGB888 has 24";
    assert_eq!(why.to_string(), sentence.replace("RGB888", &FrameFormat::RAWRGB.to_string()));
    give(&source, grey(9, 0));
    assert_eq!(condition(source.next()), Condition::Running);
}

/// The grabber against the driver of tests/fixtures, in a process of its own that has it preloaded: this test calls itself.
#[test]
fn the_grabber_opens_reads_and_opens_again() {
    const CONTROL: &str = "CKAAD_TEST_CAMERA";
    if let Some(control) = std::env::var_os(CONTROL) {
        return grab_from_the_shim(Path::new(&control));
    }
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    fs::write(&control, "ok").unwrap();
    let name = "capture::camera::tests::the_grabber_opens_reads_and_opens_again";
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture"]).env(CONTROL, &control).env("SHIM_CTL", &control);
    again.env("SHIM_DEV", "/dev/video77").env("LD_PRELOAD", preloadable(folder.path(), "v4l2shim.c"));
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn grab_from_the_shim(control: &Path) {
    let camera = |state: &str| fs::write(control, state).unwrap();
    let device = Device::read(77).unwrap();
    assert_eq!((device.card.as_str(), device.driver.as_str(), device.formats.len()), ("Shim camera", "v4l2shim", 18));
    assert_eq!(device.formats[0].to_string(), "YUYV 320x180 at 15 fps");
    assert_eq!(Device::read(78).unwrap_err(), "cannot open /dev/video78: No such file or directory (os error 2)");
    let why = |change: fn(&mut CameraConfig)| open(&config(change)).err().unwrap();
    assert_eq!(why(|c| c.device = "/dev/nothing".into()), "/dev/nothing is not there, or no /dev/videoN");
    assert!(why(|c| c.fps = 7).starts_with("/dev/video77 has no format for 0x0 at 7 fps"));

    let small = config(|c| {
        (c.width, c.height, c.fps) = (320, 180, 30);
        (c.frame_deadline_ms, c.frozen_after_frames) = (2000, 10);
    });
    let mut source = CameraSource::new(&small).unwrap();
    // The next that is not Idle.
    fn told(source: &mut CameraSource) -> Next {
        let begun = Instant::now();
        loop {
            match source.next() {
                Next::Idle => assert!(begun.elapsed() < Duration::from_secs(20), "nothing but Idle"),
                next => return next,
            }
        }
    }
    assert_eq!(condition(told(&mut source)), Condition::Running);
    let first = frame(told(&mut source));
    assert_eq!(first.image.dimensions(), (320, 180));
    let [second, third] = [frame(told(&mut source)), frame(told(&mut source))];
    assert!(first.sequence < second.sequence && second.sequence < third.sequence);
    assert_ne!(second.image.get_pixel(0, 0), third.image.get_pixel(0, 0));
    // Nobody asks for half a second: the newest counts, and what lay before it and was not given was dropped.
    std::thread::sleep(Duration::from_millis(500));
    let (newest, dropped) = loop {
        let slot = source.shared.lock();
        if let Some(newest) = &slot.newest {
            break (newest.sequence, slot.dropped);
        }
    };
    assert!(newest > third.sequence + 5 && dropped == newest - 3, "{newest} {dropped}");
    let late = frame(told(&mut source));
    assert!(late.sequence >= newest);

    let mut last = late.sequence;
    let sentences = [
        ("stall", "no new frame from /dev/video77 for 2000 ms"),
        ("frozen", "/dev/video77 has given the same frame"),
        ("gone", "/dev/video77 is gone: "),
    ];
    for (state, sentence) in sentences {
        camera(state);
        let begun = Instant::now();
        let trouble = loop {
            match told(&mut source) {
                Next::Frame(frame) => last = frame.sequence,
                next => break condition(next),
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "nobody told of {state}");
        };
        let (kind, why) = match trouble {
            Condition::Stalled(why) => ("stall", why),
            Condition::Frozen(why) => ("frozen", why),
            Condition::Unplugged(why) => ("gone", why),
            Condition::Running => panic!("running"),
        };
        assert!(kind == state && why.starts_with(sentence), "{state}: {why}");
        if state == "gone" {
            // Opened again and again meanwhile, with pauses that grow: 0.5, 1 and 2 s.
            std::thread::sleep(Duration::from_secs(2));
        }
        camera("ok");
        let begun = Instant::now();
        assert_eq!(condition(told(&mut source)), Condition::Running);
        if state == "gone" {
            assert!(begun.elapsed() < Duration::from_secs(5) && begun.elapsed() > Duration::from_millis(500));
        }
        assert!(frame(told(&mut source)).sequence > last, "numbers go on");
    }
    // The pause begins anew with the first frame.
    camera("gone");
    while !matches!(told(&mut source), Next::Condition(Condition::Unplugged(_))) {}
    camera("ok");
    let begun = Instant::now();
    assert_eq!(condition(told(&mut source)), Condition::Running);
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());

    let shared = source.shared.clone();
    drop(source);
    assert!(shared.lock().ended, "the stream was stopped");
    // A driver that is silent for ever is left to itself.
    camera("ok");
    let mut source = CameraSource::new(&small).unwrap();
    while !matches!(told(&mut source), Next::Frame(_)) {}
    camera("stall");
    std::thread::sleep(Duration::from_millis(200));
    let (shared, begun) = (source.shared.clone(), Instant::now());
    drop(source);
    assert!(!shared.lock().ended && begun.elapsed() < Duration::from_secs(3) && shared.stopped());
    // A camera that is not there, told with its reason.
    let mut nowhere = CameraSource::new(&config(|c| c.device = "/dev/video78".into())).unwrap();
    let Condition::Unplugged(why) = condition(told(&mut nowhere)) else { panic!("plugged in") };
    assert_eq!(why, "cannot open /dev/video78: No such file or directory (os error 2)");
}
