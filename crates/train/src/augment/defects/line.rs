//! Thin lines: cracks, scratches, hairs.

use super::Canvas;
use super::foreground::Foreground;
use super::patch::{Coat, NOTICED, Window};
use ndarray::Array2;
use rand::{Rng, rngs::StdRng};

/// Length in pixels, without branches.
const LENGTH: (f32, f32) = (20.0, 300.0);
/// Pixels of a step.
const STEP: f32 = 4.0;
/// Standard deviation of a step's heading from the line's course, in degrees.
const TURN: (f32, f32) = (5.0, 25.0);
/// Share of it that the course follows. With all of it lines would curl up.
const BEND: (f32, f32) = (0.1, 0.5);
/// Pixels across where it is widest.
const WIDTH: (f32, f32) = (1.0, 4.0);
/// Levels lighter or darker where it is strongest.
const CONTRAST: (f32, f32) = (4.0, 40.0);
/// Standard deviation of the Gaussian that softens its sides, in pixels.
const BLUR: (f32, f32) = (0.5, 1.0);
/// Pixels along it between two strengths.
const KNOT: (f32, f32) = (12.0, 40.0);

/// A line, its places in the image's pixels.
struct Stroke {
    places: Vec<[f32; 2]>,
    widest: f32,
    /// Levels, with their sign.
    contrast: f32,
    /// How much of the contrast is there, 0 to 1, evenly along it.
    knots: Vec<f32>,
}

/// A random walk from a place on the part, with up to two branches, its contrast coming and going. None where the walk soon
/// leaves the image.
pub(super) fn line(canvas: &Canvas, rng: &mut StdRng) -> Option<Coat> {
    let between = |(low, high): (f32, f32), rng: &mut StdRng| rng.random_range(low..=high);
    let (size, scale) = (canvas.image.dimensions(), canvas.scale);
    let start = canvas.foreground.place(size, rng);
    let length = (between(LENGTH, rng) * scale).min(size.0.max(size.1) as f32);
    let turn = between(TURN, rng).to_radians();
    let course = rng.random_range(0.0..std::f32::consts::TAU);
    let contrast = between(CONTRAST, rng) * if rng.random() { 1.0 } else { -1.0 };
    let widest = (between(WIDTH, rng) * scale).max(1.0);
    let blur = between(BLUR, rng);
    // A crack ends where the part does, a hair does not.
    let part = rng.random::<bool>().then_some(&canvas.foreground);
    let bend = rng.random_range(BEND.0..BEND.1);
    let walker = Walker { size, part, step: (STEP * scale).max(0.5), turn, bend };
    let trunk = walker.walk(start, course, length, rng);
    if trunk.len() < 2 || (trunk.len() - 1) as f32 * walker.step < LENGTH.0 * scale {
        return None;
    }
    let mut strokes = vec![];
    for _ in 0..rng.random_range(0..=2) {
        let fork = (trunk.len() as f32 * rng.random_range(0.2..0.8)) as usize;
        let Some([a, b]) = trunk.get(fork..fork + 2).and_then(|leg| <[[f32; 2]; 2]>::try_from(leg).ok()) else {
            continue;
        };
        let side = rng.random_range(25.0..70.0f32).to_radians() * if rng.random() { 1.0 } else { -1.0 };
        let course = (b[1] - a[1]).atan2(b[0] - a[0]) + side;
        let places = walker.walk(a, course, length * rng.random_range(0.15..0.5), rng);
        let (widest, contrast) = ((widest * 0.6).max(1.0), contrast * rng.random_range(0.5..1.0));
        strokes.push(Stroke { places, widest, contrast, knots: knots(length * 0.5, scale, rng) });
    }
    strokes.push(Stroke { places: trunk, widest, contrast, knots: knots(length, scale, rng) });
    coat(size, &strokes, blur)
}

/// Strengths along a line of `length`: it is quite gone in places, and somewhere all there.
fn knots(length: f32, scale: f32, rng: &mut StdRng) -> Vec<f32> {
    let apart = rng.random_range(KNOT.0..KNOT.1) * scale;
    let count = (length / apart) as usize + 2;
    let mut knots: Vec<f32> =
        (0..count).map(|_| ((rng.random_range(0.0..1.0f32) - 0.15) / 0.6).clamp(0.0, 1.0)).collect();
    // Not at an end, where the line is thin.
    knots[count / 2] = 1.0;
    knots
}

/// How a line goes on.
struct Walker<'a> {
    size: (u32, u32),
    /// What it does not leave.
    part: Option<&'a Foreground>,
    step: f32,
    /// Standard deviation of a leg's heading from the course, in radians.
    turn: f32,
    /// Share of a leg's deviation that the course follows.
    bend: f32,
}

impl Walker<'_> {
    /// Places `step` apart, the first one `start`, up to `length` or the end of the image, or of the part.
    fn walk(&self, start: [f32; 2], mut course: f32, length: f32, rng: &mut StdRng) -> Vec<[f32; 2]> {
        let (mut places, mut at) = (vec![start], start);
        for _ in 0..(length / self.step) as usize {
            // The sum of three even numbers is nearly normal; its standard deviation is 1/2.
            let even: f32 = (0..3).map(|_| rng.random_range(-0.5..0.5f32)).sum();
            let stray = even * 2.0 * self.turn;
            let heading = course + stray;
            course += self.bend * stray;
            at = [at[0] + heading.cos() * self.step, at[1] + heading.sin() * self.step];
            if at[0] < 0.0 || at[1] < 0.0 || at[0] >= self.size.0 as f32 || at[1] >= self.size.1 as f32 {
                break;
            }
            if self.part.is_some_and(|part| !part.holds_place(at)) {
                break;
            }
            places.push(at);
        }
        places
    }
}

/// Where strokes meet, the strongest counts.
fn coat(size: (u32, u32), strokes: &[Stroke], blur: f32) -> Option<Coat> {
    let places: Vec<[f32; 2]> = strokes.iter().flat_map(|stroke| stroke.places.iter().copied()).collect();
    let margin = strokes.iter().map(|stroke| stroke.widest).fold(0.0, f32::max) / 2.0 + 3.0 * blur;
    let window = Window::around(size, &places, margin)?;
    let mut levels = Array2::zeros(window.shape());
    for stroke in strokes {
        stroke.draw(window, blur, &mut levels);
    }
    let body = levels.mapv(|level: f32| level.round().abs() >= NOTICED);
    Some(Coat { window, change: levels.mapv(|level| [level; 3]), body })
}

impl Stroke {
    /// Adds it to `levels`, the window's pixels.
    fn draw(&self, window: Window, blur: f32, levels: &mut Array2<f32>) {
        let legs = self.places.len().saturating_sub(1);
        for (i, leg) in self.places.windows(2).enumerate() {
            let margin = self.widest / 2.0 + 3.0 * blur;
            let whole = (window.left + window.width, window.top + window.height);
            let Some(near) = Window::around(whole, leg, margin) else { continue };
            for y in near.top.max(window.top)..near.top + near.height {
                for x in near.left.max(window.left)..near.left + near.width {
                    let at = ((y - window.top) as usize, (x - window.left) as usize);
                    let (distance, along) = from_leg(window.place(at), [leg[0], leg[1]]);
                    let level = self.level(distance, (i as f32 + along) / legs as f32, blur);
                    if level.abs() > levels[at].abs() {
                        levels[at] = level;
                    }
                }
            }
        }
    }

    /// Levels at a `distance` of the place that is a share `t` along it.
    fn level(&self, distance: f32, t: f32, blur: f32) -> f32 {
        let taper = (t / 0.3).min((1.0 - t) / 0.4).clamp(0.0, 1.0);
        let half = 0.5 + (self.widest - 1.0) / 2.0 * taper;
        let fade = 0.3 + 0.7 * (t / 0.1).min((1.0 - t) / 0.15).clamp(0.0, 1.0);
        self.contrast * fade * self.strength(t) * softened(distance, half, blur)
    }

    fn strength(&self, t: f32) -> f32 {
        let place = t.clamp(0.0, 1.0) * (self.knots.len() - 1) as f32;
        let (before, part) = (place as usize, place.fract());
        let after = (before + 1).min(self.knots.len() - 1);
        self.knots[before] + (self.knots[after] - self.knots[before]) * part
    }
}

/// The profile of a bar of half a width `half` under a Gaussian, 1 in its middle however thin it is: a line's contrast is
/// what can be seen of it.
fn softened(distance: f32, half: f32, blur: f32) -> f32 {
    // The logistic function that is nearest to the Gaussian's integral.
    let integral = |x: f32| 1.0 / (1.0 + (-1.702 * x / blur).exp());
    let bar = |x: f32| integral(half - x) - integral(-half - x);
    bar(distance) / bar(0.0)
}

/// How far a place is off a leg, and at what share of the leg it is nearest.
fn from_leg([x, y]: [f32; 2], [a, b]: [[f32; 2]; 2]) -> (f32, f32) {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let long = (dx * dx + dy * dy).max(1e-6);
    let t = (((x - a[0]) * dx + (y - a[1]) * dy) / long).clamp(0.0, 1.0);
    ((x - a[0] - t * dx).hypot(y - a[1] - t * dy), t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_bar_is_whole_in_its_middle_and_half_at_its_edge() {
        assert_eq!(softened(0.0, 0.5, 1.0), 1.0);
        assert!((softened(3.0, 3.0, 0.5) - 0.5).abs() < 0.01);
        assert!(softened(4.0, 0.5, 1.0) < 0.01);
    }

    #[test]
    fn a_place_is_measured_from_the_nearest_of_a_leg() {
        let leg = [[0.0, 0.0], [4.0, 0.0]];
        assert_eq!(from_leg([1.0, 2.0], leg), (2.0, 0.25));
        assert_eq!(from_leg([7.0, 4.0], leg), (5.0, 1.0));
        assert_eq!(from_leg([3.0, 0.0], [[0.0; 2]; 2]), (3.0, 0.0));
    }
}
