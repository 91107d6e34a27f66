use ckaad_inspect::imaging::{self, RgbImage};
use nokhwa::utils::{Resolution, nv12_to_rgb, yuyv422_to_rgb};
use std::path::Path;

pub use nokhwa::utils::FrameFormat;

/// A buffer as the driver gave it → RGB. The driver hands out its whole buffer, which is often longer than the picture, so
/// every format is cut to its own length first.
///
/// # Errors
/// A buffer that is too short for the size, rather than a picture with garbage below; an MJPEG that cannot be decoded.
pub fn to_rgb(data: &[u8], width: u32, height: u32, format: FrameFormat) -> Result<RgbImage, String> {
    let pixels = width as usize * height as usize;
    let cut = |bytes: usize| {
        data.get(..bytes).ok_or_else(|| format!("{} bytes came, {width}x{height} {format} has {bytes}", data.len()))
    };
    let rgb = match format {
        FrameFormat::YUYV => yuyv422_to_rgb(cut(pixels * 2)?, false).map_err(|e| e.to_string())?,
        FrameFormat::NV12 => {
            nv12_to_rgb(Resolution::new(width, height), cut(pixels * 3 / 2)?, false).map_err(|e| e.to_string())?
        }
        FrameFormat::GRAY => cut(pixels)?.iter().flat_map(|&v| [v; 3]).collect(),
        FrameFormat::RAWRGB => cut(pixels * 3)?.to_vec(),
        FrameFormat::RAWBGR => cut(pixels * 3)?.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect(),
        FrameFormat::MJPEG => return imaging::decode(data, Path::new("the frame")).map_err(|e| e.to_string()),
    };
    RgbImage::from_raw(width, height, rgb).ok_or_else(|| "the converted picture is too short".into())
}
