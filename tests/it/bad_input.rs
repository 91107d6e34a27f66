//! What an operator gets wrong is answered with one clear sentence and the documented exit code.

use crate::util::*;

fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = agent(args).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "one sentence: {text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} in {text}"));
}

#[test]
fn typo_in_config_names_nearest_key() {
    let site = Site::new();
    let path = site.path().join("a.toml");
    let path_text = path.to_str().unwrap();
    for (text, parts) in [
        ("[mqtt]\nhsot = \"x\"", ["mqtt.hsot", "did you mean `host`"]),
        ("[mqqt]\nhost = \"x\"", ["mqqt", "did you mean `mqtt`"]),
        ("[camera.left]\ntreshold = 1.0", ["camera.left.treshold", "did you mean `threshold`"]),
        ("[camera.left.directory]\npaths = \"x\"", ["camera.left.directory.paths", "did you mean `path`"]),
    ] {
        std::fs::write(&path, text).unwrap();
        fails(&["run", "--config", path_text], 2, &[parts[0], parts[1], path_text]);
    }
}

#[test]
fn an_unknown_variable_is_named() {
    let site = Site::new();
    let config = site.config(1, &site.images("parts", &["a"]), "", "");
    let output = agent(&["run", "--config", &config]).env("CKAAD__MQTT__HOTS", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("CKAAD__MQTT__HOTS") && text.contains("did you mean `host`"), "{text}");
}

#[test]
fn wrong_values_name_file_and_key() {
    let site = Site::new();
    let path = site.path().join("a.toml");
    let path_text = path.to_str().unwrap();
    let camera = "[camera.a]\nsource = \"synthetic\"\n";
    for (text, key) in [
        (format!("{camera}[mqtt]\nkeep_alive_s = 1"), "mqtt.keep_alive_s"),
        (format!("{camera}[mqtt]\nport = \"many\""), "mqtt.port"),
        (format!("{camera}[mqtt]\nprotocol = \"4\""), "protocol"),
        (format!("{camera}[device]\nsite = \"a+b\""), "device"),
        ("[camera.\"Big Name\"]\nsource = \"synthetic\"".into(), "camera.Big Name"),
        (format!("{camera}[agent]\nlog = \"warning\""), "agent.log"),
        (format!("{camera}[agent]\nlog = \"info,ckaad_edge=loud\""), "agent.log"),
        (String::new(), "camera"),
        ("[camera.a]\n[camera.b]".into(), "/dev/video0"),
        ("[[[".into(), "not valid TOML"),
    ] {
        std::fs::write(&path, &text).unwrap();
        fails(&["run", "--config", path_text], 2, &[path_text, key]);
    }
    fails(&["run", "--config", "/nowhere/a.toml"], 2, &["/nowhere/a.toml"]);
}

#[test]
fn a_missing_bundle_and_a_missing_folder_are_named() {
    let site = Site::new();
    let images = site.images("parts", &["a"]);
    let config = site.config(1, &images, "", "");
    let with = |key: &str, value: &str| {
        let output = agent(&["run", "--config", &config]).env(key, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    assert!(with("CKAAD__CAMERA__CAM__BUNDLE", "/nowhere/b.ckaad").contains("/nowhere/b.ckaad"));
    assert!(with("CKAAD__CAMERA__CAM__DIRECTORY__PATH", "/nowhere/parts").contains("/nowhere/parts"));
    let image = images.join("a.png");
    fails(&["infer", "--bundle", "/nowhere/b.ckaad", image.to_str().unwrap()], 2, &["/nowhere/b.ckaad"]);
}

#[test]
fn an_unreadable_image_is_named_and_the_others_are_judged() {
    let site = Site::new();
    let images = site.images("parts", &["a", "c"]);
    let broken = images.join("b.png");
    std::fs::write(&broken, b"not an image").unwrap();
    let paths: Vec<String> = ["a", "b", "c"].map(|n| images.join(format!("{n}.png")).display().to_string()).to_vec();
    let bundle = bundle();
    let output = agent(&["infer", "--json", "--bundle", bundle.to_str().unwrap()]).args(&paths).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains(&paths[1]), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);

    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    let mut agent = run(&site.config(broker.port, &images, "", ""));
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.lines().iter().any(|l| l.contains("b.png") && l.contains("it was skipped")), "{:#?}", agent.lines());
    assert!(agent.saw("2 frames judged, 2 defective, 1 skipped"));
    assert_eq!(alerted(&subscriber), ["a.png", "c.png"]);
}
