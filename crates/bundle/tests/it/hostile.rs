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
        says(refused_file(file.path()), "is 201326593 bytes long; at most 201326592");
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
        for model in ["model.onnx", "model-gpu.onnx"] {
            says(Parts::full().replace(model, b"").refused(), &format!("{model} has no content"));
        }
    }

    #[test]
    fn a_golden_picture_that_is_none() {
        for picture in ["golden/01.png", "score/segments.png"] {
            says(Parts::full().replace(picture, b"GIF89a").refused(), &format!("{picture} is no PNG picture"));
        }
    }

    #[test]
    fn a_golden_answer_that_is_none() {
        let say = |text: &str| Parts::good().replace("golden/01.json", text.as_bytes()).refused();
        says(say("[]"), "golden/01.json does not follow its schema");
        says(say(r#"{"score": 1, "grid": [1, 2]}"#), "golden/01.json: the length of grid is 2; 64 was expected");
        says(say(r#"{"score": 1e39, "grid": []}"#), "golden/01.json: score is inf; a finite number");
    }

    #[test]
    fn an_image_score_that_does_not_fit_the_manifest() {
        for member in ["golden/01.json", "golden-gpu/01.json"] {
            let say = |parts: Parts, score: serde_json::Value| {
                let mut answer = serde_json::json!({"score": 1.0, "grid": vec![0.5; 64], "image_score": score});
                if score.is_null() {
                    answer.as_object_mut().unwrap().remove("image_score");
                }
                parts.replace(member, answer.to_string().as_bytes()).refused()
            };
            let expected = "image_score is absent; a number with score.image was expected";
            says(say(Parts::full(), serde_json::Value::Null), &format!("{member}: {expected}"));
            says(
                say(Parts::full(), serde_json::json!(1e39)),
                &format!("{member}: image_score is inf; a finite number"),
            );
            let without = Parts::full().manifest(|m| _ = m["score"].as_object_mut().unwrap().remove("image"));
            let others = "image_score is -1.5; none without score.image was expected";
            says(say(without, serde_json::json!(0.5)), &format!("golden/00.json: {others}"));
        }
    }

    #[test]
    fn a_forest_that_is_no_json() {
        says(
            Parts::full().replace("score/forest.json", b"trees").refused(),
            "score/forest.json does not follow its schema",
        );
    }

    #[test]
    fn a_score_rule_without_its_members_and_members_without_their_rule() {
        for missing in ["score/forest.json", "score/segments.png"] {
            let mut parts = Parts::full();
            parts.0.remove(parts.at(missing));
            says(parts.relist().refused(), &format!("{missing} is missing"));
            let mut draft = full();
            let member = if missing == "score/forest.json" { &mut draft.forest } else { &mut draft.segments };
            *member = None;
            says(draft.pack().unwrap_err().to_string(), &format!("{missing} is missing"));
        }
        let other = Parts::full().manifest(|m| m["score"]["rule"] = serde_json::json!({"kind": "top-k", "top_k": 1}));
        let without = "which has no place in a bundle without a score rule of kind forest";
        says(other.refused(), &format!("the manifest lists score/forest.json, {without}"));
        let segments = Draft { segments: full().segments, ..draft() };
        says(segments.pack().unwrap_err().to_string(), &format!("the manifest lists score/segments.png, {without}"));
    }

    #[test]
    fn answers_of_a_gpu_that_do_not_belong_to_its_model() {
        let mut parts = Parts::full();
        parts.0.remove(parts.at("model-gpu.onnx"));
        let sentence = "the manifest lists golden-gpu/00.json, which has no place in a bundle without model-gpu.onnx";
        says(parts.relist().refused(), sentence);
        let mut parts = Parts::full();
        parts.0.remove(parts.at("golden-gpu/01.json"));
        says(parts.relist().refused(), "golden-gpu/01.json is missing");
        let mut more = full();
        let gpu = more.gpu.as_mut().unwrap();
        gpu.golden.push(gpu.golden[0].clone());
        let sentence = "the manifest lists golden-gpu/02.json, which has no place in a bundle";
        ends(more.pack().unwrap_err().to_string(), sentence);
    }

    #[test]
    fn new_members_in_another_order() {
        for (a, b) in [
            ("model-gpu.onnx", "model.onnx"),
            ("score/forest.json", "model-gpu.onnx"),
            ("score/segments.png", "score/forest.json"),
            ("golden/00.png", "score/segments.png"),
            ("golden-gpu/00.json", "golden/01.json"),
            ("report.json", "golden-gpu/01.json"),
        ] {
            let mut parts = Parts::full();
            let (first, second) = (parts.at(a), parts.at(b));
            parts.0.swap(first, second);
            says(parts.relist().refused(), &format!("{a} stands where {b} was expected"));
        }
    }

    #[test]
    fn a_golden_picture_left_out_in_front() {
        let mut parts = Parts::full();
        parts.0.remove(parts.at("golden/00.png"));
        ends(parts.relist().refused(), "the manifest lists golden/01.png, which has no place in a bundle");
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
