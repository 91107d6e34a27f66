//! Gradient noise.

use rand::{Rng, rngs::StdRng};

/// Perlin's gradient noise (1985) on a grid of unit gradients.
pub(super) struct Noise {
    /// Of the grid, across and down.
    cells: (u32, u32),
    gradients: Vec<(f32, f32)>,
}

impl Noise {
    /// So many cells across and down.
    pub fn new(cells: (u32, u32), rng: &mut StdRng) -> Noise {
        let gradient = |_| rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
        Noise { cells, gradients: (0..(cells.0 + 1) * (cells.1 + 1)).map(gradient).collect() }
    }

    /// `x` and `y` from 0 to below 1.
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x * self.cells.0 as f32, y * self.cells.1 as f32);
        let (column, row) = (x as u32, y as u32);
        let (fx, fy) = (x - column as f32, y - row as f32);
        let corner = |dx: u32, dy: u32| {
            let (gx, gy) = self.gradients[((row + dy) * (self.cells.0 + 1) + column + dx) as usize];
            gx * (fx - dx as f32) + gy * (fy - dy as f32)
        };
        let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let (u, v) = (fade(fx), fade(fy));
        mix(mix(corner(0, 0), corner(1, 0), u), mix(corner(0, 1), corner(1, 1), u), v)
    }
}
