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

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(data: &[u8], format: FrameFormat) -> Vec<[u8; 3]> {
        let image = to_rgb(data, 2, 2, format).unwrap();
        assert_eq!(image.dimensions(), (2, 2));
        image.pixels().map(|p| p.0).collect()
    }

    #[test]
    fn every_format_is_cut_to_its_length_and_converted() {
        let counted: Vec<u8> = (1..=20).collect();
        assert_eq!(pixels(&counted, FrameFormat::RAWRGB), [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]);
        assert_eq!(pixels(&counted, FrameFormat::RAWBGR), [[3, 2, 1], [6, 5, 4], [9, 8, 7], [12, 11, 10]]);
        assert_eq!(pixels(&counted, FrameFormat::GRAY), [[1; 3], [2; 3], [3; 3], [4; 3]]);
        // Full-range or studio-range: grey stays grey, and brighter is brighter.
        let yuyv = [50, 128, 90, 128, 130, 128, 170, 128, 77, 77];
        let nv12 = [50, 90, 130, 170, 128, 128, 77, 77];
        for grey in [pixels(&yuyv, FrameFormat::YUYV), pixels(&nv12, FrameFormat::NV12)] {
            assert!(grey.iter().all(|[r, g, b]| r.abs_diff(*g) <= 1 && g.abs_diff(*b) <= 1), "{grey:?}");
            assert!(grey.is_sorted() && grey[0] != grey[1] && grey[2] != grey[3], "{grey:?}");
        }
        let mut jpeg = std::io::Cursor::new(vec![]);
        let picture = RgbImage::from_pixel(2, 2, [200, 200, 200].into());
        picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
        assert!(pixels(jpeg.get_ref(), FrameFormat::MJPEG).iter().flatten().all(|v| v.abs_diff(200) < 4));
    }

    #[test]
    fn a_buffer_that_is_too_short_is_no_picture() {
        for (format, bytes) in [
            (FrameFormat::YUYV, 8),
            (FrameFormat::NV12, 6),
            (FrameFormat::GRAY, 4),
            (FrameFormat::RAWRGB, 12),
            (FrameFormat::RAWBGR, 12),
        ] {
            assert!(to_rgb(&vec![0; bytes], 2, 2, format).is_ok(), "{format}");
            let why = to_rgb(&vec![0; bytes - 1], 2, 2, format).unwrap_err();
            assert_eq!(why, format!("{} bytes came, 2x2 {format} has {bytes}", bytes - 1));
        }
        let why = to_rgb(b"no JPEG", 2, 2, FrameFormat::MJPEG).unwrap_err();
        assert!(why.starts_with("the frame is not an image that can be decoded"), "{why}");
    }
}
