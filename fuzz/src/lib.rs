//! A small good bundle to start from.

use ckaad_bundle::*;

pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The smallest bundle that has every member.
pub fn draft() -> Draft {
    let manifest = serde_json::json!({
        "format": FORMAT, "name": "seed", "version": "1.0.0", "method": "ckaad-patch", "backbone": "efficientnet-lite0",
        "created": "2026-01-01T00:00:00Z", "input": {"width": 32, "height": 32, "fit": "stretch", "filter": "bilinear"},
        "output_stride": 4, "score": {"sigma_px": 1.0, "top_k": 9}, "precision": "int8", "engine": ">=0.1",
        "calibration": {"images": 1, "quantiles": vec![1.0; 21], "tail_start": 1.0, "tail_share": 0.1, "tail_scale": 0.1,
            "false_alarm_budget": 0.01, "threshold": 1.0, "pixel_threshold": 1.0},
        "training_data": {"sha256": "0".repeat(64), "normal_images": 1, "anomalous_images": 0}, "licences": []
    });
    Draft {
        manifest: serde_json::from_value(manifest).expect("the literal above follows the schema"),
        model: vec![8],
        golden: vec![Golden { png: PNG.to_vec(), expected: GoldenAnswer { score: 0.5, grid: vec![0.0; 64] } }],
        report: Some(serde_json::json!({})),
    }
}

/// A tar of `members` with headers as they should be.
pub fn pack(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *content).expect("a vector takes any bytes");
    }
    archive.into_inner().expect("a vector takes any bytes")
}
