//! Which images are of one part or patient, and splits that keep them together: a net that saw a part's other pictures
//! would be judged too well on this one.

use super::Sample;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a split moves as one: the sample's group, else the image alone.
pub fn key(sample: &Sample, root: &Path) -> String {
    match &sample.group {
        Some(group) => format!("group {group}"),
        None => format!("image {}", sample.path.strip_prefix(root).unwrap_or(&sample.path).to_string_lossy()),
    }
}

/// Adds whole groups of `samples` to `held` until each class has its share of images there, groups in `order` first to
/// last.
///
/// A class is the normal images or one kind of defect; the rarest is served first, the normal images last and from
/// groups without defects as long as there are such. One group of every class is never held, so that both sides can
/// know the class.
fn hold_out(
    samples: &[(String, &Sample)],
    order: &[String],
    held: &mut BTreeSet<String>,
    share: impl Fn(&Sample) -> f64,
) {
    let mut classes: BTreeMap<Option<&str>, Vec<&(String, &Sample)>> = BTreeMap::new();
    for keyed in samples {
        classes.entry(keyed.1.defect.as_deref()).or_default().push(keyed);
    }
    let defective: BTreeSet<&str> =
        samples.iter().filter(|(_, s)| s.defect.is_some()).map(|(key, _)| key.as_str()).collect();
    let mut classes: Vec<_> = classes.into_iter().collect();
    classes.sort_by_key(|(class, members)| (class.is_none(), members.len(), *class));
    for (class, members) in classes {
        let wanted = (members.len() as f64 * share(members[0].1)).ceil() as usize;
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        members.iter().for_each(|(key, _)| *sizes.entry(key).or_default() += 1);
        let mut taken: usize = sizes.iter().filter(|(key, _)| held.contains(**key)).map(|(_, size)| size).sum();
        let mut free: Vec<&String> =
            order.iter().filter(|key| sizes.contains_key(key.as_str()) && !held.contains(*key)).collect();
        if class.is_none() {
            free.sort_by_key(|key| defective.contains(key.as_str()));
        }
        free.pop();
        for key in free {
            if taken >= wanted {
                break;
            }
            taken += sizes[key.as_str()];
            held.insert(key.clone());
        }
    }
}

/// Shares of a set that comes without a split: two of three normal images and one of five anomalous ones are for
/// training.
const TRAINING_NORMAL: f64 = 2.0 / 3.0;
const TRAINING_ANOMALOUS: f64 = 0.2;

/// Training and test images of a set that comes without a split, by whole groups. The order of the SHA-256 of their
/// names decides, so the split is the same everywhere and always.
pub fn split_unsplit(samples: Vec<Sample>, root: &Path) -> (Vec<Sample>, Vec<Sample>) {
    let keyed: Vec<(String, &Sample)> = samples.iter().map(|s| (key(s, root), s)).collect();
    let keys: BTreeSet<&String> = keyed.iter().map(|(key, _)| key).collect();
    let mut order: Vec<String> = keys.into_iter().cloned().collect();
    order.sort_by_cached_key(|key| Sha256::digest(key.as_bytes()).to_vec());
    let mut training = BTreeSet::new();
    let share = |s: &Sample| if s.defect.is_none() { TRAINING_NORMAL } else { TRAINING_ANOMALOUS };
    hold_out(&keyed, &order, &mut training, share);
    samples.into_iter().partition(|s| training.contains(&key(s, root)))
}

/// Largest step of the running number between two pictures of one tile, and from one tile to the next at which their
/// pictures may still be interleaved.
const WITHIN_TILE: u64 = 600;
const INTERLEAVED: u64 = 100;

/// Groups the magnetic tiles, `expE_num_N`: each tile was taken under up to six exposures E = 1 to 6 with a rising
/// running number N, which no two pictures share. In the order of N a new group begins where E does not rise any more.
/// Tiles that were taken at the same time have interleaved numbers and stay one group. Nothing happens unless every
/// image is named so.
pub fn group_exposures(samples: &mut [&mut Sample]) {
    let Some(mut shots) =
        samples.iter().enumerate().map(|(i, s)| Some((exposure(s)?, i))).collect::<Option<Vec<((u64, u64), usize)>>>()
    else {
        return;
    };
    shots.sort_unstable();
    let mut before: Option<(u64, u64)> = None;
    let mut first = 0;
    for ((number, exposure), i) in shots {
        let goes_on =
            before.is_some_and(|(n, e)| number - n <= INTERLEAVED || (exposure > e && number - n <= WITHIN_TILE));
        if !goes_on {
            first = number;
        }
        samples[i].group = Some(format!("num_{first}"));
        before = Some((number, exposure));
    }
}

/// Running number and exposure of `expE_num_N`.
fn exposure(sample: &Sample) -> Option<(u64, u64)> {
    let (exposure, number) = sample.path.file_stem()?.to_str()?.strip_prefix("exp")?.split_once("_num_")?;
    Some((number.parse().ok()?, exposure.parse().ok()?))
}
