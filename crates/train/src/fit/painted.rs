//! Normal images that defects, and controls that are none, are painted into, and what each place of them is.

use super::set::{ImageList, ImageSet, mix};
use super::{FitContext, FitError};
use crate::augment::View;
use crate::augment::defects::{Cell, Change, cells, paint};
use crate::config::TrainConfig;
use crate::features::FeatureError;
use crate::methods::{Labelled, Needs, Painted};
use ckaad_bundle::{Input, ResizeMode};
use ckaad_inspect::imaging;
use ndarray::Array2;
use rand::{SeedableRng, rngs::StdRng};
use rayon::prelude::*;

/// One painted image in so many is a control: something changed that is no defect.
const CONTROLS: usize = 5;

/// The painted images of a run.
pub struct PaintedSet<'a> {
    set: ImageSet<'a>,
    cells: Vec<Array2<Cell>>,
    /// Images of a step.
    pub per_step: usize,
}

impl<'a> PaintedSet<'a> {
    /// Paints into `normal` images, again and again until there are as many as asked for, and computes the features that
    /// can be kept.
    ///
    /// # Errors
    /// An image cannot be read, or the cache not written.
    pub fn open(normal: &[Labelled], needs: Needs, context: &FitContext<'a>) -> Result<PaintedSet<'a>, FitError> {
        let count = if normal.is_empty() { 0 } else { needs.painted };
        let images: Vec<Labelled> = normal.iter().cycle().take(count).cloned().collect();
        let seed = context.config.seed;
        let grid = context.extractor.shapes().first().map_or((0, 0), |[_, h, w]| (*h, *w));
        let bar = context.progress.bar("painting", images.len());
        let input = context.config.input.into();
        let of_image = |(i, image): (usize, &Labelled)| -> Result<Array2<Cell>, FeatureError> {
            let found = painted_cells(image, change(seed, i), &input, grid);
            bar.advance(1);
            found
        };
        let cells = images.par_iter().enumerate().map(of_image).collect::<Result<_, _>>()?;
        let view = move |i: usize, _: usize| View { painted: Some(change(seed, i)), ..View::default() };
        let list = ImageList { name: "painted", images, variants: 1, view: Box::new(view) };
        Ok(PaintedSet { set: ImageSet::open(list, needs, context)?, cells, per_step: needs.painted_batch })
    }

    /// The images.
    pub fn images(&self) -> &[Labelled] {
        &self.set.images
    }

    /// Those at the places that are picked.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn batch(&self, picks: &[usize], config: &TrainConfig, epoch: usize) -> Result<Painted, FeatureError> {
        let pairs: Vec<(usize, usize)> = picks.iter().map(|&i| (i, 0)).collect();
        let batch = self.set.batch(&pairs, config, epoch)?;
        Ok(Painted { batch, cells: picks.iter().map(|&i| self.cells[i].clone()).collect() })
    }
}

/// What is painted into image `i`, and from which seed.
fn change(seed: u64, i: usize) -> (Change, u64) {
    let own = mix(seed, i as u64, PAINTED);
    let mut rng = StdRng::seed_from_u64(own);
    let control = i % CONTROLS == CONTROLS - 1;
    (if control { Change::draw_control(&mut rng) } else { Change::draw_defect(&mut rng) }, own)
}

/// Tells the seeds of painted images from others'.
const PAINTED: u64 = 0x7061_696e;

/// What the network's places are, on a `grid` of rows and columns over its input.
fn painted_cells(
    image: &Labelled,
    (change, seed): (Change, u64),
    input: &Input,
    grid: (usize, usize),
) -> Result<Array2<Cell>, FeatureError> {
    let image = imaging::load(&image.sample.path)?;
    let mask = paint(&image, None, change, seed).mask;
    // The part of the image's plane that the network sees, in the image's pixels: with a letterbox more than the image.
    let placement = imaging::resize(&image, input).1;
    let side = |length: u32, scale: f32| (length as f32 * scale).round().max(1.0) as usize;
    let shape = (side(input.height, placement.scale.1), side(input.width, placement.scale.0));
    let (height, width) = mask.dim();
    // What goes on around the image beyond its border is anomalous where the border is.
    let at = |v: usize, origin: f32, length: usize| {
        let at = (v as f32 + origin).round() as i64;
        let within = if input.fit == ResizeMode::Pad { at.clamp(0, length as i64 - 1) } else { at };
        usize::try_from(within).ok()
    };
    let seen = Array2::from_shape_fn(shape, |(y, x)| {
        let place = at(y, placement.origin.1, height).zip(at(x, placement.origin.0, width));
        place.and_then(|(y, x)| mask.get((y, x))).is_some_and(|marked| *marked)
    });
    Ok(cells(seen.view(), grid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::Sample;
    use ckaad_bundle::Filter;
    use image::{Rgb, RgbImage};

    /// What is anomalous lies where the network sees the painted pixels, however the image comes to its input.
    #[test]
    fn cells_are_where_the_network_sees_what_was_painted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.png");
        let plain = RgbImage::from_fn(300, 600, |x, y| Rgb([(90 + (x * 7 + y * 13) % 9) as u8; 3]));
        plain.save(&path).unwrap();
        let image = Labelled { sample: Sample { path, defect: None, ..Sample::default() }, fold: 0 };
        let (change, seed) = (Change::Blob, 3);
        let mask = paint(&plain, None, change, seed).mask;
        let marked: Vec<(usize, usize)> = mask.indexed_iter().filter(|(_, m)| **m).map(|(at, _)| at).collect();
        assert!(marked.len() > 200, "{}", marked.len());
        let centre =
            |of: fn(&(usize, usize)) -> usize| marked.iter().map(of).sum::<usize>() as f32 / marked.len() as f32 + 0.5;
        let (y, x) = (centre(|at| at.0), centre(|at| at.1));
        for fit in [ResizeMode::Stretch, ResizeMode::Letterbox, ResizeMode::Pad, ResizeMode::Crop] {
            let input = Input { width: 160, height: 160, fit, filter: Filter::Bilinear };
            let found = painted_cells(&image, (change, seed), &input, (20, 20)).unwrap();
            let placement = imaging::resize(&plain, &input).1;
            let (row, column) =
                ((y - placement.origin.1) / placement.scale.1, (x - placement.origin.0) / placement.scale.0);
            let anomalous: Vec<(usize, usize)> =
                found.indexed_iter().filter(|(_, c)| **c == Cell::Anomalous).map(|(at, _)| at).collect();
            if !(0.0..160.0).contains(&row) {
                assert_eq!(fit, ResizeMode::Crop);
                continue;
            }
            let mean = |of: fn(&(usize, usize)) -> usize| {
                8.0 * (anomalous.iter().map(of).sum::<usize>() as f32 / anomalous.len() as f32 + 0.5)
            };
            assert!(
                (mean(|at| at.0) - row).abs() < 8.0 && (mean(|at| at.1) - column).abs() < 8.0,
                "{fit:?} {anomalous:?}"
            );
        }
    }

    /// Regression: with `pad` a defect's border is what goes on around the image, and that was taught as normal.
    #[test]
    fn what_pads_an_image_is_anomalous_where_its_border_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.png");
        let plain = RgbImage::from_fn(300, 600, |x, y| Rgb([(90 + (x * 7 + y * 13) % 9) as u8; 3]));
        plain.save(&path).unwrap();
        let image = Labelled { sample: Sample { path, defect: None, ..Sample::default() }, fold: 0 };
        // An image twice as high as wide: four of the sixteen cells of a row lie beside it on either side.
        let input = |fit| Input { width: 128, height: 128, fit, filter: Filter::Bilinear };
        let cells = |seed, fit| painted_cells(&image, (Change::Blob, seed), &input(fit), (16, 16)).unwrap();
        let anomalous = |cells: &Array2<Cell>, x: usize| cells.column(x).iter().any(|c| *c == Cell::Anomalous);
        let at_the_left = (0..200).find(|&seed| {
            let mask = paint(&plain, None, Change::Blob, seed).mask;
            mask.column(0).iter().filter(|marked| **marked).count() > 80
        });
        let seed = at_the_left.expect("one of the blobs reaches the border");
        let (padded, boxed) = (cells(seed, ResizeMode::Pad), cells(seed, ResizeMode::Letterbox));
        assert!((0..4).all(|x| anomalous(&padded, x)), "{padded:?}");
        assert!((0..4).all(|x| !anomalous(&boxed, x)), "grey is grey");
    }
}
