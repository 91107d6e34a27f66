//! Changes of a part of an image: a window, and a rectangle that lies askew in it.

use image::{Rgb, RgbImage};
use ndarray::{Array2, AxisDescription, Slice, Zip};

/// Least change of a channel, in levels, that counts as one.
pub(super) const NOTICED: f32 = 2.0;
/// How far from a changed pixel, in pixels, a pixel of the body may be.
const REACH: usize = 2;

/// Brightness of a pixel, 0 to 255 (ITU-R BT.601).
pub(super) fn luma([r, g, b]: [u8; 3]) -> f32 {
    0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)
}

/// A rectangle of whole pixels within an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Window {
    /// All pixels of an image of `size` that are at most `margin` beside the box around `places`; none where that is
    /// outside the image.
    pub fn around(size: (u32, u32), places: &[[f32; 2]], margin: f32) -> Option<Window> {
        let along = |axis: usize, whole: u32| {
            let (low, high) =
                places.iter().fold((f32::MAX, f32::MIN), |(low, high), p| (low.min(p[axis]), high.max(p[axis])));
            let (from, to) = ((low - margin).max(0.0) as u32, (high + margin + 1.0).clamp(0.0, whole as f32) as u32);
            (from < to).then(|| (from, to - from))
        };
        let ((left, width), (top, height)) = (along(0, size.0)?, along(1, size.1)?);
        Some(Window { left, top, width, height })
    }

    /// Its rows and columns.
    pub fn shape(&self) -> (usize, usize) {
        (self.height as usize, self.width as usize)
    }

    /// The middle of a pixel that is so many rows and columns from its corner, in the image.
    pub fn place(&self, (row, column): (usize, usize)) -> [f32; 2] {
        [self.left as f32 + column as f32 + 0.5, self.top as f32 + row as f32 + 0.5]
    }
}

/// What is to be added to a window of an image.
pub(super) struct Coat {
    pub window: Window,
    /// Levels to add to each channel.
    pub change: Array2<[f32; 3]>,
    /// Pixels that are the defect's, and not its soft edge.
    pub body: Array2<bool>,
}

/// A window of an image with a coat on it.
pub(super) struct Coated {
    pub window: Window,
    pub pixels: Array2<[u8; 3]>,
    /// Pixels of the body that changed, or lie at most [`REACH`] beside one that did.
    pub mask: Array2<bool>,
    /// What became of the brightness, in levels.
    pub change: Array2<f32>,
}

impl Coat {
    /// `image` with it.
    pub fn on(&self, image: &RgbImage) -> Coated {
        let Window { left, top, .. } = self.window;
        let was =
            Array2::from_shape_fn(self.window.shape(), |(y, x)| image.get_pixel(left + x as u32, top + y as u32).0);
        let pixels = Zip::from(&was)
            .and(&self.change)
            .map_collect(|was, add| [0, 1, 2].map(|c| (f32::from(was[c]) + add[c]).round().clamp(0.0, 255.0) as u8));
        let changed = Zip::from(&was)
            .and(&pixels)
            .map_collect(|was, is| was.iter().zip(is).any(|(was, is)| f32::from(was.abs_diff(*is)) >= NOTICED));
        let near = spread(&changed);
        Coated {
            window: self.window,
            mask: Zip::from(&self.body).and(&near).map_collect(|body, near| *body && *near),
            change: Zip::from(&was).and(&pixels).map_collect(|was, is| luma(*is) - luma(*was)),
            pixels,
        }
    }
}

impl Coated {
    /// Writes the window into `image`.
    pub fn write(&self, image: &mut RgbImage) {
        for ((y, x), pixel) in self.pixels.indexed_iter() {
            image.put_pixel(self.window.left + x as u32, self.window.top + y as u32, Rgb(*pixel));
        }
    }

    /// The pixels of its mask, in the image.
    pub fn masked(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let Window { left, top, .. } = self.window;
        self.mask.indexed_iter().filter(|(_, is)| **is).map(move |((y, x), _)| (left + x as u32, top + y as u32))
    }

    /// Root of the mean square, over the pixels of the mask for which `counts`, of how much brighter or darker it became, each
    /// pixel with the 24 around it: what is left of a change when grain for other grain counts for little.
    pub fn contrast(&self, counts: impl Fn(u32, u32) -> bool) -> f32 {
        let (mut squares, mut pixels) = (0.0, 0.0);
        for (x, y) in self.masked().filter(|(x, y)| counts(*x, *y)) {
            let at = ((y - self.window.top) as usize, (x - self.window.left) as usize);
            let near = self.change.slice_each_axis(|axis| around(at, axis));
            squares += near.mean().unwrap_or(0.0).powi(2);
            pixels += 1.0;
        }
        (squares / f32::max(pixels, 1.0)).sqrt()
    }
}

/// True where a pixel at most [`REACH`] away along either axis is.
pub(super) fn spread(is: &Array2<bool>) -> Array2<bool> {
    let mut out = Array2::from_elem(is.dim(), false);
    for (at, _) in is.indexed_iter().filter(|(_, is)| **is) {
        out.slice_each_axis_mut(|axis| around(at, axis)).fill(true);
    }
    out
}

/// The pixels at most [`REACH`] from a place along an axis.
fn around((row, column): (usize, usize), axis: AxisDescription) -> Slice {
    let at = if axis.axis.index() == 0 { row } else { column };
    Slice::from(at.saturating_sub(REACH)..(at + REACH + 1).min(axis.len))
}

/// A rectangle with its long side along `heading`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub centre: [f32; 2],
    /// Half its length and half its width, in pixels.
    pub half: [f32; 2],
    /// Unit vector.
    pub heading: [f32; 2],
}

impl Band {
    /// A place by its own axes, along and across from the centre.
    pub fn local(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let ([cx, cy], [c, s]) = (self.centre, self.heading);
        [(x - cx) * c + (y - cy) * s, (y - cy) * c - (x - cx) * s]
    }

    /// The place that is so far along and across from the centre.
    pub fn place(&self, [u, v]: [f32; 2]) -> [f32; 2] {
        let ([cx, cy], [c, s]) = (self.centre, self.heading);
        [cx + u * c - v * s, cy + u * s + v * c]
    }

    /// 1 within, 0 outside, a half on its edge, and between them over `feather` pixels.
    pub fn cover(&self, place: [f32; 2], feather: f32) -> f32 {
        let [u, v] = self.local(place);
        let depth = (self.half[0] - u.abs()).min(self.half[1] - v.abs());
        (0.5 + depth / feather).clamp(0.0, 1.0)
    }

    /// Its corners, the middles of its sides, and its centre.
    pub fn marks(&self) -> [[f32; 2]; 9] {
        let [u, v] = self.half;
        [[-u, -v], [0.0, -v], [u, -v], [-u, 0.0], [0.0, 0.0], [u, 0.0], [-u, v], [0.0, v], [u, v]]
            .map(|at| self.place(at))
    }

    /// All of it is within an image of `size`.
    pub fn is_within(&self, size: (u32, u32)) -> bool {
        self.marks().iter().all(|[x, y]| *x >= 0.0 && *y >= 0.0 && *x < size.0 as f32 && *y < size.1 as f32)
    }

    /// The pixels of an image of `size` that it covers with its soft edge.
    pub fn window(&self, size: (u32, u32), feather: f32) -> Option<Window> {
        Window::around(size, &self.marks(), feather)
    }
}

/// The colour at a place, between pixels by both axes; beside the image that of its nearest pixel.
pub(super) fn sample(image: &RgbImage, [x, y]: [f32; 2]) -> [f32; 3] {
    let at = |v: f32, whole: u32| {
        let v = (v - 0.5).clamp(0.0, whole as f32 - 1.0);
        (v as u32, (v as u32 + 1).min(whole - 1), v.fract())
    };
    let ((x0, x1, fx), (y0, y1, fy)) = (at(x, image.width()), at(y, image.height()));
    let [a, b, c, d] = [(x0, y0), (x1, y0), (x0, y1), (x1, y1)].map(|(x, y)| image.get_pixel(x, y).0.map(f32::from));
    let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
    [0, 1, 2].map(|i| mix(mix(a[i], b[i], fx), mix(c[i], d[i], fx), fy))
}

/// The mean colour of a band, from 9 x 9 places of it.
pub(super) fn mean(image: &RgbImage, band: &Band) -> [f32; 3] {
    let mut sum = [0.0; 3];
    for i in 0..81 {
        let share = |i: i32| i as f32 / 4.0 - 1.0;
        let colour = sample(image, band.place([share(i % 9) * band.half[0], share(i / 9) * band.half[1]]));
        (0..3).for_each(|c| sum[c] += colour[c] / 81.0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_within_its_image() {
        let window = |places: &[[f32; 2]]| Window::around((20, 10), places, 1.5);
        assert_eq!(window(&[[3.2, 4.0], [6.0, 5.0]]), Some(Window { left: 1, top: 2, width: 7, height: 5 }));
        assert_eq!(window(&[[-5.0, -5.0], [50.0, 50.0]]), Some(Window { left: 0, top: 0, width: 20, height: 10 }));
        assert_eq!((window(&[[40.0, 4.0]]), window(&[[-4.0, 4.0]]), window(&[])), (None, None, None));
    }

    #[test]
    fn a_band_s_own_axes_lead_there_and_back() {
        let band = Band { centre: [7.0, 5.0], half: [4.0, 2.0], heading: [0.6, 0.8] };
        let [u, v] = band.local(band.place([1.5, -0.5]));
        assert!((u - 1.5).abs() < 1e-5 && (v + 0.5).abs() < 1e-5);
        assert_eq!((band.cover([7.0, 5.0], 2.0), band.cover([70.0, 5.0], 2.0)), (1.0, 0.0));
        assert!((band.cover(band.place([4.0, 0.0]), 2.0) - 0.5).abs() < 1e-5);
    }

    #[test]
    fn a_place_between_pixels_has_a_colour_between_theirs() {
        let image = RgbImage::from_fn(2, 1, |x, _| Rgb([(x * 100) as u8, 7, 0]));
        assert_eq!(sample(&image, [0.5, 0.5]), [0.0, 7.0, 0.0]);
        assert_eq!(sample(&image, [1.0, 0.5]), [50.0, 7.0, 0.0]);
        assert_eq!(sample(&image, [9.0, -9.0]), [100.0, 7.0, 0.0]);
    }
}
