//! Format 1 is read as long as there are bundles of it. The fixture was packed by the last version that wrote it.

use super::*;
use serde_json::json;

const FIXTURE: &[u8] = include_bytes!("../fixtures/format1.ckaad");

#[test]
fn it_becomes_todays_manifest() {
    let bundle = Bundle::from_bytes(FIXTURE).unwrap();
    let m = &bundle.manifest;
    assert_eq!((m.format, m.views, m.methods.as_slice()), (1, 1, &["ckaad-patch".to_owned()][..]));
    assert_eq!((m.name.as_str(), m.version.to_string().as_str()), ("format-1", "1.2.3"));
    assert_eq!(m.input, Input { width: 48, height: 32, fit: ResizeMode::Letterbox, filter: Filter::Bilinear });
    assert_eq!((m.output_stride, m.terms.len(), m.precision), (4, 0, Precision::F32));
    let terms = vec![ScoreTerm { top_k: 1, weight: 0.5 }, ScoreTerm { top_k: 100, weight: 1.25 }];
    assert_eq!(m.score, Score { sigma_px: 2.0, rule: ScoreRule::Combined { terms }, image: None });
    let calibration = Calibration {
        images: 93,
        quantiles: (0..21).map(|i| 0.5 + i as f32 * 0.125).collect(),
        threshold: 3.0,
        pixel_threshold: 2.0,
        false_alarm_budget: 0.02,
        rank: None,
        tail: Tail { start: 2.5, share: 0.2, scale: 0.25, shape: 0.0 },
        expected_rate: 0.02,
        interval: [0.0, 1.0],
    };
    assert_eq!(m.calibration, calibration);
    let data = TrainingData {
        sha256: "0123456789abcdef".repeat(4),
        normal_images: 400,
        anomalous_images: 25,
        appearance: None,
    };
    assert_eq!(m.training_data, data);
    assert_eq!(bundle.golden.len(), 2);
    assert!(bundle.golden.iter().all(|g| g.expected.image_score.is_none()));
    assert!(bundle.forest.is_none() && bundle.segments.is_none() && bundle.gpu.is_none());
    assert_eq!(bundle.report, Some(json!({"what": "a bundle of format 1", "image_auroc": 0.5})));
}

#[test]
fn a_rule_without_terms_was_one_mean() {
    let parts = Parts::of(FIXTURE).manifest(|m| _ = m["score"].as_object_mut().unwrap().remove("terms"));
    let bundle = Bundle::from_bytes(&parts.pack()).unwrap();
    assert_eq!(bundle.manifest.score.rule, ScoreRule::TopK { top_k: 3 });
}

#[test]
fn packed_again_it_has_todays_format() {
    let Bundle { manifest, model, golden, report, .. } = Bundle::from_bytes(FIXTURE).unwrap();
    let draft = Draft { manifest: manifest.clone(), model, golden, forest: None, segments: None, gpu: None, report };
    let again = Bundle::from_bytes(&draft.pack().unwrap()).unwrap();
    assert_eq!(again.manifest.format, FORMAT);
    // The listing has a longer golden answer in no case: neither has an image score.
    assert_eq!(Manifest { format: 1, ..again.manifest }, manifest);
}

#[test]
fn it_has_none_of_what_came_later() {
    let with = |change: &dyn Fn(&mut serde_json::Value)| Parts::of(FIXTURE).manifest(change).refused();
    says(
        with(&|m| m["methods"] = json!(["bank"])),
        "manifest.json does not follow its schema: unknown field `methods`",
    );
    says(with(&|m| m["calibration"]["rank"] = json!(1)), "unknown field `rank`");
    says(with(&|m| m["score"]["rule"] = json!({"kind": "top-k", "top_k": 1})), "unknown field `rule`");
    for (path, sentence) in [
        ("model-gpu.onnx", "the manifest lists model-gpu.onnx, which has no place in a bundle"),
        (
            "score/forest.json",
            "the manifest lists score/forest.json, which has no place in a bundle without a score rule",
        ),
    ] {
        let mut parts = Parts::of(FIXTURE);
        parts.0.insert(2, (path.into(), b"{}".to_vec(), EntryType::Regular));
        says(parts.relist().refused(), sentence);
    }
}

#[test]
fn its_values_are_checked_as_todays() {
    for (pointer, value, expected) in [
        ("/method", json!(""), "methods in manifest.json is \"\"; a plain text"),
        ("/score/top_k", json!(-1), "invalid value: integer `-1`, expected u32"),
        ("/score/terms/0/top_k", json!(0), "score.rule.terms.top_k in manifest.json is 0"),
        ("/calibration/tail_share", json!(1.5), "calibration.tail.share in manifest.json is 1.5; a share from 0 to 1"),
        ("/calibration/tail_scale", json!(0), "calibration.tail.scale in manifest.json is 0; a finite number above 0"),
        ("/calibration/tail_start", json!(1e39), "calibration.tail.start in manifest.json is inf"),
        ("/calibration/false_alarm_budget", json!(1), "calibration.false_alarm_budget in manifest.json is 1"),
    ] {
        says(Parts::of(FIXTURE).manifest(|m| *m.pointer_mut(pointer).unwrap() = value).refused(), expected);
    }
}
