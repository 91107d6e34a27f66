//! A small good bundle to start from.

use ckaad_bundle::*;

pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The smallest bundle that has every member.
pub fn draft() -> Draft {
    let standard = serde_json::json!({"centre": 0.5, "spread": 0.25});
    let moments = serde_json::json!({"mean": 100.0, "deviation": 3.0});
    let manifest = serde_json::json!({
        "format": FORMAT, "name": "seed", "version": "1.0.0", "methods": ["ckaad-patch", "bank"],
        "backbone": "efficientnet-lite0", "created": "2026-01-01T00:00:00Z",
        "input": {"width": 32, "height": 32, "fit": "stretch", "filter": "bilinear"}, "views": 1, "output_stride": 4,
        "terms": [{"name": "error", "weight": 1.0}],
        "score": {
            "sigma_px": 1.0, "rule": {"kind": "forest", "segments": 2, "tie_break": 0.001},
            "image": {"map": standard, "image": standard, "weight": 0.5, "fusion": "sum"}
        },
        "precision": "int8", "engine": ">=0.1",
        "calibration": {
            "images": 60, "quantiles": vec![1.0; 21], "threshold": 1.0, "pixel_threshold": 1.0,
            "false_alarm_budget": 0.02, "rank": 1, "expected_rate": 0.0164, "interval": [0.001, 0.05],
            "tail": {"start": 1.0, "share": 0.1, "scale": 0.1, "shape": 0.0}
        },
        "training_data": {
            "sha256": "0".repeat(64), "normal_images": 1, "anomalous_images": 0,
            "appearance": {"brightness": moments, "sharpness": moments}
        },
        "licences": []
    });
    let answer = GoldenAnswer { score: 0.5, grid: vec![0.0; 64], image_score: Some(0.25) };
    Draft {
        manifest: serde_json::from_value(manifest).expect("the literal above follows the schema"),
        model: vec![8],
        golden: vec![Golden { png: PNG.to_vec(), expected: answer.clone() }],
        forest: Some(b"{}".to_vec()),
        segments: Some(PNG.to_vec()),
        gpu: Some(GpuModel { model: vec![9], golden: vec![answer] }),
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
