//! Writes the first corpus: a good bundle, and its JSON texts, each behind the byte that says how the target takes it.

use ckaad_bundle::Bundle;
use ckaad_edge_fuzz::draft;
use std::{fs, io};

fn main() -> io::Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/bundle_read");
    fs::create_dir_all(folder)?;
    let bytes = draft().pack().map_err(io::Error::other)?;
    let bundle = Bundle::from_bytes(&bytes).map_err(io::Error::other)?;
    let manifest = serde_json::to_vec(&bundle.manifest)?;
    let answer = serde_json::to_vec(&bundle.golden[0].expected)?;
    for (mode, name, content) in [
        (0, "raw", bytes.clone()),
        (1, "repaired", bytes),
        (2, "manifest", manifest),
        (3, "answer", answer),
        (4, "report", b"{}".to_vec()),
        (5, "forest", b"{}".to_vec()),
        (0, "format1", include_bytes!("../../crates/bundle/tests/fixtures/format1.ckaad").to_vec()),
    ] {
        fs::write(format!("{folder}/{name}"), [vec![mode], content].concat())?;
    }
    Ok(())
}
