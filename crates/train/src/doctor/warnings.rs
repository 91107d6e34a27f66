//! Looks at images → what is wrong with the set, a sentence each.

use super::findings::{NearDuplicate, Problem, Warning};
use super::look::{Look, Mask};
use super::near;
use crate::datasets::Sample;
use std::collections::{BTreeMap, BTreeSet};

/// Examples of one warning.
const TOLD: usize = 3;
/// Pairs of near duplicates that are kept.
const MOST_PAIRS: usize = 10_000;
/// Near duplicates are grave where there are at least so many, and more than this share of the test images: the measure
/// itself took up to 3 % of the images for what they are not where that could be checked.
const FEWEST_NEAR: usize = 5;
const NEAR_SHARE: f64 = 0.05;
/// Ratio of sides from which images are said to differ in size, or a square input to stretch them.
const UNEQUAL: f64 = 1.5;
/// Below it the threshold and the folds rest on too little.
const FEW_NORMALS: usize = 40;
/// Below it labelled anomalies cannot choose between methods.
const FEW_LABELS: usize = 10;

/// One image of the set and what it looks like, or why it cannot be read.
pub struct Examined<'a> {
    pub sample: &'a Sample,
    pub test: bool,
    /// Relative to the set's folder.
    pub name: String,
    pub look: Result<Look, String>,
}

/// Everything but near duplicates.
pub fn all(images: &[Examined]) -> Vec<Warning> {
    let mut found = vec![unreadable(images)];
    found.extend(duplicates(images));
    found.push(parts_across(images));
    found.extend(masks(images));
    found.extend([constant(images), unequal_sizes(images), stretched(images)]);
    found.extend([few_normals(images), few_labels(images), one_sided_test(images)]);
    found.into_iter().flatten().collect()
}

/// A warning of what `examples` lists, all of it; none where that is nothing.
fn warning(problem: Problem, examples: Vec<String>, what: &str) -> Option<Warning> {
    (!examples.is_empty()).then(|| counted(problem, examples.len(), examples, what))
}

/// `what: count (examples)`.
fn counted(problem: Problem, count: usize, mut examples: Vec<String>, what: &str) -> Warning {
    examples.truncate(TOLD);
    let more = if examples.len() < count { ", ..." } else { "" };
    let sentence = format!("{what}: {count} ({}{more})", examples.join(", "));
    said(problem, count, examples, sentence)
}

fn said(problem: Problem, count: usize, examples: Vec<String>, sentence: String) -> Warning {
    Warning { problem, grave: problem.is_grave(), count, examples, sentence }
}

/// The names of the images that `wanted` holds for.
fn names(images: &[Examined], wanted: impl Fn(&Examined, &Look) -> bool) -> Vec<String> {
    let readable = images.iter().filter_map(|image| Some((image, image.look.as_ref().ok()?)));
    readable.filter(|(image, look)| wanted(image, look)).map(|(image, _)| image.name.clone()).collect()
}

fn unreadable(images: &[Examined]) -> Option<Warning> {
    let reasons = images.iter().filter_map(|image| image.look.as_ref().err().cloned()).collect();
    warning(Problem::Unreadable, reasons, "images that cannot be read")
}

/// Images of the same pixels: with different labels, on both sides, within one.
fn duplicates(images: &[Examined]) -> Vec<Option<Warning>> {
    let mut same: BTreeMap<[u8; 32], Vec<&Examined>> = BTreeMap::new();
    for image in images {
        if let Ok(look) = &image.look {
            same.entry(look.digest).or_default().push(image);
        }
    }
    // In the order of the listing, not of the digests.
    let mut same: Vec<Vec<&Examined>> = same.into_values().filter(|copies| copies.len() > 1).collect();
    same.sort_by(|a, b| a[0].name.cmp(&b[0].name));
    let [mut labels, mut across, mut training, mut test] = [vec![], vec![], vec![], vec![]];
    for copies in &same {
        let pair = |a: &Examined, b: &Examined| format!("{} = {}", a.name, b.name);
        let find = |wanted: &dyn Fn(&Examined) -> bool| copies.iter().copied().find(|copy| wanted(copy));
        if let (Some(good), Some(bad)) = (find(&|c| c.sample.defect.is_none()), find(&|c| c.sample.defect.is_some())) {
            labels.push(pair(good, bad));
        }
        let on = |side: bool| copies.iter().copied().filter(move |copy| copy.test == side);
        if let Some(trained) = on(false).next() {
            across.extend(on(true).map(|tested| pair(trained, tested)));
        }
        for (side, list) in [(false, &mut training), (true, &mut test)] {
            if let Some(first) = on(side).next() {
                list.extend(on(side).skip(1).map(|copy| pair(first, copy)));
            }
        }
    }
    vec![
        warning(
            Problem::ContradictoryLabels,
            labels,
            "pictures that are both normal and anomalous, the same pixels under two labels",
        ),
        warning(Problem::DuplicatesAcross, across, "test images that are training images too, to the pixel"),
        warning(
            Problem::DuplicatesInTraining,
            training,
            "training images that are copies of others, to the pixel, so that held-out ones may be copies of what was trained on",
        ),
        warning(
            Problem::DuplicatesInTest,
            test,
            "test images that are copies of others, to the pixel, and count twice",
        ),
    ]
}

/// The most alike pairs, and the warning of all of them.
pub fn near_duplicates(images: &[Examined]) -> (Vec<NearDuplicate>, Option<Warning>) {
    let side = |test: bool| -> Vec<(&Examined, &Look)> {
        let readable = images.iter().filter_map(|image| Some((image, image.look.as_ref().ok()?)));
        readable.filter(|(image, look)| image.test == test && !look.constant).collect()
    };
    let (training, test) = (side(false), side(true));
    let thumbnails = |side: &[(&Examined, &Look)]| -> Vec<f32> {
        side.iter().flat_map(|(_, look)| look.thumbnail.iter().copied()).collect()
    };
    let trained: BTreeSet<[u8; 32]> = training.iter().map(|(_, look)| look.digest).collect();
    let near::Nearest { found, limit } = near::nearest(&thumbnails(&training), &thumbnails(&test));
    let mut pairs: Vec<NearDuplicate> = test
        .iter()
        .zip(found)
        .filter(|((_, look), _)| !trained.contains(&look.digest))
        .filter_map(|((image, _), found)| {
            let (place, correlation) = found.filter(|(_, correlation)| *correlation > limit)?;
            let (training, test) = (training.get(place)?.0.name.clone(), image.name.clone());
            Some(NearDuplicate { training, test, correlation })
        })
        .collect();
    pairs.sort_by(|a, b| b.correlation.total_cmp(&a.correlation));
    let examples = pairs.iter().map(|pair| format!("{} ~ {}", pair.training, pair.test)).collect();
    let what = "test images that are almost a training image, so that the test is easier than the line will be";
    let mut found = warning(Problem::NearDuplicates, examples, what);
    if let Some(found) = &mut found {
        found.grave = found.count >= FEWEST_NEAR && found.count as f64 > NEAR_SHARE * test.len() as f64;
    }
    pairs.truncate(MOST_PAIRS);
    (pairs, found)
}

fn parts_across(images: &[Examined]) -> Option<Warning> {
    let groups = |test: bool| -> BTreeSet<&str> {
        images.iter().filter(|image| image.test == test).filter_map(|image| image.sample.group.as_deref()).collect()
    };
    let both = groups(false).intersection(&groups(true)).map(|group| (*group).to_owned()).collect();
    warning(Problem::PartsAcross, both, "parts or patients, by the names, with images both in training and in test")
}

fn masks(images: &[Examined]) -> Vec<Option<Warning>> {
    let wrong = images.iter().filter_map(|image| match &image.look.as_ref().ok()?.mask {
        Some(Mask::Wrong(reason)) => Some(reason.clone()),
        _ => None,
    });
    let missing = |image: &Examined| image.test && image.sample.defect.is_some() && image.sample.mask.is_none();
    let some = images.iter().any(|image| image.test && image.sample.defect.is_some() && image.sample.mask.is_some());
    let missing = if some { names(images, |image, _| missing(image)) } else { vec![] };
    let empty = names(images, |image, look| image.sample.defect.is_some() && look.mask == Some(Mask::Empty));
    vec![
        warning(Problem::UnusableMasks, wrong.collect(), "masks that cannot be used"),
        warning(Problem::EmptyMasks, empty, "defects whose mask has no anomalous pixel"),
        warning(Problem::MissingMasks, missing, "test defects without a mask, where others have one"),
    ]
}

fn constant(images: &[Examined]) -> Option<Warning> {
    warning(Problem::ConstantImages, names(images, |_, look| look.constant), "images of one colour")
}

/// The side of a square of as many pixels.
fn side((width, height): (u32, u32)) -> f64 {
    (f64::from(width) * f64::from(height)).sqrt()
}

fn unequal_sizes(images: &[Examined]) -> Option<Warning> {
    let mut sides: Vec<f64> = images.iter().filter_map(|i| Some(side(i.look.as_ref().ok()?.size))).collect();
    sides.sort_by(f64::total_cmp);
    let (smallest, largest) = (*sides.first()?, *sides.last()?);
    if largest <= UNEQUAL * smallest {
        return None;
    }
    let many = names(images, |_, look| side(look.size) > UNEQUAL * smallest);
    let extreme = |wanted: f64| names(images, |_, look| side(look.size) == wanted).into_iter().next();
    let examples: Vec<String> = [extreme(smallest), extreme(largest)].into_iter().flatten().collect();
    let count = many.len();
    let sentence = format!(
        "images more than {UNEQUAL} times as large, by their sides, as the smallest, so that one size of defect looks \
         different in each: {count} of {} (smallest and largest: {})",
        sides.len(),
        examples.join(", ")
    );
    Some(said(Problem::UnequalSizes, count, examples, sentence))
}

fn stretched(images: &[Examined]) -> Option<Warning> {
    let far = |_: &Examined, look: &Look| {
        let (width, height) = (f64::from(look.size.0), f64::from(look.size.1));
        width.max(height) > UNEQUAL * width.min(height)
    };
    let what = format!(
        "images more than {UNEQUAL} times as long as wide or as wide as long, which a square input stretches (input.fit = \
         \"pad\" does not, nor does a fitting input.width and input.height)"
    );
    warning(Problem::Stretched, names(images, far), &what)
}

/// Training or test images of a class.
fn count(images: &[Examined], test: bool, anomalous: bool) -> usize {
    images.iter().filter(|image| image.test == test && image.sample.defect.is_some() == anomalous).count()
}

fn few_normals(images: &[Examined]) -> Option<Warning> {
    let count = count(images, false, false);
    let sentence = format!(
        "normal training images: {count}; with fewer than {FEW_NORMALS} a threshold is little more than a guess"
    );
    (count < FEW_NORMALS).then(|| said(Problem::FewNormals, count, vec![], sentence))
}

fn few_labels(images: &[Examined]) -> Option<Warning> {
    let count = count(images, false, true);
    let sentence = format!(
        "labelled anomalies in training: {count}; fewer than {FEW_LABELS} tell little of how many defects will be found"
    );
    (count < FEW_LABELS).then(|| said(Problem::FewLabels, count, vec![], sentence))
}

fn one_sided_test(images: &[Examined]) -> Option<Warning> {
    let (normal, anomalous) = (count(images, true, false), count(images, true, true));
    let sentence = format!("test images: {normal} normal and {anomalous} anomalous; without both there is no AUROC");
    (normal == 0 || anomalous == 0).then(|| said(Problem::OneSidedTest, normal + anomalous, vec![], sentence))
}
