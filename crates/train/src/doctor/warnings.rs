//! Looks at images → what is wrong with the set, a sentence each.

use super::findings::{NearDuplicate, Problem, Warning};
use super::look::{Look, Mask};
use super::near;
use crate::datasets::Sample;
use std::collections::{BTreeMap, BTreeSet};

/// Examples of one warning.
const TOLD: usize = 3;
/// Pairs of near duplicates that are kept.
const MOST_PAIRS: usize = 200;
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

/// A warning of what `examples` lists, all of it; none where that is nothing. `what` follows the count.
fn warning(problem: Problem, examples: Vec<String>, what: &str) -> Option<Warning> {
    let count = examples.len();
    (count > 0).then(|| counted(problem, count, examples, what))
}

fn counted(problem: Problem, count: usize, mut examples: Vec<String>, what: &str) -> Warning {
    examples.truncate(TOLD);
    let told = match examples.len() {
        0 => String::new(),
        shown if shown < count => format!(": {}, ...", examples.join(", ")),
        _ => format!(": {}", examples.join(", ")),
    };
    let sentence = format!("{count} {what}{told}");
    Warning { problem, grave: problem.is_grave(), count, examples, sentence }
}

/// The names of the images that `wanted` holds for.
fn names(images: &[Examined], wanted: impl Fn(&Examined, &Look) -> bool) -> Vec<String> {
    let readable = images.iter().filter_map(|image| Some((image, image.look.as_ref().ok()?)));
    readable.filter(|(image, look)| wanted(image, look)).map(|(image, _)| image.name.clone()).collect()
}

fn unreadable(images: &[Examined]) -> Option<Warning> {
    let reasons = images.iter().filter_map(|image| image.look.as_ref().err().cloned()).collect();
    warning(Problem::Unreadable, reasons, "images cannot be read")
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
            list.extend(on(side).skip(1).zip(on(side).next()).map(|(copy, first)| pair(first, copy)));
        }
    }
    vec![
        warning(
            Problem::ContradictoryLabels,
            labels,
            "pictures are labelled both normal and anomalous, the same pixels under two names",
        ),
        warning(Problem::DuplicatesAcross, across, "test images are training images too, to the pixel"),
        warning(
            Problem::DuplicatesInTraining,
            training,
            "training images are copies of others, to the pixel: the held-out ones may be copies of what was trained on",
        ),
        warning(Problem::DuplicatesInTest, test, "test images are copies of others, to the pixel, and count twice"),
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
    let nearest = near::nearest(&thumbnails(&training), &thumbnails(&test));
    let mut pairs: Vec<NearDuplicate> = test
        .iter()
        .zip(nearest)
        .filter(|((_, look), _)| !trained.contains(&look.digest))
        .filter_map(|((image, _), found)| {
            let (place, correlation) = found.filter(|(_, correlation)| *correlation > near::NEAR)?;
            let (training, test) = (training.get(place)?.0.name.clone(), image.name.clone());
            Some(NearDuplicate { training, test, correlation })
        })
        .collect();
    pairs.sort_by(|a, b| b.correlation.total_cmp(&a.correlation));
    let examples = pairs.iter().map(|pair| format!("{} ~ {}", pair.training, pair.test)).collect();
    let what = "test images are almost a training image, perhaps the same part taken again";
    let found = warning(Problem::NearDuplicates, examples, what);
    pairs.truncate(MOST_PAIRS);
    (pairs, found)
}

fn parts_across(images: &[Examined]) -> Option<Warning> {
    let groups = |test: bool| -> BTreeSet<&str> {
        images.iter().filter(|image| image.test == test).filter_map(|image| image.sample.group.as_deref()).collect()
    };
    let both = groups(false).intersection(&groups(true)).map(|group| (*group).to_owned()).collect();
    warning(Problem::PartsAcross, both, "parts or patients, by the names, have images both in training and in test")
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
        warning(Problem::UnusableMasks, wrong.collect(), "masks cannot be used with their images"),
        warning(Problem::EmptyMasks, empty, "defects have a mask without an anomalous pixel"),
        warning(Problem::MissingMasks, missing, "test defects have no mask, and others have one"),
    ]
}

fn constant(images: &[Examined]) -> Option<Warning> {
    warning(Problem::ConstantImages, names(images, |_, look| look.constant), "images are of one colour")
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
    let what = format!(
        "of {} images are more than {UNEQUAL} times as large, side by side, as the smallest, and a defect of one size \
         looks different in each; smallest and largest",
        sides.len()
    );
    let count = many.len();
    let sentence = format!("{count} {what}: {}", examples.join(", "));
    Some(Warning { sentence, ..counted(Problem::UnequalSizes, count, examples, &what) })
}

fn stretched(images: &[Examined]) -> Option<Warning> {
    let far = |_: &Examined, look: &Look| {
        let (width, height) = (f64::from(look.size.0), f64::from(look.size.1));
        width.max(height) > UNEQUAL * width.min(height)
    };
    let what = format!(
        "images are more than {UNEQUAL} times as long as wide, and a square input would stretch them (input.width and \
         input.height, or input.fit, of the config can follow them)"
    );
    warning(Problem::Stretched, names(images, far), &what)
}

fn training(images: &[Examined], anomalous: bool) -> usize {
    images.iter().filter(|image| !image.test && image.sample.defect.is_some() == anomalous).count()
}

fn few_normals(images: &[Examined]) -> Option<Warning> {
    let count = training(images, false);
    let what = format!("normal training images are few; {FEW_NORMALS} or more are better");
    (count < FEW_NORMALS).then(|| counted(Problem::FewNormals, count, vec![], &what))
}

fn few_labels(images: &[Examined]) -> Option<Warning> {
    let count = training(images, true);
    let what = format!(
        "labelled anomalies in training tell little of how many defects will be found; {FEW_LABELS} or more are better"
    );
    (count < FEW_LABELS).then(|| counted(Problem::FewLabels, count, vec![], &what))
}

fn one_sided_test(images: &[Examined]) -> Option<Warning> {
    let anomalous = images.iter().filter(|image| image.test && image.sample.defect.is_some()).count();
    let normal = images.iter().filter(|image| image.test).count() - anomalous;
    let what = format!("normal and {anomalous} anomalous test images: without both there is no AUROC");
    (normal == 0 || anomalous == 0).then(|| counted(Problem::OneSidedTest, normal, vec![], &what))
}
