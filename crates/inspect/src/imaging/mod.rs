//! Pixels: frames, decoding with bounds, fitting an image to the network's input, colour maps and heatmaps.
//!
//! Not here: where frames come from (`capture`) and what they mean (`inspect`).

mod appearance;
mod decode;
mod frame;
mod heatmap;
mod resize;

pub use appearance::appearance;
pub use decode::{DecodeError, MAX_PIXELS, decode, decode_labels, load, load_mask};
pub use frame::{Frame, PartView, Truth};
pub use heatmap::{ColourScale, draw_box, draw_number, encode_jpeg, encode_png, number_size, overlay, turbo};
pub use image::RgbImage;
pub use resize::{Placement, load_fitted, resize, shrink};
