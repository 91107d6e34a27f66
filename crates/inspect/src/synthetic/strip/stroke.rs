use super::super::texture::{Texture, ramp};

/// What is drawn onto a surface before it is applied: where it lies, and how much darker or brighter it makes the
/// surface there.
pub(super) struct Layer {
    width: usize,
    height: usize,
    /// Share by which a pixel's light changes, -1 to 1; where strokes meet, the strongest.
    pub ink: Vec<f32>,
    /// Share of a pixel that is covered, 0 to 1, whatever the ink.
    pub cover: Vec<f32>,
}

impl Layer {
    pub fn new(width: u32, height: u32) -> Layer {
        let (width, height) = (width as usize, height as usize);
        Layer { width, height, ink: vec![0.0; width * height], cover: vec![0.0; width * height] }
    }

    /// A line through `points` (pixels); `width` (pixels) and `ink` are asked with the place on it, 0 to 1.
    pub fn line(&mut self, points: &[[f32; 2]], width: impl Fn(f32) -> f32, ink: impl Fn(f32) -> f32) {
        let legs = points.len().saturating_sub(1).max(1) as f32;
        for (i, leg) in points.windows(2).enumerate() {
            let [a, b] = [leg[0], leg[1]];
            let reach = 1.0 + width(i as f32 / legs).max(width((i as f32 + 1.0) / legs)) / 2.0;
            let (xs, ys) = (span(a[0], b[0], reach, self.width), span(a[1], b[1], reach, self.height));
            let d = [b[0] - a[0], b[1] - a[1]];
            let square = (d[0] * d[0] + d[1] * d[1]).max(1e-6);
            for y in ys {
                for x in xs.clone() {
                    let q = [x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]];
                    let t = ((q[0] * d[0] + q[1] * d[1]) / square).clamp(0.0, 1.0);
                    let off = [q[0] - d[0] * t, q[1] - d[1] * t];
                    let along = (i as f32 + t) / legs;
                    let width = width(along);
                    // A line thinner than a pixel covers no more of it than its width.
                    let cover = (0.5 + width.max(1.0) / 2.0 - (off[0] * off[0] + off[1] * off[1]).sqrt()).min(1.0)
                        * width.min(1.0);
                    if cover > 0.0 {
                        self.put(y * self.width + x, cover, ink(along));
                    }
                }
            }
        }
    }

    /// A round hollow with a rough outline, darkest in its middle; `radius` in pixels.
    pub fn hollow(&mut self, centre: [f32; 2], radius: f32, rough: &Texture, ink: f32) {
        let reach = radius * 1.4 + 1.0;
        let (xs, ys) = (span(centre[0], centre[0], reach, self.width), span(centre[1], centre[1], reach, self.height));
        for y in ys {
            for x in xs.clone() {
                let d = [x as f32 + 0.5 - centre[0], y as f32 + 0.5 - centre[1]];
                // The texture's place is the picture's: no two hollows have the same outline.
                let ragged = rough.at(x as f32 * 0.45, y as f32 * 0.45) * 0.3;
                let r = (d[0] * d[0] + d[1] * d[1]).sqrt() / radius + ragged;
                let soft = 0.5 / radius;
                let cover = ramp(1.0 + soft, 1.0 - soft, r);
                if cover > 0.0 {
                    self.put(y * self.width + x, cover, ink * (0.65 + 0.35 * ramp(1.0, 0.2, r)));
                }
            }
        }
    }

    fn put(&mut self, at: usize, cover: f32, ink: f32) {
        self.cover[at] = self.cover[at].max(cover);
        let ink = ink * cover;
        if ink.abs() > self.ink[at].abs() {
            self.ink[at] = ink;
        }
    }
}

/// Pixels within `reach` of the stretch from `a` to `b`, on an axis of `size` pixels.
fn span(a: f32, b: f32, reach: f32, size: usize) -> std::ops::Range<usize> {
    let (low, high) = (a.min(b) - reach, a.max(b) + reach);
    (low.max(0.0) as usize).min(size)..((high.max(0.0) as usize) + 1).min(size)
}
