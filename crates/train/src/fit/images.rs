//! The images of a run as features, and the batches of an epoch, read ahead in the background.

use super::FitContext;
use crate::augment::{AnomalySource, View};
use crate::config::TrainConfig;
use crate::datasets::Sample;
use crate::features::{Extractor, FeatureCache, FeatureError};
use crate::methods::ckaad::Batch;
use crate::run::{self, RunInfo};
use ndarray::{Array4, ArrayView3, Axis};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

/// One part of the split.
pub struct Images<'a> {
    samples: Vec<Sample>,
    variants: usize,
    /// Flips and made anomalies.
    view: ViewOf<'a>,
    /// `None` where images are augmented.
    cache: Option<FeatureCache>,
    extractor: &'a Extractor,
}

/// The whole split.
pub struct SplitImages<'a> {
    pub train_normal: Images<'a>,
    pub train_anomalous: Images<'a>,
    pub validation_normal: Images<'a>,
    pub validation_anomalous: Images<'a>,
}

impl<'a> SplitImages<'a> {
    /// Lists the images of every part and computes the features that can be kept.
    ///
    /// # Errors
    /// An image cannot be read, or the cache not written.
    pub fn open(context: &FitContext<'a>) -> Result<SplitImages<'a>, FeatureError> {
        let (config, split) = (context.config, &context.info.split);
        let flips = config.features.flips.variants();
        let cached = !config.augment.is_on();
        let training = |name, samples: &[Sample]| ImageList {
            name,
            samples: run::samples(&context.info.data, samples),
            variants: flips.len(),
            view: Box::new(move |_, v| View::flipped(flips[v])),
            cached,
        };
        let validation = |name, samples: &[Sample]| ImageList {
            name,
            samples: run::samples(&context.info.data, samples),
            variants: 1,
            view: Box::new(|_, _| View::default()),
            cached: true,
        };
        let anomalous = match made_anomalies(config, context.info) {
            // Without a discriminator nobody looks at them.
            _ if !config.discriminator.kind.learns() => training("train-anomalous", &[]),
            None => training("train-anomalous", &split.train_anomalous),
            Some((samples, kind)) => {
                let (seed, alpha) = (config.seed, config.anomalies.alpha);
                let view = move |i: usize, v: usize| View {
                    anomaly: Some((kind, mix(seed, i as u64, v as u64))),
                    alpha,
                    ..View::flipped(flips[v])
                };
                ImageList { view: Box::new(view), ..training("made-anomalies", &samples) }
            }
        };
        Ok(SplitImages {
            train_normal: Images::open(training("train-normal", &split.train_normal), context)?,
            train_anomalous: Images::open(anomalous, context)?,
            validation_normal: Images::open(validation("validation-normal", &split.validation_normal), context)?,
            validation_anomalous: Images::open(
                validation("validation-anomalous", &split.validation_anomalous),
                context,
            )?,
        })
    }

    /// Starts a thread that reads the batches of `epoch` ahead: normal images, and anomalies where there are any. At
    /// most three batches are in memory.
    pub fn epoch<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        config: &'env TrainConfig,
        epoch: usize,
    ) -> Receiver<Result<(Batch, Option<Batch>), FeatureError>> {
        let (send, receive) = sync_channel(1);
        scope.spawn(move || {
            for picks in draw(config, self, epoch) {
                let batch = || {
                    let normal = self.train_normal.batch(&picks.normal, config, Some(epoch))?;
                    let anomalous = (!picks.anomalous.is_empty())
                        .then(|| self.train_anomalous.batch(&picks.anomalous, config, Some(epoch)));
                    Ok((normal, anomalous.transpose()?))
                };
                // Nobody listens any more when training ended with an error.
                if send.send(batch()).is_err() {
                    return;
                }
            }
        });
        receive
    }
}

/// What an image and a variant of it go through.
type ViewOf<'a> = Box<dyn Fn(usize, usize) -> View + Send + Sync + 'a>;

/// Images that are to be opened.
struct ImageList<'a> {
    /// Of the file that keeps their features.
    name: &'static str,
    samples: Vec<Sample>,
    variants: usize,
    view: ViewOf<'a>,
    /// Whether their features are kept.
    cached: bool,
}

/// The normal images to make anomalies of, where the config asks for them or `auto` finds no labelled ones.
fn made_anomalies(config: &TrainConfig, info: &RunInfo) -> Option<(Vec<Sample>, AnomalySource)> {
    let kind = match config.anomalies.source {
        AnomalySource::Auto if info.split.train_anomalous.is_empty() => AnomalySource::Elastic,
        AnomalySource::Auto | AnomalySource::None | AnomalySource::Labelled => return None,
        made => made,
    };
    let normal = &info.split.train_normal;
    let count = (normal.len() as f64 * config.anomalies.synthetic_share).ceil() as usize;
    let mut samples = normal.clone();
    samples.shuffle(&mut StdRng::seed_from_u64(config.seed));
    samples.truncate(count);
    Some((samples, kind))
}

/// A seed for one image of one epoch (SplitMix64's finish).
fn mix(seed: u64, a: u64, b: u64) -> u64 {
    let mut x = seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl<'a> Images<'a> {
    fn open(list: ImageList<'a>, context: &FitContext<'a>) -> Result<Images<'a>, FeatureError> {
        let ImageList { name, samples, variants, view, cached } = list;
        let extractor = context.extractor;
        let path = context.run.path("cache").join(format!("{name}.f16"));
        let open = || FeatureCache::open(&path, extractor, &samples, variants, &view, context.progress);
        let cache = cached.then(open).transpose()?;
        Ok(Images { samples, variants, view, cache, extractor })
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// `(image, variant)` pairs; `epoch` draws the augmentation, `None` leaves the images as they are.
    fn batch(
        &self,
        picks: &[(usize, usize)],
        config: &TrainConfig,
        epoch: Option<usize>,
    ) -> Result<Batch, FeatureError> {
        let scales = match &self.cache {
            Some(cache) => cache.read(picks)?,
            None => self.compute(picks, config, epoch)?,
        };
        Ok(Batch { scales })
    }

    fn compute(
        &self,
        picks: &[(usize, usize)],
        config: &TrainConfig,
        epoch: Option<usize>,
    ) -> Result<Vec<Array4<f32>>, FeatureError> {
        let job = |&(i, v): &(usize, usize)| {
            let augment = epoch.map(|epoch| (config.augment, mix(config.seed, i as u64, epoch as u64)));
            (self.samples[i].path.as_path(), View { augment, ..(self.view)(i, v) })
        };
        let jobs: Vec<(&Path, View)> = picks.iter().map(job).collect();
        let images = self.extractor.compute(&jobs)?;
        let stacked = |scale: usize| {
            let views: Vec<ArrayView3<f32>> = images.iter().map(|image| image[scale].view()).collect();
            ndarray::stack(Axis(0), &views).expect("all images have the extractor's shapes")
        };
        Ok((0..self.extractor.scales.len()).map(stacked).collect())
    }

    /// Every image once, in batches.
    pub fn all(&self, config: &TrainConfig) -> impl Iterator<Item = Result<Batch, FeatureError>> {
        let picks: Vec<(usize, usize)> = (0..self.len()).map(|i| (i, 0)).collect();
        let chunks: Vec<Vec<(usize, usize)>> = picks.chunks(16).map(<[_]>::to_vec).collect();
        chunks.into_iter().map(move |picks| self.batch(&picks, config, None))
    }
}

/// The images of one step.
struct Picks {
    normal: Vec<(usize, usize)>,
    anomalous: Vec<(usize, usize)>,
}

/// The steps of one epoch, the same for the same seed and epoch: each normal image once (the last batch is filled up
/// from the first), the anomalies cycled.
fn draw(config: &TrainConfig, parts: &SplitImages, epoch: usize) -> Vec<Picks> {
    let mut rng = StdRng::seed_from_u64(config.seed ^ (epoch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut shuffled = |images: &Images| -> Vec<(usize, usize)> {
        let mut order: Vec<usize> = (0..images.len()).collect();
        order.shuffle(&mut rng);
        order.into_iter().map(|i| (i, rng.random_range(0..images.variants))).collect()
    };
    let normal = shuffled(&parts.train_normal);
    let batch = config.train.batch.min(normal.len());
    let use_anomalies = !parts.train_anomalous.is_empty();
    let mut anomalous = vec![];
    let steps = normal.len().div_ceil(batch);
    let wanted = if use_anomalies { steps * config.train.anomalous_batch } else { 0 };
    while anomalous.len() < wanted {
        anomalous.extend(shuffled(&parts.train_anomalous));
    }
    (0..steps)
        .map(|step| Picks {
            normal: normal.iter().cycle().skip(step * batch).take(batch).copied().collect(),
            anomalous: anomalous
                .iter()
                .skip(step * config.train.anomalous_batch)
                .take(if use_anomalies { config.train.anomalous_batch } else { 0 })
                .copied()
                .collect(),
        })
        .collect()
}
