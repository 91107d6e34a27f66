//! The images of a run as features, and the batches of an epoch, read ahead in the background.

use crate::augment::{Source, View};
use crate::config::TrainConfig;
use crate::datasets::Sample;
use crate::features::{Extractor, FeatureCache, FeatureError};
use crate::methods::ckaad::Batch;
use crate::progress::Progress;
use crate::run::{self, Run, RunInfo};
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
    view: Box<dyn Fn(usize, usize) -> View + Send + Sync + 'a>,
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
    pub fn open(
        run: &Run,
        config: &'a TrainConfig,
        info: &RunInfo,
        extractor: &'a Extractor,
        progress: &Progress,
    ) -> Result<SplitImages<'a>, FeatureError> {
        let flips = config.features.flips.variants();
        let flipped = move |_: usize, v: usize| View::flipped(flips[v]);
        let plain = |_: usize, _: usize| View::default();
        let open = |name: &str, samples: &[Sample], variants: usize, view: ViewOf<'a>, cached: bool| {
            let samples = run::samples(&info.data, samples);
            let path = run.path("cache").join(format!("{name}.f16"));
            Images::open(&path, extractor, samples, variants, view, cached, progress)
        };
        let cached = !config.augment.is_on();
        let made = made_anomalies(config, info);
        let train_anomalous = match &made {
            None => open("train-anomalous", &info.split.train_anomalous, flips.len(), Box::new(flipped), cached)?,
            Some((samples, kind)) => {
                let (kind, seed, alpha) = (*kind, config.seed, config.anomalies.alpha);
                let view = move |i: usize, v: usize| View {
                    anomaly: Some((kind, mix(seed, i as u64, v as u64))),
                    alpha,
                    ..View::flipped(flips[v])
                };
                open("made-anomalies", samples, flips.len(), Box::new(view), cached)?
            }
        };
        Ok(SplitImages {
            train_normal: open("train-normal", &info.split.train_normal, flips.len(), Box::new(flipped), cached)?,
            train_anomalous,
            validation_normal: open("validation-normal", &info.split.validation_normal, 1, Box::new(plain), true)?,
            validation_anomalous: open(
                "validation-anomalous",
                &info.split.validation_anomalous,
                1,
                Box::new(plain),
                true,
            )?,
        })
    }

    /// Starts a thread that reads the batches of `epoch` ahead: normal images, and anomalies where there are any. At most three batches
    /// are in memory.
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

type ViewOf<'a> = Box<dyn Fn(usize, usize) -> View + Send + Sync + 'a>;

/// The normal images to make anomalies of, where the config asks for them or `auto` finds no labelled ones.
fn made_anomalies(config: &TrainConfig, info: &RunInfo) -> Option<(Vec<Sample>, Source)> {
    let adversarial = config.discriminator.kind != crate::methods::ckaad::Kind::None;
    let kind = match config.anomalies.source {
        Source::Auto if info.split.train_anomalous.is_empty() && adversarial => Source::Elastic,
        Source::Auto | Source::None | Source::Labelled => return None,
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
    fn open(
        path: &Path,
        extractor: &'a Extractor,
        samples: Vec<Sample>,
        variants: usize,
        view: ViewOf<'a>,
        cached: bool,
        progress: &Progress,
    ) -> Result<Images<'a>, FeatureError> {
        let cache =
            cached.then(|| FeatureCache::open(path, extractor, &samples, variants, &view, progress)).transpose()?;
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
    let adversarial = config.discriminator.kind != crate::methods::ckaad::Kind::None;
    let use_anomalies = adversarial && !parts.train_anomalous.is_empty();
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
