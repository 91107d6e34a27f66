//! Manifests that are wrong in one place, each with its own sentence.

use super::*;
use serde_json::json;

fn with(change: impl FnOnce(&mut serde_json::Value)) -> String {
    Parts::good().manifest(change).refused()
}

fn with_text(text: &str) -> String {
    let mut parts = Parts::good();
    parts.0[0].1 = text.as_bytes().to_vec();
    parts.refused()
}

#[test]
fn a_future_format() {
    says(
        with(|m| {
            m["format"] = json!(7);
            m["a key of that future"] = json!(true);
        }),
        "it has bundle format 7, and ckaad-edge 0.1.0 reads up to format 2",
    );
}

#[test]
fn a_format_of_zero() {
    says(with(|m| m["format"] = json!(0)), "it has bundle format 0");
}

#[test]
fn another_engine() {
    says(with(|m| m["engine"] = json!(">=9, <10")), "it needs ckaad-edge >=9, <10; this is 0.1.0");
}

#[test]
fn no_json() {
    says(with_text("format: 1"), "manifest.json does not follow its schema: expected");
    says(with_text(""), "manifest.json does not follow its schema: EOF");
    says(with_text("{\"format\": \"\u{0}\"}"), "manifest.json does not follow its schema: control character");
}

#[test]
fn json_that_is_nested_too_deeply() {
    says(with_text(&"[".repeat(200_000)), "manifest.json is nested too deeply: 200000 levels, at most 32");
    says(with_text(&"{\"a\":".repeat(40)), "manifest.json is nested too deeply: 40 levels");
}

#[test]
fn too_long() {
    says(with_text(&" ".repeat(300_000)), "manifest.json is 300000 bytes long; at most 262144");
}

#[test]
fn an_unknown_key() {
    says(with(|m| m["treshold"] = json!(1)), "unknown field `treshold`");
}

#[test]
fn a_missing_key() {
    says(with(|m| _ = m.as_object_mut().unwrap().remove("score")), "missing field `score`");
}

#[test]
fn a_number_that_is_none() {
    let text = String::from_utf8(Parts::good().0[0].1.clone()).unwrap();
    says(with_text(&text.replace("\"sigma_px\": 4.0", "\"sigma_px\": NaN")), "does not follow its schema: expected");
    says(with(|m| m["calibration"]["threshold"] = json!(1e300)), "calibration.threshold in manifest.json is inf");
    says(with(|m| m["calibration"]["quantiles"][20] = json!(1e300)), "calibration.quantiles in manifest.json is inf");
    let names = |names: serde_json::Value| with(|m| m["view_names"] = names);
    says(names(json!(["a", "b"])), "the length of view_names in manifest.json is 2; one name a view was expected");
    says(names(json!(["a\nb"])), "view_names in manifest.json is \"a\\nb\"; a plain text of 1 to 64 characters");
    says(
        with(|m| {
            m["gpu_calibration"] = m["calibration"].clone();
            m["gpu_calibration"]["quantiles"] = json!([]);
        }),
        "the length of gpu_calibration.quantiles in manifest.json is 0; 21 was expected",
    );
}

#[test]
fn a_negative_size() {
    says(with(|m| m["members"][0]["size"] = json!(-1)), "invalid value: integer `-1`, expected u64");
}

#[test]
fn a_listing_with_other_members() {
    let path = |i: usize, path: &'static str| with(move |m| m["members"][i]["path"] = json!(path));
    ends(path(0, "model.bin"), "the manifest lists model.bin, which has no place in a bundle");
    says(path(0, "../../etc/passwd"), "leads out of the bundle");
    says(path(3, "golden/00.png"), "golden/00.png occurs twice");
    says(path(5, "model.onnx"), "model.onnx occurs twice");
    says(with(|m| m["members"][0]["sha256"] = json!("AB")), "members.sha256 in manifest.json is \"AB\"");
    says(with(|m| m["members"] = json!([])), "model.onnx is missing");
}

#[test]
fn a_listing_in_another_order() {
    says(
        with(|m| m["members"].as_array_mut().unwrap().swap(0, 1)),
        "golden/00.png stands where model.onnx was expected",
    );
}

#[test]
fn a_golden_picture_without_its_answer() {
    says(
        with(|m| _ = m["members"].as_array_mut().unwrap().remove(2)),
        "golden/00.png has no answer: golden/00.json is missing",
    );
}

#[test]
fn too_many_members() {
    let member = Parts::good();
    let mut parts = member;
    for i in 2..40 {
        let golden = |end: &str, content: &[u8]| (format!("golden/{i:02}.{end}"), content.to_vec(), EntryType::Regular);
        let at = parts.0.len() - 1;
        parts.0.insert(at, golden("json", b"{}"));
        parts.0.insert(at, golden("png", PNG));
    }
    says(parts.relist().refused(), "the manifest lists 40 golden samples; at most 16");
}

#[test]
fn values_that_the_agent_cannot_work_with() {
    let term = |top_k: u32, weight: f64| json!({"top_k": top_k, "weight": weight});
    let combined = |terms: serde_json::Value| json!({"kind": "combined", "terms": terms});
    let forest =
        |segments: u32, tie_break: f64| json!({"kind": "forest", "segments": segments, "tie_break": tie_break});
    let cases: Vec<(&str, serde_json::Value, &str)> = vec![
        ("/name", json!("Washer Line"), "name in manifest.json is Washer Line; 1 to 64 of a-z"),
        ("/name", json!("a/#"), "name in manifest.json is a/#"),
        ("/methods", json!([]), "the length of methods in manifest.json is 0; 1 to 16 was expected"),
        ("/methods", json!(vec!["a"; 17]), "the length of methods in manifest.json is 17; 1 to 16"),
        ("/methods", json!("bank"), "invalid type: string \"bank\", expected a sequence"),
        ("/methods/1", json!(""), "methods in manifest.json is \"\"; a plain text of 1 to 64 characters each"),
        ("/methods/0", json!("a\nb"), "methods in manifest.json is \"a\\nb\""),
        ("/backbone", json!("a\nb"), "backbone in manifest.json"),
        ("/input/width", json!(8), "input.width in manifest.json is 8; a number from 16 to 4096"),
        ("/input/height", json!(65536), "input.height in manifest.json is 65536"),
        ("/views", json!(0), "views in manifest.json is 0; a number from 1 to 16"),
        ("/views", json!(17), "views in manifest.json is 17"),
        ("/views", json!(2), "the length of view_names in manifest.json is 0; one name a view was expected"),
        ("/output_stride", json!(0), "output_stride in manifest.json is 0"),
        ("/output_stride", json!(5), "output_stride in manifest.json is 5; a divisor"),
        ("/terms", json!(vec![json!({"name": "a", "weight": 1}); 17]), "the length of terms in manifest.json is 17"),
        ("/terms/0/name", json!(""), "terms.name in manifest.json is \"\"; a plain text of 1 to 64 characters"),
        ("/terms/1/weight", json!(1e39), "terms.weight in manifest.json is inf; a finite number"),
        ("/terms/1", json!({"name": "a", "weight": 1, "unit": 2}), "unknown field `unit`"),
        ("/score/sigma_px", json!(-1), "score.sigma_px in manifest.json is -1"),
        ("/score/rule", json!({"kind": "top-k", "top_k": 0}), "score.rule.top_k in manifest.json is 0"),
        ("/score/rule", json!({"kind": "top-k", "top_k": 43009}), "score.rule.top_k in manifest.json is 43009"),
        ("/score/rule", json!({"kind": "top-k", "top_k": 1, "k": 2}), "unknown field `k`"),
        ("/score/rule", json!({"kind": "mean"}), "unknown variant `mean`, expected one of `top-k`, `combined`"),
        ("/score/rule", json!({"top_k": 1}), "missing field `kind`"),
        ("/score/rule", combined(json!([])), "the length of score.rule.terms in manifest.json is 0; 1 to 16"),
        (
            "/score/rule",
            combined(json!(vec![term(1, 1.0); 17])),
            "the length of score.rule.terms in manifest.json is 17",
        ),
        ("/score/rule", combined(json!([term(0, 1.0)])), "score.rule.terms.top_k in manifest.json is 0"),
        ("/score/rule", combined(json!([term(1, 1e39)])), "score.rule.terms.weight in manifest.json is inf"),
        ("/score/rule", forest(0, 0.0), "score.rule.segments in manifest.json is 0; a number from 1 to 256"),
        ("/score/rule", forest(257, 0.0), "score.rule.segments in manifest.json is 257"),
        ("/score/rule", forest(3, -0.5), "score.rule.tie_break in manifest.json is -0.5; a finite number from 0 on"),
        ("/score/rule", forest(3, 1e39), "score.rule.tie_break in manifest.json is inf"),
        ("/score/image/map/centre", json!(1e39), "score.image.map.centre in manifest.json is inf"),
        ("/score/image/map/spread", json!(0), "score.image.map.spread in manifest.json is 0; a finite number above 0"),
        ("/score/image/image/centre", json!(-1e39), "score.image.image.centre in manifest.json is -inf"),
        ("/score/image/image/spread", json!(-1), "score.image.image.spread in manifest.json is -1"),
        ("/score/image/weight", json!(1.5), "score.image.weight in manifest.json is 1.5; a share from 0 to 1"),
        ("/score/image/fusion", json!("product"), "unknown variant `product`, expected `sum` or `larger`"),
        ("/score/image", json!({"weight": 0.5}), "missing field `map`"),
        ("/calibration/images", json!(0), "calibration.images in manifest.json is 0"),
        ("/calibration/quantiles", json!([1, 2]), "the length of calibration.quantiles in manifest.json is 2; 21"),
        (
            "/calibration/quantiles/3",
            json!(9),
            "calibration.quantiles in manifest.json is 9 before 0.2; an ascending list",
        ),
        ("/calibration/pixel_threshold", json!(1e39), "calibration.pixel_threshold in manifest.json is inf"),
        ("/calibration/false_alarm_budget", json!(1), "calibration.false_alarm_budget in manifest.json is 1"),
        (
            "/calibration/rank",
            json!(0),
            "calibration.rank in manifest.json is 0; a number from 1 to calibration.images",
        ),
        ("/calibration/rank", json!(51), "calibration.rank in manifest.json is 51"),
        ("/calibration/tail/start", json!(1e39), "calibration.tail.start in manifest.json is inf"),
        ("/calibration/tail/share", json!(1.5), "calibration.tail.share in manifest.json is 1.5; a share from 0 to 1"),
        ("/calibration/tail/scale", json!(0), "calibration.tail.scale in manifest.json is 0; a finite number above 0"),
        (
            "/calibration/tail/shape",
            json!(-1.5),
            "calibration.tail.shape in manifest.json is -1.5; a number from -1 to 1",
        ),
        ("/calibration/expected_rate", json!(-0.1), "calibration.expected_rate in manifest.json is -0.1; a share"),
        (
            "/calibration/interval",
            json!([0.5, 0.25]),
            "calibration.interval in manifest.json is [0.5, 0.25]; two ascending",
        ),
        ("/calibration/interval", json!([-0.5, 0.25]), "calibration.interval in manifest.json is [-0.5, 0.25]"),
        ("/calibration/interval", json!([0.5]), "invalid length 1, expected an array of length 2"),
        ("/training_data/sha256", json!("xyz"), "training_data.sha256 in manifest.json is xyz"),
        (
            "/training_data/appearance/brightness/deviation",
            json!(-1),
            "training_data.appearance.brightness.deviation in manifest.json is -1; a finite number from 0 on",
        ),
        (
            "/training_data/appearance/sharpness/mean",
            json!(1e39),
            "training_data.appearance.sharpness.mean in manifest.json is inf; a finite number",
        ),
    ];
    for (pointer, value, expected) in cases {
        says(Parts::full().manifest(|m| *m.pointer_mut(pointer).unwrap() = value).refused(), expected);
    }
}
