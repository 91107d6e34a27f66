//! Pieces of an image put elsewhere: as a defect, and as the control that is none.

use super::Canvas;
use super::patch::{Band, Coat, luma, mean, sample};
use image::RgbImage;
use ndarray::Array2;
use rand::{Rng, rngs::StdRng};
use std::f32::consts::{PI, TAU};

/// Share of the image that a piece takes, evenly by the logarithm.
const SHARE: (f32, f32) = (0.001, 0.02);
/// Pixels over which a piece fades into the image.
const FEATHER: f32 = 2.0;
/// Length to width of squares and of strips.
const SQUARE: (f32, f32) = (1.0, 2.0);
const STRIP: (f32, f32) = (4.0, 10.0);
/// By how much, as a share, all channels and one channel of a piece change.
const LIGHT: f32 = 0.15;
const TINT: f32 = 0.05;

/// Half the length and half the width of a moved edge's band, in pixels, and over how many it fades.
const EDGE_LENGTH: (f32, f32) = (12.0, 60.0);
const EDGE_WIDTH: (f32, f32) = (5.0, 12.0);
const EDGE_FEATHER: f32 = 4.0;
/// Places of which the one with the strongest edge is taken.
const EDGE_PLACES: usize = 16;
/// How much of the gradients' energy at an edge has to be of one direction, 0 to 1.
const COHERENCE: f32 = 0.3;
/// Levels that the two sides of an edge may differ by, and its two ends: a mark may be moved, where two materials meet not.
const EVEN: f32 = 8.0;
/// Share of an edge's energy that its new place has to have: edges are moved to where there are some.
const AS_ROUGH: f32 = 0.25;

/// A square or a strip from elsewhere on this image's part or on `other`'s, turned, mirrored, its colour changed a little.
pub(super) fn cut_paste(canvas: &Canvas, other: Option<&Canvas>, rng: &mut StdRng) -> Option<Coat> {
    let size = canvas.image.dimensions();
    let area = size.0 as f32 * size.1 as f32 * rng.random_range(SHARE.0.ln()..SHARE.1.ln()).exp();
    let aspect = if rng.random() { SQUARE } else { STRIP };
    let aspect: f32 = rng.random_range(aspect.0..aspect.1);
    let half = [(area * aspect).sqrt() / 2.0, (area / aspect).sqrt() / 2.0].map(|half| half.max(0.75));
    let turned = |turn: f32| [turn.cos(), turn.sin()];
    let from = other.filter(|_| rng.random()).unwrap_or(canvas);
    let source = Band {
        centre: from.foreground.place(from.image.dimensions(), rng),
        half,
        heading: turned(rng.random_range(0.0..TAU)),
    };
    let target = Band { centre: canvas.foreground.place(size, rng), half, heading: turned(rng.random_range(0.0..PI)) };
    let fits = source.is_within(from.image.dimensions());
    if !fits && half[0] * 2.0 < from.image.width().min(from.image.height()) as f32 {
        return None;
    }
    let light = 1.0 + rng.random_range(-LIGHT..=LIGHT);
    let tint = [(); 3].map(|()| if canvas.grey { light } else { light * (1.0 + rng.random_range(-TINT..=TINT)) });
    let mirror = if rng.random() { -1.0 } else { 1.0 };
    let colour = |[u, v]: [f32; 2]| {
        let colour = sample(from.image, source.place([u, v * mirror]));
        [0, 1, 2].map(|c| (colour[c] * tint[c]).min(255.0))
    };
    laid(canvas.image, &target, FEATHER, colour)
}

/// A band around a strong edge of the part's own, mirrored, laid parallel to itself elsewhere on the part and brought to the
/// brightness there. None where this try finds no edge or no room.
pub(super) fn moved_edge(canvas: &Canvas, rng: &mut StdRng) -> Option<Coat> {
    let size = canvas.image.dimensions();
    let places: Vec<[f32; 2]> = (0..EDGE_PLACES).map(|_| canvas.foreground.place(size, rng)).collect();
    let edges = places.iter().filter(|at| canvas.foreground.holds_around(**at)).map(|at| Edge::at(canvas, *at));
    let edge = edges.max_by(|a, b| (a.energy * a.coherence).total_cmp(&(b.energy * b.coherence)))?;
    let mut half = |(low, high): (f32, f32)| (rng.random_range(low..high) * canvas.scale).max(1.0);
    let half = [half(EDGE_LENGTH), half(EDGE_WIDTH)];
    let source = Band { centre: edge.place, half, heading: edge.along };
    let target = Band { centre: canvas.foreground.place(size, rng), ..source };
    // The part's own outline would be a defect in its middle.
    let room =
        |band: &Band| band.is_within(size) && band.marks().iter().all(|place| canvas.foreground.holds_around(*place));
    let rough = Edge::at(canvas, target.centre).energy >= AS_ROUGH * edge.energy;
    let is_mark = edge.energy > 0.0 && edge.coherence >= COHERENCE && is_even(canvas.image, &source);
    if !is_mark || !rough || !room(&source) || !room(&target) {
        return None;
    }
    let [along, across] = [rng.random(), rng.random()].map(|is: bool| if is { -1.0 } else { 1.0 });
    let (here, there) = (mean(canvas.image, &source), mean(canvas.image, &target));
    let colour = |[u, v]: [f32; 2]| {
        let colour = sample(canvas.image, source.place([u * along, v * across]));
        [0, 1, 2].map(|c| (colour[c] + there[c] - here[c]).clamp(0.0, 255.0))
    };
    laid(canvas.image, &target, EDGE_FEATHER * canvas.scale.max(0.25), colour)
}

/// The gradients around a place, as their structure tensor has it.
struct Edge {
    place: [f32; 2],
    /// Mean square of the gradient.
    energy: f32,
    /// Share of it that is of one direction, 0 to 1.
    coherence: f32,
    /// Unit vector along the edge, across that direction.
    along: [f32; 2],
}

impl Edge {
    fn at(canvas: &Canvas, place: [f32; 2]) -> Edge {
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        let apart = 2.0 * canvas.scale;
        for i in 0..49 {
            let off = |i: i32| (i - 3) as f32 * apart;
            let [x, y] = gradient(canvas.image, [place[0] + off(i % 7), place[1] + off(i / 7)]);
            (xx, xy, yy) = (xx + x * x / 49.0, xy + x * y / 49.0, yy + y * y / 49.0);
        }
        let steepest = (2.0 * xy).atan2(xx - yy) / 2.0;
        let energy = xx + yy;
        let coherence = if energy > 0.0 { (xx - yy).hypot(2.0 * xy) / energy } else { 0.0 };
        Edge { place, energy, coherence, along: [-steepest.sin(), steepest.cos()] }
    }
}

/// Both sides of a band are as bright, and both ends.
fn is_even(image: &RgbImage, band: &Band) -> bool {
    let [long, wide] = band.half;
    let third = |[u, v]: [f32; 2], half: [f32; 2]| {
        let part = Band { centre: band.place([u, v]), half, ..*band };
        luma(mean(image, &part).map(|v| v as u8))
    };
    let side = |way: f32| third([0.0, way * wide * 2.0 / 3.0], [long, wide / 3.0]);
    let end = |way: f32| third([way * long * 2.0 / 3.0, 0.0], [long / 3.0, wide]);
    (side(1.0) - side(-1.0)).abs() <= EVEN && (end(1.0) - end(-1.0)).abs() <= EVEN
}

/// `colour`, by the band's own axes, over `image`.
fn laid(image: &RgbImage, band: &Band, feather: f32, colour: impl Fn([f32; 2]) -> [f32; 3]) -> Option<Coat> {
    let window = band.window(image.dimensions(), feather)?;
    let cover = Array2::from_shape_fn(window.shape(), |at| band.cover(window.place(at), feather));
    let change = Array2::from_shape_fn(window.shape(), |at| {
        let place = window.place(at);
        let (is, put) = (sample(image, place), colour(band.local(place)));
        [0, 1, 2].map(|c| cover[at] * (put[c] - is[c]))
    });
    Some(Coat { window, change, body: cover.mapv(|cover| cover >= 0.5) })
}

/// How brightness rises along x and y, over two pixels.
fn gradient(image: &RgbImage, [x, y]: [f32; 2]) -> [f32; 2] {
    let light = |dx: f32, dy: f32| luma(sample(image, [x + dx, y + dy]).map(|v| v as u8));
    [light(1.0, 0.0) - light(-1.0, 0.0), light(0.0, 1.0) - light(0.0, -1.0)]
}
