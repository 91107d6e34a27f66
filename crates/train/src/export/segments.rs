//! The segments of the network's input that the score rule `forest` looks at: drawn by a person, or found on normal
//! training images.

use super::{Context, ExportError};
use crate::augment::View;
use crate::datasets::{Sample, evenly};
use crate::score::{Segments, SegmentsKind};
use ckaad_bundle::Input;
use ckaad_inspect::imaging;
use image::{GrayImage, Luma, RgbImage};
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
        SegmentsKind::Polygons => drawn(context, &score.polygons)?,
    };
    let count = labels.iter().copied().max().map_or(1, |most| u32::from(most) + 1);
    Ok(Some(Segments { labels, count }))
}

fn normal(context: &Context) -> Vec<Sample> {
    let all: Vec<&Sample> = context.images.iter().map(|i| &i.sample).filter(|s| s.defect.is_none()).collect();
    evenly(all, IMAGES).into_iter().cloned().collect()
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

/// The segments that a person drew. Polygons are drawn on an image, which the first normal one stands for where images
/// differ in shape.
fn drawn(context: &Context, polygons: &[Vec<[f32; 2]>]) -> Result<Array2<u8>, ExportError> {
    let input: Input = context.config.input.into();
    let Some(first) = normal(context).into_iter().next() else {
        return Ok(Array2::zeros((input.height as usize, input.width as usize)));
    };
    Ok(labels(polygons, &imaging::load(&first.path)?, &input))
}

/// The number of the last polygon that each pixel of the input lies in, from 1; 0 in none.
fn labels(polygons: &[Vec<[f32; 2]>], image: &RgbImage, input: &Input) -> Array2<u8> {
    let placement = imaging::resize(image, input).1;
    let (width, height) = (image.width() as f32, image.height() as f32);
    Array2::from_shape_fn((input.height as usize, input.width as usize), |(y, x)| {
        let (x, y) = placement.to_frame(x as f32 + 0.5, y as f32 + 0.5);
        let last = polygons.iter().rposition(|polygon| inside(polygon, [x / width, y / height]));
        last.map_or(0, |i| i as u8 + 1)
    })
}

/// Whether a ray to the right of the point crosses an odd number of sides.
fn inside(polygon: &[[f32; 2]], [x, y]: [f32; 2]) -> bool {
    let sides = polygon.iter().zip(polygon.iter().cycle().skip(1));
    let crosses = |(a, b): &(&[f32; 2], &[f32; 2])| {
        (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
    };
    sides.filter(crosses).count() % 2 == 1
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
    use ckaad_bundle::{Filter, ResizeMode};

    #[test]
    fn the_bright_part_is_parted_from_the_dark_one() {
        let image = GrayImage::from_fn(20, 10, |x, y| Luma([if x < 5 { 20 + y as u8 } else { 150 + x as u8 }]));
        let labels = foreground(&image);
        assert!(labels.indexed_iter().all(|((_, x), &label)| label == u8::from(x >= 5)));
    }

    #[test]
    fn a_point_is_inside_a_polygon_or_not() {
        // The letter L, once closed by hand as some programs do.
        for closed in [false, true] {
            let mut l = vec![[0.1, 0.1], [0.3, 0.1], [0.3, 0.7], [0.8, 0.7], [0.8, 0.9], [0.1, 0.9]];
            if closed {
                l.push(l[0]);
            }
            for (point, expected) in [
                ([0.2, 0.2], true),
                ([0.2, 0.8], true),
                ([0.7, 0.8], true),
                ([0.5, 0.5], false),
                ([0.7, 0.2], false),
                ([0.05, 0.5], false),
                ([0.9, 0.8], false),
                ([0.2, 0.95], false),
            ] {
                assert_eq!(inside(&l, point), expected, "{point:?}");
            }
        }
    }

    /// The left half of the image, and over it a band at its top, whichever way the image comes to the input.
    #[test]
    fn a_pixel_of_the_input_is_in_the_last_polygon_that_covers_it_on_the_image() {
        let polygons = [
            vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]],
            vec![[0.0, 0.0], [1.0, 0.0], [1.0, 0.25], [0.0, 0.25]],
        ];
        let upright = RgbImage::new(40, 80);
        for (fit, expected) in [
            (ResizeMode::Stretch, [[2, 2, 2, 2], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]),
            // What goes on beside the image is no part of any segment.
            (ResizeMode::Pad, [[0, 2, 2, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]),
            // The middle of the image, without its top quarter.
            (ResizeMode::Crop, [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]),
        ] {
            let input = Input { width: 32, height: 32, fit, filter: Filter::Bilinear };
            let labels = labels(&polygons, &upright, &input);
            let found: [[u8; 4]; 4] = std::array::from_fn(|y| std::array::from_fn(|x| labels[[8 * y + 4, 8 * x + 4]]));
            assert_eq!(found, expected, "{fit:?}");
        }
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
