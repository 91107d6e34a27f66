use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// The largest picture that is decoded: 64 megapixels, more than any line camera in reach of this software.
pub const MAX_PIXELS: u64 = 64_000_000;
const MAX_FILE_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("cannot read the image {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not an image that can be decoded (PNG, JPEG, BMP or TIFF expected): {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("{path} is {width}x{height} pixels; at most {MAX_PIXELS} pixels are accepted")]
    TooLarge { path: PathBuf, width: u32, height: u32 },
    #[error("{path} is {bytes} bytes long; at most {MAX_FILE_BYTES} are accepted")]
    TooLong { path: PathBuf, bytes: u64 },
}

/// Decodes a PNG, JPEG, BMP or TIFF file to `[H,W,3] u8` RGB. Greyscale is repeated over the channels, 16 bit
/// is scaled to 8, and the EXIF orientation is applied: the picture is as a person sees it.
pub fn load(path: &Path) -> Result<RgbImage, DecodeError> {
    let read = |source| DecodeError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(DecodeError::TooLong { path: path.to_owned(), bytes });
    }
    decode(&std::fs::read(path).map_err(read)?, path)
}

/// As [`load`], from memory; `name` is only for the error's sentence.
pub fn decode(bytes: &[u8], name: &Path) -> Result<RgbImage, DecodeError> {
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
    Ok(image.into_rgb8())
}
