//! From a bundle and an image to a verdict: formats, score rules, the image branch, and what a verdict is owed to.

use ckaad_bundle::{Bundle, Fusion, GoldenAnswer, ImageBranch, Score, ScoreRule, Standard};
use ckaad_inspect::imaging::{RgbImage, encode_png};
use ckaad_inspect::{DecidedBy, Forest, InspectOptions, Inspector, Limits, Node, Verdict};
use ckaad_testing::in_repository;
use ckaad_testing::onnx::brightness;
use image::{ExtendedColorType, GrayImage, ImageEncoder, Luma, Rgb};

fn format1() -> Bundle {
    Bundle::read(&in_repository("crates/bundle/tests/fixtures/format1.ckaad")).unwrap()
}

const MAP: (&str, &[i64]) = ("anomaly_map", &[1, 1, 8, 12]);
const IMAGE_SCORE: (&str, &[i64]) = ("image_score", &[1, 1]);

/// A bundle whose map is the image's brightness, 0 to 1.
fn bundle(rule: ScoreRule) -> Bundle {
    let mut bundle = format1();
    bundle.model = brightness(&[MAP]);
    bundle.golden.clear();
    bundle.manifest.score = Score { sigma_px: 0.0, rule, image: None };
    bundle.manifest.calibration.quantiles = (0..21).map(|i| i as f32 * 0.02).collect();
    bundle.manifest.calibration.threshold = 0.5;
    bundle.manifest.calibration.pixel_threshold = 0.5;
    bundle
}

/// The mean of the map has this share of the image's score at its side.
fn with_branch(weight: f32, fusion: Fusion) -> Bundle {
    let mut bundle = bundle(ScoreRule::TopK { top_k: 1 });
    let (map, image) = (Standard { centre: 0.2, spread: 0.1 }, Standard { centre: 0.1, spread: 0.05 });
    bundle.manifest.score.image = Some(ImageBranch { map, image, weight, fusion });
    bundle.model = brightness(&[IMAGE_SCORE, MAP]);
    bundle
}

/// Three segments: the left half, the right half's upper and its lower part. What is bright on the right, below, is
/// anomalous; so is a little what is bright on the left.
fn with_forest() -> Bundle {
    let mut bundle = bundle(ScoreRule::Forest { segments: 3, tie_break: 0.5 });
    let label = |x: u32, y: u32| if x < 24 { 0 } else { 1 + u8::from(y >= 16) };
    let segments = GrayImage::from_fn(48, 32, |x, y| Luma([label(x, y)]));
    bundle.segments = Some(grey_png(&segments));
    // Feature 3 is the mean of segment 0, feature 11 that of segment 2.
    let tree = |feature: u16, leaf: f32| {
        vec![Node::Split { feature, threshold: 0.25, left: 1, right: 2 }, Node::Leaf(-1.0), Node::Leaf(leaf)]
    };
    let forest = Forest::new(vec![0.1; 13], vec![tree(3, 0.5), tree(11, 2.0)]).unwrap();
    bundle.forest = Some(forest.to_json());
    bundle
}

fn grey_png(picture: &GrayImage) -> Vec<u8> {
    let mut png = vec![];
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.write_image(picture, picture.width(), picture.height(), ExtendedColorType::L8).unwrap();
    png
}

/// 51 of 255 everywhere but where `at` says otherwise.
fn picture(at: impl Fn(u32, u32) -> Option<u8>) -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| Rgb([at(x, y).unwrap_or(51); 3]))
}

fn judge(bundle: &Bundle, image: &RgbImage) -> Verdict {
    Inspector::new(bundle, &InspectOptions::default()).unwrap().inspect(image).unwrap()
}

#[track_caller]
fn close(found: f32, expected: f32) {
    assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
}

fn refused(bundle: &Bundle) -> String {
    Inspector::new(bundle, &InspectOptions::default()).err().expect("it should have been refused").to_string()
}

#[test]
fn a_bundle_of_format_1_gives_its_golden_answers() {
    let bundle = format1();
    let inspector = Inspector::new(&bundle, &InspectOptions::default()).unwrap();
    let results = inspector.check_golden(&bundle).unwrap();
    assert_eq!(results.len(), 2);
    for result in &results {
        assert!(result.passed && result.max_grid_error < 1e-5, "{result:?}");
        close(result.score.unwrap(), result.expected);
    }
}

#[test]
fn a_plain_rule_is_decided_by_the_map() {
    let verdict = judge(&bundle(ScoreRule::TopK { top_k: 1 }), &picture(|x, _| (x >= 40).then_some(204)));
    close(verdict.score, 0.8);
    assert_eq!((verdict.map_score, verdict.image_score, verdict.decided_by), (verdict.score, None, DecidedBy::Map));
    assert_eq!(verdict.threshold, 0.5);
    close(verdict.normal_score, 0.2);
    // The threshold lies 0.3 above the median; the score as far again.
    close(verdict.severity(), 1.0);
}

/// Defective from 0.5 on; regions below so many of the frame's 1,536 pixels do not count.
fn judge_from(smallest_region_px: f32, bundle: &Bundle, image: &RgbImage) -> Verdict {
    let limits = Limits { threshold: 0.5, smallest_region_px };
    Inspector::new(bundle, &InspectOptions::default()).unwrap().inspect_within(image, limits).unwrap()
}

#[test]
fn a_region_that_is_too_small_does_not_make_an_image_defective() {
    let bundle = bundle(ScoreRule::TopK { top_k: 1 });
    // Two of the map's 12 columns, so a sixth of the frame.
    let speck = picture(|x, y| (x < 8 && y < 8).then_some(255));
    let plain = judge_from(0.0, &bundle, &speck);
    let area = plain.regions[0].area_px;
    assert!(plain.is_defective() && plain.regions.len() == 1 && area < 200.0, "{area}");
    let counted = judge_from(area, &bundle, &speck);
    assert!(counted.is_defective() && !counted.too_small);
    let ignored = judge_from(area + 1.0, &bundle, &speck);
    assert!(ignored.too_small && !ignored.is_defective() && ignored.regions.is_empty());
    assert_eq!((ignored.score, ignored.smallest_region_px), (plain.score, area + 1.0));
    // A large one beside it is told alone.
    let both = picture(|x, y| ((x < 8 && y < 8) || x >= 24).then_some(if x < 8 { 255 } else { 204 }));
    let verdict = judge_from(area + 1.0, &bundle, &both);
    assert!(
        verdict.is_defective() && verdict.regions.len() == 1 && verdict.regions[0].x >= 20,
        "{:?}",
        verdict.regions
    );
}

/// A speck on top must not silence what many pixels, the image branch or a forest say.
#[test]
fn a_small_region_hides_nothing_that_is_said_without_it() {
    // Just below the pixel threshold, but for a speck.
    let mut diffuse = bundle(ScoreRule::TopK { top_k: 96 });
    diffuse.manifest.calibration.pixel_threshold = 0.9;
    let image = picture(|x, y| Some(if x < 8 && y < 8 { 255 } else { 204 }));
    let verdict = judge_from(1000.0, &diffuse, &image);
    assert!(verdict.is_defective() && !verdict.too_small && !verdict.regions.is_empty());
    let branch = with_branch(1.0, Fusion::Larger);
    let verdict = judge_from(1e6, &branch, &picture(|x, _| (x >= 24).then_some(204)));
    assert!(verdict.decided_by == DecidedBy::Image && verdict.is_defective(), "{:?}", verdict.decided_by);
    assert!(!verdict.regions.is_empty(), "whoever is told of a defect is told where");
}

#[test]
fn severity_is_in_units_of_the_threshold_above_the_median_of_normal_images() {
    let bundle = bundle(ScoreRule::TopK { top_k: 1 });
    let severity = |value: u8| judge(&bundle, &picture(|_, _| Some(value))).severity();
    close(severity(153), (0.6 - 0.5) / 0.3);
    assert_eq!((severity(102), severity(255)), (0.0, 1.0));
    // Scores around zero have a severity too.
    let mut low = bundle;
    low.manifest.calibration.quantiles = vec![-0.1; 21];
    low.manifest.calibration.threshold = 0.0;
    close(judge(&low, &picture(|_, _| Some(13))).severity(), 13.0 / 25.5);
}

#[test]
fn map_and_image_are_fused_and_the_larger_decides() {
    let half = picture(|x, _| (x >= 24).then_some(102));
    let verdict = judge(&with_branch(0.5, Fusion::Sum), &half);
    close(verdict.map_score, 0.4);
    close(verdict.image_score.unwrap(), 0.3);
    // 2 spreads of the map, 4 of the image.
    close(verdict.score, 3.0);
    assert_eq!(verdict.decided_by, DecidedBy::Image);
    close(judge(&with_branch(0.5, Fusion::Larger), &half).score, 4.0);
    let verdict = judge(&with_branch(0.25, Fusion::Larger), &half);
    close(verdict.score, 2.0 * 0.75 * 2.0);
    assert_eq!(verdict.decided_by, DecidedBy::Map);
}

#[test]
fn an_output_and_its_branch_belong_together() {
    let (mut output, mut branch) = (with_branch(0.5, Fusion::Sum), with_branch(0.5, Fusion::Sum));
    output.manifest.score.image = None;
    let sentence = "model format-1 1.2.3: the network has the output image_score, the manifest has no score.image";
    assert_eq!(refused(&output), sentence);
    branch.model = brightness(&[MAP]);
    let sentence = "model format-1 1.2.3: the manifest has score.image, the network has no output image_score";
    assert_eq!(refused(&branch), sentence);
}

#[test]
fn views_that_the_network_does_not_take_are_refused() {
    let mut bundle = format1();
    let sees = |bundle: &Bundle, shown: usize| {
        let (inspector, image) = (Inspector::new(bundle, &InspectOptions::default()).unwrap(), picture(|_, _| None));
        let limits = inspector.limits();
        inspector.inspect_part(&vec![&image; shown], limits).map(|verdicts| verdicts.len()).map_err(|e| e.to_string())
    };
    assert_eq!(sees(&bundle, 1), Ok(1));
    let sentence = "model format-1 1.2.3: it takes 1 view(s) of a part at once, and was shown 2";
    assert_eq!(sees(&bundle, 2), Err(sentence.into()));
    bundle.manifest.views = 2;
    assert_eq!(refused(&bundle), "model format-1 1.2.3: the manifest says 2 views, the network takes 1");
}

#[test]
fn a_forest_judges_and_names_the_segment() {
    let bundle = with_forest();
    let good = judge(&bundle, &picture(|_, _| None));
    close(good.score, -2.0 + 0.5 * 0.2);
    assert_eq!(good.decided_by, DecidedBy::Map, "no segment is over its normal features");
    let below = judge(&bundle, &picture(|x, y| (x >= 24 && y >= 16).then_some(204)));
    close(below.score, -1.0 + 2.0 + 0.5 * 0.8);
    assert_eq!((below.decided_by, below.decided_by.to_string().as_str()), (DecidedBy::Segment(2), "segment 2"));
    let left = judge(&bundle, &picture(|x, _| (x < 20).then_some(204)));
    close(left.score, 0.5 - 1.0 + 0.5 * 0.8);
    assert_eq!(left.decided_by, DecidedBy::Segment(0));
    // Nobody asks the forest about this segment.
    let above = judge(&bundle, &picture(|x, y| (x >= 30 && y < 12).then_some(204)));
    assert_eq!(above.decided_by, DecidedBy::Map);
    let both = judge(&bundle, &picture(|_, _| Some(204)));
    assert_eq!(both.decided_by, DecidedBy::Segment(2), "it takes more off");
}

#[test]
fn the_image_may_outweigh_a_forest() {
    let mut bundle = with_forest();
    bundle.model = brightness(&[MAP, IMAGE_SCORE]);
    let decided = |bundle: &mut Bundle, weight: f32| {
        let (map, image) = (Standard { centre: -2.0, spread: 1.0 }, Standard { centre: 0.1, spread: 0.01 });
        bundle.manifest.score.image = Some(ImageBranch { map, image, weight, fusion: Fusion::Sum });
        judge(bundle, &picture(|x, y| (x >= 24 && y >= 16).then_some(204))).decided_by
    };
    assert_eq!(decided(&mut bundle, 0.01), DecidedBy::Segment(2));
    assert_eq!(decided(&mut bundle, 0.9), DecidedBy::Image);
}

#[test]
fn a_forest_that_does_not_fit_is_refused() {
    let with = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = with_forest();
        change(&mut bundle);
        refused(&bundle)
    };
    let at = "model format-1 1.2.3:";
    assert_eq!(
        with(&|b| b.forest = None),
        format!("{at} score/forest.json is missing, which the score rule forest needs")
    );
    assert_eq!(
        with(&|b| b.segments = None),
        format!("{at} score/segments.png is missing, which the score rule forest needs")
    );
    assert_eq!(
        with(&|b| b.manifest.score.rule = ScoreRule::Forest { segments: 2, tie_break: 0.0 }),
        format!("{at} score/forest.json has 13 features; 9 were expected for 2 segments")
    );
    let labels = GrayImage::from_fn(48, 32, |x, _| Luma([(x / 10) as u8]));
    assert_eq!(
        with(&|b| b.segments = Some(grey_png(&labels))),
        format!("{at} score/segments.png has the label 3; labels below 3 were expected")
    );
    let turned = GrayImage::new(32, 48);
    assert_eq!(
        with(&|b| b.segments = Some(grey_png(&turned))),
        format!("{at} score/segments.png is 32x48 pixels; the network's input of 48x32 was expected")
    );
    let colours = RgbImage::new(48, 32);
    let why = with(&|b| b.segments = Some(encode_png(&colours).unwrap()));
    assert!(why.contains("score/segments.png is not an image") && why.contains("no PNG of 8-bit grey"), "{why}");
    assert!(with(&|b| b.segments = Some(b"GIF89a".to_vec())).contains("score/segments.png is not an image"));
    let why = with(&|b| b.forest = Some(br#"{"features": 13, "normal": [], "trees": []}"#.to_vec()));
    assert_eq!(why, format!("{at} the length of normal in score/forest.json is 0; 13 (features) was expected"));
}

#[test]
fn a_score_that_is_not_finite_is_an_error() {
    let mut bundle = bundle(ScoreRule::TopK { top_k: 1 });
    let terms = vec![ckaad_bundle::ScoreTerm { top_k: 1, weight: f32::MAX }; 9];
    bundle.manifest.score.rule = ScoreRule::Combined { terms };
    let inspector = Inspector::new(&bundle, &InspectOptions::default()).unwrap();
    let why = inspector.inspect(&picture(|_, _| Some(255))).err().unwrap().to_string();
    assert_eq!(why, "model format-1 1.2.3: an image has the score inf, which is not finite");
}

/// A golden answer may be off by 0.02 of the way from the median to the threshold, its map by 0.02 of the pixel
/// threshold, and not by more.
#[test]
fn golden_answers_are_held_to_their_tolerances() {
    let mut bundle = with_branch(0.5, Fusion::Sum);
    let picture = picture(|x, _| (x >= 24).then_some(102));
    let right = ckaad_inspect::golden_answer(&judge(&bundle, &picture));
    assert!(right.image_score.is_some());
    bundle.manifest.calibration.threshold = 1.2; // 1.0 above the median
    bundle.manifest.calibration.pixel_threshold = 0.5;
    let mut passes = |change: &dyn Fn(&mut GoldenAnswer)| {
        let mut expected = right.clone();
        change(&mut expected);
        bundle.golden = vec![ckaad_bundle::Golden { png: encode_png(&picture).unwrap(), expected }];
        let inspector = Inspector::new(&bundle, &InspectOptions::default()).unwrap();
        inspector.check_golden(&bundle).unwrap()[0].passed
    };
    assert!(passes(&|_| {}));
    for sign in [-1.0, 1.0] {
        assert!(passes(&|a| a.score += sign * 0.019) && !passes(&|a| a.score += sign * 0.021));
        assert!(passes(&|a| a.grid[63] += sign * 0.0099) && !passes(&|a| a.grid[63] += sign * 0.0101));
        // Its spread is 0.05.
        let image = |by: f32| move |a: &mut GoldenAnswer| a.image_score = a.image_score.map(|s| s + sign * by);
        assert!(passes(&image(0.00095)) && !passes(&image(0.00105)));
    }
    assert!(!passes(&|a| a.image_score = None));
}
