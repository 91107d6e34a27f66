use super::super::dice::Dice;
use super::super::sensor::Exposure;
use super::super::texture::{Texture, ramp, rounded_box};
use super::lay::Lay;
use super::stroke::Layer;
use image::GrayImage;

/// Light of each pixel before the lens, row by row; 0 black, 1 white as displayed.
pub(super) type Canvas = Vec<[f32; 1]>;

/// A strip in its pose under its light: all that the picture shows, except a defect and the sensor's noise.
pub(super) struct Surface {
    pub width: u32,
    pub height: u32,
    /// Half the strip's width and height, in pixels.
    pub half: [f32; 2],
    pub texture: Texture,
    corner: f32,
    bevel: f32,
    centre: [f32; 2],
    /// Cosine and sine of the strip's tilt.
    turn: [f32; 2],
    albedo: f32,
    /// How much darker the long sides are than the middle: the strip is slightly curved.
    curve: f32,
    /// Where the brightest line lies, as a share of half the width.
    crest: f32,
    shade: f32,
    lay: Lay,
    exposure: Exposure,
}

impl Surface {
    pub fn new(width: u32, height: u32, dice: &mut Dice) -> Surface {
        let (w, h) = (width as f32, height as f32);
        Surface {
            width,
            height,
            half: [w * dice.range(0.440, 0.452), h * dice.range(0.476, 0.484)],
            texture: Texture::new(dice),
            corner: dice.range(5.0, 11.0),
            bevel: dice.range(3.0, 6.0),
            centre: [w / 2.0 + dice.jitter(7.0), h / 2.0 + dice.jitter(9.0)],
            turn: dice.direction(0.035),
            albedo: dice.range(0.40, 0.56),
            curve: dice.range(0.06, 0.24),
            crest: dice.jitter(0.5),
            shade: dice.range(0.05, 0.13),
            lay: Lay::new(dice),
            exposure: Exposure {
                gain: 1.0 + dice.jitter(0.12),
                gradient: [dice.jitter(0.08), dice.jitter(0.12)],
                focus: dice.range(0.08, 0.17),
            },
        }
    }

    /// From a pixel to the strip's own axes: x across, y along, still in pixels.
    pub fn local(&self, p: [f32; 2]) -> [f32; 2] {
        let d = [p[0] - self.centre[0], p[1] - self.centre[1]];
        [d[0] * self.turn[0] + d[1] * self.turn[1], d[1] * self.turn[0] - d[0] * self.turn[1]]
    }

    /// From the strip's own axes to a pixel.
    pub fn frame(&self, p: [f32; 2]) -> [f32; 2] {
        [
            self.centre[0] + p[0] * self.turn[0] - p[1] * self.turn[1],
            self.centre[1] + p[0] * self.turn[1] + p[1] * self.turn[0],
        ]
    }

    /// Signed distance to the strip's outline, in pixels; negative on the strip. `local` is in the strip's axes.
    pub fn distance(&self, local: [f32; 2]) -> f32 {
        rounded_box(local, self.half, self.corner)
    }

    /// The strip with its marks, without a defect.
    pub fn paint(&self, marks: &Layer) -> Canvas {
        let mut canvas = Vec::with_capacity((self.width * self.height) as usize);
        for y in 0..self.height {
            for x in 0..self.width {
                let p = [x as f32 + 0.5, y as f32 + 0.5];
                let local = self.local(p);
                let ragged = self.texture.at(p[0] * 0.23, p[1] * 0.23) * 0.5;
                let distance = self.distance(local) + ragged;
                let cover = (0.5 - distance).clamp(0.0, 1.0);
                let mut light = self.backdrop(p) * (1.0 - cover);
                if cover > 0.0 {
                    let metal = self.metal(local, distance);
                    light += metal * (1.0 + marks.ink[canvas.len()]) * cover;
                }
                canvas.push([light]);
            }
        }
        canvas
    }

    /// Light of the metal at a place of the strip, `distance` of its outline.
    fn metal(&self, local: [f32; 2], distance: f32) -> f32 {
        let [x, y] = local;
        let across = x / self.half[0] - self.crest;
        let slow = self.texture.at(x / 170.0 + 11.3, y / 240.0 + 5.1) + 0.5 * self.texture.at(x / 61.0, y / 97.0);
        let shading = 1.0 - self.curve * across * across + self.shade * slow;
        // Askew, or the texture's squares would show.
        let grain = 0.035 * self.texture.at(x * 0.63 + y * 0.21 + 31.7, y * 0.36 - x * 0.27)
            + 0.03 * self.texture.at(x * 0.26 - y * 0.12, y * 0.21 + x * 0.17);
        let edge = match self.bevel + distance {
            // The bevel looks away from the lamp, and its upper rim glints.
            beyond if beyond > 0.0 => 0.62 + 0.25 * self.texture.at(x * 0.2, y * 0.2),
            beyond => 1.0 + 0.16 * ramp(-2.5, 0.0, beyond),
        };
        self.albedo * shading * edge * (1.0 + grain + self.lay.at(local))
    }

    /// What the strip lies on, nearly black.
    fn backdrop(&self, p: [f32; 2]) -> f32 {
        0.045 + 0.012 * self.texture.at(p[0] * 0.05, p[1] * 0.05) + 0.006 * self.texture.at(p[0] * 0.4, p[1] * 0.4)
    }

    /// What the camera makes of the light.
    pub fn expose(&self, mut canvas: Canvas, dice: &mut Dice) -> GrayImage {
        let pixels = self.exposure.expose(&mut canvas, self.width, self.height, dice);
        GrayImage::from_raw(self.width, self.height, pixels).expect("the buffer holds width x height bytes")
    }
}
