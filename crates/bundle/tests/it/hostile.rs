//! At least one file for each way in which a bundle can be damaged or hostile, each with its own sentence.

use super::*;

mod files {
    use super::*;
    use std::path::Path;

    fn refused_file(path: &Path) -> String {
        let error = Bundle::read(path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error} does not name the file");
        error
    }

    #[test]
    fn a_missing_file() {
        says(refused_file(Path::new("/no/such/bundle.ckaad")), "it cannot be opened: No such file");
    }

    #[test]
    fn a_folder() {
        says(refused_file(tempfile::tempdir().unwrap().path()), "it is not a regular file");
    }

    #[test]
    fn a_sparse_file_beyond_the_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_BYTES + 1).unwrap();
        says(refused_file(file.path()), "is 134217729 bytes long; at most 134217728");
    }

    #[test]
    fn an_empty_file() {
        says(refused(b""), "the file is empty");
    }

    #[test]
    fn no_tar_at_all() {
        says(refused(&[b'x'; 4096]), "it is not a tar");
        says(refused(b"short"), "it is not a tar");
    }

    #[test]
    fn a_compressed_tar() {
        says(refused(b"\x1f\x8b\x08\0\0\0\0"), "compressed with gzip");
    }
}

mod archives {
    use super::*;

    #[test]
    fn cut_within_a_member() {
        let bytes = draft().pack().unwrap();
        let model = bytes.windows(4).position(|w| w == [7; 4]).unwrap();
        says(refused(&bytes[..model + 10]), "cut off within model.onnx: 1000 bytes were declared, 10 are left");
    }

    #[test]
    fn cut_before_its_end() {
        let bytes = draft().pack().unwrap();
        says(refused(&bytes[..bytes.len() - 1024]), "cut off behind report.json: the two zero blocks");
        says(refused(&bytes[..bytes.len() - 512]), "cut off behind report.json: the two zero blocks");
    }

    #[test]
    fn something_behind_the_end() {
        let mut bytes = draft().pack().unwrap();
        bytes.extend([1; 3]);
        says(refused(&bytes), "3 bytes follow the end");
    }

    #[test]
    fn something_hidden_in_the_end() {
        let mut bytes = draft().pack().unwrap();
        *bytes.last_mut().unwrap() = 1;
        says(refused(&bytes), "512 bytes follow the end");
    }

    #[test]
    fn a_damaged_header() {
        let mut bytes = draft().pack().unwrap();
        let model = (0..bytes.len()).step_by(512).find(|&at| bytes[at..].starts_with(b"model.onnx")).unwrap();
        bytes[model + 100] ^= 1;
        says(refused(&bytes), "the header behind manifest.json is damaged");
    }

    #[test]
    fn a_path_out_of_the_bundle() {
        for path in ["../model.onnx", "/etc/passwd", "golden/../../x", "./model.onnx", "golden//00.png", "a\\b", "x\ny"]
        {
            let mut parts = Parts::good();
            parts.0[1].0 = path.into();
            says(parts.refused(), "leads out of the bundle or is not plain");
        }
    }

    #[test]
    fn a_link() {
        for (kind, name) in [(EntryType::Symlink, "a symbolic link"), (EntryType::Link, "a hard link")] {
            let mut parts = Parts::good();
            parts.0[1].2 = kind;
            says(parts.refused(), &format!("model.onnx is {name}; only regular files"));
        }
    }

    #[test]
    fn a_folder_a_device_or_an_extension() {
        for (kind, name) in [
            (EntryType::Directory, "a folder"),
            (EntryType::Fifo, "a device or pipe"),
            (EntryType::XHeader, "an extended tar header"),
            (EntryType::GNUSparse, "of an unknown tar type"),
        ] {
            let mut parts = Parts::good();
            parts.0[2].2 = kind;
            says(parts.refused(), &format!("golden/00.png is {name}"));
        }
    }

    #[test]
    fn a_duplicate() {
        let mut parts = Parts::good();
        let twin = (parts.0[1].0.clone(), parts.0[1].1.clone(), EntryType::Regular);
        parts.0.push(twin);
        says(parts.refused(), "model.onnx occurs twice");
        let mut parts = Parts::good();
        let twin = (parts.0[0].0.clone(), parts.0[0].1.clone(), EntryType::Regular);
        parts.0.insert(1, twin);
        says(parts.refused(), "manifest.json occurs twice");
    }

    #[test]
    fn a_member_that_is_not_listed() {
        let mut parts = Parts::good();
        parts.0.push(("setup.sh".into(), b"#!/bin/sh".to_vec(), EntryType::Regular));
        says(parts.refused(), "setup.sh is not listed in the manifest");
        let mut parts = Parts::good();
        parts.0.insert(2, ("extra.bin".into(), vec![1], EntryType::Regular));
        says(parts.refused(), "extra.bin is not listed in the manifest");
    }

    #[test]
    fn a_missing_member() {
        let mut parts = Parts::good();
        parts.0.pop();
        says(parts.refused(), "report.json is missing");
    }

    #[test]
    fn members_in_another_order() {
        let mut parts = Parts::good();
        parts.0.swap(1, 2);
        says(parts.refused(), "golden/00.png stands where model.onnx was expected");
    }

    #[test]
    fn no_manifest_in_front() {
        let mut parts = Parts::good();
        parts.0.remove(0);
        says(parts.refused(), "its first member is model.onnx; manifest.json was expected");
        says(refused(&[0; 1024]), "manifest.json is missing");
    }

    #[test]
    fn a_size_that_was_never_there() {
        let mut bytes = Vec::new();
        block(&mut bytes, "manifest.json", b"{}", EntryType::Regular, 0o77777777777);
        says(refused(&bytes), "manifest.json is 8589934591 bytes long; at most 262144");
        let mut bytes = Vec::new();
        block(&mut bytes, "model.onnx", b"", EntryType::Regular, 96 << 20);
        says(refused(&bytes), "cut off within model.onnx: 100663296 bytes were declared, 0 are left");
    }

    #[test]
    fn a_binary_or_nonsensical_size() {
        for field in [[0xff; 12], [b'z'; 12]] {
            let mut header = Header::new_ustar();
            header.set_path("manifest.json").unwrap();
            header.as_old_mut().size = field;
            header.set_cksum();
            says(refused(header.as_bytes()), "the size of manifest.json in its tar header is not an octal number");
        }
    }

    #[test]
    fn another_size_than_listed() {
        let mut parts = Parts::good();
        parts.0[1].1.pop();
        says(parts.refused(), "model.onnx is 999 bytes long, but the manifest says 1000");
    }

    #[test]
    fn another_content_than_listed() {
        let mut parts = Parts::good();
        parts.0[1].1[500] ^= 1;
        says(parts.refused(), "the SHA-256 of model.onnx is");
    }

    #[test]
    fn a_model_without_content() {
        says(Parts::good().replace("model.onnx", b"").refused(), "model.onnx has no content");
    }

    #[test]
    fn a_golden_picture_that_is_none() {
        says(Parts::good().replace("golden/01.png", b"GIF89a").refused(), "golden/01.png is no PNG picture");
    }

    #[test]
    fn a_golden_answer_that_is_none() {
        let say = |text: &str| Parts::good().replace("golden/01.json", text.as_bytes()).refused();
        says(say("[]"), "golden/01.json does not follow its schema");
        says(say(r#"{"score": 1, "grid": [1, 2]}"#), "golden/01.json: the length of grid is 2; 64 was expected");
        says(say(r#"{"score": 1e39, "grid": []}"#), "golden/01.json: score is inf; a finite number");
    }

    #[test]
    fn a_report_that_is_nested_too_deeply() {
        let report = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        says(
            Parts::good().replace("report.json", report.as_bytes()).refused(),
            "report.json is nested too deeply: 100000 levels",
        );
    }
}

mod manifests {
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
            "it has bundle format 7, and ckaad-edge 0.1.0 reads up to format 1",
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
        says(
            with_text(&text.replace("\"sigma_px\": 4.0", "\"sigma_px\": NaN")),
            "does not follow its schema: expected",
        );
        says(with(|m| m["calibration"]["threshold"] = json!(1e300)), "calibration.threshold in manifest.json is inf");
        says(
            with(|m| m["calibration"]["quantiles"][20] = json!(1e300)),
            "calibration.quantiles in manifest.json is inf",
        );
    }

    #[test]
    fn a_negative_size() {
        says(with(|m| m["members"][0]["size"] = json!(-1)), "invalid value: integer `-1`, expected u64");
    }

    #[test]
    fn a_listing_with_other_members() {
        let path = |i: usize, path: &'static str| with(move |m| m["members"][i]["path"] = json!(path));
        says(path(0, "model.bin"), "the manifest lists model.bin, which has no place in a bundle");
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
            let golden =
                |end: &str, content: &[u8]| (format!("golden/{i:02}.{end}"), content.to_vec(), EntryType::Regular);
            let at = parts.0.len() - 1;
            parts.0.insert(at, golden("json", b"{}"));
            parts.0.insert(at, golden("png", PNG));
        }
        says(parts.relist().refused(), "the manifest lists 40 golden samples; at most 16");
    }

    #[test]
    fn values_that_the_agent_cannot_work_with() {
        let cases: [(&str, serde_json::Value, &str); 18] = [
            ("/name", json!("Washer Line"), "name in manifest.json is Washer Line; 1 to 64 of a-z"),
            ("/name", json!("a/#"), "name in manifest.json is a/#"),
            ("/method", json!(""), "method in manifest.json is ; a plain text"),
            ("/backbone", json!("a\nb"), "backbone in manifest.json"),
            ("/input/width", json!(8), "input.width in manifest.json is 8; a number from 16 to 4096"),
            ("/input/height", json!(65536), "input.height in manifest.json is 65536"),
            ("/output_stride", json!(0), "output_stride in manifest.json is 0"),
            ("/output_stride", json!(5), "output_stride in manifest.json is 5; a divisor"),
            ("/score/sigma_px", json!(-1), "score.sigma_px in manifest.json is -1"),
            (
                "/score",
                json!({"sigma_px": 4.0, "top_k": 1, "terms": [{"top_k": 0, "weight": 1.0}]}),
                "score.terms.top_k in manifest.json is 0",
            ),
            ("/score/top_k", json!(224 * 192 + 1), "score.top_k in manifest.json is 43009"),
            ("/calibration/images", json!(0), "calibration.images in manifest.json is 0"),
            ("/calibration/quantiles", json!([1, 2]), "the length of calibration.quantiles in manifest.json is 2; 21"),
            (
                "/calibration/quantiles/3",
                json!(9),
                "calibration.quantiles in manifest.json is 9 before 0.2; an ascending list",
            ),
            ("/calibration/tail_share", json!(1.5), "calibration.tail_share in manifest.json is 1.5"),
            ("/calibration/tail_scale", json!(0), "calibration.tail_scale in manifest.json is 0"),
            ("/calibration/false_alarm_budget", json!(1), "calibration.false_alarm_budget in manifest.json is 1"),
            ("/training_data/sha256", json!("xyz"), "training_data.sha256 in manifest.json is xyz"),
        ];
        for (pointer, value, expected) in cases {
            says(with(|m| *m.pointer_mut(pointer).unwrap() = value), expected);
        }
    }
}
