//! The segments of the network's input that the score rule `forest` looks at, found on normal training images.

use super::{Context, ExportError};
use crate::augment::View;
use crate::datasets::Sample;
use crate::score::{Segments, SegmentsKind};
use ckaad_bundle::Input;
use ckaad_inspect::imaging;
use image::{GrayImage, Luma};
use imageproc::contrast::otsu_level;
use ndarray::{Array2, Array3, Axis};
use rayon::prelude::*;

/// Images that the mean normal image is taken of.
const IMAGES: usize = 100;
/// Rounds of k-means; it has settled long before.
const ROUNDS: usize = 50;

/// The segments that the config asks for.
///
/// # Errors
/// An image cannot be read.
pub fn find(context: &Context) -> Result<Option<Segments>, ExportError> {
    let score = &context.config.score;
    let labels = match score.segments {
        SegmentsKind::None => return Ok(None),
        SegmentsKind::Foreground => foreground(&mean_image(context)?),
        SegmentsKind::KMeans => clusters(context, score.clusters)?,
    };
    let count = labels.iter().copied().max().map_or(1, |most| u32::from(most) + 1);
    Ok(Some(Segments { labels, count }))
}

fn normal(context: &Context) -> Vec<Sample> {
    let all: Vec<&Sample> = context.images.iter().map(|i| &i.sample).filter(|s| s.defect.is_none()).collect();
    let every = all.len().div_ceil(IMAGES).max(1);
    all.into_iter().step_by(every).cloned().collect()
}

/// The mean normal image in grey, at the input's size.
fn mean_image(context: &Context) -> Result<GrayImage, ExportError> {
    let input: Input = context.config.input.into();
    let grey = |sample: &Sample| -> Result<Vec<f32>, ExportError> {
        let pixels = imaging::load_fitted(&sample.path, &input)?;
        Ok(pixels.chunks_exact(3).map(|p| p.iter().map(|&v| f32::from(v)).sum::<f32>() / 3.0).collect())
    };
    let all: Vec<Vec<f32>> = normal(context).par_iter().map(grey).collect::<Result<_, _>>()?;
    let mean = |x: u32, y: u32| {
        let at = (y * input.width + x) as usize;
        Luma([(all.iter().map(|image| image[at]).sum::<f32>() / all.len().max(1) as f32).round() as u8])
    };
    Ok(GrayImage::from_fn(input.width, input.height, mean))
}

/// 1 where the image is brighter than the threshold that parts its grey levels best (Otsu 1979), else 0.
fn foreground(image: &GrayImage) -> Array2<u8> {
    let level = otsu_level(image);
    let shape = (image.height() as usize, image.width() as usize);
    Array2::from_shape_fn(shape, |(y, x)| u8::from(image.get_pixel(x as u32, y as u32).0[0] > level))
}

/// Labels of the places by k-means over the mean normal image's features at the finest scale, enlarged to the input.
fn clusters(context: &Context, count: usize) -> Result<Array2<u8>, ExportError> {
    let samples = normal(context);
    let jobs: Vec<_> = samples.iter().map(|s| (s.path.as_path(), View::default())).collect();
    let mut mean: Option<Array3<f32>> = None;
    for chunk in jobs.chunks(16) {
        for mut scales in context.extractor.compute(chunk)? {
            let features = scales.swap_remove(0) / jobs.len() as f32;
            mean = Some(match mean {
                None => features,
                Some(mean) => mean + &features,
            });
        }
    }
    let (height, width) = (context.config.input.height as usize, context.config.input.width as usize);
    let Some(mean) = mean else { return Ok(Array2::zeros((height, width))) };
    let small = k_means(&mean, count);
    let (h, w) = small.dim();
    Ok(Array2::from_shape_fn((height, width), |(y, x)| small[[y * h / height, x * w / width]]))
}

/// Labels `[h,w]` of the places of `[C,h,w]`. The first centre is the place nearest to the mean, each further one the place
/// furthest from all before it, so that the outcome is always the same.
fn k_means(features: &Array3<f32>, count: usize) -> Array2<u8> {
    let (channels, h, w) = features.dim();
    let place = |i: usize| features.index_axis(Axis(1), i / w).index_axis(Axis(1), i % w).to_vec();
    let places: Vec<Vec<f32>> = (0..h * w).map(place).collect();
    let mut centres = first_centres(&places, count);
    let mut labels = vec![0; places.len()];
    for _ in 0..ROUNDS {
        let next: Vec<usize> = places.iter().map(|p| nearest(&centres, p).0).collect();
        let settled = next == labels;
        labels = next;
        for (k, centre) in centres.iter_mut().enumerate() {
            let own: Vec<&Vec<f32>> = places.iter().zip(&labels).filter(|(_, l)| **l == k).map(|(p, _)| p).collect();
            if !own.is_empty() {
                (0..channels).for_each(|c| centre[c] = own.iter().map(|p| p[c]).sum::<f32>() / own.len() as f32);
            }
        }
        if settled {
            break;
        }
    }
    Array2::from_shape_fn((h, w), |(y, x)| labels[y * w + x] as u8)
}

fn first_centres(places: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    let channels = places.first().map_or(0, Vec::len);
    let mean: Vec<f32> =
        (0..channels).map(|c| places.iter().map(|p| p[c]).sum::<f32>() / places.len() as f32).collect();
    let mut centres: Vec<Vec<f32>> = vec![];
    while centres.len() < count.min(places.len()) {
        let key = |p: &[f32]| if centres.is_empty() { distance(p, &mean) } else { -nearest(&centres, p).1 };
        let Some(next) = places.iter().min_by(|a, b| key(a).total_cmp(&key(b))) else { break };
        centres.push(next.clone());
    }
    centres
}

/// The place of the nearest centre, and its squared distance.
fn nearest(centres: &[Vec<f32>], place: &[f32]) -> (usize, f32) {
    let distances = centres.iter().map(|centre| distance(place, centre)).enumerate();
    distances.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f32::INFINITY))
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bright_part_is_parted_from_the_dark_one() {
        let image = GrayImage::from_fn(20, 10, |x, y| Luma([if x < 5 { 20 + y as u8 } else { 150 + x as u8 }]));
        let labels = foreground(&image);
        assert!(labels.indexed_iter().all(|((_, x), &label)| label == u8::from(x >= 5)));
    }

    #[test]
    fn places_with_like_features_are_one_segment() {
        let features = Array3::from_shape_fn((2, 4, 6), |(c, y, x)| {
            let centre = [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]][x / 2];
            centre[c] + 0.01 * (y * 6 + x) as f32
        });
        let labels = k_means(&features, 3);
        for (y, x) in [(0, 0), (3, 1), (2, 3), (1, 5)] {
            assert_eq!(labels[[y, x]], labels[[0, x / 2 * 2]]);
        }
        let distinct: std::collections::BTreeSet<u8> = labels.iter().copied().collect();
        assert_eq!(distinct.len(), 3);
    }
}
