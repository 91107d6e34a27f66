use super::super::dice::Dice;
use super::super::texture::ramp;
use super::stroke::Layer;
use super::surface::Surface;

/// What else a good strip bears: stronger marks, short tool marks, handling scratches, pores. No defect.
pub(super) fn draw(surface: &Surface, dice: &mut Dice) -> Layer {
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
