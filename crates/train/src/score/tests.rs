use super::*;
use ckaad_bundle::{Fusion, ScoreRule};

const ERROR: Term = Term::map("error");
const ENERGY: Term = Term::map("energy").taught();
const POOLED: Term = Term::image("pooled").taught();
const SIZE: (usize, usize) = (10, 10);

/// 40 normal and 10 anomalous maps of 100 pixels; `defect` paints the anomalous ones.
fn maps(defect: impl Fn(usize, &mut [f32])) -> Vec<Array2<f32>> {
    let noise = |i: usize, p: usize| ((i * 7919 + p * 104_729) % 1000) as f32 / 1000.0;
    let map = |i: usize| {
        let mut map: Vec<f32> = (0..100).map(|p| noise(i, p)).collect();
        if i >= 40 {
            defect(i, &mut map);
        }
        Array2::from_shape_vec(SIZE, map).unwrap()
    };
    (0..50).map(map).collect()
}

fn judged(maps: Vec<(Term, Vec<Array2<f32>>)>) -> Judged {
    let positive = (0..50).map(|i| i >= 40).collect();
    let folds = (0..50).map(|i| i % 5).collect();
    Judged { positive, folds, kinds: vec![None; 50], segments: None, maps, branches: vec![] }
}

/// Without smoothing, which would spread a peak over a map of ten pixels a side.
fn config() -> ScoreConfig {
    ScoreConfig { sigma_px: 0.0, ..Default::default() }
}

fn choose(maps: Vec<Array2<f32>>, config: ScoreConfig) -> Choice {
    judged(vec![(ERROR, maps)]).choose_map(&config, SIZE)
}

fn auroc(choice: &Choice) -> f64 {
    choice.placements.as_ref().unwrap().auroc()
}

#[test]
fn a_small_peak_is_found_by_few_pixels_and_a_raised_part_by_all() {
    let peak = choose(maps(|_, map| map[3] = 5.0), config());
    assert!(matches!(peak.score.rule, ScoreRule::TopK { top_k: 1 }), "{peak:?}");
    assert_eq!(auroc(&peak), 1.0);
    let raised = choose(maps(|_, map| map.iter_mut().for_each(|v| *v = *v * 0.1 + 0.6)), config());
    assert!(matches!(raised.score.rule, ScoreRule::TopK { top_k: 100 }), "{raised:?}");
    assert_eq!(auroc(&raised), 1.0);
}

#[test]
fn two_kinds_of_defect_need_both_rules_together() {
    // Half of the parts are raised a little everywhere but lose their peaks, half have one peak.
    let both = || {
        maps(|i, map| match i % 2 {
            0 => map.iter_mut().for_each(|v| *v = *v * 0.2 + 0.5),
            _ => map[3] = 1.6,
        })
    };
    let combined = choose(both(), ScoreConfig { rule: Rule::Combined, ..config() });
    let maximum = choose(both(), ScoreConfig { rule: Rule::Maximum, ..config() });
    assert!(matches!(combined.score.rule, ScoreRule::Combined { .. }));
    assert!(auroc(&combined) > auroc(&maximum), "{combined:?} {maximum:?}");
}

#[test]
fn a_term_is_left_out_where_it_hurts() {
    let (flat, telling) = (|| maps(|_, _| {}), || maps(|_, map| map[3] = 1.01));
    let choose = |error, energy| judged(vec![(ERROR, error), (ENERGY, energy)]).choose_map(&config(), SIZE).weights;
    assert!(choose(flat(), telling()).of(ENERGY) > 0.0);
    assert_eq!(choose(telling(), flat()), TermWeights::only(ERROR));
}

#[test]
fn what_no_label_has_checked_does_not_enter_the_map() {
    let mut judged = judged(vec![(ERROR, maps(|_, _| {})), (ENERGY, maps(|_, _| {}))]);
    judged.positive = vec![false; 50];
    let choice = judged.choose_map(&config(), SIZE);
    assert_eq!((choice.weights, choice.placements), (TermWeights::only(ERROR), None));
}

#[test]
fn weights_of_the_config_are_kept() {
    let weights = [("error".to_owned(), 1.0), ("energy".to_owned(), 0.0)].into();
    let maps = vec![(ERROR, maps(|_, _| {})), (ENERGY, maps(|_, map| map[3] = 5.0))];
    let choice = judged(maps).choose_map(&ScoreConfig { weights, ..config() }, SIZE);
    assert_eq!(choice.weights, TermWeights::only(ERROR));
}

/// The default stands unless another is better by more than the standard error of the difference.
#[test]
fn a_gain_inside_one_standard_error_changes_nothing() {
    let positive: Vec<bool> = (0..50).map(|i| i >= 40).collect();
    // Anomalous images in turn higher by one shift and by the other.
    let placed = |even: f32, odd: f32| {
        let shift = |i: usize| if i < 40 { 0.0 } else { [even, odd][i % 2] };
        let scores: Vec<f32> = (0..50).map(|i| (i * 37 % 50) as f32 + shift(i)).collect();
        Placements::of(&scores, &positive).unwrap()
    };
    let (default, hardly, clearly) = (placed(5.0, 5.0), placed(-5.0, 17.0), placed(30.0, 30.0));
    let (gain, error) = hardly.gain_over(&default);
    assert!(0.0 < gain && gain < error, "{gain} ± {error}");
    assert_eq!(pick(&[Some(&default), Some(&hardly)]), 0);
    assert_eq!(pick(&[Some(&default), Some(&hardly), Some(&clearly)]), 2);
    assert_eq!(pick(&[None, Some(&clearly)]), 0);
}

/// A branch that knows only what it was shown does not silence the map; one that is of no use is left out.
#[test]
fn the_image_branch_takes_part_as_far_as_it_helps() {
    let map = || {
        maps(|i, map| {
            if i % 2 == 0 {
                map[3] = 5.0
            }
        })
    };
    let noise = |i: usize| ((i * 31) % 47) as f32 / 47.0;
    let seen: Vec<f32> = (0..50).map(|i| noise(i) + if i >= 40 && i % 2 == 1 { 3.0 } else { 0.0 }).collect();
    let fuse = |seen: Vec<f32>, unseen: Vec<f32>| {
        let term = ImageTerm { term: POOLED, seen, unseen: Some(unseen) };
        let labels = judged(vec![]);
        let judged = Judged { branches: Branch::of(&[term], &labels.positive), ..judged(vec![(ERROR, map())]) };
        let config = config();
        judged.choose_fusion(judged.choose_map(&config, SIZE), &config)
    };
    let alone = auroc(&choose(map(), config()));
    let joined = fuse(seen.clone(), seen.clone());
    assert!(joined.score.image.is_some() && auroc(&joined) > alone + 0.1, "{joined:?}");
    assert!(joined.weights.of(POOLED) > 0.0);
    // Never shown, it takes every defect for very normal: whatever voice it has then costs the map's.
    let misled: Vec<f32> = (0..50).map(|i| if i >= 40 { noise(i) - 9.0 } else { noise(i) }).collect();
    let careful = fuse(seen, misled);
    let weight = careful.score.image.map_or(0.0, |b| if b.fusion == Fusion::Larger { 0.0 } else { b.weight });
    assert!(weight <= 0.25, "{careful:?}");
    let useless: Vec<f32> = (0..50).map(|i| if i >= 40 { -5.0 } else { noise(i) }).collect();
    assert_eq!(fuse(useless.clone(), useless).score.image, None);
}

/// With few labels, or none, nobody can say what a branch is worth: what no label taught counts as much as the map, and
/// what these few taught has no voice.
#[test]
fn without_labels_an_untaught_branch_counts_as_much_as_the_map() {
    let noise = |i: usize| ((i * 31) % 47) as f32 / 47.0;
    for anomalous in [0, FEW_LABELS - 1] {
        let labels = Judged { positive: (0..50).map(|i| i >= 50 - anomalous).collect(), ..judged(vec![]) };
        let term = |term| ImageTerm { term, seen: (0..50).map(noise).collect(), unseen: None };
        let untaught = Term::image("other");
        let branches = Branch::of(&[term(untaught), term(POOLED)], &labels.positive);
        assert_eq!(branches.len(), 1, "{branches:?}");
        let judged = Judged { branches, maps: vec![(ERROR, maps(|_, _| {}))], ..labels.labels() };
        let choice = judged.choose_fusion(judged.choose_map(&config(), SIZE), &config());
        let image = choice.score.image.expect("the branch has a voice");
        assert_eq!((image.weight, image.fusion), (0.5, Fusion::Sum));
        assert_eq!((choice.weights.of(POOLED), choice.weights.of(untaught) > 0.0), (0.0, true));
        let taught = Branch::of(&[term(POOLED)], &labels.positive);
        assert!(taught.is_empty(), "{taught:?}");
    }
}

/// Peaks on the left are how these parts look, the same peaks on the right are defects: only segments tell them apart.
#[test]
fn a_forest_learns_which_segment_matters() {
    let peaks = |right: bool| {
        move |i: usize, map: &mut [f32]| {
            for p in 0..3 {
                map[10 * ((i + p) % 10) + if right { 7 } else { 2 }] = 3.0 + p as f32;
            }
        }
    };
    let mut all = maps(peaks(true));
    all[..40].iter_mut().enumerate().for_each(|(i, map)| peaks(false)(i, map.as_slice_mut().unwrap()));
    let labels = Array2::from_shape_fn(SIZE, |(_, x)| u8::from(x >= 5));
    let kind = |i: usize| (i >= 40).then(|| ["dent", "crack"][i % 2].to_owned());
    let judged =
        Judged { kinds: (0..50).map(kind).collect(), segments: Some(Segments { labels, count: 2 }), ..judged(vec![]) };
    let choice = judged.choose_rule(&TermWeights::only(ERROR), |i| all[i].clone(), &config());
    assert!(matches!(choice.score.rule, ScoreRule::Forest { segments: 2, .. }), "{:?}", choice.score);
    assert!(auroc(&choice) > 0.95 && choice.forest.is_some(), "{}", auroc(&choice));
    // Without segments the same peaks say nothing.
    let plain = Judged { segments: None, ..judged.labels() };
    let plain = plain.choose_rule(&TermWeights::only(ERROR), |i| all[i].clone(), &config());
    assert!(auroc(&plain) < 0.8 && plain.forest.is_none(), "{}", auroc(&plain));
}

/// What nobody left out keeps being what was seen, in whatever numbers the network is written.
#[test]
fn a_branch_judged_anew_keeps_what_leaving_a_kind_out_cost() {
    let term = ImageTerm { term: POOLED, seen: vec![1.0, 2.0], unseen: Some(vec![1.0, -1.0]) };
    let again = Branch::mixed(&[term], TermWeights::only(POOLED)).again(vec![1.5, 2.25]);
    assert_eq!((again.seen, again.unseen), (vec![1.5, 2.25], Some(vec![1.5, -0.75])));
}

/// A map that learned from labels was never tried on unknown kinds of defects: a branch that was is held against it on
/// known ones alone, and the map keeps a voice.
#[test]
fn a_taught_map_and_a_branch_are_compared_on_the_same_kinds() {
    let found = |i: usize| i >= 40;
    let weak = maps(|i, map| map[3] = if i % 2 == 0 { 5.0 } else { 0.0 });
    let noise = |i: usize| ((i * 31) % 47) as f32 / 47.0;
    let seen: Vec<f32> = (0..50).map(|i| noise(i) + if found(i) { 9.0 } else { 0.0 }).collect();
    let unseen: Vec<f32> = (0..50).map(|i| noise(i) - if found(i) { 9.0 } else { 0.0 }).collect();
    let fuse = |map: Term| {
        let term = ImageTerm { term: POOLED, seen: seen.clone(), unseen: Some(unseen.clone()) };
        let labels = judged(vec![]);
        let judged = Judged { branches: Branch::of(&[term], &labels.positive), ..judged(vec![(map, weak.clone())]) };
        judged.choose_fusion(judged.choose_map(&config(), SIZE), &config()).score.image
    };
    let beside_taught = fuse(ENERGY).expect("on known kinds the branch is far better");
    assert!((0.5..1.0).contains(&beside_taught.weight), "{beside_taught:?}");
    assert_eq!(beside_taught.fusion, Fusion::Sum, "the larger of the two would be the way for unknown kinds");
    let beside_untaught = fuse(ERROR).map_or(0.0, |b| if b.fusion == Fusion::Larger { 0.0 } else { b.weight });
    assert!(beside_untaught <= 0.25, "{beside_untaught}");
}

/// A map that tells nothing only adds noise: a branch that holds on unknown kinds too speaks alone. Two image terms are in
/// units of their spread, and count for what they are worth.
#[test]
fn a_branch_may_speak_alone_and_a_term_of_little_use_counts_for_little() {
    let noise = |i: usize, step: usize| ((i * step) % 47) as f32 / 47.0;
    // Every fifth part shines, good or not.
    let mut blind = maps(|_, _| {});
    blind.iter_mut().step_by(5).for_each(|map| map[[0, 3]] = 1000.0);
    let good: Vec<f32> = (0..50).map(|i| 100.0 * noise(i, 31) + if i >= 40 { 90.0 } else { 0.0 }).collect();
    let useless: Vec<f32> = (0..50).map(|i| noise(i, 17)).collect();
    let term = |term, seen: Vec<f32>| ImageTerm { term, unseen: Some(seen.clone()), seen };
    let judged = |terms: &[ImageTerm]| {
        let labels = judged(vec![]);
        Judged { branches: Branch::of(terms, &labels.positive), ..judged(vec![(ERROR, blind.clone())]) }
    };
    let fuse = |terms: &[ImageTerm]| {
        let judged = judged(terms);
        judged.choose_fusion(judged.choose_map(&config(), SIZE), &config())
    };
    let other = Term::image("other");
    let both = [term(POOLED, good.clone()), term(other, useless)];
    let alone = fuse(&both);
    let share = alone.weights.of(other) / (100.0 * alone.weights.of(POOLED));
    assert!(share < 0.2, "{share} {alone:?}");
    assert_eq!(alone.score.image.map(|b| (b.weight, b.fusion)), Some((1.0, Fusion::Sum)), "{alone:?}");
    // Worth the same, each in units of its spread.
    let alike =
        &judged(&[term(POOLED, good.clone()), term(other, good.iter().map(|v| v / 100.0).collect())]).branches[0];
    assert!((alike.weights.of(other) / alike.weights.of(POOLED) - 100.0).abs() < 0.1, "{:?}", alike.weights);
}
