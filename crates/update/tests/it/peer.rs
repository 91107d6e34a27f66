//! python-tuf, the reference implementation: it believes what we publish, and we what it publishes. Needs a Python, as
//! [`ckaad_testing::onnx_runtime`] does.

use crate::forge::{Device, folder_config};
use crate::publisher::Publisher;
use crate::server::Server;
use ckaad_testing::{demo_bundle, in_repository};
use ckaad_update::download::Parts;
use ckaad_update::publish::{Publication, Role};
use ckaad_update::remote::Remote;
use ckaad_update::trust::Trust;
use std::path::Path;
use std::process::Command;

fn peer(python: &Path, arguments: &[&str]) -> (bool, String) {
    let script = in_repository("tests/reference/tuf_peer.py");
    let output = Command::new(python).arg(script).args(arguments).output().expect("CKAAD_PYTHON starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), said(&output.stdout) + &said(&output.stderr))
}

#[tokio::test]
async fn signed_by_python_tuf_is_accepted() {
    let Some(python) = ckaad_testing::onnx_runtime::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    let (well, said) = peer(Path::new(&python), &["publish", repository.to_str().unwrap()]);
    assert!(well, "{said}");
    let mut device = Device {
        trust: Trust::from_root(&repository.join("root.json")).unwrap(),
        remote: Remote::new(&folder_config(&repository)).unwrap(),
        system: jiff::Timestamp::now(),
        second: None,
    };
    let catalogue = device.look().await.unwrap();
    let parts = Parts::new(folder.path().into());
    let path = parts.fetch(&device.remote, &catalogue.candidates[0], |_| {}).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"a bundle of the reference implementation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_tuf_accepts_what_we_publish_also_after_a_rotation() {
    let Some(python) = ckaad_testing::onnx_runtime::python() else { return };
    let publisher = Publisher::new(2, 2).await;
    let first_root = publisher.folder.path().join("first-root.json");
    std::fs::copy(publisher.keys.root_path(), &first_root).unwrap();
    let target = publisher.publish(&Publication { percent: 30, ..Publication::default() }).await.unwrap();
    for role in [Role::Timestamp, Role::Root] {
        publisher.open().unwrap().rotate(role, &publisher.keys).await.unwrap();
    }
    let server = Server::start(&publisher.repository()).await;
    let url = server.url().to_string();
    let out = publisher.folder.path().join("fetched");
    let arguments = ["fetch", first_root.to_str().unwrap(), url.trim_end_matches('/'), &target, out.to_str().unwrap()];
    let (well, said) = tokio::task::block_in_place(|| peer(Path::new(&python), &arguments));
    assert!(well && said.contains("\"percent\": 30"), "{said}");
    assert_eq!(std::fs::read(out.join(&target)).unwrap(), std::fs::read(demo_bundle()).unwrap());
}
