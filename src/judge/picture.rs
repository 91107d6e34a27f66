//! Pictures that times are measured with.

use ckaad_bundle::{Bundle, Input};
use ckaad_inspect::imaging::{self, RgbImage};

/// What times are measured with: the first golden sample, or a grey picture where there is none.
pub fn sample_picture(bundle: &Bundle) -> RgbImage {
    let golden = bundle.golden.first().and_then(|g| imaging::decode(&g.png, "golden sample".as_ref()).ok());
    golden.unwrap_or_else(|| grey_picture(bundle.manifest.input))
}

/// A picture of the model's own size that shows nothing.
pub fn grey_picture(input: Input) -> RgbImage {
    RgbImage::from_pixel(input.width, input.height, image::Rgb([127; 3]))
}
