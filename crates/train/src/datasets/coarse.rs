//! Which of the coarse-labelled training anomalies are used.

use super::{DataError, Sample, listing};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;

/// How many of the training anomalies are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LabelledShare {
    /// All of them.
    All,
    /// Labelled anomalies in normal and labelled images together, above 0 and below 1; the CKAAD paper takes 0.05.
    OfTrainingSet(f64),
}

/// Which kinds of training anomalies are used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Classes<'a> {
    /// All of them.
    All,
    /// Those of these names.
    Named(&'a [String]),
    /// So many, drawn by the seed.
    Drawn(usize),
}

/// Draws the coarse-labelled training anomalies out of `samples`, evenly over the classes as far as each has enough:
/// with `normals` normal training images and a share x, `normals * x / (1 - x)` of them. The same seed draws the same
/// ones; sorted.
///
/// # Errors
/// A named class is not there, or the share is none.
pub fn coarse_labels(
    samples: Vec<Sample>,
    share: LabelledShare,
    classes: Classes,
    normals: usize,
    seed: u64,
) -> Result<Vec<Sample>, DataError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut by_class: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        if let Some(defect) = sample.defect.clone() {
            by_class.entry(defect).or_default().push(sample);
        }
    }
    keep(&mut by_class, classes, &mut rng)?;
    for members in by_class.values_mut() {
        members.sort();
        members.shuffle(&mut rng);
    }
    let wanted = match share {
        LabelledShare::All => usize::MAX,
        LabelledShare::OfTrainingSet(x) if x > 0.0 && x < 1.0 => (normals as f64 * x / (1.0 - x)).round() as usize,
        LabelledShare::OfTrainingSet(x) => return Err(DataError::Share(x)),
    };
    let mut drawn = in_turns(by_class.into_values().collect(), wanted);
    drawn.sort();
    Ok(drawn)
}

fn keep(by_class: &mut BTreeMap<String, Vec<Sample>>, classes: Classes, rng: &mut StdRng) -> Result<(), DataError> {
    match classes {
        Classes::All => {}
        Classes::Named(names) => {
            if let Some(asked) = names.iter().find(|n| !by_class.contains_key(*n)) {
                return Err(DataError::NoClass { asked: asked.clone(), known: listing::few(by_class.keys()) });
            }
            by_class.retain(|class, _| names.contains(class));
        }
        Classes::Drawn(count) => {
            let mut names: Vec<String> = by_class.keys().cloned().collect();
            names.shuffle(rng);
            names.truncate(count);
            by_class.retain(|class, _| names.contains(class));
        }
    }
    Ok(())
}

/// One of each class in turn, until `wanted` are drawn or none is left.
fn in_turns(mut classes: Vec<Vec<Sample>>, wanted: usize) -> Vec<Sample> {
    let mut drawn = vec![];
    while drawn.len() < wanted && classes.iter().any(|c| !c.is_empty()) {
        for class in &mut classes {
            if drawn.len() < wanted {
                drawn.extend(class.pop());
            }
        }
    }
    drawn
}
