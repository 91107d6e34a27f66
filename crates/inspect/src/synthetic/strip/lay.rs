use super::super::dice::Dice;
use super::super::texture::Texture;

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
