use super::dice::Dice;
use super::scene::{Canvas, Scene};
use super::texture::{length, mix, ramp, scale};
use super::{DefectKind, PartKind};
use image::{GrayImage, Luma};

/// Below this opacity a stroke is neither painted nor marked: the mask is exactly where the picture changed.
const VISIBLE: f32 = 0.08;
/// Smallest defect, as a share of the frame: a smaller one would be within what labelling in a factory misses.
const MIN_SHARE: f32 = 0.0015;

/// Paints one defect onto the part and returns its mask.
pub(super) fn apply(kind: DefectKind, scene: &Scene, canvas: &mut Canvas, dice: &mut Dice) -> GrayImage {
    let clean = canvas.clone();
    let smallest = (MIN_SHARE * (scene.width * scene.height) as f32) as usize;
    let mut brush = Brush { scene, canvas, mask: GrayImage::new(scene.width, scene.height), painted: 0 };
    // A stroke may fall beside the part or into a hole for the most part: then it is tried again elsewhere.
    for _ in 0..64 {
        match kind {
            DefectKind::Scratch => scratch(&mut brush, dice),
            DefectKind::Dent => dent(&mut brush, dice),
            DefectKind::Stain => stain(&mut brush, dice),
            DefectKind::Chip => chip(&mut brush, dice),
            DefectKind::Crack => crack(&mut brush, dice),
            DefectKind::Discolouration => discolouration(&mut brush, dice),
        }
        if brush.painted >= smallest {
            break;
        }
        brush.canvas.clone_from(&clean);
        brush.mask.fill(0);
        brush.painted = 0;
    }
    spread(&brush.mask)
}

struct Brush<'a> {
    scene: &'a Scene,
    canvas: &'a mut Canvas,
    mask: GrayImage,
    painted: usize,
}

impl Brush<'_> {
    /// Paints every pixel of the part within `reach` units of `centre` (both in the part's axes). `stroke` gets the
    /// position and the colour that is there, and gives the new colour with its opacity.
    fn paint(&mut self, centre: [f32; 2], reach: f32, stroke: impl Fn([f32; 2], [f32; 3]) -> ([f32; 3], f32)) {
        let [cx, cy] = self.scene.frame(centre);
        let reach = reach * self.scene.unit;
        let span = |c: f32, size: u32| ((c - reach).max(0.0) as u32, ((c + reach).max(0.0) as u32 + 1).min(size));
        let ((x0, x1), (y0, y1)) = (span(cx, self.scene.width), span(cy, self.scene.height));
        for y in y0..y1 {
            for x in x0..x1 {
                let local = self.scene.local([x as f32 + 0.5, y as f32 + 0.5]);
                let cover = (0.5 - self.scene.distance(local) * self.scene.unit).clamp(0.0, 1.0);
                if cover == 0.0 {
                    continue;
                }
                let at = (y * self.scene.width + x) as usize;
                let (colour, opacity) = stroke(local, self.canvas[at]);
                let opacity = opacity.min(1.0) * cover;
                if opacity > VISIBLE {
                    self.canvas[at] = mix(self.canvas[at], colour, opacity);
                    self.mask.put_pixel(x, y, Luma([255]));
                    self.painted += 1;
                }
            }
        }
    }

    /// A place on the part at least `margin` units from every edge.
    fn place(&self, dice: &mut Dice, margin: f32) -> [f32; 2] {
        let mut p = [0.0; 2];
        for _ in 0..1000 {
            p = [dice.range(-125.0, 125.0), dice.range(-120.0, 120.0)];
            if self.scene.distance(p) < -margin {
                break;
            }
        }
        p
    }

    /// A place just inside an edge, and the unit vector from there into the material.
    fn edge(&self, dice: &mut Dice) -> ([f32; 2], [f32; 2]) {
        let mut p = [0.0; 2];
        for _ in 0..4000 {
            p = [dice.range(-126.0, 126.0), dice.range(-120.0, 120.0)];
            if (-5.0..-1.0).contains(&self.scene.distance(p)) {
                break;
            }
        }
        let slope = |dx: f32, dy: f32| {
            self.scene.distance([p[0] - dx, p[1] - dy]) - self.scene.distance([p[0] + dx, p[1] + dy])
        };
        let inward = [slope(2.0, 0.0), slope(0.0, 2.0)];
        let long = length(inward).max(1e-3);
        (p, [inward[0] / long, inward[1] / long])
    }

    fn metal(&self) -> bool {
        self.scene.kind == PartKind::Washer
    }

    /// The lamp's direction in the part's axes; the turn is so small that the frame's serves.
    fn light(&self) -> [f32; 2] {
        self.scene.light
    }
}

/// Mask of the painted pixels and their neighbours, to which the lens spreads them.
fn spread(mask: &GrayImage) -> GrayImage {
    let mut out = mask.clone();
    for (x, y, pixel) in mask.enumerate_pixels() {
        if pixel.0[0] == 0 {
            continue;
        }
        for ny in y.saturating_sub(1)..(y + 2).min(mask.height()) {
            for nx in x.saturating_sub(1)..(x + 2).min(mask.width()) {
                out.put_pixel(nx, ny, Luma([255]));
            }
        }
    }
    out
}

/// A slightly bent line: a bright burr beside a dark furrow.
fn scratch(brush: &mut Brush, dice: &mut Dice) {
    let middle = brush.place(dice, 8.0);
    let heading = dice.heading();
    let reach = dice.range(28.0, 46.0);
    let bend = dice.jitter(0.25);
    let width = dice.range(2.4, 3.4);
    let steps = 8;
    let line: Vec<[f32; 2]> = (0..=steps)
        .map(|i| {
            let t = 2.0 * i as f32 / steps as f32 - 1.0;
            let along = t * reach;
            let aside = bend * reach * t * t;
            [middle[0] + heading[0] * along - heading[1] * aside, middle[1] + heading[1] * along + heading[0] * aside]
        })
        .collect();
    let metal = brush.metal();
    brush.paint(middle, reach * 1.3 + 5.0, |p, old| {
        let (across, along) = to_line(p, &line);
        let t = 2.0 * along - 1.0;
        let width = width * (1.0 - 0.7 * t * t);
        let d = across / width;
        let colour = match (d < 0.15, metal) {
            (true, true) => [0.97, 0.97, 0.95],
            (true, false) => [0.66, 0.74, 0.78],
            (false, _) => scale(old, 0.42),
        };
        (colour, ramp(1.5, 0.8, d.abs()) * 0.95)
    });
}

/// A round hollow: the wall that looks to the lamp is bright, the other dark.
fn dent(brush: &mut Brush, dice: &mut Dice) {
    let radius = dice.range(15.0, 22.0);
    let centre = brush.place(dice, radius * 0.6);
    let oval = dice.heading();
    let squeeze = dice.range(1.0, 1.35);
    let depth = dice.range(0.85, 1.1);
    let light = brush.light();
    brush.paint(centre, radius * 1.2, |p, old| {
        let d = [p[0] - centre[0], p[1] - centre[1]];
        let (along, aside) = (d[0] * oval[0] + d[1] * oval[1], d[1] * oval[0] - d[0] * oval[1]);
        let q = [along / radius, aside * squeeze / radius];
        let r = length(q);
        // The slope of a smooth bowl: none in the middle and at the rim, steepest between.
        let steep = 2.6 * r * ramp(1.05, 0.55, r);
        let facing = -(d[0] * light[0] + d[1] * light[1]) / length(d).max(1e-3);
        let level = 1.0 + depth * (steep * facing * 0.62 - 0.16 * ramp(1.0, 0.4, r));
        let glint = ramp(0.28, 0.0, length([q[0] + 0.45 * light[0], q[1] + 0.45 * light[1]])) * 0.28;
        let colour = scale(old, level.max(0.12));
        ([colour[0] + glint, colour[1] + glint, colour[2] + glint], ramp(1.1, 0.95, r))
    });
}

/// An irregular blot with a darker rim: oil or rust on steel, paste or oil on plastic.
fn stain(brush: &mut Brush, dice: &mut Dice) {
    let radius = dice.range(14.0, 22.0);
    let centre = brush.place(dice, radius * 0.5);
    let offset = [dice.range(0.0, 128.0), dice.range(0.0, 128.0)];
    let second = dice.chance(0.5);
    let scene = brush.scene;
    let (tint, wet) = match (brush.metal(), second) {
        (true, true) => ([0.40, 0.22, 0.11], 0.35),
        (true, false) => ([0.13, 0.11, 0.08], 0.30),
        (false, true) => ([0.72, 0.71, 0.64], 0.15),
        (false, false) => ([0.09, 0.08, 0.06], 0.25),
    };
    brush.paint(centre, radius * 1.7, |p, old| {
        let d = [p[0] - centre[0], p[1] - centre[1]];
        let rough = scene.texture.at(offset[0] + p[0] * 0.09, offset[1] + p[1] * 0.09) * 0.40
            + scene.texture.at(offset[1] + p[0] * 0.25, offset[0] + p[1] * 0.25) * 0.12;
        let f = length(d) / radius + rough;
        let rim = 1.0 - 0.28 * (1.0 - (f - 0.86).abs() / 0.14).max(0.0);
        let colour = scale(mix(tint, old, wet), rim);
        (colour, ramp(1.06, 0.90, f) * 0.92)
    });
}

/// Material missing at an edge: the belt shows, with a rough fracture face around.
fn chip(brush: &mut Brush, dice: &mut Dice) {
    let radius = dice.range(14.0, 21.0);
    let (place, inward) = brush.edge(dice);
    let centre = [place[0] - inward[0] * radius * 0.15, place[1] - inward[1] * radius * 0.15];
    let offset = [dice.range(0.0, 128.0), dice.range(0.0, 128.0)];
    let scene = brush.scene;
    let (face, light) = (if brush.metal() { [0.80, 0.79, 0.77] } else { [0.50, 0.62, 0.68] }, brush.light());
    brush.paint(centre, radius * 1.7, |p, _| {
        let d = [p[0] - centre[0], p[1] - centre[1]];
        let rough = scene.texture.at(offset[0] + p[0] * 0.12, offset[1] + p[1] * 0.12) * 0.28;
        let f = length(d) / radius + rough;
        let facing = (d[0] * light[0] + d[1] * light[1]) / length(d).max(1e-3);
        let grain = scene.texture.at(offset[1] + p[0] * 0.5, offset[0] + p[1] * 0.5) * 0.16;
        let fracture = scale(face, 0.78 - 0.30 * facing + grain);
        let colour = mix(scale(scene.belt(scene.frame(p)), 0.8), fracture, ramp(0.86, 0.94, f));
        (colour, ramp(1.16, 1.06, f))
    });
}

/// A thin jagged dark line from an edge into the material, with a branch.
fn crack(brush: &mut Brush, dice: &mut Dice) {
    let (start, inward) = brush.edge(dice);
    let origin = [start[0] - inward[0] * 4.0, start[1] - inward[1] * 4.0];
    let mut walk = |from: [f32; 2], mut heading: [f32; 2], steps: usize| {
        let mut line = vec![from];
        let mut at = from;
        for _ in 0..steps {
            let [c, s] = dice.direction(1.1);
            let step = dice.range(5.0, 9.0);
            let turned = [heading[0] * c - heading[1] * s, heading[1] * c + heading[0] * s];
            at = [at[0] + turned[0] * step, at[1] + turned[1] * step];
            line.push(at);
            // Every leg strays from the general course, the course itself only a little.
            heading = [heading[0] * 0.8 + turned[0] * 0.2, heading[1] * 0.8 + turned[1] * 0.2];
            let long = length(heading).max(1e-3);
            heading = [heading[0] / long, heading[1] / long];
        }
        (line, heading)
    };
    let (trunk, _) = walk(origin, inward, 9);
    let fork = trunk[5];
    let (branch, _) = walk(fork, [inward[0] * 0.7 - inward[1] * 0.7, inward[1] * 0.7 + inward[0] * 0.7], 4);
    let width = 2.0;
    let stroke = |p: [f32; 2], old: [f32; 3]| {
        let (across, along) = to_line(p, &trunk);
        let (beside, far) = to_line(p, &branch);
        let a = across.abs() / (width * (1.15 - 0.6 * along));
        let b = beside.abs() / (width * (0.8 - 0.5 * far));
        let near = a.min(b);
        let lip = ramp(1.0, 1.5, near);
        let colour = mix([0.045, 0.045, 0.05], scale(old, 1.3), lip);
        (colour, ramp(2.0, 1.5, near) * 0.95)
    };
    brush.paint(fork, 70.0, stroke);
}

/// A large soft patch: annealing colours on steel, bleached or scorched plastic.
fn discolouration(brush: &mut Brush, dice: &mut Dice) {
    let radius = dice.range(24.0, 34.0);
    let centre = brush.place(dice, 14.0);
    let offset = [dice.range(0.0, 128.0), dice.range(0.0, 128.0)];
    let bleached = dice.chance(0.5);
    let (scene, metal) = (brush.scene, brush.metal());
    brush.paint(centre, radius * 1.5, |p, old| {
        let d = [p[0] - centre[0], p[1] - centre[1]];
        let rough = scene.texture.at(offset[0] + p[0] * 0.05, offset[1] + p[1] * 0.05) * 0.30;
        let f = (length(d) / radius + rough).max(0.0);
        let grey = 0.3 * old[0] + 0.5 * old[1] + 0.2 * old[2];
        let colour = match (metal, bleached) {
            // From the heat outwards: blue, purple, straw.
            (true, _) => {
                let hot = mix([0.45, 0.62, 1.15], [0.80, 0.50, 0.78], ramp(0.30, 0.60, f));
                let tint = mix(hot, [1.12, 0.84, 0.42], ramp(0.60, 0.85, f));
                [grey * tint[0], grey * tint[1], grey * tint[2]]
            }
            (false, true) => [grey * 0.8 + 0.30, grey * 0.8 + 0.29, grey * 0.8 + 0.22],
            (false, false) => [grey * 0.92 + 0.10, grey * 0.68 + 0.03, grey * 0.36],
        };
        (colour, ramp(1.15, 0.75, f) * 0.88)
    });
}

/// Signed distance from `p` to the nearest point of the line (positive on its left), and where on it that is, 0 to 1.
fn to_line(p: [f32; 2], line: &[[f32; 2]]) -> (f32, f32) {
    let legs = (line.len() - 1) as f32;
    let mut best = (f32::MAX, 1.0, 0.0);
    for (i, leg) in line.windows(2).enumerate() {
        let [a, b] = [leg[0], leg[1]];
        let (d, q) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
        let t = ((q[0] * d[0] + q[1] * d[1]) / (d[0] * d[0] + d[1] * d[1]).max(1e-6)).clamp(0.0, 1.0);
        let off = [q[0] - d[0] * t, q[1] - d[1] * t];
        let square = off[0] * off[0] + off[1] * off[1];
        if square < best.0 {
            let side = if d[0] * q[1] - d[1] * q[0] >= 0.0 { 1.0 } else { -1.0 };
            best = (square, side, (i as f32 + t) / legs);
        }
    }
    (best.0.sqrt() * best.1, best.2)
}
