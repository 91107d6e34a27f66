//! `ckaad-train evaluate`: a bundle against a test set, through the agent's own inspection.

use crate::datasets::{DataError, DataSet, Parts, Sample};
use crate::metrics::{self, ImageMetrics, PixelError, PixelMetrics, Pixels};
use crate::progress::ProgressDisplay;
use ckaad_bundle::{Bundle, BundleError};
use ckaad_inspect::imaging::{self, DecodeError, RgbImage};
use ckaad_inspect::{Counts, InspectError, InspectOptions, Inspector, Verdict, quantile};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Pixels of one category that are held in memory, besides those of the whole set.
const CATEGORY_BYTES: usize = 64 << 20;

/// Why a bundle cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum EvaluateError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Image(#[from] DecodeError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("pixel metrics of {image}: {cause}")]
    Pixels { image: PathBuf, cause: PixelError },
    #[error("{0} has no test images")]
    NoTest(PathBuf),
    #[error("{data} has no part in its test images that is there from all views of the model ({views})")]
    NoPart { data: PathBuf, views: String },
}

/// The outcome; its JSON is what `--json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Name of the model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the bundle, lower-case hexadecimal.
    pub bundle_sha256: String,
    /// Of the bundle's network.
    pub precision: ckaad_bundle::Precision,
    /// Name of the data set.
    pub data: String,
    /// Normal test images.
    pub normal_images: usize,
    /// Anomalous test images.
    pub anomalous_images: usize,
    /// By the bundle's own image score.
    pub image: ImageMetrics,
    /// By the largest value of each image's map, as ADer scores images.
    pub image_by_map_maximum: ImageMetrics,
    /// By part, where the set says which images show the same one.
    pub part: Option<PartMetrics>,
    /// `None` when the set has no masks.
    pub pixel: Option<PixelMetrics>,
    /// By the masks' word for which image is anomalous; `None` where one has none.
    pub by_mask: Option<MaskLabels>,
    /// Score from which an image is alerted.
    pub threshold: f32,
    /// What the calibrated threshold makes of the set.
    pub at_threshold: Counts,
    /// One row a kind of defect, by name.
    pub defects: Vec<DefectRow>,
    /// One row a category, where several sets were judged as one.
    pub categories: Vec<CategoryRow>,
    /// The mean of these rows.
    pub category_mean: Option<CategoryRow>,
    /// Median of one inspection, one thread.
    pub median_ms: f64,
    /// Test images that the model, which takes several views of a part at once, could not judge: their parts lack a view.
    pub left_out: usize,
    /// Every other test image, in the set's order, part by part.
    pub samples: Vec<Judged>,
}

/// The sample level: a part has the largest score of its images, and is anomalous when one of them is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PartMetrics {
    /// Parts without an anomalous image.
    pub normal_parts: usize,
    /// Parts with one at least.
    pub anomalous_parts: usize,
    /// By the bundle's own image score.
    pub by_score: ImageMetrics,
    /// By the largest value of the maps.
    pub by_map_maximum: ImageMetrics,
}

/// An image is anomalous when its mask has a pixel at the network's input size, as ADer labels images: a mask that is thinner than that vanishes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MaskLabels {
    /// Images whose label by the set is another one.
    pub differ: usize,
    /// By the bundle's own image score.
    pub image: ImageMetrics,
}

/// What becomes of one kind of defect.
#[derive(Clone, Debug, Serialize)]
pub struct DefectRow {
    /// Its name.
    pub defect: String,
    /// Images that show it.
    pub images: u64,
    /// Of those, the alerted ones.
    pub hits: u64,
    /// This defect's images against all normal ones.
    pub auroc: Option<f64>,
}

/// One category of several that were judged as one.
#[derive(Clone, Debug, Serialize)]
pub struct CategoryRow {
    /// Its name.
    pub category: String,
    /// Normal test images.
    pub normal_images: usize,
    /// Anomalous test images.
    pub anomalous_images: usize,
    /// By the bundle's own image score.
    pub image_auroc: Option<f64>,
    /// The same.
    pub average_precision: Option<f64>,
    /// The same.
    pub f1_max: Option<f64>,
    /// `None` where the category has no masks, as the one below.
    pub pixel_auroc: Option<f64>,
    /// Up to a false-positive rate of 0.3.
    pub aupro: Option<f64>,
    /// Of the category's images, by the one threshold of the bundle.
    pub at_threshold: Counts,
}

/// One test image and its score.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Relative to the data set.
    pub path: String,
    /// `null` for a normal image.
    pub defect: Option<String>,
    /// Which of several sets it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The bundle's image score.
    pub score: f32,
    /// The largest value of the smoothed map.
    pub map_maximum: f32,
    /// Which part the image shows, where several images show one.
    pub part: Option<String>,
}

/// Judges every test image of `data`; `seen` is called with each image and its verdict.
pub fn evaluate(
    bundle: &Bundle,
    data: &DataSet,
    mut seen: impl FnMut(&Judged, &RgbImage, &Verdict),
) -> Result<Evaluation, EvaluateError> {
    if data.test.is_empty() {
        return Err(EvaluateError::NoTest(data.root.clone()));
    }
    let progress = ProgressDisplay::detect();
    let inspector = Inspector::new(bundle, &InspectOptions::default())?;
    let masked = data.test.iter().any(|s| s.mask.is_some());
    let mut pixels = Pixels::default();
    let mut by_category: BTreeMap<String, Pixels> = BTreeMap::new();
    let (mut samples, mut times, mut marked) = (vec![], vec![], vec![]);
    let parts = Parts::of(&data.test, &bundle.manifest.view_names);
    let judged_images = parts.complete.iter().map(Vec::len).sum();
    if judged_images == 0 {
        return Err(EvaluateError::NoPart { data: data.root.clone(), views: bundle.manifest.view_names.join(", ") });
    }
    let bar = progress.bar("evaluate", judged_images);
    for part in &parts.complete {
        let images = part.iter().map(|&i| imaging::load(&data.test[i].path)).collect::<Result<Vec<_>, _>>()?;
        let verdicts = inspector.inspect_part(&images.iter().collect::<Vec<_>>(), inspector.limits())?;
        for ((&i, image), verdict) in part.iter().zip(&images).zip(&verdicts) {
            let sample = &data.test[i];
            times.push((verdict.times.resize + verdict.times.engine + verdict.times.score).as_secs_f64() * 1e3);
            // A defective image without a mask would count every defective pixel as normal.
            if masked && (sample.mask.is_some() || sample.defect.is_none()) {
                let mask = sample.mask.as_ref().map(|mask| mask.at_input(image, &bundle.manifest.input)).transpose()?;
                marked.push(mask.as_ref().is_some_and(|mask| mask.iter().any(|is| *is)));
                let own = sample.category.as_ref().map(|category| {
                    by_category.entry(category.clone()).or_insert_with(|| Pixels::within(CATEGORY_BYTES))
                });
                for pixels in own.into_iter().chain([&mut pixels]) {
                    let added = pixels.add(verdict.map.view(), mask.as_ref().map(|mask| mask.view()));
                    added.map_err(|cause| EvaluateError::Pixels { image: sample.path.clone(), cause })?;
                }
            }
            let judged = judged(data, sample, verdict);
            seen(&judged, image, verdict);
            samples.push(judged);
            bar.advance(1);
        }
    }
    times.sort_by(f64::total_cmp);
    let threshold = inspector.threshold();
    let pixel = masked.then(|| pixels.metrics()).transpose();
    let pixel = pixel.map_err(|cause| EvaluateError::Pixels { image: data.root.clone(), cause })?;
    let categories = categories(&samples, by_category, threshold)
        .map_err(|cause| EvaluateError::Pixels { image: data.root.clone(), cause })?;
    Ok(Evaluation {
        model: bundle.manifest.name.clone(),
        version: bundle.manifest.version.to_string(),
        bundle_sha256: bundle.digest.clone(),
        precision: bundle.manifest.precision,
        data: data.name(),
        normal_images: samples.iter().filter(|s| s.defect.is_none()).count(),
        anomalous_images: samples.iter().filter(|s| s.defect.is_some()).count(),
        image: image_metrics(&samples, |s| s.score),
        image_by_map_maximum: image_metrics(&samples, |s| s.map_maximum),
        part: part_metrics(&samples),
        pixel,
        by_mask: (marked.len() == samples.len()).then(|| mask_labels(&samples, &marked)),
        threshold,
        at_threshold: counts(&samples, threshold),
        defects: defects(&samples, threshold),
        category_mean: mean_row(&categories, &samples, threshold),
        categories,
        median_ms: quantile(&times, 0.5).unwrap_or_default(),
        left_out: data.test.len() - samples.len(),
        samples,
    })
}

fn judged(data: &DataSet, sample: &Sample, verdict: &Verdict) -> Judged {
    Judged {
        path: data.relative(&sample.path),
        defect: sample.defect.clone(),
        category: sample.category.clone(),
        score: verdict.score,
        map_maximum: verdict.map.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        part: sample.part.clone(),
    }
}

fn image_metrics(samples: &[Judged], score: fn(&Judged) -> f32) -> ImageMetrics {
    let scores: Vec<f32> = samples.iter().map(score).collect();
    let anomalous: Vec<bool> = samples.iter().map(|s| s.defect.is_some()).collect();
    ImageMetrics::of(&scores, &anomalous)
}

fn mask_labels(samples: &[Judged], marked: &[bool]) -> MaskLabels {
    let scores: Vec<f32> = samples.iter().map(|s| s.score).collect();
    let differ = samples.iter().zip(marked).filter(|(sample, marked)| sample.defect.is_some() != **marked).count();
    MaskLabels { differ, image: ImageMetrics::of(&scores, marked) }
}

fn part_metrics(samples: &[Judged]) -> Option<PartMetrics> {
    if samples.iter().all(|s| s.part.is_none()) {
        return None;
    }
    let parts: Vec<Option<String>> = samples.iter().map(|s| s.part.clone()).collect();
    let anomalous: Vec<bool> = samples.iter().map(|s| s.defect.is_some()).collect();
    let by = |score: fn(&Judged) -> f32| {
        metrics::by_part(&parts, &samples.iter().map(score).collect::<Vec<_>>(), &anomalous)
    };
    let (scores, anomalous_parts) = by(|s| s.score);
    let (maxima, _) = by(|s| s.map_maximum);
    let defective = anomalous_parts.iter().filter(|a| **a).count();
    Some(PartMetrics {
        normal_parts: anomalous_parts.len() - defective,
        anomalous_parts: defective,
        by_score: ImageMetrics::of(&scores, &anomalous_parts),
        by_map_maximum: ImageMetrics::of(&maxima, &anomalous_parts),
    })
}

/// A row a category.
fn categories(
    samples: &[Judged],
    mut pixels: BTreeMap<String, Pixels>,
    threshold: f32,
) -> Result<Vec<CategoryRow>, PixelError> {
    let names: BTreeSet<&String> = samples.iter().filter_map(|s| s.category.as_ref()).collect();
    let mut rows = vec![];
    for name in names {
        let own: Vec<Judged> = samples.iter().filter(|s| s.category.as_ref() == Some(name)).cloned().collect();
        let image = image_metrics(&own, |s| s.score);
        let pixel = pixels.remove(name).map(Pixels::metrics).transpose()?.filter(|pixel| pixel.anomalous_pixels > 0);
        rows.push(CategoryRow {
            category: name.clone(),
            normal_images: own.iter().filter(|s| s.defect.is_none()).count(),
            anomalous_images: own.iter().filter(|s| s.defect.is_some()).count(),
            image_auroc: image.auroc,
            average_precision: image.average_precision,
            f1_max: image.f1_max,
            pixel_auroc: pixel.as_ref().and_then(|pixel| pixel.auroc),
            aupro: pixel.as_ref().and_then(|pixel| pixel.aupro_30),
            at_threshold: counts(&own, threshold),
        });
    }
    Ok(rows)
}

/// Each number is the mean over the categories that have it; images are all of them.
fn mean_row(rows: &[CategoryRow], samples: &[Judged], threshold: f32) -> Option<CategoryRow> {
    if rows.is_empty() {
        return None;
    }
    let mean = |of: fn(&CategoryRow) -> Option<f64>| {
        let known: Vec<f64> = rows.iter().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    Some(CategoryRow {
        category: "mean".into(),
        normal_images: rows.iter().map(|row| row.normal_images).sum(),
        anomalous_images: rows.iter().map(|row| row.anomalous_images).sum(),
        image_auroc: mean(|row| row.image_auroc),
        average_precision: mean(|row| row.average_precision),
        f1_max: mean(|row| row.f1_max),
        pixel_auroc: mean(|row| row.pixel_auroc),
        aupro: mean(|row| row.aupro),
        at_threshold: counts(samples, threshold),
    })
}

fn counts(samples: &[Judged], threshold: f32) -> Counts {
    let mut counts = Counts::default();
    for sample in samples {
        counts.count(sample.defect.is_some(), sample.score >= threshold);
    }
    counts
}

fn defects(samples: &[Judged], threshold: f32) -> Vec<DefectRow> {
    let kinds: BTreeSet<&String> = samples.iter().filter_map(|s| s.defect.as_ref()).collect();
    let row = |kind: &&String| {
        let of_kind = |s: &&Judged| s.defect.as_ref() == Some(*kind);
        let (scores, labels): (Vec<f32>, Vec<bool>) =
            samples.iter().filter(|s| s.defect.is_none() || of_kind(s)).map(|s| (s.score, s.defect.is_some())).unzip();
        DefectRow {
            defect: (*kind).clone(),
            images: samples.iter().filter(of_kind).count() as u64,
            hits: samples.iter().filter(of_kind).filter(|s| s.score >= threshold).count() as u64,
            auroc: metrics::auroc(&scores, &labels),
        }
    };
    kinds.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(part: Option<&str>, defect: Option<&str>, score: f32) -> Judged {
        let [part, defect] = [part, defect].map(|text| text.map(str::to_owned));
        Judged { path: String::new(), defect, category: None, score, map_maximum: -score, part }
    }

    #[test]
    fn a_part_is_found_by_the_one_view_that_shows_its_defect() {
        let samples = [
            judged(Some("a"), None, 0.1),
            judged(Some("a"), Some("dent"), 0.9),
            judged(Some("b"), None, 0.5),
            judged(Some("b"), None, 0.2),
        ];
        let part = part_metrics(&samples).unwrap();
        assert_eq!((part.normal_parts, part.anomalous_parts), (1, 1));
        assert_eq!(part.by_score.auroc, Some(1.0));
        // The maps' maxima are turned round: part a has -0.1, part b -0.2.
        assert_eq!(part.by_map_maximum.auroc, Some(1.0));
        assert_eq!(image_metrics(&samples, |s| s.map_maximum).auroc, Some(0.0));
    }

    #[test]
    fn of_several_categories_each_has_a_row_and_their_mean_counts_them_alike() {
        let of =
            |category: &str, defect, score| Judged { category: Some(category.into()), ..judged(None, defect, score) };
        let samples = [
            of("a", None, 0.1),
            of("a", Some("a/dent"), 0.9),
            // The scores of two categories may lie anywhere: each is ranked by itself.
            of("b", None, 2.0),
            of("b", None, 4.0),
            of("b", Some("b/dent"), 3.0),
        ];
        let rows = categories(&samples, BTreeMap::new(), 2.5).unwrap();
        let mean = mean_row(&rows, &samples, 2.5).unwrap();
        let told: Vec<_> =
            rows.iter().chain([&mean]).map(|row| (row.category.as_str(), row.image_auroc, row.aupro)).collect();
        assert_eq!(told, [("a", Some(1.0), None), ("b", Some(0.5), None), ("mean", Some(0.75), None)]);
        let found: Vec<_> =
            rows.iter().chain([&mean]).map(|row| (row.at_threshold.hits, row.at_threshold.false_alarms)).collect();
        assert_eq!(found, [(0, 0), (1, 1), (1, 1)]);
        assert!(categories(&[judged(None, None, 0.1)], BTreeMap::new(), 0.5).unwrap().is_empty());
        assert!(mean_row(&[], &samples, 2.5).is_none());
    }

    #[test]
    fn a_mask_without_a_pixel_makes_its_image_normal() {
        let samples = [judged(None, None, 0.3), judged(None, Some("dent"), 0.1), judged(None, Some("dent"), 0.9)];
        let labels = mask_labels(&samples, &[false, false, true]);
        assert_eq!((labels.differ, labels.image.auroc), (1, Some(1.0)));
        assert_eq!(image_metrics(&samples, |s| s.score).auroc, Some(0.5));
        // Two of three are anomalous: 2 * 2 / (2 + 3).
        assert_eq!(image_metrics(&samples, |s| s.score).f1_trivial, Some(0.8));
    }

    #[test]
    fn without_parts_there_is_no_part_level() {
        assert!(part_metrics(&[judged(None, None, 0.1), judged(None, Some("dent"), 0.9)]).is_none());
    }

    #[test]
    fn a_score_at_the_threshold_alerts() {
        let samples = [judged(None, None, 0.5), judged(None, Some("dent"), 0.5), judged(None, Some("dent"), 0.4)];
        let found = counts(&samples, 0.5);
        assert_eq!((found.hits, found.misses, found.false_alarms, found.passed), (1, 1, 1, 0));
    }
}
