//! The demo, as a newcomer starts it.

use crate::util::*;

#[test]
fn demo_ends_by_itself_with_alerts_and_heatmaps() {
    let site = Site::new();
    let out = site.path().join("out");
    let port = free_port().to_string();
    let output = agent(&["demo", "--frames", "30", "--port", &port, "--out", out.to_str().unwrap()]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(text.contains("mosquitto_sub -V mqttv5 -p ") && text.contains("defective parts alerted"), "{text}");
    // Also where nobody wants to read the log.
    assert!(text.contains("demo: 30 frames judged") && !text.contains("measured: 0.0 ms"), "{text}");
    let events = text.lines().filter(|l| l.contains("  Opened  ")).count();
    assert!(events > 0, "{text}");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), events, "a heatmap for each event");
}

#[test]
fn a_taken_port_is_said_and_another_one_used() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let out = site.path().join("out");
    let output = agent(&["demo", "--frames", "3", "--port", &port.to_string(), "--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("Port {port} is taken")));
}
