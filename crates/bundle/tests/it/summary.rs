//! What `bundle inspect` says.

use super::*;

/// The values of the lines with this key.
fn lines(draft: Draft, key: &str) -> Vec<String> {
    let text = Bundle::from_bytes(&draft.pack().unwrap()).unwrap().summary();
    let line = |line: &str| line.strip_prefix(&format!("{key:<12} ")).map(str::to_owned);
    text.lines().filter_map(line).collect()
}

fn line(draft: Draft, key: &str) -> String {
    let lines = lines(draft, key);
    assert_eq!(lines.len(), 1, "{key}: {lines:?}");
    lines.into_iter().next().unwrap()
}

#[test]
fn what_a_model_is() {
    assert_eq!(line(draft(), "model"), "washer 1.2.3 (bundle format 2)");
    assert_eq!(line(draft(), "methods"), "ckaad-patch, bank on efficientnet-lite0, int8");
    assert_eq!(line(draft(), "input"), "224x192 RGB, letterboxed, bilinear");
    assert_eq!(line(draft(), "map"), "28x24 (stride 8)");
    assert_eq!(lines(draft(), "map term"), ["1.5 x error", "0.25 x distance"]);
    assert_eq!(lines(draft(), "member").len(), 6);
    let mut views = draft();
    (views.manifest.views, views.manifest.view_names) = (4, ["C1", "C2", "C3", "C4"].map(Into::into).to_vec());
    views.golden.clear();
    assert_eq!(line(views, "input"), "the 4 views C1, C2, C3, C4 at once, each 224x192 RGB, letterboxed, bilinear");
    let looks = "normal images: brightness 118.0 (standard deviation 3.5), sharpness 210.0 (standard deviation 40.0)";
    assert_eq!(line(draft(), "appearance"), looks);
}

#[test]
fn a_score_rule_in_words() {
    let summary = |rule: ScoreRule| {
        let mut draft = draft();
        draft.manifest.score.rule = rule;
        line(draft, "score")
    };
    let top_k = |top_k: u32| summary(ScoreRule::TopK { top_k });
    assert_eq!(top_k(1), "the largest pixel after a Gaussian of 4 px");
    assert_eq!(top_k(100), "the mean of the 100 largest pixels after a Gaussian of 4 px");
    assert_eq!(top_k(224 * 192), "the mean of all pixels after a Gaussian of 4 px");
    let terms = vec![ScoreTerm { top_k: 1, weight: 0.5 }, ScoreTerm { top_k: 9, weight: -2.0 }];
    let words = "+0.500 x the largest pixel -2.000 x the mean of the 9 largest pixels after a Gaussian of 4 px";
    assert_eq!(summary(ScoreRule::Combined { terms }), words);
    let words = "boosted trees over 3 segments, ties broken by 0.001 x the mean of the 86 largest pixels after a \
                 Gaussian of 4 px";
    assert_eq!(line(full(), "score"), words);
}

/// What `export` says of a new bundle.
#[test]
fn map_and_score_on_a_line_each() {
    let manifest = full().manifest;
    assert_eq!(manifest.describe_map(), "1.500 x error + 0.250 x distance");
    let words = "boosted trees over 3 segments, ties broken by 0.001 x the mean of the 86 largest pixels after a \
                 Gaussian of 4 px; 0.700 x map + 0.300 x image, both standardised";
    assert_eq!(manifest.describe_score(), words);
    let mut whole = draft().manifest;
    whole.score.rule = ScoreRule::TopK { top_k: 224 * 192 };
    assert_eq!(whole.describe_score(), "the mean of all pixels after a Gaussian of 4 px; no image branch");
}

#[test]
fn an_image_branch_in_words() {
    assert_eq!(lines(draft(), "image branch"), [""; 0]);
    assert_eq!(line(full(), "image branch"), "0.700 x map + 0.300 x image, both standardised");
    let mut larger = full();
    larger.manifest.score.image.as_mut().unwrap().fusion = Fusion::Larger;
    let words = "twice the larger of 0.700 x map and 0.300 x image, both standardised";
    assert_eq!(line(larger, "image branch"), words);
}

#[test]
fn a_threshold_with_what_it_promises() {
    assert_eq!(line(draft(), "threshold"), "1.1 (pixels from 0.8)");
    let words = "50 normal images, scores 0 to 1, median 0.5, at most 2 % false alarms wanted";
    assert_eq!(line(draft(), "calibration"), words);
    let promise = |rank: Option<u32>, expected_rate: f32, interval: [f32; 2]| {
        let mut draft = draft();
        let c = &mut draft.manifest.calibration;
        (c.rank, c.expected_rate, c.interval) = (rank, expected_rate, interval);
        line(draft, "false alarms")
    };
    assert_eq!(
        promise(Some(1), 0.0196, [0.001, 0.0582]),
        "the largest score of 50 normal images; 1.96 % of normal images expected to alert, 90 % interval 0.1 % to 5.82 %"
    );
    assert_eq!(
        promise(Some(5), 0.1, [0.05, 0.125]),
        "the score with rank 5, from the largest, of 50 normal images; 10 % of normal images expected to alert, \
         90 % interval 5 % to 12.5 %"
    );
    assert_eq!(
        promise(None, 0.00012345, [0.0, 0.0582]),
        "beyond what 50 normal images show by counting, from the tail of their scores; 0.0123 % of normal images \
         expected to alert, 90 % interval 0 % to 5.82 %"
    );
    assert!(promise(None, 0.02, [0.0, 1.0]).ends_with("expected to alert, how far that may be off is not known"));
}
