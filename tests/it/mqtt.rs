//! Nothing an operator would miss is lost, whatever becomes of the broker or of us.

use crate::util::*;

const PARTS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn files() -> Vec<String> {
    PARTS.map(|p| format!("{p}.png")).to_vec()
}

#[test]
fn broker_away_loses_no_opened() {
    let site = Site::new();
    let mut broker = Mosquitto::prepared(site.path(), free_port(), "allow_anonymous true");
    let images = site.images("parts", &PARTS);
    let mut agent = run(&site.config(broker.port, &images, "", ""));
    agent.wait_for("5 frames judged");
    agent.wait_for("cannot be reached");
    // The agent comes back within reconnect_max_s; the subscriber must be there first.
    agent.signal("STOP");
    broker.up();
    let subscriber = broker.subscribe();
    agent.signal("CONT");
    assert_eq!(agent.ended(), Some(0), "it ends once all is acknowledged: {:#?}", agent.lines());
    assert_eq!(alerted(&subscriber), files());
}

#[test]
fn kill_minus_nine_keeps_what_was_confirmed_stored() {
    let site = Site::new();
    let mut broker = Mosquitto::prepared(site.path(), free_port(), "allow_anonymous true");
    let images = site.images("parts", &PARTS);
    let mut agent = run(&site.config(broker.port, &images, "", ""));
    agent.wait_for("5 frames judged");
    agent.signal("KILL");
    agent.ended();
    broker.up();
    let subscriber = broker.subscribe();
    let other = site.images("other", &["z"]);
    let mut again = run(&site.config(broker.port, &other, "", ""));
    assert_eq!(again.ended(), Some(0), "{:#?}", again.lines());
    let mut expected = files();
    expected.push("z.png".into());
    assert_eq!(alerted(&subscriber), expected);
}

/// The broker takes what was published, acknowledges nothing, and dies with all its memory.
#[test]
fn reconnect_without_session_resends() {
    let site = Site::new();
    let mut broker = Mosquitto::start(site.path());
    let images = site.images("parts", &["a"]);
    let mut command =
        agent(&["run", "--config", &site.config(broker.port, &images, "", "[camera.cam.heatmap]\nenabled = false\n")]);
    command.env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "loop").env("CKAAD__CAMERA__CAM__DIRECTORY__FPS", "10");
    let subscriber = broker.subscribe();
    let mut agent = Running::spawn(command);
    subscriber.wait_for("opened");
    broker.signal("STOP");
    // More than may be on their way at one time.
    let opened = |agent: &Running| agent.lines().iter().filter(|l| l.contains("Opened")).count();
    let before = opened(&agent);
    wait_until("more events", || opened(&agent) >= before + 20);
    agent.signal("STOP");
    broker.lose_all();
    broker.up();
    let after = broker.subscribe();
    agent.signal("CONT");
    after.wait_for("opened");
    std::thread::sleep(std::time::Duration::from_secs(1));
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0));
    let mut seen: Vec<u64> = [&subscriber, &after]
        .iter()
        .flat_map(|s| payloads(s, "/anomaly"))
        .map(|e| e["data"]["sequence"].as_u64().unwrap())
        .collect();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 20, "{seen:?}");
    assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<_>>(), "no number is missing");
    let states: Vec<_> = payloads(&after, "box/state").iter().map(|s| s["state"].clone()).collect();
    assert_eq!(states, ["online", "stopped"], "the state is said again at the reconnect");
}

#[test]
fn a_refused_password_is_one_sentence_and_events_wait() {
    let site = Site::new();
    let passwords = site.path().join("passwords");
    let made = program("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args(["press", "right"]).status();
    assert!(made.unwrap().success());
    let secure = format!("allow_anonymous false\npassword_file {}", passwords.display());
    let mut broker = Mosquitto::prepared(site.path(), free_port(), &secure);
    broker.up();
    let images = site.images("parts", &PARTS);
    let secret = site.path().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let config = site.config(broker.port, &images, "", &format!("username = \"press\"\npassword_file = {secret:?}\n"));
    let mut agent_ = run(&config);
    agent_.wait_for("refused the user name or the password");
    agent_.wait_for("5 frames judged");

    let checked = agent(&["check", "--config", &config]).output().unwrap();
    let report = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{report}");
    assert!(
        report.lines().any(|l| l.starts_with("FAIL  broker:") && l.contains("refused the user name or the password")),
        "{report}"
    );

    agent_.signal("TERM");
    assert_eq!(agent_.ended(), Some(0), "{:#?}", agent_.lines());
    assert!(agent_.saw("outbox: 10 wait, 0 dropped"), "five events and five heatmaps: {:#?}", agent_.lines());

    std::fs::write(&secret, "right\r\nonly the first line counts\n").unwrap();
    let subscriber = broker.subscriber(&["camera/+/anomaly"], "%t %r %p", &["-u", "press", "-P", "right"]);
    let mut again = run(&config);
    assert_eq!(again.ended(), Some(0), "{:#?}", again.lines());
    assert_eq!(alerted(&subscriber), files());
}

/// Files cannot grow beyond a limit, as on a full disk: below the first the outbox cannot even be created, below the second
/// it fills up. The line is inspected and what it says is delivered all the same.
#[test]
fn a_full_disk_is_one_sentence_and_loses_nothing() {
    for blocks in ["40", "120"] {
        let site = Site::new();
        let broker = Mosquitto::start(site.path());
        let subscriber = broker.subscribe();
        let images = site.images("parts", &PARTS);
        let config = site.config(broker.port, &images, "", "");
        let mut command = program("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run --config \"$1\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_ckaad-agent"), &config]);
        let mut agent = Running::spawn(command);
        assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
        let told = agent.lines().iter().filter(|l| l.contains("the outbox") && l.contains("ERROR")).count();
        assert_eq!(told, 1, "{:#?}", agent.lines());
        assert!(!agent.saw(" 0 writes failed"), "it was counted: {:#?}", agent.lines());
        assert_eq!(alerted(&subscriber), files());
    }
}

#[test]
fn a_corrupt_outbox_is_set_aside_and_the_line_runs() {
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let subscriber = broker.subscribe();
    std::fs::write(site.path().join("outbox.sqlite"), vec![7u8; 8192]).unwrap();
    let images = site.images("parts", &["a"]);
    let mut agent = run(&site.config(broker.port, &images, "", ""));
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.saw("set aside"), "{:#?}", agent.lines());
    assert_eq!(alerted(&subscriber), ["a.png"]);
}

/// An authority and one that nobody trusts, `ca` and `stranger`, and what the first has signed: `broker` for this machine, and `box`.
fn certificates(site: &Site) {
    // Called by the scripts below.
    drop(program("openssl"));
    let make = |script: &str| {
        let made = program("sh").args(["-ec", script]).current_dir(site.path()).output().unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for authority in ["ca", "stranger"] {
        make(&format!("openssl req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority}"));
    }
    make(&format!(
        "openssl req {key} -keyout broker.key -out broker.csr -subj /CN=localhost
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > san
         openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out broker.pem
         openssl req {key} -keyout box.key -out box.csr -subj /CN=box
         openssl x509 -req -in box.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out box.pem"
    ));
}

#[test]
fn tls_is_verified_against_the_given_authority() {
    let site = Site::new();
    certificates(&site);
    let file = |name: &str| site.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("broker.pem"), file("broker.key"));
    let secure = format!("allow_anonymous true\ncafile {ca}\ncertfile {certificate}\nkeyfile {key}");
    let mut broker = Mosquitto::prepared(site.path(), free_port(), &secure);
    broker.up();
    let subscriber = broker.subscriber(&["camera/+/anomaly"], "%t %r %p", &["--cafile", &ca]);
    let images = site.images("parts", &["a"]);
    let config = site.config(broker.port, &images, "", &format!("[mqtt.tls]\nenabled = true\nca_file = {ca:?}\n"));
    let mut running = run(&config);
    assert_eq!(running.ended(), Some(0), "{:#?}", running.lines());
    assert_eq!(alerted(&subscriber), ["a.png"]);

    let distrust =
        agent(&["check", "--config", &config]).env("CKAAD__MQTT__TLS__CA_FILE", file("stranger.pem")).output();
    let report = String::from_utf8_lossy(&distrust.unwrap().stdout).into_owned();
    assert!(report.lines().any(|l| l.starts_with("FAIL  broker:") && l.contains("ertificate")), "{report}");

    // A machine without any authorities, as a slim container is.
    let nobody = site.path().join("nobody");
    std::fs::create_dir(&nobody).unwrap();
    let bare = agent(&["check", "--config", &config])
        .env("CKAAD__MQTT__TLS__CA_FILE", "")
        .env("SSL_CERT_DIR", &nobody)
        .env_remove("SSL_CERT_FILE")
        .output();
    let report = String::from_utf8_lossy(&bare.unwrap().stdout).into_owned();
    assert!(report.lines().any(|l| l.starts_with("FAIL  broker:") && l.contains("mqtt.tls.ca_file")), "{report}");
}

/// A broker that lets in whoever shows a certificate of its authority, and nobody else.
#[test]
fn a_client_certificate_is_shown_to_a_broker_that_asks_for_one() {
    let site = Site::new();
    certificates(&site);
    let file = |name: &str| site.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("box.pem"), file("box.key"));
    let secure = format!(
        "allow_anonymous true\ncafile {ca}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
        file("broker.pem"),
        file("broker.key")
    );
    let mut broker = Mosquitto::prepared(site.path(), free_port(), &secure);
    broker.up();
    let ours = ["--cafile", &ca, "--cert", &certificate, "--key", &key];
    let subscriber = broker.subscriber(&["camera/+/anomaly"], "%t %r %p", &ours);
    let images = site.images("parts", &["a"]);
    let tls = format!(
        "[mqtt.tls]\nenabled = true\nca_file = {ca:?}\nclient_cert_file = {certificate:?}\nclient_key_file = {key:?}\n"
    );
    let config = site.config(broker.port, &images, "", &tls);
    let mut running = run(&config);
    assert_eq!(running.ended(), Some(0), "{:#?}", running.lines());
    assert_eq!(alerted(&subscriber), ["a.png"]);

    let nameless = agent(&["check", "--config", &config])
        .env("CKAAD__MQTT__TLS__CLIENT_CERT_FILE", "")
        .env("CKAAD__MQTT__TLS__CLIENT_KEY_FILE", "")
        .output();
    let report = String::from_utf8_lossy(&nameless.unwrap().stdout).into_owned();
    assert!(report.lines().any(|l| l.starts_with("FAIL  broker:")), "{report}");
}

/// Takes every connection, answers pings, acknowledges nothing.
fn silent_broker() -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut one = [0];
            while stream.read_exact(&mut one).is_ok() {
                let kind = one[0] >> 4;
                let (mut length, mut shift) = (0usize, 0);
                while stream.read_exact(&mut one).is_ok() {
                    length |= usize::from(one[0] & 0x7f) << shift;
                    shift += 7;
                    if one[0] < 0x80 {
                        break;
                    }
                }
                let mut body = vec![0; length];
                let answer: &[u8] = match kind {
                    1 => &[0x20, 2, 0, 0],
                    12 => &[0xd0, 0],
                    _ => &[],
                };
                if stream.read_exact(&mut body).and_then(|()| stream.write_all(answer)).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn a_broker_that_acknowledges_nothing_is_left() {
    let site = Site::new();
    let images = site.images("parts", &["a"]);
    let config = site.config(silent_broker(), &images, "", "protocol = \"3.1.1\"\nkeep_alive_s = 5\n");
    let mut agent = run(&config);
    agent.wait_for("the broker has acknowledged nothing for 15 s");
    agent.signal("TERM");
    assert_eq!(agent.ended(), Some(0), "{:#?}", agent.lines());
    assert!(agent.saw("outbox: 2 wait"), "{:#?}", agent.lines());
}
