//! The bounds of each member, exactly.

use super::*;

/// What each member may declare, and not a byte more: nothing of it is there, so only the declaration is judged.
#[test]
fn a_member_one_byte_longer_than_its_limit() {
    for (member, limit) in [
        ("manifest.json", 256 << 10),
        ("model.onnx", 96 << 20),
        ("golden/00.png", 8 << 20),
        ("golden/00.json", 64 << 10),
        ("report.json", 16 << 20),
    ] {
        let declaring = |bytes: u64| {
            let mut archive = Vec::new();
            block(&mut archive, member, b"", EntryType::Regular, bytes);
            refused(&archive)
        };
        assert_eq!(declaring(limit), format!("it is cut off within {member}: {limit} bytes were declared, 0 are left"));
        assert_eq!(declaring(limit + 1), format!("{member} is {} bytes long; at most {limit} are accepted", limit + 1));
    }
}

/// All members at their limits at once, which together stay below the limit of the file.
#[test]
fn every_member_may_be_as_long_as_its_limit() {
    let padded = |text: &[u8], length: usize| [text, &vec![b' '; length - text.len()]].concat();
    let mut parts = Parts::good();
    parts.0.truncate(4);
    parts.0.push(("report.json".into(), padded(b"1", 16 << 20), EntryType::Regular));
    parts.0[1].1 = vec![7; 96 << 20];
    parts.0[2].1.resize(8 << 20, 0);
    parts.0[3].1 = padded(&parts.0[3].1, 64 << 10);
    let mut parts = parts.relist();
    parts.0[0].1 = padded(&parts.0[0].1, 256 << 10);
    let bundle = Bundle::from_bytes(&parts.pack()).unwrap();
    assert_eq!((bundle.model.len(), bundle.golden[0].png.len()), (96 << 20, 8 << 20));
    assert_eq!(bundle.report, Some(serde_json::json!(1)));
}
