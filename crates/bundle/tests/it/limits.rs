//! The bounds of each member, exactly.

use super::*;

/// What each member may declare, and not a byte more: nothing of it is there, so only the declaration is judged.
#[test]
fn a_member_one_byte_longer_than_its_limit() {
    for (member, limit) in [
        ("manifest.json", 256 << 10),
        ("model.onnx", 96 << 20),
        ("model-gpu.onnx", 96 << 20),
        ("score/forest.json", 4 << 20),
        ("score/segments.png", 1 << 20),
        ("golden/00.png", 8 << 20),
        ("golden/00.json", 64 << 10),
        ("golden-gpu/00.json", 64 << 10),
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

/// All members at their limits at once, but for one of the two networks: both, with the rest, would be longer than a
/// file may be.
#[test]
fn every_member_may_be_as_long_as_its_limit() {
    let padded = |text: &[u8], length: usize| [text, &vec![b' '; length - text.len()]].concat();
    for (long, short) in [("model.onnx", "model-gpu.onnx"), ("model-gpu.onnx", "model.onnx")] {
        let mut parts = Parts::full();
        for (path, content, _) in &mut parts.0 {
            match path.as_str() {
                "manifest.json" => {}
                "report.json" => *content = padded(b"1", 16 << 20),
                "score/forest.json" => *content = padded(content, 4 << 20),
                "score/segments.png" => content.resize(1 << 20, 0),
                "golden/00.png" => content.resize(8 << 20, 0),
                path if path == long => *content = vec![7; 96 << 20],
                path if path == short => {}
                path if path.ends_with(".json") => *content = padded(content, 64 << 10),
                _ => {}
            }
        }
        let mut parts = parts.relist();
        parts.0[0].1 = padded(&parts.0[0].1, 256 << 10);
        let bundle = Bundle::from_bytes(&parts.pack()).unwrap();
        let mut models = [bundle.model.len(), bundle.gpu.unwrap().model.len()];
        models.sort_unstable();
        assert_eq!((models[1], bundle.golden[0].png.len()), (96 << 20, 8 << 20));
        assert_eq!((bundle.forest.unwrap().len(), bundle.segments.unwrap().len()), (4 << 20, 1 << 20));
        assert_eq!(bundle.report, Some(serde_json::json!(1)));
    }
}

/// As long as a file may be it is read, and found to be no bundle; a byte more, and it is not read.
#[test]
fn a_file_one_byte_longer_than_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.ckaad");
    let file = std::fs::File::create(&path).unwrap();
    let reading = |bytes: u64| {
        file.set_len(bytes).unwrap();
        let from_file = Bundle::read(&path).unwrap_err().problem.to_string();
        assert_eq!(refused(&vec![0; bytes as usize]), from_file);
        from_file
    };
    assert_eq!(
        reading(MAX_BYTES),
        format!("{} bytes follow the end of the archive; none was expected", MAX_BYTES - 1024)
    );
    for bytes in [MAX_BYTES + 1, MAX_BYTES + 7] {
        assert_eq!(reading(bytes), format!("the file is {bytes} bytes long; at most {MAX_BYTES} are accepted"));
    }
}

/// The last value that is accepted, and the first that is not.
#[test]
fn values_of_the_manifest_at_their_bounds() {
    let packed = |change: &dyn Fn(&mut Manifest)| {
        let mut draft = draft();
        change(&mut draft.manifest);
        draft.pack().map(drop).map_err(|problem| problem.to_string())
    };
    let pixels = 224 * 192;
    let expected = "a number from 1 to the input's pixels was expected";
    for (k, good) in [(0, false), (1, true), (pixels, true), (pixels + 1, false)] {
        let wrong =
            |field: &str| if good { Ok(()) } else { Err(format!("{field} in manifest.json is {k}; {expected}")) };
        assert_eq!(packed(&|m| m.score.rule = ScoreRule::TopK { top_k: k }), wrong("score.rule.top_k"));
        let combined = || ScoreRule::Combined { terms: vec![ScoreTerm { top_k: k, weight: 1.0 }] };
        assert_eq!(packed(&|m| m.score.rule = combined()), wrong("score.rule.terms.top_k"));
    }
    assert_eq!(packed(&|m| m.calibration.quantiles = vec![0.5; 21]), Ok(()), "equal neighbours ascend");
    for (count, good) in [(0, false), (1, true), (16, true), (17, false)] {
        let combined = || ScoreRule::Combined { terms: vec![ScoreTerm { top_k: 1, weight: 1.0 }; count] };
        assert_eq!(packed(&|m| m.score.rule = combined()).is_ok(), good, "{count} terms of the score");
        assert_eq!(packed(&|m| m.methods = vec!["bank".into(); count]).is_ok(), good, "{count} methods");
        let term = MapTerm { name: "error".into(), weight: -1.0 };
        assert_eq!(packed(&|m| m.terms = vec![term.clone(); count]).is_ok(), count <= 16, "{count} terms of the map");
        let names: Vec<String> = (0..count).map(|view| format!("C{view}")).collect();
        let mut views = draft();
        views.golden.clear();
        (views.manifest.views, views.manifest.view_names) = (count as u32, names);
        assert_eq!(views.pack().is_ok(), good, "{count} views");
    }
    for (length, good) in [(1, true), (64, true), (65, false)] {
        assert_eq!(packed(&|m| m.methods = vec!["ß".repeat(length)]).is_ok(), good, "a method of {length} characters");
        let term = MapTerm { name: "ß".repeat(length), weight: 0.0 };
        assert_eq!(packed(&|m| m.terms = vec![term.clone()]).is_ok(), good, "a term's name of {length} characters");
    }
    for (rank, good) in [(0, false), (1, true), (50, true), (51, false)] {
        assert_eq!(packed(&|m| m.calibration.rank = Some(rank)).is_ok(), good, "rank {rank} of 50");
    }
    for (interval, good) in [([0.0, 1.0], true), ([0.5, 0.5], true), ([0.5, 0.49], false), ([0.0, 1.01], false)] {
        assert_eq!(packed(&|m| m.calibration.interval = interval).is_ok(), good, "{interval:?}");
    }
    for (shape, good) in [(-1.0, true), (1.0, true), (1.01, false), (f32::NAN, false)] {
        assert_eq!(packed(&|m| m.calibration.tail.shape = shape).is_ok(), good, "shape {shape}");
    }
    let still = Moments { mean: 0.0, deviation: 0.0 };
    let looks = Some(Appearance { brightness: still, sharpness: still });
    assert_eq!(packed(&|m| m.training_data.appearance = looks), Ok(()), "images that are all alike");
    for (name, good) in [("washer-2", true), ("7", true), ("-", true), ("Washer", false), ("a_b", false), ("", false)] {
        assert_eq!(packed(&|m| m.name = name.into()).is_ok(), good, "{name:?}");
    }
    for budget in [0.0, 1.0] {
        let sentence = format!(
            "calibration.false_alarm_budget in manifest.json is {budget}; a share between 0 and 1 was expected"
        );
        assert_eq!(packed(&|m| m.calibration.false_alarm_budget = budget), Err(sentence));
    }
}

#[test]
fn as_many_golden_samples_as_there_may_be() {
    let packed = |samples: usize| {
        let mut draft = draft();
        draft.golden = vec![draft.golden[0].clone(); samples];
        draft.gpu = Some(GpuModel { model: vec![1], golden: vec![answer(0.5); samples] });
        draft.pack()
    };
    let bundle = Bundle::from_bytes(&packed(MAX_GOLDEN).unwrap()).unwrap();
    assert_eq!((bundle.golden.len(), bundle.gpu.unwrap().golden.len()), (MAX_GOLDEN, MAX_GOLDEN));
    let sentence = "the manifest lists 17 golden samples; at most 16 are accepted";
    assert_eq!(packed(MAX_GOLDEN + 1).unwrap_err().to_string(), sentence);
}

#[test]
fn values_of_the_score_at_their_bounds() {
    let packed = |change: &dyn Fn(&mut Score)| {
        let mut draft = full();
        change(&mut draft.manifest.score);
        draft.pack().is_ok()
    };
    for (segments, good) in [(0, false), (1, true), (256, true), (257, false)] {
        assert_eq!(packed(&|s| s.rule = ScoreRule::Forest { segments, tie_break: 0.0 }), good, "{segments} segments");
    }
    for (weight, good) in [(0.0, true), (1.0, true), (-0.01, false), (1.01, false), (f32::NAN, false)] {
        assert_eq!(packed(&|s| s.image.as_mut().unwrap().weight = weight), good, "a weight of {weight}");
    }
    for (spread, good) in [(f32::MIN_POSITIVE, true), (0.0, false), (-1.0, false), (f32::INFINITY, false)] {
        assert_eq!(packed(&|s| s.image.as_mut().unwrap().map.spread = spread), good, "a spread of {spread}");
        assert_eq!(packed(&|s| s.image.as_mut().unwrap().image.spread = spread), good, "a spread of {spread}");
    }
}

#[test]
fn as_deep_as_json_may_be() {
    let packed = |levels: usize| {
        let report = (0..levels).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        Draft { report: Some(report), ..draft() }.pack().map(drop).map_err(|problem| problem.to_string())
    };
    assert_eq!(packed(32), Ok(()));
    assert_eq!(packed(33), Err("report.json is nested too deeply: 33 levels, at most 32 are accepted".into()));
    let forest = |levels: usize| {
        let forest = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        Draft { forest: Some(forest.into()), ..full() }.pack().map(drop).map_err(|problem| problem.to_string())
    };
    assert_eq!(forest(32), Ok(()));
    assert_eq!(forest(33), Err("score/forest.json is nested too deeply: 33 levels, at most 32 are accepted".into()));
}
