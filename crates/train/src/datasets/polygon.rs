//! Filled polygons of whole pixels, byte for byte as OpenCV's `fillPoly` draws them: the masks of COCO-AD are made by it, and its pixel metrics are only
//! comparable where the edge of every mask is the same.

use image::{GrayImage, Luma};

/// A corner, x and y.
type Point = (i64, i64);

/// Fixed-point bits of an edge's place in a row.
const SHIFT: u32 = 16;

/// An edge between two rows, its end excluded.
struct Edge {
    first: i64,
    end: i64,
    /// Where it crosses row `first`, and how far it moves a row.
    x: i64,
    step: i64,
}

/// Sets the polygon's pixels to 255, those of its outline included; inside, every second crossing counts.
pub fn fill(mask: &mut GrayImage, corners: &[(i32, i32)]) {
    let corners: Vec<Point> = corners.iter().map(|&(x, y)| (i64::from(x), i64::from(y))).collect();
    let (width, height) = (i64::from(mask.width()), i64::from(mask.height()));
    let (Some(&last), true) = (corners.last(), width > 0 && height > 0) else { return };
    let mut edges = vec![];
    let mut from = last;
    for &to in &corners {
        let clipped = clip((width, height), from, to);
        if let Some((from, to)) = clipped.inside {
            line(mask, from, to);
        }
        edges.extend(edge(from, to, clipped.ends));
        from = to;
    }
    let rows = edges.iter().map(|e| e.first).min().unwrap_or(0).max(0)
        ..edges.iter().map(|e| e.end).max().unwrap_or(0).min(height);
    for y in rows {
        let crosses = edges.iter().filter(|e| (e.first..e.end).contains(&y));
        let mut crossings: Vec<i64> = crosses.map(|e| e.x + e.step * (y - e.first)).collect();
        crossings.sort_unstable();
        for pair in crossings.chunks_exact(2) {
            // Rounded inwards; the pixels of the outline are drawn as lines.
            let (left, right) = ((pair[0] + (1 << SHIFT) - 1) >> SHIFT, pair[1] >> SHIFT);
            (left.max(0)..=right.min(width - 1)).for_each(|x| mask[(x as u32, y as u32)] = Luma([255]));
        }
    }
}

/// How an edge is followed: along the ends of its clipped line, as far as these differ in height.
fn edge(from: Point, to: Point, (start, end): (Point, Point)) -> Option<Edge> {
    if from.1 == to.1 {
        return None;
    }
    let (start, end) = if start.1 == end.1 { ((start.0, from.1), (end.0, to.1)) } else { (start, end) };
    let step = ((end.0 - start.0) << SHIFT) / (end.1 - start.1);
    let (upper, lower, (x, y)) = if from.1 < to.1 { (from.1, to.1, start) } else { (to.1, from.1, end) };
    Some(Edge { first: upper, end: lower, x: (x << SHIFT) + (upper - y) * step, step })
}

/// A line, and its part inside an image.
struct Clipped {
    /// As far as they were moved.
    ends: (Point, Point),
    /// None where no part of it is inside.
    inside: Option<(Point, Point)>,
}

/// Cohen and Sutherland's way, with OpenCV's rounding: what is cut off is cut towards zero.
fn clip((width, height): (i64, i64), mut a: Point, mut b: Point) -> Clipped {
    let (right, bottom) = (width - 1, height - 1);
    let beside = |p: Point| i32::from(p.0 < 0) + 2 * i32::from(p.0 > right);
    let sides = |p: Point| beside(p) + 4 * i32::from(p.1 < 0) + 8 * i32::from(p.1 > bottom);
    // `p` moved along the line to where its row or column is `to`.
    let share = |to: i64, at: i64, along: i64, across: i64| ((to - at) as f64 * along as f64 / across as f64) as i64;
    let (mut out_a, mut out_b) = (sides(a), sides(b));
    let crosses = |out_a: i32, out_b: i32| out_a & out_b == 0 && out_a | out_b != 0;
    if crosses(out_a, out_b) {
        if out_a & 12 != 0 {
            let y = if out_a < 8 { 0 } else { bottom };
            a = (a.0 + share(y, a.1, b.0 - a.0, b.1 - a.1), y);
            out_a = beside(a);
        }
        if out_b & 12 != 0 {
            let y = if out_b < 8 { 0 } else { bottom };
            b = (b.0 + share(y, b.1, b.0 - a.0, b.1 - a.1), y);
            out_b = beside(b);
        }
        if crosses(out_a, out_b) {
            if out_a != 0 {
                let x = if out_a == 1 { 0 } else { right };
                a = (x, a.1 + share(x, a.0, b.1 - a.1, b.0 - a.0));
                out_a = 0;
            }
            if out_b != 0 {
                let x = if out_b == 1 { 0 } else { right };
                b = (x, b.1 + share(x, b.0, b.1 - a.1, b.0 - a.0));
                out_b = 0;
            }
        }
    }
    Clipped { ends: (a, b), inside: (out_a | out_b == 0).then_some((a, b)) }
}

/// Bresenham's line, from the left; both ends are inside the image.
fn line(mask: &mut GrayImage, mut from: Point, mut to: Point) {
    if to.0 < from.0 {
        (from, to) = (to, from);
    }
    let (across, down, way) = (to.0 - from.0, (to.1 - from.1).abs(), (to.1 - from.1).signum());
    let steep = down > across;
    let (long, short) = if steep { (down, across) } else { (across, down) };
    let (mut x, mut y) = from;
    let mut error = long - 2 * short;
    for _ in 0..=long {
        mask[(x as u32, y as u32)] = Luma([255]);
        let aside = error < 0;
        error += if aside { 2 * long } else { 0 } - 2 * short;
        if steep || aside {
            y += way;
        }
        if !steep || aside {
            x += 1;
        }
    }
}
