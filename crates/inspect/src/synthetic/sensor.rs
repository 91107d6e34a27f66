use super::dice::Dice;

/// Lens, lamp and sensor of one picture.
pub(super) struct Exposure {
    /// Of the whole picture; 1 leaves it as it is.
    pub gain: f32,
    /// How much brighter the right and the lower border are than the middle, as a share.
    pub gradient: [f32; 2],
    /// Share of a pixel's light that the lens spreads to each neighbour in a row, and in a column.
    pub focus: f32,
}

impl Exposure {
    /// A slight blur, the light's gradient, noise that grows with the light. `canvas` is light of each pixel in `N`
    /// colours, row by row; so are the bytes.
    pub fn expose<const N: usize>(&self, canvas: &mut [[f32; N]], width: u32, height: u32, dice: &mut Dice) -> Vec<u8> {
        let (w, h) = (width as usize, height as usize);
        blur(canvas, w, h, self.focus);
        let mut pixels = vec![0; w * h * N];
        let mut random = vec![0; w * N * 4];
        for y in 0..h {
            dice.fill(&mut random);
            let row_gain = self.gain * (1.0 + self.gradient[1] * (2.0 * y as f32 / h as f32 - 1.0));
            for x in 0..w {
                let gain = row_gain * (1.0 + self.gradient[0] * (2.0 * x as f32 / w as f32 - 1.0));
                for c in 0..N {
                    let light = canvas[y * w + x][c] * gain * 255.0;
                    // The sum of four bytes is near enough to a Gaussian; its deviation is 147.8.
                    let r = &random[(x * N + c) * 4..][..4];
                    let sum = u16::from(r[0]) + u16::from(r[1]) + u16::from(r[2]) + u16::from(r[3]);
                    let noise = (f32::from(sum) - 510.0) / 147.8 * (1.1 + 0.006 * light);
                    pixels[(y * w + x) * N + c] = (light + noise + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        }
        pixels
    }
}

/// `[k, 1 - 2k, k]` along rows, then along columns; the border stays.
fn blur<const N: usize>(canvas: &mut [[f32; N]], w: usize, h: usize, k: f32) {
    let m = 1.0 - 2.0 * k;
    for row in canvas.chunks_exact_mut(w) {
        let mut before = row[0];
        for x in 1..w - 1 {
            let here = row[x];
            for c in 0..N {
                row[x][c] = (before[c] + row[x + 1][c]) * k + here[c] * m;
            }
            before = here;
        }
    }
    let mut before: Vec<[f32; N]> = canvas[..w].to_vec();
    for y in 1..h - 1 {
        for (x, above) in before.iter_mut().enumerate() {
            let at = y * w + x;
            let (here, below) = (canvas[at], canvas[at + w]);
            for c in 0..N {
                canvas[at][c] = (above[c] + below[c]) * k + here[c] * m;
            }
            *above = here;
        }
    }
}
