use super::super::dice::Dice;
use super::super::texture::{length, ramp};
use super::StripDefect;
use super::stroke::Layer;
use super::surface::{Canvas, Surface};
use image::{GrayImage, Luma};

/// Share of a pixel that has to be covered for it to be painted and marked.
const VISIBLE: f32 = 0.2;
/// Shortest crack and longest, without branches, in pixels along it.
const SHORTEST: f32 = 60.0;
const LONGEST: f32 = 400.0;

/// Paints one defect onto the strip and returns its mask: the pixels that it covers, without what the lens spreads.
pub(super) fn apply(kind: StripDefect, surface: &Surface, canvas: &mut Canvas, dice: &mut Dice) -> GrayImage {
    let mut layer = Layer::new(surface.width, surface.height);
    match kind {
        StripDefect::Crack => crack(&mut layer, surface, dice),
        StripDefect::Pit => pit(&mut layer, surface, dice),
    }
    let mut mask = GrayImage::new(surface.width, surface.height);
    for (at, pixel) in canvas.iter_mut().enumerate() {
        let (x, y) = (at as u32 % surface.width, at as u32 / surface.width);
        let on_strip = || surface.distance(surface.local([x as f32 + 0.5, y as f32 + 0.5])) < -0.5;
        if layer.cover[at] > VISIBLE && on_strip() {
            pixel[0] *= 1.0 + layer.ink[at];
            mask.put_pixel(x, y, Luma([255]));
        }
    }
    mask
}

/// A random walk with up to two branches, thin, tapered, its contrast coming and going along it.
fn crack(layer: &mut Layer, surface: &Surface, dice: &mut Dice) {
    let reach = dice.range(SHORTEST, LONGEST);
    let trunk = trunk(surface, reach, dice);
    let wide = dice.unit();
    // Thin cracks are the most.
    let (widest, depth) = (1.2 + 2.8 * wide * wide, dice.range(0.25, 0.65));
    stroke(layer, surface, &trunk, widest, depth, dice);
    for _ in 0..dice.pick(&[0, 0, 1, 1, 2]) {
        // Not at the very end: there it would only prolong the trunk.
        let fork = (trunk.len() as f32 * dice.range(0.2, 0.8)) as usize;
        let side = if dice.chance(0.5) { 0.64 } else { -0.64 };
        let long = reach * dice.range(0.12, 0.4);
        let Some(leg) = trunk.windows(2).nth(fork) else { continue };
        let course = towards(leg[0], leg[1]);
        let heading = [course[0] * 0.77 - course[1] * side, course[1] * 0.77 + course[0] * side];
        let (branch, _) = walk(surface, leg[0], heading, long, dice);
        if branch.len() > 2 {
            stroke(layer, surface, &branch, widest * 0.6, depth * 0.85, dice);
        }
    }
}

/// The main line of a crack of about `reach` pixels; shorter where it meets the strip's edge.
fn trunk(surface: &Surface, reach: f32, dice: &mut Dice) -> Vec<[f32; 2]> {
    let along_marks = dice.chance(0.2);
    let (mut longest, mut most) = (Vec::new(), 0.0);
    for _ in 0..64 {
        let start = [dice.range(-0.9, 0.9) * surface.half[0], dice.range(-0.93, 0.93) * surface.half[1]];
        let heading = if along_marks {
            let [along, aside] = dice.direction(0.25);
            [aside, if dice.chance(0.5) { along } else { -along }]
        } else {
            across(dice)
        };
        let (line, walked) = walk(surface, start, heading, reach, dice);
        if walked > most {
            (longest, most) = (line, walked);
        }
        if most >= SHORTEST.max(reach * 0.8) {
            break;
        }
    }
    longest
}

/// A unit vector at least 30 degrees off the marks.
fn across(dice: &mut Dice) -> [f32; 2] {
    loop {
        let heading = dice.heading();
        if heading[1].abs() < 0.866 {
            return heading;
        }
    }
}

/// Legs from `from` in the strip's axes until `reach` pixels are walked or the strip ends, and how many were walked.
fn walk(surface: &Surface, from: [f32; 2], mut heading: [f32; 2], reach: f32, dice: &mut Dice) -> (Vec<[f32; 2]>, f32) {
    let mut line = vec![from];
    let (mut at, mut walked) = (from, 0.0);
    while walked < reach {
        let [c, s] = dice.direction(1.3);
        let step = dice.range(2.0, 6.0);
        let turned = [heading[0] * c - heading[1] * s, heading[1] * c + heading[0] * s];
        at = [at[0] + turned[0] * step, at[1] + turned[1] * step];
        if surface.distance(at) > -3.0 {
            break;
        }
        line.push(at);
        walked += step;
        // Every leg strays from the general course, the course itself only a little.
        heading = towards([0.0; 2], [heading[0] * 0.88 + turned[0] * 0.12, heading[1] * 0.88 + turned[1] * 0.12]);
    }
    (line, walked)
}

/// The unit vector from `a` to `b`.
fn towards(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    let d = [b[0] - a[0], b[1] - a[1]];
    let long = length(d).max(1e-3);
    [d[0] / long, d[1] / long]
}

/// Draws a crack's line: widest a third of the way, thin at its end, its darkness by knots of its own.
fn stroke(layer: &mut Layer, surface: &Surface, line: &[[f32; 2]], widest: f32, depth: f32, dice: &mut Dice) {
    let pixels: Vec<[f32; 2]> = line.iter().map(|p| surface.frame(*p)).collect();
    let knots: Vec<f32> = (0..=line.len() / 9 + 2).map(|_| dice.range(0.0, 1.0)).collect();
    let strength = |t: f32| {
        let place = t * (knots.len() - 2) as f32;
        let i = place as usize;
        knots[i] + (knots[i + 1] - knots[i]) * (place - i as f32)
    };
    let taper = |t: f32| ramp(0.0, 0.3, t) * ramp(1.0, 0.35, t);
    let width = |t: f32| 1.0 + (widest - 1.0) * taper(t) * (0.5 + 0.5 * strength(1.0 - t));
    let ends = |t: f32| 0.35 + 0.65 * ramp(0.0, 0.12, t) * ramp(1.0, 0.85, t);
    layer.line(&pixels, width, |t| -depth * ends(t) * (0.25 + 0.75 * ramp(0.1, 0.8, strength(t))));
}

/// A cluster of three to ten small dark pits.
fn pit(layer: &mut Layer, surface: &Surface, dice: &mut Dice) {
    let room = [surface.half[0] * 0.85, surface.half[1] * 0.9];
    let middle = [dice.range(-room[0], room[0]), dice.range(-room[1], room[1])];
    let spread = dice.range(9.0, 26.0);
    for _ in 0..dice.pick(&[3, 4, 5, 6, 7, 8, 9, 10]) {
        let (away, heading) = (dice.unit() * spread, dice.heading());
        let centre = surface.frame([middle[0] + heading[0] * away, middle[1] + heading[1] * away]);
        let (radius, ink) = (dice.range(1.5, 4.0), -dice.range(0.25, 0.6));
        layer.hollow(centre, radius, &surface.texture, ink);
    }
}
