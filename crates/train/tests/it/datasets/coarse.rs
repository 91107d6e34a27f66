//! How many coarse labels are used, and of which kinds.

use super::*;
use ckaad_train::datasets::{Classes, LabelledShare, coarse_labels};

/// 40 dents, 40 scratches and 3 stains.
fn anomalies() -> Vec<Sample> {
    let class = |class: &'static str, count| {
        (0..count).map(move |i| Sample::new(format!("{class}/{i}.png").into(), Some(class.into())))
    };
    class("dent", 40).chain(class("scratch", 40)).chain(class("stain", 3)).collect()
}

fn counts(samples: &[Sample]) -> [usize; 3] {
    ["dent", "scratch", "stain"].map(|c| samples.iter().filter(|s| s.defect.as_deref() == Some(c)).count())
}

fn draw(share: LabelledShare, classes: Classes, seed: u64) -> Vec<Sample> {
    coarse_labels(anomalies(), share, classes, 380, seed).unwrap()
}

#[test]
fn a_share_of_the_training_set_is_drawn_evenly_over_the_classes() {
    // 20 of 400 images are 5 %; the stains are all there are.
    let drawn = draw(LabelledShare::OfTrainingSet(0.05), Classes::All, 1);
    let [dents, scratches, stains] = counts(&drawn);
    assert_eq!((drawn.len(), stains), (20, 3));
    assert!(dents.abs_diff(scratches) <= 1, "{dents} and {scratches}");
    assert_eq!(draw(LabelledShare::All, Classes::All, 1).len(), 83);
    // More than there are is all of them.
    assert_eq!(draw(LabelledShare::OfTrainingSet(0.9), Classes::All, 1).len(), 83);
}

#[test]
fn the_seed_decides() {
    let five_percent = |seed| draw(LabelledShare::OfTrainingSet(0.05), Classes::All, seed);
    assert_eq!(five_percent(1), five_percent(1));
    assert_ne!(five_percent(1), five_percent(2));
    let mut shuffled = anomalies();
    shuffled.reverse();
    let drawn = coarse_labels(shuffled, LabelledShare::OfTrainingSet(0.05), Classes::All, 380, 1).unwrap();
    assert_eq!(drawn, five_percent(1));
}

#[test]
fn the_classes_can_be_named_or_numbered() {
    let names = ["dent".to_owned(), "stain".to_owned()];
    assert_eq!(counts(&draw(LabelledShare::All, Classes::Named(&names), 1)), [40, 0, 3]);
    for seed in 0..10 {
        let drawn = draw(LabelledShare::All, Classes::Drawn(1), seed);
        assert_eq!(counts(&drawn).iter().filter(|&&n| n > 0).count(), 1);
    }
    let told = coarse_labels(anomalies(), LabelledShare::All, Classes::Named(&["crack".into()]), 380, 1);
    assert!(told.unwrap_err().to_string().contains("class \"crack\"; found dent, scratch, stain"));
    for share in [0.0, 1.0, -0.1, f64::NAN] {
        assert!(coarse_labels(anomalies(), LabelledShare::OfTrainingSet(share), Classes::All, 380, 1).is_err());
    }
}
