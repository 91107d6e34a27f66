//! The unit says what systemd understands, and leaves little open.

use std::path::Path;
use std::process::Command;

/// A second section of the same name goes on with the first, as a drop-in does.
#[test]
fn the_drop_in_for_a_gpu_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    let drop_in = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/gpu.conf")).unwrap();
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, format!("{text}\n{drop_in}")).unwrap();
    let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() else {
        eprintln!("skipped: there is no systemd-analyze on this machine");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "systemd-analyze: {said}");
}

/// The unit with a program that is there: `verify` looks for it.
fn unit(dir: &Path) -> std::path::PathBuf {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ckaad-agent.service")).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/ckaad-agent run --config /etc/ckaad/agent.toml"));
    let path = dir.join("ckaad-agent.service");
    std::fs::write(&path, text.replace("/usr/bin/ckaad-agent", "/bin/true")).unwrap();
    path
}

#[test]
fn the_unit_is_valid_and_sandboxed() {
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    // The manual need not be installed where the unit is tested.
    for args in [&["verify", "--man=no"][..], &["security", "--offline=yes", "--threshold=20"]] {
        let Ok(output) = Command::new("systemd-analyze").args(args).arg(&unit).output() else {
            eprintln!("skipped: there is no systemd-analyze on this machine");
            return;
        };
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "systemd-analyze {args:?}: {text}");
    }
}

/// A socket in systemd's place hears READY, the watchdog and STOPPING.
#[test]
fn the_watchdog_is_fed_while_the_line_runs() {
    use crate::util::*;
    let site = Site::new();
    let broker = Mosquitto::start(site.path());
    let images = site.images("parts", &["a"]);
    let socket = site.path().join("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = site.config(broker.port, &images, "", "[camera.cam.heatmap]\nenabled = false\n");
    let mut command = agent(&["run", "--config", &config]);
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "600000")
        .env("CKAAD__CAMERA__CAM__DIRECTORY__MODE", "loop");
    let mut agent = Running::spawn(command);
    let hear = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let n = systemd.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..n]).contains(wanted) {
                break;
            }
        }
    };
    hear("READY=1");
    (0..4).for_each(|_| hear("WATCHDOG=1"));
    agent.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(agent.ended(), Some(0));
}
