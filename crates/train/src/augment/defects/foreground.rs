//! Which of an image is the part, and which the ground that it lies on.

use super::patch::luma;
use image::RgbImage;
use ndarray::Array2;
use rand::{Rng, rngs::StdRng};
use std::ops::RangeInclusive;

/// Blocks along the shorter side, about.
const BLOCKS: u32 = 40;
/// Standard deviation in grey levels up to which a block is flat.
const FLAT: f32 = 6.0;
/// Grey levels that a block of the ground is off the ground's own level at most.
const ALIKE: f32 = 12.0;
/// Grey levels of a ground: nearly black or nearly white.
const DARK: f32 = 40.0;
const BRIGHT: f32 = 215.0;
/// Share of the outer blocks that has to be ground, and of all blocks that may be.
const BORDER: f32 = 0.3;
const SHARE: RangeInclusive<f32> = 0.03..=0.9;
/// Grey levels between the ground and the mean of all else.
const APART: f32 = 25.0;

/// The part, in blocks of pixels. An image without a ground is part everywhere.
pub(super) struct Foreground {
    /// Pixels of a block's side.
    side: u32,
    blocks: Array2<bool>,
    /// Rows and columns of the blocks that are part.
    part: Vec<(usize, usize)>,
}

impl Foreground {
    /// Blocks that are flat, nearly black or nearly white, and hang together from the border inwards are ground, if there
    /// are enough of them at the border and the rest of the image is of another brightness.
    pub fn of(image: &RgbImage) -> Foreground {
        let (width, height) = image.dimensions();
        let side = (width.min(height) / BLOCKS).max(4);
        let (rows, columns) = (height.div_ceil(side) as usize, width.div_ceil(side) as usize);
        let blocks = Array2::from_shape_fn((rows, columns), |at| Block::of(image, side, at));
        let ground = ground(&blocks).unwrap_or_else(|| Array2::from_elem((rows, columns), false));
        let part = ground.indexed_iter().filter(|(_, ground)| !**ground).map(|(at, _)| at).collect();
        Foreground { side, blocks: ground.mapv(|ground| !ground), part }
    }

    /// Whether a pixel is of the part.
    pub fn holds(&self, x: u32, y: u32) -> bool {
        self.blocks.get(((y / self.side) as usize, (x / self.side) as usize)).is_some_and(|part| *part)
    }

    /// As [`Foreground::holds`], of a place that may be beside the image.
    pub fn holds_place(&self, [x, y]: [f32; 2]) -> bool {
        x >= 0.0 && y >= 0.0 && self.holds(x as u32, y as u32)
    }

    /// As [`Foreground::holds_place`], and so are the blocks around it: the part's outline is not near.
    pub fn holds_around(&self, place: [f32; 2]) -> bool {
        let beside = place.map(|at| (at / self.side as f32) as usize);
        let rows = beside[1].saturating_sub(1)..=beside[1] + 1;
        let part = |row, column| self.blocks.get((row, column)).is_none_or(|part| *part);
        self.holds_place(place)
            && rows.into_iter().all(|r| (beside[0].saturating_sub(1)..=beside[0] + 1).all(|c| part(r, c)))
    }

    /// A place on the part, within an image of `size`, its width and height.
    pub fn place(&self, size: (u32, u32), rng: &mut StdRng) -> [f32; 2] {
        let (row, column) = match self.part.len() {
            0 => (0, 0),
            blocks => self.part[rng.random_range(0..blocks)],
        };
        let mut within = |block: usize, whole: u32| {
            let at = block as f32 * self.side as f32 + rng.random_range(0.0..self.side as f32);
            at.min(whole as f32 - 0.5)
        };
        [within(column, size.0), within(row, size.1)]
    }
}

/// Mean and standard deviation of a block's grey levels.
#[derive(Clone, Copy)]
struct Block {
    mean: f32,
    deviation: f32,
}

impl Block {
    fn of(image: &RgbImage, side: u32, (row, column): (usize, usize)) -> Block {
        let range = |block: usize, whole: u32| {
            let from = block as u32 * side;
            from..(from + side).min(whole)
        };
        let (xs, ys) = (range(column, image.width()), range(row, image.height()));
        let (mut sum, mut squares, mut pixels) = (0.0, 0.0, 0.0);
        for y in ys {
            for x in xs.clone() {
                let value = luma(image.get_pixel(x, y).0);
                (sum, squares, pixels) = (sum + value, squares + value * value, pixels + 1.0);
            }
        }
        let mean = sum / pixels;
        Block { mean, deviation: (squares / pixels - mean * mean).max(0.0).sqrt() }
    }

    fn is_ground(self, level: f32) -> bool {
        self.deviation <= FLAT && (self.mean - level).abs() <= ALIKE
    }
}

/// The blocks of the ground; none where the image has no ground.
fn ground(blocks: &Array2<Block>) -> Option<Array2<bool>> {
    let (rows, columns) = blocks.dim();
    // Two deep: a picture may have a frame around it.
    let at_border = |&(row, column): &(usize, usize)| row < 2 || column < 2 || row + 2 >= rows || column + 2 >= columns;
    let border: Vec<(usize, usize)> = ndarray::indices(blocks.dim()).into_iter().filter(at_border).collect();
    let mut levels: Vec<f32> =
        border.iter().map(|&at| blocks[at]).filter(|b| b.deviation <= FLAT).map(|b| b.mean).collect();
    levels.sort_by(f32::total_cmp);
    // One that is there: between black and white lies a grey that is neither.
    let level = *levels.get(levels.len() / 2)?;
    let mut open: Vec<(usize, usize)> = border.iter().copied().filter(|&at| blocks[at].is_ground(level)).collect();
    if (DARK..=BRIGHT).contains(&level) || (open.len() as f32) < BORDER * border.len() as f32 {
        return None;
    }
    let mut ground = Array2::from_elem(blocks.dim(), false);
    open.iter().for_each(|&at| ground[at] = true);
    while let Some((row, column)) = open.pop() {
        let beside =
            [(row.wrapping_sub(1), column), (row + 1, column), (row, column.wrapping_sub(1)), (row, column + 1)];
        for at in beside {
            if ground.get(at) == Some(&false) && blocks[at].is_ground(level) {
                ground[at] = true;
                open.push(at);
            }
        }
    }
    let share = ground.iter().filter(|ground| **ground).count() as f32 / ground.len() as f32;
    let part: Vec<f32> = blocks.iter().zip(&ground).filter(|(_, ground)| !**ground).map(|(b, _)| b.mean).collect();
    let mean = part.iter().sum::<f32>() / part.len().max(1) as f32;
    (SHARE.contains(&share) && (mean - level).abs() >= APART).then_some(ground)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use rand::SeedableRng;

    /// A disc of `part` grey levels, its texture of ±`texture`, on a ground of `ground`.
    fn disc(part: u8, texture: u8, ground: u8) -> RgbImage {
        RgbImage::from_fn(200, 160, |x, y| {
            let within = (x as f32 - 100.0).powi(2) + (y as f32 - 80.0).powi(2) < 60.0 * 60.0;
            Rgb([if within { part + (x * 7 + y * 13) as u8 % (texture + 1) } else { ground + (x + y) as u8 % 3 }; 3])
        })
    }

    #[test]
    fn a_part_on_a_dark_or_bright_ground_is_told_from_it() {
        for (part, ground) in [(120, 5), (120, 250)] {
            let image = disc(part, 40, ground);
            let foreground = Foreground::of(&image);
            assert!(foreground.holds(100, 80) && foreground.holds(60, 80));
            assert!(!foreground.holds(2, 2) && !foreground.holds(198, 80) && !foreground.holds(100, 4));
            assert!(foreground.holds_around([100.0, 80.0]) && !foreground.holds_around([42.0, 80.0]));
            assert!(!foreground.holds(1000, 80) && !foreground.holds_place([-1.0, 80.0]));
            let mut rng = StdRng::seed_from_u64(1);
            for _ in 0..200 {
                let at = foreground.place(image.dimensions(), &mut rng);
                assert!(foreground.holds_place(at), "{at:?}");
            }
        }
    }

    #[test]
    fn without_a_ground_all_is_part() {
        // A plain grey ground is as likely part; so is a picture of one colour; and a dark part that fades out.
        let fading = RgbImage::from_fn(200, 160, |x, _| Rgb([20 + (x / 8) as u8; 3]));
        for image in [disc(200, 30, 120), RgbImage::from_pixel(90, 70, Rgb([3; 3])), fading, RgbImage::new(1, 1)] {
            let foreground = Foreground::of(&image);
            let (width, height) = image.dimensions();
            assert!((0..height).all(|y| (0..width).all(|x| foreground.holds(x, y))));
            assert!(foreground.holds_around([0.0, 0.0]));
        }
    }
}
