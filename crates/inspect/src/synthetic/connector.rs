use super::dice::Dice;
use super::texture::{Texture, length, mix, ramp, rounded_box, scale};

/// A moulded connector housing. Lengths are in units of 1/320 of the frame's shorter side, in the part's own axes.
pub(super) struct Connector {
    plastic: [f32; 3],
    grain: Texture,
}

const HALF: [f32; 2] = [124.0, 82.0];
const HOLE: [f32; 2] = [100.0, 14.0]; // distance from the centre, radius
const RECESS: [f32; 2] = [70.0, 58.0];
const PITCH: f32 = 20.0;
const BRASS: [f32; 3] = [0.74, 0.61, 0.33];

impl Connector {
    pub fn new(dice: &mut Dice) -> Connector {
        let brightness = 1.0 + dice.jitter(0.04);
        let plastic = [0.235 + dice.jitter(0.006), 0.405, 0.515 + dice.jitter(0.008)];
        Connector { plastic: scale(plastic, brightness), grain: Texture::new(dice) }
    }

    pub fn distance(&self, p: [f32; 2]) -> f32 {
        let hole = length([p[0].abs() - HOLE[0], p[1]]) - HOLE[1];
        rounded_box(p, HALF, 16.0).max(-hole)
    }

    pub fn colour(&self, p: [f32; 2], light: [f32; 2]) -> [f32; 3] {
        let [x, y] = p;
        let grain = self.grain.at(x * 0.55, y * 0.55) * 0.022 + self.grain.at(x * 0.13 + 60.0, y * 0.13) * 0.012;
        let mut level = 1.0;

        // The outer edge is bevelled, the holes have a collar, the recess a wall: each is a slope that looks somewhere.
        let edge = rounded_box(p, HALF, 16.0);
        level += slope(edge, -7.0, outward(p, HALF), light) * 0.40;
        let from_hole = [p[0] - HOLE[0] * p[0].signum(), p[1]];
        let r = length(from_hole).max(1e-3);
        let across = r - HOLE[1] - 5.0;
        let collar = (1.0 - (across / 3.2).abs()).max(0.0) * across.clamp(-1.0, 1.0);
        level += collar * (from_hole[0] * light[0] + from_hole[1] * light[1]) / r * 0.45;
        let inside = rounded_box(p, RECESS, 9.0);
        level -= slope(inside, -6.0, outward(p, RECESS), light) * 0.55;

        let floor = ramp(0.0, -3.0, inside);
        level -= 0.20 * floor;
        let mut colour = self.plastic;
        if inside < -6.0 {
            // Ribs across the recess, and a brass contact in every second gap, above and below.
            let cell = x / PITCH + 64.0;
            let at = (cell - cell as i32 as f32 - 0.5) * PITCH;
            let rib = ramp(5.2, 3.8, at.abs());
            let wall = (1.0 - (at.abs() - 4.5).abs() / 1.6).max(0.0);
            level += rib * 0.24 + wall * at.signum() * light[0] * 0.34;
            let gap = x / PITCH + 64.5;
            let across = (gap - gap as i32 as f32 - 0.5) * PITCH;
            let contact = ramp(3.9, 2.9, across.abs()) * ramp(14.0, 13.0, (y.abs() - 31.0).abs());
            if contact > 0.0 {
                let sheen = 0.88 + 0.26 * ramp(3.2, 0.0, (across + 0.8).abs());
                let metal = scale(BRASS, sheen / level.max(0.3));
                colour = mix(colour, metal, contact);
            }
        }
        scale(colour, level + grain * (1.0 - 0.3 * floor))
    }
}

/// How much a bevel from `depth` below the edge up to it is turned to the lamp.
fn slope(edge: f32, depth: f32, outward: [f32; 2], light: [f32; 2]) -> f32 {
    let on = ramp(depth, depth + 1.5, edge) * ramp(1.0, 0.0, edge);
    on * (outward[0] * light[0] + outward[1] * light[1])
}

/// The direction in which the nearest side of the rectangle lies; round in the corners.
fn outward(p: [f32; 2], half: [f32; 2]) -> [f32; 2] {
    let radius = 20.0;
    let q = [(p[0].abs() - half[0] + radius).max(0.0), (p[1].abs() - half[1] + radius).max(0.0)];
    let long = length(q).max(1e-3);
    [q[0] / long * p[0].signum(), q[1] / long * p[1].signum()]
}
