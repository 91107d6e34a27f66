//! Labelled defects cut out along their masks and laid into other images: what real defects look like, in places where none was.

use super::Canvas;
use super::patch::{Band, Coat, Window, luma, mean};
use image::{GrayImage, Luma, RgbImage};
use imageproc::distance_transform::{Norm, euclidean_squared_distance_transform};
use imageproc::morphology::dilate;
use imageproc::region_labelling::{Connectivity, connected_components};
use ndarray::Array2;
use rand::{Rng, rngs::StdRng};
use std::f32::consts::PI;

/// Pieces of a mask that are no more than twice as many pixels apart are one defect.
const APART: u8 = 4;
/// Pixels over which a snippet fades into the image, outside its mask.
const FEATHER: f32 = 4.0;
/// What is cut out beside the mask: the fading edge, and what the defect stands out from.
const MARGIN: u32 = 8;
/// Of its image, a defect of a larger share, or with a box of a larger one, could not be elsewhere.
const LARGEST: f32 = 0.1;
const LARGEST_BOX: f32 = 0.4;
/// In either direction.
const TURN: f32 = 10.0 * PI / 180.0;
/// By how much, as a share, it stands out more or less.
const GAIN: f32 = 0.2;

/// A defect and what is around it.
#[derive(Clone, PartialEq)]
pub struct Snippet {
    image: RgbImage,
    /// Of each pixel, how much of it is laid: 1 on the mask, 0 from [`FEATHER`] pixels beside it on.
    cover: Array2<f32>,
    /// Mean colour where nothing of it is laid; of all of it where there is no such place.
    around: [f32; 3],
}

impl std::fmt::Debug for Snippet {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Snippet({}x{})", self.image.width(), self.image.height())
    }
}

/// The defects of an image, whose `mask` is `[H,W]`, each by itself; none that takes more than a tenth of the image, or whose box takes more than
/// two fifths.
pub fn snippets(image: &RgbImage, mask: &Array2<bool>) -> Vec<Snippet> {
    let (width, height) = image.dimensions();
    if mask.dim() != (height as usize, width as usize) {
        return vec![];
    }
    let marked = GrayImage::from_fn(width, height, |x, y| Luma([255 * u8::from(mask[[y as usize, x as usize]])]));
    let pieces = connected_components(&dilate(&marked, Norm::LInf, APART), Connectivity::Eight, Luma([0]));
    // Left, top, right and bottom of what is marked of each, and how many pixels.
    let mut boxes: Vec<Option<([u32; 4], u32)>> = vec![];
    for (x, y, piece) in pieces.enumerate_pixels().filter(|(x, y, _)| marked.get_pixel(*x, *y).0[0] > 0) {
        let piece = piece.0[0] as usize;
        boxes.resize(boxes.len().max(piece + 1), None);
        let ([left, top, right, bottom], pixels) = boxes[piece].unwrap_or(([x, y, x, y], 0));
        boxes[piece] = Some(([left.min(x), top.min(y), right.max(x), bottom.max(y)], pixels + 1));
    }
    let fits = |([left, top, right, bottom], pixels): &([u32; 4], u32)| {
        let (all, of_box) = (width as f32 * height as f32, (right - left + 1) as f32 * (bottom - top + 1) as f32);
        *pixels as f32 <= LARGEST * all && of_box <= LARGEST_BOX * all
    };
    let whole = boxes.into_iter().enumerate().filter_map(|(piece, bounds)| Some((piece as u32, bounds?)));
    whole
        .filter(|(_, bounds)| fits(bounds))
        .map(|(piece, ([left, top, right, bottom], _))| {
            let (left, top) = (left.saturating_sub(MARGIN), top.saturating_sub(MARGIN));
            let (right, bottom) = ((right + MARGIN + 1).min(width), (bottom + MARGIN + 1).min(height));
            let window = Window { left, top, width: right - left, height: bottom - top };
            let of = |x: u32, y: u32| (marked.get_pixel(x, y).0[0] > 0).then(|| pieces.get_pixel(x, y).0[0]);
            Snippet::cut(image, window, piece, of)
        })
        .collect()
}

impl Snippet {
    /// `of` tells which piece a pixel of the image is of.
    fn cut(image: &RgbImage, window: Window, piece: u32, of: impl Fn(u32, u32) -> Option<u32>) -> Snippet {
        let Window { left, top, width, height } = window;
        let own =
            GrayImage::from_fn(width, height, |x, y| Luma([255 * u8::from(of(left + x, top + y) == Some(piece))]));
        let distances = euclidean_squared_distance_transform(&own);
        let cover = Array2::from_shape_fn(window.shape(), |(y, x)| {
            let beside = distances.get_pixel(x as u32, y as u32).0[0].sqrt() as f32;
            (1.0 - beside / FEATHER).clamp(0.0, 1.0)
        });
        let image = image::imageops::crop_imm(image, left, top, width, height).to_image();
        // Another defect is not what this one stands out from.
        let bare = |(y, x): (usize, usize)| cover[[y, x]] == 0.0 && of(left + x as u32, top + y as u32).is_none();
        let any = cover.indexed_iter().any(|(at, _)| bare(at));
        let (mut sum, mut count) = ([0.0; 3], 0.0);
        for ((y, x), _) in cover.indexed_iter().filter(|(at, _)| !any || bare(*at)) {
            let pixel = image.get_pixel(x as u32, y as u32).0;
            (0..3).for_each(|c| sum[c] += f32::from(pixel[c]));
            count += 1.0;
        }
        Snippet { image, cover, around: sum.map(|sum| sum / f32::max(count, 1.0)) }
    }
}

/// Laid somewhere on the part: mirrored, turned by up to 10° or by as much more than 180°, and standing out from what is there as it stood out
/// from what was around it, a fifth more or less.
pub(super) fn laid(canvas: &Canvas, snippet: &Snippet, rng: &mut StdRng) -> Option<Coat> {
    let size = canvas.image.dimensions();
    let (width, height) = (snippet.image.width() as f32, snippet.image.height() as f32);
    let turn = rng.random_range(-TURN..=TURN) + if rng.random() { PI } else { 0.0 };
    let band = Band {
        centre: canvas.foreground.place(size, rng),
        half: [width / 2.0, height / 2.0],
        heading: [turn.cos(), turn.sin()],
    };
    let mirror = if rng.random() { -1.0 } else { 1.0 };
    let gain = 1.0 + rng.random_range(-GAIN..=GAIN);
    let there = mean(canvas.image, &band);
    let window = band.window(size, 0.0)?;
    // The nearest pixel: a line of one pixel would be half as strong between two.
    let pixel = |place: [f32; 2]| {
        let [u, v] = band.local(place);
        let (x, y) = ((u + width / 2.0).floor(), (v * mirror + height / 2.0).floor());
        (x >= 0.0 && y >= 0.0 && x < width && y < height).then_some((x as u32, y as u32))
    };
    let cover = Array2::from_shape_fn(window.shape(), |at| {
        pixel(window.place(at)).map_or(0.0, |(x, y)| snippet.cover[[y as usize, x as usize]])
    });
    let change = Array2::from_shape_fn(window.shape(), |at| {
        let place = window.place(at);
        let Some((x, y)) = pixel(place) else { return [0.0; 3] };
        let is = canvas.image.get_pixel(place[0] as u32, place[1] as u32).0.map(f32::from);
        let is_there = snippet.image.get_pixel(x, y).0.map(f32::from);
        let put = [0, 1, 2].map(|c| there[c] + gain * (is_there[c] - snippet.around[c]));
        let put = if canvas.grey { [luma(put.map(|v| v.round().clamp(0.0, 255.0) as u8)); 3] } else { put };
        [0, 1, 2].map(|c| cover[at] * (put[c] - is[c]))
    });
    Some(Coat { window, change, body: cover.mapv(|cover| cover >= 1.0) })
}
