//! The images of a run, their features where those can be kept, and the batches of an epoch, read ahead in the
//! background.

use super::outlined::{OutlinedPlaces, OutlinedSet};
use super::set::{ImageList, ImageSet, mix};
use super::{FitContext, FitError, model};
use crate::augment::{AnomalySource, AugmentConfig, View};
use crate::config::TrainConfig;
use crate::datasets::Parts;
use crate::features::FeatureError;
use crate::methods::{Batch, Labelled, StepBatch};
use crate::run::Unit;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

/// The normal images, and the anomalies that are labelled or made.
pub struct Images<'a> {
    normal: ImageSet<'a>,
    /// The normal ones in other lights, each variant in [`LIGHTS`] of them; empty where nobody reads images twice.
    relit: ImageSet<'a>,
    anomalous: ImageSet<'a>,
    /// Whether the anomalies are made, since none are labelled.
    made: bool,
    outlined: OutlinedSet<'a>,
    /// Names of the views that a method sees beside each other.
    views: &'a [String],
}

/// Lights that each variant of a normal image is kept in.
const LIGHTS: usize = 2;
/// What they change.
const LIGHT: AugmentConfig = AugmentConfig { rotate_deg: 0.0, brightness: 0.1, contrast: 0.1 };
/// Tells their seeds from others'.
const RELIT: u64 = 0x7265_6c69;

/// Those of them that one unit may see.
pub struct UnitImages<'a> {
    images: &'a Images<'a>,
    /// Places in the sets; of the normal images part by part, where a method sees several views of one at once.
    normal: Vec<Vec<usize>>,
    anomalous: Vec<usize>,
    outlined: OutlinedPlaces,
}

impl<'a> Images<'a> {
    /// Lists the images and computes the features that can be kept.
    ///
    /// # Errors
    /// An image cannot be read, or the cache not written.
    pub fn open(context: &FitContext<'a>) -> Result<Images<'a>, FitError> {
        let (config, placed) = (context.config, context.placed);
        let needs = model(context, &Unit::Whole).needs();
        let flips = config.features.flips.variants();
        let list = |name: &str, images: Vec<Labelled>| ImageList {
            name: name.to_owned(),
            images,
            variants: flips.len(),
            view: Box::new(move |_, v| View::flipped(flips[v])),
        };
        let of_class = |anomalous: bool| -> Vec<Labelled> {
            placed.iter().filter(|image| image.sample.defect.is_some() == anomalous).cloned().collect()
        };
        let made = made_anomalies(config, of_class(false), context.info.labels());
        let is_made = made.is_some();
        let anomalous = match made {
            _ if !needs.anomalous => list("anomalous", vec![]),
            None => list("anomalous", of_class(true)),
            Some((images, kind)) => {
                let (seed, alpha) = (config.seed, config.anomalies.alpha);
                let view = move |i: usize, v: usize| View {
                    anomaly: Some((kind, mix(seed, i as u64, v as u64))),
                    alpha,
                    ..View::flipped(flips[v])
                };
                ImageList { view: Box::new(view), ..list("made-anomalies", images) }
            }
        };
        let seed = config.seed ^ RELIT;
        let relit = ImageList {
            variants: flips.len() * LIGHTS,
            view: Box::new(move |i, v| View {
                augment: Some((LIGHT, mix(seed, i as u64, v as u64))),
                ..View::flipped(flips[v / LIGHTS])
            }),
            ..list("relit", if needs.twice { of_class(false) } else { vec![] })
        };
        // Where anomalies are made, the labelled ones are left alone.
        let labelled = if is_made { vec![] } else { of_class(true) };
        Ok(Images {
            normal: ImageSet::open(list("normal", of_class(false)), needs, context)?,
            relit: ImageSet::open(relit, needs, context)?,
            anomalous: ImageSet::open(anomalous, needs, context)?,
            made: is_made,
            outlined: OutlinedSet::open(&of_class(false), &labelled, needs, context)?,
            views: config.views_of(needs.views),
        })
    }

    /// The number of anomalies to train on.
    pub fn anomalous(&self) -> usize {
        self.anomalous.images.len()
    }

    /// The images that `unit` may see; none where nothing of it is trained in steps.
    pub fn of(&self, context: &FitContext, unit: &Unit) -> UnitImages<'_> {
        let steps = model(context, unit).needs().steps;
        let seen = |images: &[Labelled]| -> Vec<usize> {
            (0..images.len()).filter(|&i| steps && unit.sees(&images[i])).collect()
        };
        let normal = seen(&self.normal.images);
        let parts = Parts::of(normal.iter().map(|&i| &self.normal.images[i].sample), self.views).complete;
        UnitImages {
            images: self,
            normal: parts.into_iter().map(|part| part.into_iter().map(|i| normal[i]).collect()).collect(),
            anomalous: seen(&self.anomalous.images),
            outlined: self.outlined.places(|image| steps && unit.sees(image)),
        }
    }
}

impl UnitImages<'_> {
    /// Steps of an epoch.
    pub fn steps(&self, config: &TrainConfig) -> usize {
        self.normal.len().div_ceil(self.batch(config).max(1))
    }

    /// Parts of a step, which together have about as many images as the config says.
    fn batch(&self, config: &TrainConfig) -> usize {
        (config.train.batch / self.images.views.len().max(1)).max(1).min(self.normal.len())
    }

    /// Whether there are anomalies to train on.
    pub fn anomalies(&self) -> bool {
        !self.anomalous.is_empty()
    }

    /// Starts a thread that reads the batches of `epoch` ahead. At most three batches are in memory.
    pub fn epoch<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        config: &'env TrainConfig,
        epoch: usize,
    ) -> Receiver<Result<StepBatch, FeatureError>> {
        let (send, receive) = sync_channel(1);
        scope.spawn(move || {
            for picks in self.draw(config, epoch) {
                let batch = || {
                    let (augment, seed) = (config.augment, config.seed);
                    let of_normal = |picks: &[(usize, usize)]| self.images.normal.batch(picks, augment, seed, epoch);
                    let views = self.images.views.len().max(1);
                    let normal = Batch { views, ..of_normal(&picks.normal)? };
                    let relit =
                        (!picks.relit.is_empty()).then(|| self.images.relit.batch(&picks.relit, augment, seed, epoch));
                    let anomalous = (!picks.anomalous.is_empty())
                        .then(|| self.images.anomalous.batch(&picks.anomalous, augment, seed, epoch));
                    let outlined = (!picks.outlined.is_empty())
                        .then(|| self.images.outlined.batch(&picks.outlined, config, epoch));
                    let mut outlined = outlined.transpose()?;
                    if let (Some(outlined), false) = (&mut outlined, picks.before.is_empty()) {
                        outlined.before = Some(of_normal(&picks.before)?);
                    }
                    Ok(StepBatch {
                        normal,
                        relit: relit.transpose()?,
                        anomalous: anomalous.transpose()?,
                        made: self.images.made,
                        outlined,
                        tell: true,
                    })
                };
                // Nobody listens any more when training ended with an error.
                if send.send(batch()).is_err() {
                    return;
                }
            }
        });
        receive
    }

    /// The steps of one epoch, the same for the same seed and epoch: each normal image once (the last batch is filled up
    /// from the first), the anomalies cycled.
    fn draw(&self, config: &TrainConfig, epoch: usize) -> Vec<Picks> {
        let mut rng = StdRng::seed_from_u64(config.seed ^ (epoch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut shuffled = |set: &ImageSet, seen: &[Vec<usize>]| -> Vec<Vec<(usize, usize)>> {
            let mut order = seen.to_vec();
            order.shuffle(&mut rng);
            // All views of a part the same way.
            let mut drawn = |part: Vec<usize>| {
                let variant = rng.random_range(0..set.variants);
                part.into_iter().map(|i| (i, variant)).collect()
            };
            order.into_iter().map(&mut drawn).collect()
        };
        let normal = shuffled(&self.images.normal, &self.normal);
        let batch = self.batch(config);
        let use_anomalies = self.anomalies();
        let singly: Vec<Vec<usize>> = self.anomalous.iter().map(|&i| vec![i]).collect();
        let mut anomalous: Vec<(usize, usize)> = vec![];
        let steps = self.steps(config);
        let wanted = if use_anomalies { steps * config.train.anomalous_batch } else { 0 };
        while anomalous.len() < wanted {
            anomalous.extend(shuffled(&self.images.anomalous, &singly).into_iter().flatten());
        }
        let per_step = self.images.outlined.per_step;
        let outlined = self.outlined.draw(steps, per_step, &mut rng);
        let twice = !self.images.relit.images.is_empty();
        // The same for the same seed and epoch, whether or not others are read too.
        let mut lights = StdRng::seed_from_u64(mix(config.seed, epoch as u64, RELIT));
        (0..steps)
            .map(|step| {
                let normal: Vec<(usize, usize)> =
                    normal.iter().cycle().skip(step * batch).take(batch).flatten().copied().collect();
                let outlined: Vec<usize> = outlined.iter().skip(step * per_step).take(per_step).copied().collect();
                let light = |&(i, v): &(usize, usize)| (i, v * LIGHTS + lights.random_range(0..LIGHTS));
                let relit = if twice { normal.iter().map(light).collect() } else { vec![] };
                let before = if twice { outlined.iter().map(|&i| (self.before(i), 0)).collect() } else { vec![] };
                let anomalous = anomalous
                    .iter()
                    .skip(step * config.train.anomalous_batch)
                    .take(if use_anomalies { config.train.anomalous_batch } else { 0 })
                    .copied()
                    .collect();
                Picks { normal, relit, anomalous, outlined, before }
            })
            .collect()
    }

    /// The normal image that an outlined one was painted into; in place of a labelled one any.
    fn before(&self, outlined: usize) -> usize {
        let painted = self.images.outlined.painted_into(outlined, self.images.normal.images.len());
        painted.unwrap_or_else(|| self.normal[outlined % self.normal.len()][0])
    }
}

/// The normal images to make anomalies of, where the config asks for them or `auto` finds no labelled ones.
fn made_anomalies(
    config: &TrainConfig,
    mut normal: Vec<Labelled>,
    labels: usize,
) -> Option<(Vec<Labelled>, AnomalySource)> {
    let kind = match config.anomalies.source {
        AnomalySource::Auto if labels == 0 => AnomalySource::Elastic,
        AnomalySource::Auto | AnomalySource::None | AnomalySource::Labelled => return None,
        made => made,
    };
    let count = (normal.len() as f64 * config.anomalies.synthetic_share).ceil() as usize;
    normal.shuffle(&mut StdRng::seed_from_u64(config.seed));
    normal.truncate(count);
    Some((normal, kind))
}

/// The images of one step, as places in their sets and variants.
struct Picks {
    normal: Vec<(usize, usize)>,
    relit: Vec<(usize, usize)>,
    anomalous: Vec<(usize, usize)>,
    outlined: Vec<usize>,
    /// Normal images, one for each outlined one.
    before: Vec<(usize, usize)>,
}
