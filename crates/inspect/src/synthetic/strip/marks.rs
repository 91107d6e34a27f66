use super::super::dice::Dice;
use super::super::texture::{Texture, ramp};
use super::stroke::Layer;
use super::surface::Surface;

/// Machining marks: fine lines along the strip, nearly parallel, slightly wavy, their contrast coming and going.
pub(super) struct Lay {
    fine: Lines,
    coarse: Lines,
    slow: Texture,
    contrast: f32,
    wave: f32,
    /// Slope of the marks to the strip's long side, and of a second pass of the tool.
    slopes: [f32; 2],
    second: f32,
    chatter: f32,
}

impl Lay {
    pub fn new(dice: &mut Dice) -> Lay {
        Lay {
            fine: Lines::new(dice),
            coarse: Lines::new(dice),
            slow: Texture::new(dice),
            contrast: dice.range(0.07, 0.15),
            wave: dice.range(1.0, 4.0),
            slopes: [dice.jitter(0.02), dice.jitter(0.09)],
            second: dice.range(0.0, 0.6),
            chatter: dice.range(0.0, 0.02),
        }
    }

    /// Share by which the marks change the light at a place of the strip.
    pub fn at(&self, local: [f32; 2]) -> f32 {
        let [x, y] = local;
        let bend = self.wave * (self.slow.at(3.7, y / 190.0) + 0.25 * self.slow.at(x / 140.0, y / 67.0));
        let (u, second) = (x + bend + self.slopes[0] * y, x + self.slopes[1] * y);
        let first = 0.7 * self.fine.at(u * 0.83, y / 150.0)
            + 0.6 * self.fine.at(u * 0.31 + 400.0, y / 210.0)
            + 0.5 * self.coarse.at(u * 0.09, y / 400.0);
        let second = self.coarse.at(second * 0.64 + 300.0, y / 120.0) * self.second;
        let patchy = (0.75 + 0.7 * self.slow.at(x / 75.0 + 17.0, y / 230.0)).max(0.1);
        // Most lines are faint and a few are not.
        let sharp = |m: f32| m * (0.35 + m.abs());
        self.contrast * patchy * (sharp(first) + sharp(second)) + self.chatter * self.slow.at(x / 900.0, y / 9.0)
    }
}

/// Lines beside each other, each with a strength that varies along it by itself.
struct Lines {
    /// `LINES` times `KNOTS` values in `[-1, 1]`, line by line; both directions repeat.
    values: Vec<f32>,
    /// Where on its knots each line starts.
    phases: Vec<f32>,
}

/// More than are beside each other in the picture, or a person would see them repeat.
const LINES: usize = 1024;
const KNOTS: usize = 32;

impl Lines {
    fn new(dice: &mut Dice) -> Lines {
        let mut bytes = vec![0; LINES * KNOTS];
        dice.fill(&mut bytes);
        let values = bytes.iter().map(|b| f32::from(*b) / 127.5 - 1.0).collect();
        // Without its own phase every line would turn at the same height.
        let phases = (0..LINES).map(|_| dice.range(0.0, KNOTS as f32)).collect();
        Lines { values, phases }
    }

    /// At line `u` and place `v` along it, in knots; both above -4096.
    fn at(&self, u: f32, v: f32) -> f32 {
        let u = u + 4096.0;
        let whole = u as usize;
        let (a, b) = (self.column(whole % LINES, v), self.column((whole + 1) % LINES, v));
        a + (b - a) * (u - whole as f32)
    }

    fn column(&self, line: usize, v: f32) -> f32 {
        let v = v + 4096.0 + self.phases[line];
        let whole = v as usize;
        let knot = |i: usize| self.values[line * KNOTS + i % KNOTS];
        knot(whole) + (knot(whole + 1) - knot(whole)) * (v - whole as f32)
    }
}

/// What else a good strip bears: stronger marks, short tool marks, handling scratches, pores. No defect.
pub(super) fn draw_marks(surface: &Surface, dice: &mut Dice) -> Layer {
    let mut layer = Layer::new(surface.width, surface.height);
    let [half_x, half_y] = surface.half;
    // Densities are those of a strip of 440 x 1200 pixels.
    let size = half_x * half_y * 4.0 / 528_000.0;
    let mut count = |low: f32, high: f32| (dice.range(low, high) * size + 0.5) as u32;
    let [long, tool, scratches, pores, hollows] =
        [count(6.0, 16.0), count(8.0, 22.0), count(0.0, 4.0), count(25.0, 90.0), count(0.0, 5.0)];
    for _ in 0..long {
        let (length, ink) = (dice.range(120.0, 800.0), signed(dice, 0.10, 0.34));
        mark(&mut layer, surface, dice, length, 0.03, ink);
    }
    for _ in 0..tool {
        let (length, ink) = (dice.range(14.0, 70.0), signed(dice, 0.15, 0.55));
        mark(&mut layer, surface, dice, length, 0.8, ink);
    }
    for _ in 0..scratches {
        let (length, ink) = (dice.range(40.0, 160.0), dice.range(0.08, 0.28));
        mark(&mut layer, surface, dice, length, 3.0, ink);
    }
    for _ in 0..pores {
        let (radius, ink) = (dice.range(0.6, 1.5), -dice.range(0.15, 0.65));
        layer.hollow(place(surface, dice), radius, &surface.texture, ink);
    }
    for _ in 0..hollows {
        let (radius, ink) = (dice.range(1.4, 2.8), -dice.range(0.3, 0.75));
        layer.hollow(place(surface, dice), radius, &surface.texture, ink);
    }
    layer
}

/// Dark more often than bright.
fn signed(dice: &mut Dice, low: f32, high: f32) -> f32 {
    let ink = dice.range(low, high);
    if dice.chance(0.65) { -ink } else { ink }
}

/// A slightly bent line within about `stray` x 57 degrees of the long side, fading at both ends.
fn mark(layer: &mut Layer, surface: &Surface, dice: &mut Dice, length: f32, stray: f32, ink: f32) {
    let middle = place(surface, dice);
    let [along, aside] = dice.direction(stray);
    let heading = [-aside, along];
    let (bend, width) = (dice.jitter(0.04), dice.range(0.6, 1.8));
    let points: Vec<[f32; 2]> = (0..=10)
        .map(|i| {
            let t = i as f32 / 5.0 - 1.0;
            let (reach, off) = (t * length / 2.0, bend * length * t * t);
            [middle[0] + heading[0] * reach - heading[1] * off, middle[1] + heading[1] * reach + heading[0] * off]
        })
        .collect();
    layer.line(&points, |_| width, |t| ink * ramp(0.0, 0.3, t) * ramp(1.0, 0.6, t));
}

/// A pixel anywhere on the strip.
fn place(surface: &Surface, dice: &mut Dice) -> [f32; 2] {
    let [half_x, half_y] = surface.half;
    surface.frame([dice.range(-half_x, half_x), dice.range(-half_y, half_y)])
}
