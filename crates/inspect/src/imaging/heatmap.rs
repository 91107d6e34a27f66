//! Maps as colours, boxes and numbers on a picture.

use super::resize::Placement;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use ndarray::ArrayView2;

/// The Turbo colour map (Mikhailov, Google AI blog 2019) by its published polynomial: 0 is dark blue, 1 dark red.
pub fn turbo(value: f32) -> [u8; 3] {
    let x = value.clamp(0.0, 1.0);
    let powers = [1.0, x, x * x, x.powi(3), x.powi(4), x.powi(5)];
    let channel = |c: [f32; 6]| {
        let v: f32 = c.iter().zip(powers).map(|(c, p)| c * p).sum();
        (v.clamp(0.0, 1.0) * 255.0).round() as u8
    };
    [
        channel([0.13572138, 4.6153926, -42.660324, 132.13108, -152.94239, 59.28638]),
        channel([0.09140261, 2.1941884, 4.8429666, -14.185033, 4.2772986, 2.829566]),
        channel([0.1066733, 12.641946, -60.582048, 110.36276, -89.90311, 27.34825]),
    ]
}

/// Which values of a map are coloured, and how strongly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColourScale {
    /// Value of the map below which nothing is coloured.
    pub from: f32,
    /// Value of the map from which the colour is full, if no value of this map is larger.
    pub full: f32,
    /// The largest value of this map. Where it is far beyond `full`, the colours go up to it by ratios: a place would else be one blot, in which nothing shows where
    /// the defect is.
    pub peak: f32,
}

/// Of the way from `from` to `full`: within it the colour fades in, so that the border of a place is no staircase.
const SOFT_EDGE: f32 = 0.12;

/// Lays `map`, the values of the network's input `[H,W]`, over `image`; `placement` says where on it the input lies. Pixels that the
/// network did not see, and those below the scale, show as they are.
pub fn overlay(image: &RgbImage, map: ArrayView2<f32>, placement: &Placement, scale: ColourScale) -> RgbImage {
    let (map_height, map_width) = map.dim();
    let span = (scale.full - scale.from).max(f32::EPSILON);
    let height_of = |value: f32| ((value - scale.from) / span).max(0.0);
    let peak = height_of(scale.peak);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let pixel = *image.get_pixel(x, y);
        let (mx, my) = placement.to_input(x as f32 + 0.5, y as f32 + 0.5);
        if !(0.0..map_width as f32).contains(&mx) || !(0.0..map_height as f32).contains(&my) {
            return pixel;
        }
        let height = height_of(bilinear(map, mx - 0.5, my - 0.5));
        if height == 0.0 {
            return pixel;
        }
        let edge = (height / SOFT_EDGE).min(1.0);
        let t = if peak > 1.0 { height.ln_1p() / peak.ln_1p() } else { height }.min(1.0);
        let alpha = 0.6 * edge * edge * (3.0 - 2.0 * edge);
        // From yellow to dark red: what is coloured at all is above the threshold.
        let colour = turbo(0.62 + 0.33 * t);
        Rgb(std::array::from_fn(|c| {
            (f32::from(pixel.0[c]) * (1.0 - alpha) + f32::from(colour[c]) * alpha).round() as u8
        }))
    })
}

/// Reads `map` at a fractional position, the border repeated.
fn bilinear(map: ArrayView2<f32>, x: f32, y: f32) -> f32 {
    let (height, width) = map.dim();
    let x = x.clamp(0.0, (width - 1) as f32);
    let y = y.clamp(0.0, (height - 1) as f32);
    let (x0, y0) = (x as usize, y as usize);
    let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let at = |x: usize, y: usize| map[[y, x]];
    (at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx) * (1.0 - fy) + (at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx) * fy
}

/// The picture as a PNG file.
///
/// # Errors
/// Only when memory runs out.
pub fn encode_png(image: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)?;
    Ok(out)
}

/// The picture as a JPEG file; `quality` from 1 to 100.
///
/// # Errors
/// Only when memory runs out.
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> image::ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, quality).write_image(
        image,
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(out)
}

/// Draws the outline of `[left, top, width, height]` in white on black, two pixels each, so that it shows on every ground; what lies
/// outside the picture is left out.
pub fn draw_box(image: &mut RgbImage, [left, top, width, height]: [i64; 4]) {
    let (right, bottom) = (left + width - 1, top + height - 1);
    let (image_width, image_height) = image.dimensions();
    for y in (top - 2).max(0)..=(bottom + 2).min(i64::from(image_height) - 1) {
        for x in (left - 2).max(0)..=(right + 2).min(i64::from(image_width) - 1) {
            let depth = (x - left).min(right - x).min(y - top).min(bottom - y);
            if depth < 2 {
                let grey = if depth < 0 { 0 } else { 255 };
                image.put_pixel(x as u32, y as u32, Rgb([grey; 3]));
            }
        }
    }
}

/// Columns and rows of a glyph.
const GLYPH: (u32, u32) = (5, 7);
/// Rows of the digits, the point and the minus, top to bottom; a bit a column, the highest of five is the left one.
const GLYPHS: [(char, [u8; 7]); 12] = [
    ('0', [14, 17, 19, 21, 25, 17, 14]),
    ('1', [4, 12, 4, 4, 4, 4, 14]),
    ('2', [14, 17, 1, 2, 4, 8, 31]),
    ('3', [31, 2, 4, 2, 1, 17, 14]),
    ('4', [2, 6, 10, 18, 31, 2, 2]),
    ('5', [31, 16, 30, 1, 1, 17, 14]),
    ('6', [6, 8, 16, 30, 17, 17, 14]),
    ('7', [31, 1, 2, 4, 8, 8, 8]),
    ('8', [14, 17, 17, 14, 17, 17, 14]),
    ('9', [14, 17, 17, 15, 1, 2, 12]),
    ('.', [0, 0, 0, 0, 0, 12, 12]),
    ('-', [0, 0, 0, 31, 0, 0, 0]),
];

/// Width and height that [`draw_number`] takes.
pub fn number_size(text: &str, zoom: u32) -> (u32, u32) {
    ((text.chars().count() as u32 * (GLYPH.0 + 1) + 1) * zoom, (GLYPH.1 + 2) * zoom)
}

/// Writes a number (digits, point, minus) in white on black with its corner at `left`, `top`; `zoom` pixels a dot. What lies outside the
/// picture is left out, and so is any other character.
pub fn draw_number(image: &mut RgbImage, text: &str, (left, top): (i64, i64), zoom: u32) {
    let (width, height) = number_size(text, zoom);
    let glyphs: Vec<[u8; 7]> =
        text.chars().map(|c| GLYPHS.iter().find(|(known, _)| *known == c).map_or([0; 7], |(_, rows)| *rows)).collect();
    for y in 0..height {
        for x in 0..width {
            let (px, py) = (left + i64::from(x), top + i64::from(y));
            if px < 0 || py < 0 || px >= i64::from(image.width()) || py >= i64::from(image.height()) {
                continue;
            }
            // A dot of margin around every glyph.
            let (column, row) = ((x / zoom).checked_sub(1), (y / zoom).checked_sub(1));
            let lit = column.zip(row).is_some_and(|(column, row)| {
                let (glyph, bit) = (column / (GLYPH.0 + 1), column % (GLYPH.0 + 1));
                let rows = glyphs.get(glyph as usize);
                bit < GLYPH.0
                    && rows.and_then(|r| r.get(row as usize)).is_some_and(|r| r >> (GLYPH.0 - 1 - bit) & 1 == 1)
            });
            image.put_pixel(px as u32, py as u32, Rgb([if lit { 255 } else { 0 }; 3]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    const SEEN: Placement = Placement { scale: (2.0, 2.0), origin: (4.0, 0.0) };

    #[test]
    fn only_what_is_above_the_scale_and_was_seen_is_coloured() {
        let grey = RgbImage::from_pixel(24, 16, Rgb([100; 3]));
        let mut map = Array2::from_elem((8, 8), 0.9);
        map[[4, 4]] = 5.0;
        let scale = ColourScale { from: 1.0, full: 2.0, peak: 2.0 };
        let painted = overlay(&grey, map.view(), &SEEN, scale);
        assert_eq!(*painted.get_pixel(4 + 9, 9), Rgb(turbo(0.95).map(|c| (40.0 + 0.6 * f32::from(c)).round() as u8)));
        assert_eq!(*painted.get_pixel(5, 1), Rgb([100; 3]), "below the scale");
        let all = overlay(&grey, Array2::from_elem((8, 8), 9.0).view(), &SEEN, scale);
        assert_eq!([3, 4, 19, 20].map(|x| *all.get_pixel(x, 8) == Rgb([100; 3])), [true, false, false, true]);
    }

    #[test]
    fn within_a_place_far_beyond_the_scale_the_defect_is_seen() {
        let grey = RgbImage::from_pixel(24, 16, Rgb([100; 3]));
        let mut map = Array2::from_elem((8, 8), 11.0);
        [[4, 4], [4, 5], [5, 4], [5, 5]].iter().for_each(|&at| map[at] = 101.0);
        let painted = overlay(&grey, map.view(), &SEEN, ColourScale { from: 1.0, full: 2.0, peak: 101.0 });
        let colour = |t: f32| Rgb(turbo(0.62 + 0.33 * t).map(|c| (40.0 + 0.6 * f32::from(c)).round() as u8));
        assert_eq!(*painted.get_pixel(4 + 9, 9), colour(1.0));
        assert_eq!(*painted.get_pixel(5, 1), colour(11f32.ln() / 101f32.ln()));
    }

    #[test]
    fn a_number_is_legible() {
        let mut image = RgbImage::from_pixel(40, 12, Rgb([50; 3]));
        draw_number(&mut image, "1.7", (1, 1), 1);
        let rows = (2..9)
            .map(|y| (2..19).map(|x| if image.get_pixel(x, y).0[0] == 255 { '#' } else { '.' }).collect::<String>());
        let expected = [
            "..#.........#####",
            ".##.............#",
            "..#............#.",
            "..#...........#..",
            "..#..........#...",
            "..#....##....#...",
            ".###...##....#...",
        ];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        draw_number(&mut image, "8", (-3, -3), 2);
        draw_box(&mut image, [-10, -10, 200, 15]);
    }
}
