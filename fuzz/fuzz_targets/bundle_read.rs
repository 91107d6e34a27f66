//! Whatever the bytes: a bundle or a sentence, never a panic; and what was read can be packed and read again, the same.
//!
//! Checksums and digests would keep nearly every mutation at the door, so the first byte says what is repaired before reading.
#![no_main]

use ckaad_bundle::{Bundle, Draft, Member};
use ckaad_edge_fuzz::{PNG, draft, pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let bytes = match mode % 6 {
        0 => data.to_vec(),
        1 => repair(data.to_vec()),
        2 => pack(&[("manifest.json", data), ("model.onnx", &[8])]),
        3 => relisted("golden/00.json", data),
        4 => relisted("report.json", data),
        _ => relisted("score/forest.json", data),
    };
    match Bundle::from_bytes(&bytes) {
        Ok(bundle) => round_trip(bundle),
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});

/// Every block that could be a header gets the checksum that it should have.
fn repair(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        let sum: u32 =
            block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// The good bundle with one member's content replaced, listed as if it belonged there.
fn relisted(path: &str, content: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let good = draft().pack().expect("the seed is a good bundle");
    let mut bundle = Bundle::from_bytes(&good).expect("the seed is a good bundle");
    let answer = serde_json::to_vec(&bundle.golden[0].expected).expect("numbers");
    let members: [(&str, &[u8]); 8] = [
        ("model.onnx", &bundle.model),
        ("model-gpu.onnx", &[9]),
        ("score/forest.json", b"{}"),
        ("score/segments.png", PNG),
        ("golden/00.png", &bundle.golden[0].png),
        ("golden/00.json", &answer),
        ("golden-gpu/00.json", &answer),
        ("report.json", b"{}"),
    ];
    let members = members.map(|(p, c)| if p == path { (p, content) } else { (p, c) });
    bundle.manifest.members = members
        .iter()
        .map(|(path, c)| Member {
            path: (*path).into(),
            size: c.len() as u64,
            sha256: hex::encode(sha2::Sha256::digest(c)),
        })
        .collect();
    let manifest = serde_json::to_vec(&bundle.manifest).expect("a manifest has no maps");
    let mut all = vec![("manifest.json", manifest.as_slice())];
    all.extend(members);
    pack(&all)
}

fn round_trip(bundle: Bundle) {
    let bytes = Draft::from(bundle.clone()).pack().expect("what was read can be packed");
    let again = Bundle::from_bytes(&bytes).expect("what was packed can be read");
    assert_eq!((again.model, again.forest, again.segments), (bundle.model, bundle.forest, bundle.segments));
    assert_eq!(again.golden.len(), bundle.golden.len());
    assert_eq!(again.gpu.map(|gpu| gpu.golden), bundle.gpu.map(|gpu| gpu.golden));
    assert_eq!(again.report.is_some(), bundle.report.is_some());
}
