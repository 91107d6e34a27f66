//! The client of the conformance suite (`examples/tuf-conformance-client`), by its own protocol.

use crate::forge::{Forge, in_days};
use crate::server::{Fault, Server};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Client {
    folder: tempfile::TempDir,
    port: u16,
}

impl Client {
    fn metadata(&self) -> PathBuf {
        self.folder.path().join("metadata")
    }

    /// The exit code.
    async fn run(&self, words: &[&str]) -> i32 {
        let examples = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
        let client = examples.join("tuf-conformance-client");
        assert!(client.exists(), "{} is missing: cargo build --workspace --examples", client.display());
        let mut command = Command::new(client);
        command.arg("--metadata-dir").arg(self.metadata());
        command.args(["--metadata-url", &format!("http://127.0.0.1:{}/metadata/", self.port)]);
        command.args(["--target-base-url", &format!("http://127.0.0.1:{}/targets/", self.port)]);
        command.arg("--target-dir").arg(self.folder.path()).args(words);
        // The server is in this process.
        tokio::task::spawn_blocking(move || command.status().unwrap().code().unwrap()).await.unwrap()
    }

    fn believed(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.metadata().join(name)).unwrap()
    }
}

fn served(forge: &Forge, name: &str) -> Vec<u8> {
    std::fs::read(forge.path().join("metadata").join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_the_conformance_suite_speaks_its_protocol() {
    let mut forge = Forge::new();
    let bytes = b"what is in the target".to_vec();
    forge.add_target("press-2.0.0.ckaad", &bytes, 2);
    forge.write().await;
    let server = Server::start(forge.path()).await;
    let client = Client { folder: tempfile::tempdir().unwrap(), port: server.port };
    let first = forge.path().join("metadata/1.root.json");
    assert_eq!(client.run(&["init", first.to_str().unwrap()]).await, 0);
    assert_eq!(client.believed("root.json"), served(&forge, "1.root.json"));
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    assert_eq!(client.run(&["refresh"]).await, 0);
    // Byte for byte as served, and nothing else in the folder.
    assert_eq!(client.believed("timestamp.json"), served(&forge, "timestamp.json"));
    assert_eq!(client.believed("root.json"), served(&forge, "1.root.json"));
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&client.metadata()), ["root.json", "snapshot.json", "targets.json", "timestamp.json"]);
    assert_eq!(client.run(&["--target-name", "press-2.0.0.ckaad", "download"]).await, 0);
    assert_eq!(std::fs::read(client.folder.path().join("press-2.0.0.ckaad")).unwrap(), bytes);
    let digest = hex::encode(Sha256::digest(&bytes));
    let fetched = || server.requests().iter().filter(|path| path.contains(&digest)).count();
    assert_eq!(fetched(), 1);
    // What is there is not fetched again; what is no target is none.
    assert_eq!(client.run(&["--target-name", "press-2.0.0.ckaad", "download"]).await, 0);
    assert_eq!(fetched(), 1);
    assert_eq!(client.run(&["--target-name", "nothing", "download"]).await, 1);
    // What is refused leaves what was believed.
    let before = client.believed("timestamp.json");
    forge.spoil("timestamp.json", |v| v["signatures"] = serde_json::json!([]));
    assert_eq!(client.run(&["refresh"]).await, 1);
    assert_eq!(client.believed("timestamp.json"), before);
    forge.timestamp.expires = in_days(-1);
    forge.write_targets().await;
    assert_eq!(client.run(&["refresh"]).await, 1);
    server.set("timestamp.json", Some(Fault::Status(500)));
    assert_eq!(client.run(&["refresh"]).await, 1);
    assert_eq!(client.run(&["nonsense"]).await, 1);
}
