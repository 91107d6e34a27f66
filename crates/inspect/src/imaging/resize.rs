//! From a frame to the network's input.

use super::decode::{DecodeError, load};
use ckaad_bundle::{Filter, Input, ResizeMode};
use fast_image_resize as fir;
use image::RgbImage;
use std::path::Path;

/// Where the frame went: maps positions of the input tensor back to the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Frame pixels a tensor pixel, along x and y.
    pub scale: (f32, f32),
    /// Frame position of the tensor's corner (0, 0).
    pub origin: (f32, f32),
}

impl Placement {
    /// Frame position of the tensor position `(x, y)`, both in pixels from the upper left corner.
    pub fn to_frame(&self, x: f32, y: f32) -> (f32, f32) {
        (self.origin.0 + x * self.scale.0, self.origin.1 + y * self.scale.1)
    }
}

impl Placement {
    /// Position on the input of the frame position `(x, y)`: the inverse of [`Placement::to_frame`].
    pub fn to_input(&self, x: f32, y: f32) -> (f32, f32) {
        ((x - self.origin.0) / self.scale.0, (y - self.origin.1) / self.scale.1)
    }

    /// The same on a frame that was reduced to `share` of its size.
    pub fn on_reduced(&self, share: (f32, f32)) -> Placement {
        Placement {
            scale: (self.scale.0 * share.0, self.scale.1 * share.1),
            origin: (self.origin.0 * share.0, self.origin.1 * share.1),
        }
    }
}

/// Reduced so that the longer side is at most `max_side` pixels; a smaller picture stays as it is.
pub fn shrink(image: &RgbImage, max_side: u32) -> RgbImage {
    let (w, h) = image.dimensions();
    let longer = w.max(h);
    if longer <= max_side {
        return image.clone();
    }
    let side = |s: u32| (u64::from(s) * u64::from(max_side) / u64::from(longer)).max(1) as u32;
    let (width, height) = (side(w), side(h));
    RgbImage::from_raw(width, height, scale(image, None, width, height, Filter::Bilinear))
        .expect("scale gives width x height x 3 bytes")
}

/// The fill of a letterbox, near the backbones' mean colour.
const FILL: u8 = 127;

/// The image at `path` as the network's input, `[height,width,3] u8`.
///
/// # Errors
/// As [`load`].
pub fn load_fitted(path: &Path, input: &Input) -> Result<Vec<u8>, DecodeError> {
    Ok(resize(&load(path)?, input).0)
}

/// Brings `image` to the network's input, `[height,width,3] u8`. Antialiased (the filter's support grows with the
/// reduction), in integer arithmetic, so that x86 and ARM give the same pixels.
pub fn resize(image: &RgbImage, input: &Input) -> (Vec<u8>, Placement) {
    let Input { width, height, fit, filter } = *input;
    let (iw, ih) = (image.width() as f32, image.height() as f32);
    let (sx, sy) = (iw / width as f32, ih / height as f32);
    match fit {
        ResizeMode::Stretch => {
            (scale(image, None, width, height, filter), Placement { scale: (sx, sy), origin: (0.0, 0.0) })
        }
        ResizeMode::Crop => {
            let s = sx.min(sy);
            let (cw, ch) = (s * width as f32, s * height as f32);
            let origin = ((iw - cw) / 2.0, (ih - ch) / 2.0);
            let crop = [origin.0, origin.1, cw, ch].map(f64::from);
            (scale(image, Some(crop), width, height, filter), Placement { scale: (s, s), origin })
        }
        ResizeMode::Letterbox | ResizeMode::Pad => {
            let s = sx.max(sy);
            let inner_w = ((iw / s).round() as u32).clamp(1, width);
            let inner_h = ((ih / s).round() as u32).clamp(1, height);
            let (x0, y0) = ((width - inner_w) / 2, (height - inner_h) / 2);
            let inner = scale(image, None, inner_w, inner_h, filter);
            let mut out = vec![FILL; (width * height * 3) as usize];
            let rows = inner.chunks_exact(inner_w as usize * 3);
            let outer = width as usize * 3;
            for (line, inner) in out.chunks_exact_mut(outer).skip(y0 as usize).zip(rows) {
                let (left, right) = (x0 as usize * 3, x0 as usize * 3 + inner.len());
                line[left..right].copy_from_slice(inner);
                if fit == ResizeMode::Pad {
                    repeat(&mut line[..left], &inner[..3]);
                    repeat(&mut line[right..], &inner[inner.len() - 3..]);
                }
            }
            if fit == ResizeMode::Pad {
                let (above, inside) = out.split_at_mut(y0 as usize * outer);
                let (inside, below) = inside.split_at_mut(inner_h as usize * outer);
                repeat(above, &inside[..outer]);
                repeat(below, &inside[inside.len() - outer..]);
            }
            let scale = (iw / inner_w as f32, ih / inner_h as f32);
            let origin = (-(x0 as f32) * scale.0, -(y0 as f32) * scale.1);
            (out, Placement { scale, origin })
        }
    }
}

/// Fills `to` with copies of `piece`.
fn repeat(to: &mut [u8], piece: &[u8]) {
    to.chunks_exact_mut(piece.len()).for_each(|place| place.copy_from_slice(piece));
}

fn scale(image: &RgbImage, crop: Option<[f64; 4]>, width: u32, height: u32, filter: Filter) -> Vec<u8> {
    if crop.is_none() && (image.width(), image.height()) == (width, height) {
        return image.as_raw().clone();
    }
    let source = fir::images::ImageRef::new(image.width(), image.height(), image.as_raw(), fir::PixelType::U8x3)
        .expect("an RgbImage holds width x height x 3 bytes");
    let mut target = fir::images::Image::new(width, height, fir::PixelType::U8x3);
    let kernel = match filter {
        Filter::Bilinear => fir::FilterType::Bilinear,
        Filter::CatmullRom => fir::FilterType::CatmullRom,
    };
    let mut options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(kernel)).use_alpha(false);
    if let Some([left, top, w, h]) = crop {
        options = options.crop(left, top, w, h);
    }
    fir::Resizer::new()
        .resize(&source, &mut target, &options)
        .expect("source and target have the same pixel type, and the crop lies inside the frame");
    target.into_vec()
}
