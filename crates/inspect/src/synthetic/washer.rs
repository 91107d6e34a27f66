use super::dice::Dice;
use super::texture::{Texture, length, mix, ramp, scale};

/// A turned steel washer. Lengths are in units of 1/320 of the frame's shorter side, about the part's centre.
pub(super) struct Washer {
    outer: f32,
    inner: f32,
    groove: f32,
    steel: [f32; 3],
    marks: Texture,
}

impl Washer {
    pub fn new(dice: &mut Dice) -> Washer {
        let brightness = 1.0 + dice.jitter(0.03);
        Washer {
            outer: 116.0 + dice.jitter(1.0),
            inner: 46.0 + dice.jitter(0.7),
            groove: 86.0,
            steel: [0.585 * brightness, 0.6 * brightness, (0.62 + dice.jitter(0.008)) * brightness],
            marks: Texture::new(dice),
        }
    }

    pub fn distance(&self, p: [f32; 2]) -> f32 {
        let r = length(p);
        (r - self.outer).max(self.inner - r)
    }

    /// `light` is the unit vector towards the lamp, in the plane of the belt.
    pub fn colour(&self, p: [f32; 2], light: [f32; 2]) -> [f32; 3] {
        let r = length(p).max(1e-3);
        let n = [p[0] / r, p[1] / r];
        let facing = n[0] * light[0] + n[1] * light[1];
        // Concentric marks reflect the lamp as two opposite fans, as a record does.
        let fan = facing * facing;
        let fan = fan * fan * (3.0 - 2.0 * fan);
        // An angle without an arc tangent, 0 to 128 round the circle, so that the tile closes.
        let t = n[1] / (n[0].abs() + n[1].abs());
        let turn = if n[0] >= 0.0 { 32.0 + 32.0 * t } else { 96.0 - 32.0 * t };
        let marks = self.marks.at(turn * 0.25, r * 0.8) * 0.030 + self.marks.at(turn * 0.5, r * 0.31 + 40.0) * 0.018;
        let face = 0.80 + 0.42 * fan + marks * (1.0 + fan);

        let chamfer_out = ramp(self.outer - 8.0, self.outer - 6.5, r);
        let chamfer_in = ramp(self.inner + 7.5, self.inner + 6.0, r);
        let groove = (1.0 - (r - self.groove).abs() / 2.6).max(0.0);
        let mut level = face;
        level += ((0.86 + 0.52 * facing) - level) * chamfer_out;
        level += ((0.74 - 0.50 * facing) - level) * chamfer_in;
        // One wall of the groove looks to the lamp, the other away.
        let wall = (self.groove - r).clamp(-1.0, 1.0) * 0.36;
        level += groove * (-0.16 + wall * facing);
        let warm = mix(self.steel, [0.64, 0.63, 0.60], 0.35 * fan);
        scale(warm, level)
    }
}
