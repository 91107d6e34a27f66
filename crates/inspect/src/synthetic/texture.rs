use super::dice::Dice;

const SIDE: usize = 128;

/// A tile of random values in `[-1, 1]` that repeats in both directions; read between its points it is smooth noise.
pub(super) struct Texture(Vec<f32>);

impl Texture {
    pub fn new(dice: &mut Dice) -> Texture {
        let mut bytes = vec![0; SIDE * SIDE * 2];
        dice.fill(&mut bytes);
        Texture(bytes.chunks_exact(2).map(|b| (f32::from(b[0]) + f32::from(b[1])) / 255.0 - 1.0).collect())
    }

    /// Bilinear at `(x, y)`, in points of the tile; both above -4096.
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x + 4096.0, y + 4096.0);
        let (ix, iy) = (x as usize, y as usize);
        let (fx, fy) = (x - ix as f32, y - iy as f32);
        let (x0, x1) = (ix % SIDE, (ix + 1) % SIDE);
        let (y0, y1) = (iy % SIDE * SIDE, (iy + 1) % SIDE * SIDE);
        let top = self.0[y0 + x0] + (self.0[y0 + x1] - self.0[y0 + x0]) * fx;
        let bottom = self.0[y1 + x0] + (self.0[y1 + x1] - self.0[y1 + x0]) * fx;
        top + (bottom - top) * fy
    }
}

/// 0 below `from`, 1 above `to`, a smooth ramp between; `from > to` turns it round.
pub(super) fn ramp(from: f32, to: f32, value: f32) -> f32 {
    let t = ((value - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

pub(super) fn mix(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

pub(super) fn scale(colour: [f32; 3], by: f32) -> [f32; 3] {
    [colour[0] * by, colour[1] * by, colour[2] * by]
}

pub(super) fn length(v: [f32; 2]) -> f32 {
    (v[0] * v[0] + v[1] * v[1]).sqrt()
}

/// Signed distance to a rounded rectangle about the origin: negative inside.
pub(super) fn rounded_box(p: [f32; 2], half: [f32; 2], radius: f32) -> f32 {
    let q = [p[0].abs() - half[0] + radius, p[1].abs() - half[1] + radius];
    length([q[0].max(0.0), q[1].max(0.0)]) + q[0].max(q[1]).min(0.0) - radius
}
