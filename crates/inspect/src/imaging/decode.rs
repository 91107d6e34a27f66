//! Image files, within bounds.

use image::{DynamicImage, GrayImage, ImageDecoder, ImageReader, Limits, RgbImage};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// The largest picture that is decoded: 64 megapixels, more than any line camera in reach of this software.
pub const MAX_PIXELS: u64 = 64_000_000;
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Why an image file cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum DecodeError {
    #[error("cannot read the image {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not an image that can be decoded (PNG, JPEG, BMP or TIFF expected): {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("{path} is {width}x{height} pixels; at most {MAX_PIXELS} pixels are accepted")]
    TooLarge { path: PathBuf, width: u32, height: u32 },
    #[error("{path} is {bytes} bytes long; at most {MAX_FILE_BYTES} are accepted")]
    TooLong { path: PathBuf, bytes: u64 },
}

/// Decodes a PNG, JPEG, BMP or TIFF file to `[H,W,3] u8` RGB: the picture as a person sees it.
///
/// Greyscale is repeated over the channels. 16 bit becomes 8 by `round(v / 257)`, which takes 0 to 0 and 65535 to 255;
/// a camera that uses only the lower bits of 16 therefore gives a dark picture. Transparency is left out: the colour
/// below it counts as it is stored. The EXIF orientation is applied.
///
/// # Errors
/// The file cannot be read, is no such image, or is larger than [`MAX_PIXELS`] or 256 MiB.
pub fn load(path: &Path) -> Result<RgbImage, DecodeError> {
    decode(&read_bounded(path)?, path)
}

/// As [`load`], from memory; `name` is only for the error's sentence.
///
/// # Errors
/// As [`load`].
pub fn decode(bytes: &[u8], name: &Path) -> Result<RgbImage, DecodeError> {
    Ok(decode_as_stored(bytes, name)?.into_rgb8())
}

/// A mask file `[H,W]`: 255 where the stored value is not zero, of whatever depth, else 0. Transparency is left out.
///
/// # Errors
/// As [`load`].
pub fn load_mask(path: &Path) -> Result<GrayImage, DecodeError> {
    // By way of 16 bit: a value of 1 in a 16-bit mask must not be rounded away.
    let grey = decode_as_stored(&read_bounded(path)?, path)?.into_luma16();
    Ok(GrayImage::from_fn(grey.width(), grey.height(), |x, y| {
        image::Luma([if grey.get_pixel(x, y).0[0] == 0 { 0 } else { u8::MAX }])
    }))
}

/// A picture of labels `[H,W]`, a PNG of 8-bit grey: the values as they are stored.
///
/// # Errors
/// As [`load`], also when it is another kind of picture; `name` is only for the error's sentence.
pub fn decode_labels(bytes: &[u8], name: &Path) -> Result<GrayImage, DecodeError> {
    // The header says how many bits a value has and what it is; fewer bits would be spread over 8 by the decoder,
    // which says 8 of them then.
    let plain = bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.get(24..26) == Some(&[8, 0]);
    match decode_as_stored(bytes, name)? {
        DynamicImage::ImageLuma8(labels) if plain => Ok(labels),
        _ => Err(DecodeError::Malformed { path: name.to_owned(), reason: "it is no PNG of 8-bit grey".into() }),
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, DecodeError> {
    let read = |cause| DecodeError::Read { path: path.to_owned(), cause };
    let file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut bytes = vec![];
    if length <= MAX_FILE_BYTES {
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    }
    let length = length.max(bytes.len() as u64);
    if length > MAX_FILE_BYTES {
        return Err(DecodeError::TooLong { path: path.to_owned(), bytes: length });
    }
    Ok(bytes)
}

/// The pixels in their own depth and colour type, upright.
fn decode_as_stored(bytes: &[u8], name: &Path) -> Result<DynamicImage, DecodeError> {
    let malformed = |reason: String| DecodeError::Malformed { path: name.to_owned(), reason };
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| malformed(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| malformed(e.to_string()))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(malformed("it has no pixels".into()));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { path: name.to_owned(), width, height });
    }
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| malformed(e.to_string()))?;
    image.apply_orientation(orientation);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pixels of grey, 0 and 1, with 4 and with 8 bits each.
    const BITS_4: &str = "89504e470d0a1a0a0000000d494844520000000200000001040000000014b9cd570000000a49444154789c63600400000300024bf5\
                          ddea0000000049454e44ae426082";
    const BITS_8: &str = "89504e470d0a1a0a0000000d4948445200000002000000010800000000d14920560000000b49444154789c63606004000004000\
                          2bf7a3f4a0000000049454e44ae426082";

    #[test]
    fn labels_are_what_is_stored_and_never_spread() {
        let labels = |hex: &str| decode_labels(&hex::decode(hex).unwrap(), Path::new("labels.png"));
        assert_eq!(labels(BITS_8).unwrap().into_raw(), [0, 1]);
        let why = labels(BITS_4).unwrap_err().to_string();
        assert!(why.starts_with("labels.png is not an image") && why.ends_with("it is no PNG of 8-bit grey"), "{why}");
    }
}
