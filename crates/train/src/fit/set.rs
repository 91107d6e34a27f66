//! Images of one class: their features, kept or computed anew, and batches of them.

use super::FitContext;
use crate::augment::{AugmentConfig, View};
use crate::datasets::Sample;
use crate::features::{Extractor, FeatureCache, FeatureError};
use crate::methods::{Batch, Labelled, Needs};
use ndarray::{Array4, ArrayView3, Axis};
use std::path::Path;

/// Images of one class.
pub struct ImageSet<'a> {
    pub images: Vec<Labelled>,
    pub variants: usize,
    /// Flips and made anomalies.
    view: ViewOf<'a>,
    /// `None` where no method reads features, or where images are augmented.
    cache: Option<FeatureCache>,
    extractor: &'a Extractor,
    needs: Needs,
}

/// What an image and a variant of it go through.
pub type ViewOf<'a> = Box<dyn Fn(usize, usize) -> View + Send + Sync + 'a>;

/// Images that are to be opened.
pub struct ImageList<'a> {
    /// Of the file that keeps their features.
    pub name: String,
    pub images: Vec<Labelled>,
    pub variants: usize,
    pub view: ViewOf<'a>,
}

/// A seed for one image of one epoch (SplitMix64's finish).
pub fn mix(seed: u64, a: u64, b: u64) -> u64 {
    let mut x = seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl<'a> ImageSet<'a> {
    pub fn open(list: ImageList<'a>, needs: Needs, context: &FitContext<'a>) -> Result<ImageSet<'a>, FeatureError> {
        let ImageList { name, images, variants, view } = list;
        let extractor = context.extractor;
        let path = context.run.path("cache").join(format!("{name}.f16"));
        let samples: Vec<Sample> = images.iter().map(|image| image.sample.clone()).collect();
        let open = || FeatureCache::open(&path, extractor, &samples, variants, &view, context.progress);
        let cached = needs.features && !context.config.augment.is_on();
        let cache = cached.then(open).transpose()?;
        Ok(ImageSet { images, variants, view, cache, extractor, needs })
    }

    /// `(image, variant)` pairs; `seed` and `epoch` draw the augmentation.
    pub fn batch(
        &self,
        picks: &[(usize, usize)],
        augment: AugmentConfig,
        seed: u64,
        epoch: usize,
    ) -> Result<Batch, FeatureError> {
        let job = |&(i, v): &(usize, usize)| {
            let view = (self.view)(i, v);
            // A view with a light of its own keeps it.
            let augment = view.augment.or(Some((augment, mix(seed, i as u64, epoch as u64))));
            (self.images[i].sample.path.as_path(), View { augment, ..view })
        };
        let jobs = || -> Vec<(&Path, View)> { picks.iter().map(job).collect() };
        let features = match &self.cache {
            Some(cache) => cache.read(picks)?,
            None if self.needs.features => self.computed(&jobs())?,
            None => vec![],
        };
        let images = self.needs.images.then(|| self.extractor.images(&jobs())).transpose()?;
        Ok(Batch { features, images, views: 1 })
    }

    fn computed(&self, jobs: &[(&Path, View)]) -> Result<Vec<Array4<f32>>, FeatureError> {
        let images = self.extractor.compute(jobs)?;
        let stacked = |scale: usize| {
            let views: Vec<ArrayView3<f32>> = images.iter().map(|image| image[scale].view()).collect();
            ndarray::stack(Axis(0), &views).expect("all images have the extractor's shapes")
        };
        Ok((0..self.extractor.scales.len()).map(stacked).collect())
    }
}
