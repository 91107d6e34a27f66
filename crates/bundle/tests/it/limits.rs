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
        draft.pack()
    };
    assert_eq!(Bundle::from_bytes(&packed(MAX_GOLDEN).unwrap()).unwrap().golden.len(), MAX_GOLDEN);
    let sentence = "the manifest lists 17 golden samples; at most 16 are accepted";
    assert_eq!(packed(MAX_GOLDEN + 1).unwrap_err().to_string(), sentence);
}

#[test]
fn as_deep_as_json_may_be() {
    let packed = |levels: usize| {
        let report = (0..levels).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        Draft { report: Some(report), ..draft() }.pack().map(drop).map_err(|problem| problem.to_string())
    };
    assert_eq!(packed(32), Ok(()));
    assert_eq!(packed(33), Err("report.json is nested too deeply: 33 levels, at most 32 are accepted".into()));
}

#[test]
fn a_score_rule_in_words() {
    let summary = |top_k: u32, terms: &[ScoreTerm]| {
        let mut draft = draft();
        draft.manifest.score.rule = match terms {
            [] => ScoreRule::TopK { top_k },
            terms => ScoreRule::Combined { terms: terms.to_vec() },
        };
        let text = Bundle::from_bytes(&draft.pack().unwrap()).unwrap().summary();
        text.lines().find_map(|line| line.strip_prefix("score        ")).map(str::to_owned).unwrap()
    };
    assert_eq!(summary(1, &[]), "the largest pixel after a Gaussian of 4 px");
    assert_eq!(summary(100, &[]), "the mean of the 100 largest pixels after a Gaussian of 4 px");
    assert_eq!(summary(224 * 192, &[]), "the mean of all pixels after a Gaussian of 4 px");
    let terms = [ScoreTerm { top_k: 1, weight: 0.5 }, ScoreTerm { top_k: 9, weight: -2.0 }];
    let words = "+0.500 x the largest pixel -2.000 x the mean of the 9 largest pixels after a Gaussian of 4 px";
    assert_eq!(summary(1, &terms), words);
}
