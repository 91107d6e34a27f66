//! Blotches of other texture: stains, dents, growths.

use super::Canvas;
use super::patch::{Coat, Window, sample, spread};
use crate::augment::noise::Noise;
use image::RgbImage;
use ndarray::{Array2, Zip};
use rand::{Rng, rngs::StdRng};

/// Of the noise along an axis of the image, as powers of two.
const CELLS: (u32, u32) = (2, 6);
/// Share of the image that it covers, evenly by the logarithm.
const SHARE: (f32, f32) = (0.0005, 0.03);
/// Cells an axis at most of the noise that shapes a small one.
const FINEST: u32 = 256;
const OPACITY: (f32, f32) = (0.2, 0.8);
/// Levels that the other texture is made lighter or darker, where it is.
const LIGHT: (f32, f32) = (8.0, 40.0);

/// Where gradient noise is highest around a place on the part, texture from elsewhere, of this image or of `other`, is
/// blended in.
pub(super) fn blob(canvas: &Canvas, other: Option<&Canvas>, rng: &mut StdRng) -> Option<Coat> {
    let (width, height) = canvas.image.dimensions();
    let mut cells = || 1u32 << rng.random_range(CELLS.0..=CELLS.1);
    let cells = (cells(), cells());
    let noise = Noise::new(cells, rng);
    let share = rng.random_range(SHARE.0.ln()..SHARE.1.ln()).exp();
    let pixels = (share * width as f32 * height as f32).max(4.0);
    let centre = canvas.foreground.place((width, height), rng);
    let reach = pixels.sqrt() * rng.random_range(0.7..1.4);
    let window = Window::around((width, height), &[centre], 2.0 * reach)?;
    // Noise as fine as the blob itself: of coarser noise alone it would be the disc that the distance makes of it.
    let fine = |whole: u32| ((1.5 * whole as f32 / reach) as u32).clamp(1, FINEST);
    let detail = Noise::new((fine(width), fine(height)), rng);
    let height_at = |at: (usize, usize)| {
        let [x, y] = window.place(at);
        let away = (x - centre[0]).hypot(y - centre[1]) / reach;
        let (x, y) = (x / width as f32, y / height as f32);
        // Together at most about 1 either way, so nothing is beyond the window.
        noise.at(x, y) + 0.6 * detail.at(x, y) - 0.5 * away * away
    };
    let heights = Array2::from_shape_fn(window.shape(), height_at);
    let mut sorted: Vec<f32> = heights.iter().copied().collect();
    let least = sorted.len().saturating_sub(pixels as usize).min(sorted.len() - 1);
    let (_, limit, _) = sorted.select_nth_unstable_by(least, f32::total_cmp);
    let mut cover = softened(&heights.mapv(|height| if height >= *limit { 1.0 } else { 0.0 }));
    // What is too small to have a body is left out.
    let body = cover.mapv(|cover| cover >= 0.5);
    Zip::from(&mut cover).and(&spread(&body)).for_each(|cover, near| *cover = if *near { *cover } else { 0.0 });

    let from = other.filter(|_| rng.random()).unwrap_or(canvas);
    let texture = Texture::draw(from, centre, rng);
    if !texture.is_of_part(from, reach) {
        return None;
    }
    let light = if rng.random_bool(0.7) { rng.random_range(LIGHT.0..LIGHT.1) } else { 0.0 };
    let light = if rng.random() { light } else { -light };
    let opacity = rng.random_range(OPACITY.0..=OPACITY.1);
    let change = Array2::from_shape_fn(window.shape(), |at| {
        let place = window.place(at);
        let (is, foreign) = (sample(canvas.image, place), texture.at(place));
        [0, 1, 2].map(|c| cover[at] * opacity * ((foreign[c] + light).clamp(0.0, 255.0) - is[c]))
    });
    Some(Coat { window, change, body })
}

/// An image seen from elsewhere, turned by right angles and mirrored.
struct Texture<'a> {
    image: &'a RgbImage,
    centre: [f32; 2],
    from: [f32; 2],
    turns: [bool; 3],
}

impl<'a> Texture<'a> {
    fn draw(from: &Canvas<'a>, centre: [f32; 2], rng: &mut StdRng) -> Texture<'a> {
        let place = from.foreground.place(from.image.dimensions(), rng);
        Texture { image: from.image, centre, from: place, turns: [rng.random(), rng.random(), rng.random()] }
    }

    /// Within `reach` of its middle there is nothing of the ground.
    fn is_of_part(&self, from: &Canvas, reach: f32) -> bool {
        let off = [-reach, 0.0, reach];
        let mut places = off.iter().flat_map(|x| off.iter().map(move |y| [self.centre[0] + x, self.centre[1] + y]));
        places.all(|place| from.foreground.holds_place(self.source(place)))
    }

    /// The colour that is put at a place of the image that is painted.
    fn at(&self, place: [f32; 2]) -> [f32; 3] {
        sample(self.image, self.source(place))
    }

    /// Where that comes from.
    fn source(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let (mut dx, mut dy) = (x - self.centre[0], y - self.centre[1]);
        let [swap, left_right, top_bottom] = self.turns;
        if swap {
            (dx, dy) = (dy, dx);
        }
        let mirror = |d: f32, is: bool| if is { -d } else { d };
        let (width, height) = self.image.dimensions();
        let at = [self.from[0] + mirror(dx, left_right), self.from[1] + mirror(dy, top_bottom)];
        [reflect(at[0], width as f32), reflect(at[1], height as f32)]
    }
}

/// Beside the image it goes on as in a mirror.
fn reflect(v: f32, whole: f32) -> f32 {
    let v = v.rem_euclid(2.0 * whole);
    if v < whole { v } else { 2.0 * whole - v }
}

/// The mean of each value with its eight neighbours, twice: an edge goes over four pixels.
fn softened(values: &Array2<f32>) -> Array2<f32> {
    let (rows, columns) = values.dim();
    let pass = |values: &Array2<f32>| {
        let at = |y: usize, x: usize| values[[y.min(rows - 1), x.min(columns - 1)]];
        let across =
            Array2::from_shape_fn((rows, columns), |(y, x)| at(y, x.saturating_sub(1)) + at(y, x) + at(y, x + 1));
        Array2::from_shape_fn((rows, columns), |(y, x)| {
            (across[[y.saturating_sub(1), x]] + across[[y, x]] + across[[(y + 1).min(rows - 1), x]]) / 9.0
        })
    };
    pass(&pass(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_half_where_it_was() {
        let soft = softened(&Array2::from_shape_fn((9, 12), |(_, x)| if x < 6 { 1.0 } else { 0.0 }));
        assert!(soft[[4, 5]] > 0.5 && soft[[4, 6]] < 0.5 && soft[[4, 2]] == 1.0 && soft[[4, 9]] == 0.0);
    }

    #[test]
    fn a_mirror_leads_back_into_the_image() {
        assert_eq!([-1.0, 3.0, 12.0, 21.0].map(|v| reflect(v, 10.0)), [1.0, 3.0, 8.0, 1.0]);
    }
}
