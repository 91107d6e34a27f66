use super::PartKind;
use super::connector::Connector;
use super::dice::Dice;
use super::sensor::Exposure;
use super::texture::{Texture, ramp, scale};
use super::washer::Washer;
use image::{GrayImage, Luma, RgbImage};

/// Light of each pixel before the lens, RGB, row by row; 0 black, 1 white as displayed.
pub(super) type Canvas = Vec<[f32; 3]>;

/// A part in its pose under its light: all that the picture shows, except a defect and the sensor's noise.
pub(super) struct Scene {
    pub width: u32,
    pub height: u32,
    /// Pixels a unit; a unit is 1/320 of the frame's shorter side.
    pub unit: f32,
    pub kind: PartKind,
    /// Unit vector towards the lamp, in frame axes.
    pub light: [f32; 2],
    pub texture: Texture,
    /// What the part's own colour is multiplied with, RGB.
    pub finish: [f32; 3],
    surface: Surface,
    centre: [f32; 2],
    /// Cosine and sine of the part's turn.
    turn: [f32; 2],
    belt_offset: [f32; 2],
    exposure: Exposure,
}

enum Surface {
    Washer(Washer),
    Connector(Connector),
}

impl Scene {
    pub fn new(kind: PartKind, width: u32, height: u32, dice: &mut Dice) -> Scene {
        let unit = width.min(height) as f32 / 320.0;
        let [lx, ly] = dice.direction(0.12);
        let surface = match kind {
            PartKind::Washer => Surface::Washer(Washer::new(dice)),
            PartKind::Connector => Surface::Connector(Connector::new(dice)),
        };
        Scene {
            width,
            height,
            unit,
            kind,
            // The lamp stands up and to the left.
            light: [-0.8 * lx + 0.6 * ly, -0.6 * lx - 0.8 * ly],
            texture: Texture::new(dice),
            finish: [1.0; 3],
            surface,
            centre: [width as f32 / 2.0 + dice.jitter(10.0) * unit, height as f32 / 2.0 + dice.jitter(10.0) * unit],
            turn: dice.direction(0.09),
            belt_offset: [dice.range(0.0, 128.0), dice.range(0.0, 128.0)],
            exposure: Exposure {
                gain: 1.0 + dice.jitter(0.05),
                gradient: [dice.jitter(0.07), dice.jitter(0.07)],
                focus: dice.range(0.11, 0.19),
            },
        }
    }

    /// From a pixel to the part's own axes, in units.
    pub fn local(&self, p: [f32; 2]) -> [f32; 2] {
        let d = [(p[0] - self.centre[0]) / self.unit, (p[1] - self.centre[1]) / self.unit];
        [d[0] * self.turn[0] + d[1] * self.turn[1], d[1] * self.turn[0] - d[0] * self.turn[1]]
    }

    /// From the part's own axes to a pixel.
    pub fn frame(&self, p: [f32; 2]) -> [f32; 2] {
        [
            self.centre[0] + (p[0] * self.turn[0] - p[1] * self.turn[1]) * self.unit,
            self.centre[1] + (p[0] * self.turn[1] + p[1] * self.turn[0]) * self.unit,
        ]
    }

    /// Signed distance to the part's outline, in units; negative on the part. `local` is in the part's axes.
    pub fn distance(&self, local: [f32; 2]) -> f32 {
        match &self.surface {
            Surface::Washer(washer) => washer.distance(local),
            Surface::Connector(connector) => connector.distance(local),
        }
    }

    /// The rubber belt with the part's shadow, at a pixel.
    pub fn belt(&self, p: [f32; 2]) -> [f32; 3] {
        let [x, y] = [p[0] / self.unit + self.belt_offset[0], p[1] / self.unit + self.belt_offset[1]];
        let weave = ((x * 0.125 + y * 0.125) % 1.0 - 0.5).abs() + ((x * 0.125 - y * 0.125 + 512.0) % 1.0 - 0.5).abs();
        let grain = self.texture.at(x * 0.6, y * 0.6) * 0.018 + self.texture.at(x * 0.09, y * 0.09) * 0.010;
        let away = 7.0 * self.unit;
        let caster = self.local([p[0] + self.light[0] * away, p[1] + self.light[1] * away]);
        let shadow = 1.0 - 0.6 * ramp(8.0, -6.0, self.distance(caster));
        scale([0.145, 0.155, 0.150], (0.94 + 0.10 * weave + grain * 5.0) * shadow)
    }

    pub fn paint(&self) -> Canvas {
        // The light in the part's axes.
        let [lx, ly] = self.light;
        let light = [lx * self.turn[0] + ly * self.turn[1], ly * self.turn[0] - lx * self.turn[1]];
        let mut canvas = Vec::with_capacity((self.width * self.height) as usize);
        for y in 0..self.height {
            for x in 0..self.width {
                let p = [x as f32 + 0.5, y as f32 + 0.5];
                let local = self.local(p);
                let cover = (0.5 - self.distance(local) * self.unit).clamp(0.0, 1.0);
                let mut pixel = [0.0; 3];
                if cover < 1.0 {
                    pixel = scale(self.belt(p), 1.0 - cover);
                }
                if cover > 0.0 {
                    let colour = match &self.surface {
                        Surface::Washer(washer) => washer.colour(local, light),
                        Surface::Connector(connector) => connector.colour(local, light),
                    };
                    for ((sum, value), finish) in pixel.iter_mut().zip(colour).zip(self.finish) {
                        *sum += value * finish * cover;
                    }
                }
                canvas.push(pixel);
            }
        }
        canvas
    }

    /// Where the part is.
    pub fn outline(&self) -> GrayImage {
        let on_part = |x: u32, y: u32| self.distance(self.local([x as f32 + 0.5, y as f32 + 0.5])) < 0.0;
        GrayImage::from_fn(self.width, self.height, |x, y| Luma([if on_part(x, y) { 255 } else { 0 }]))
    }

    /// What the camera makes of the light.
    pub fn expose(&self, mut canvas: Canvas, dice: &mut Dice) -> RgbImage {
        let pixels = self.exposure.expose(&mut canvas, self.width, self.height, dice);
        RgbImage::from_raw(self.width, self.height, pixels).expect("the buffer holds width x height x 3 bytes")
    }
}
