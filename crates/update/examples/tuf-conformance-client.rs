//! Speaks the client protocol of tuf-conformance, so that whoever has a checkout of that suite can run it over our trust:
//!
//! ```text
//! cargo build -p ckaad-update --example tuf-conformance-client
//! cp crates/update/examples/tuf-conformance-client.xfails target/debug/examples/
//! pytest CHECKOUT/tuf_conformance --entrypoint target/debug/examples/tuf-conformance-client
//! ```
//!
//! `--metadata-dir D init ROOT`, `--metadata-dir D --metadata-url U refresh`, `.. --target-name N --target-base-url T --target-dir O download`. Exit code
//! 0 or 1. What is believed is kept beside the folder that the suite looks into, in which only the roles' files may lie.

use ckaad_update::download::Parts;
use ckaad_update::offer::{Candidate, Offer};
use ckaad_update::remote::{Remote, RemoteConfig};
use ckaad_update::trust::Trust;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Default)]
struct Arguments {
    metadata: PathBuf,
    metadata_url: String,
    names: Vec<String>,
    target_url: String,
    targets: PathBuf,
    words: Vec<String>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut found = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        let mut value = || given.next().ok_or(format!("{word} without a value"));
        match word.as_str() {
            "--metadata-dir" => found.metadata = value()?.into(),
            "--metadata-url" => found.metadata_url = value()?,
            "--target-name" => found.names.push(value()?),
            "--target-base-url" => found.target_url = value()?,
            "--target-dir" => found.targets = value()?.into(),
            _ => found.words.push(word),
        }
    }
    Ok(found)
}

/// Our repositories have `metadata/` and `targets/` in one folder, as those of the suite have.
fn remote(url: &str, below: &str) -> Result<Remote, Box<dyn Error>> {
    let base = url.trim_end_matches('/').strip_suffix(below).ok_or(format!("{url} does not end in {below}"))?;
    let patience = Duration::from_secs(10);
    Ok(Remote::new(&RemoteConfig { url: base.parse()?, ca_file: None, proxy: None, patience, rate: None })?)
}

/// What the suite looks at: the files of what is believed, and no others.
fn show(trust: &Trust, folder: &Path) -> std::io::Result<()> {
    for name in ["root.json", "timestamp.json", "snapshot.json", "targets.json"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    for (name, text) in trust.metadata() {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

async fn carry_out(given: &Arguments) -> Result<(), Box<dyn Error>> {
    let kept = PathBuf::from(format!("{}.trust", given.metadata.display()));
    let keep = |trust: &Trust| -> Result<(), Box<dyn Error>> {
        std::fs::write(&kept, serde_json::to_vec(trust)?)?;
        Ok(show(trust, &given.metadata)?)
    };
    match given.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["init", root] => {
            std::fs::create_dir_all(&given.metadata)?;
            keep(&Trust::from_root(Path::new(root))?)
        }
        [command @ ("refresh" | "download")] => {
            let mut trust: Trust = serde_json::from_slice(&std::fs::read(&kept)?)?;
            let refreshed = trust.refresh(&remote(&given.metadata_url, "metadata")?, Timestamp::now()).await;
            keep(&trust)?;
            refreshed?;
            if *command == "download" {
                for name in &given.names {
                    fetch(given, &trust, name).await?;
                }
            }
            Ok(())
        }
        words => Err(format!("init, refresh or download expected, not {words:?}").into()),
    }
}

/// A file that is there with the right digest is not fetched again.
async fn fetch(given: &Arguments, trust: &Trust, name: &str) -> Result<(), Box<dyn Error>> {
    let (length, digest) = trust.target(name).ok_or(format!("there is no target {name}"))?;
    let place = given.targets.join(name.replace('/', "%2F"));
    if std::fs::read(&place).is_ok_and(|bytes| hex::encode(Sha256::digest(bytes)) == digest) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    // Only its name, length and digest count here.
    let offer = Offer {
        format: 1,
        model: "any".into(),
        version: "0.0.0".parse()?,
        sequence: 0,
        group: String::new(),
        hardware: String::new(),
        agent: "*".parse()?,
        percent: 100,
    };
    let candidate = Candidate { target: name.into(), length, digest, offer };
    let part =
        Parts::new(folder.path().into()).fetch(&remote(&given.target_url, "targets")?, &candidate, |_| {}).await?;
    std::fs::copy(part, place)?;
    Ok(())
}

fn main() -> ExitCode {
    let done = arguments().and_then(|given| {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(carry_out(&given))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(1)
        }
    }
}
