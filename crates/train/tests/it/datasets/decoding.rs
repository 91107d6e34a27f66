//! Pictures are decoded as a person sees them, whatever their depth, colour type and orientation.

use super::Tree;
use ckaad_inspect::imaging;
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba};
use std::io::Cursor;
use std::path::Path;

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn decoded(bytes: &[u8]) -> RgbImage {
    imaging::decode(bytes, Path::new("test")).unwrap()
}

const LOSSLESS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Tiff, ImageFormat::Bmp];

#[test]
fn grey_and_colour_of_eight_bits_keep_their_values() {
    let colour = RgbImage::from_fn(8, 8, |x, y| Rgb([x as u8 * 30, y as u8 * 30, 7]));
    let grey = GrayImage::from_fn(8, 8, |x, y| Luma([(x * 8 + y) as u8]));
    for format in LOSSLESS {
        assert_eq!(decoded(&encoded(colour.clone(), format)), colour, "{format:?}");
        let expected = DynamicImage::from(grey.clone()).into_rgb8();
        assert_eq!(decoded(&encoded(grey.clone(), format)), expected, "{format:?}");
    }
    let flat = RgbImage::from_pixel(8, 8, Rgb([90, 160, 200]));
    let jpeg = decoded(&encoded(flat, ImageFormat::Jpeg));
    assert!(jpeg.pixels().all(|p| p.0.iter().zip([90u8, 160, 200]).all(|(a, b)| a.abs_diff(b) <= 2)));
}

#[test]
fn sixteen_bits_are_rounded_to_eight() {
    let values = [0u16, 128, 129, 257, 25_700, 32_768, 65_406, 65_535];
    let expected = values.map(|v| (f64::from(v) / 257.0).round() as u8);
    let grey = ImageBuffer::<Luma<u16>, _>::from_fn(8, 1, |x, _| Luma([values[x as usize]]));
    let colour = ImageBuffer::<Rgb<u16>, _>::from_fn(8, 1, |x, _| Rgb([values[x as usize], 0, 65_535]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        let found = decoded(&encoded(grey.clone(), format));
        assert!(found.pixels().zip(expected).all(|(p, e)| p.0 == [e; 3]), "{format:?}: {found:?}");
        let found = decoded(&encoded(colour.clone(), format));
        assert!(found.pixels().zip(expected).all(|(p, e)| p.0 == [e, 0, 255]), "{format:?}: {found:?}");
    }
}

#[test]
fn transparency_is_left_out() {
    let colour = image::RgbaImage::from_pixel(2, 2, Rgba([10, 20, 30, 0]));
    assert!(decoded(&encoded(colour, ImageFormat::Png)).pixels().all(|p| p.0 == [10, 20, 30]));
    let grey = ImageBuffer::<LumaA<u16>, Vec<u16>>::from_pixel(2, 2, LumaA([2_570, 1]));
    assert!(decoded(&encoded(grey, ImageFormat::Png)).pixels().all(|p| p.0 == [10; 3]));
}

/// A TIFF directory with the one entry Orientation (0x112, SHORT), as APP1 carries it.
fn exif(orientation: u16) -> Vec<u8> {
    let mut exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend(orientation.to_le_bytes());
    exif.extend([0; 6]);
    exif
}

fn with_app1(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat()
}

/// Left half dark, right half bright, 16 x 8.
fn dark_to_bright() -> RgbImage {
    RgbImage::from_fn(16, 8, |x, _| if x < 8 { Rgb([20; 3]) } else { Rgb([230; 3]) })
}

fn bright(image: &RgbImage, x: u32, y: u32) -> bool {
    image.get_pixel(x, y).0[0] > 127
}

/// Corners of the decoded picture, from the upper left, clockwise: which are bright.
fn corners(image: &RgbImage) -> [bool; 4] {
    let (right, bottom) = (image.width() - 1, image.height() - 1);
    [bright(image, 0, 0), bright(image, right, 0), bright(image, right, bottom), bright(image, 0, bottom)]
}

#[test]
fn the_exif_orientation_is_applied() {
    let jpeg = encoded(dark_to_bright(), ImageFormat::Jpeg);
    let (left, right) = ([true, false, false, true], [false, true, true, false]);
    let (top, bottom) = ([true, true, false, false], [false, false, true, true]);
    let expected = [
        (1, (16, 8), right),
        (2, (16, 8), left),
        (3, (16, 8), left),
        (4, (16, 8), right),
        (5, (8, 16), bottom),
        (6, (8, 16), bottom),
        (7, (8, 16), top),
        (8, (8, 16), top),
        // Not a value of the standard.
        (9, (16, 8), right),
    ];
    for (orientation, size, bright) in expected {
        let found = decoded(&with_app1(&jpeg, &exif(orientation)));
        assert_eq!((found.dimensions(), corners(&found)), (size, bright), "orientation {orientation}");
    }
    // Training and `infer` read files by the same function.
    let tree = Tree::new(&[]);
    std::fs::write(tree.at("turned.jpg"), with_app1(&jpeg, &exif(6))).unwrap();
    assert_eq!(imaging::load(&tree.at("turned.jpg")).unwrap().dimensions(), (8, 16));
}

#[test]
fn damaged_exif_leaves_the_picture_as_it_is() {
    let jpeg = encoded(dark_to_bright(), ImageFormat::Jpeg);
    let whole = exif(6);
    for length in 0..whole.len() - 6 {
        assert_eq!(decoded(&with_app1(&jpeg, &whole[..length])).dimensions(), (16, 8), "{length} bytes");
    }
}

#[test]
fn any_value_of_a_mask_but_zero_is_anomalous() {
    let tree = Tree::new(&[]);
    let check = |name: &str, mask: DynamicImage| {
        mask.save(tree.at(name)).unwrap();
        assert_eq!(imaging::load_mask(&tree.at(name)).unwrap().as_raw(), &[0, 255, 255], "{name}");
    };
    check("8.png", GrayImage::from_raw(3, 1, vec![0, 1, 255]).unwrap().into());
    check("8.bmp", GrayImage::from_raw(3, 1, vec![0, 1, 255]).unwrap().into());
    check("16.png", ImageBuffer::<Luma<u16>, _>::from_raw(3, 1, vec![0u16, 1, 65_535]).unwrap().into());
    check("colour.png", RgbImage::from_raw(3, 1, vec![0, 0, 0, 0, 0, 1, 128, 0, 0]).unwrap().into());
}

#[test]
fn a_picture_beyond_the_limits_is_refused_before_its_pixels_are_made() {
    let mut png = encoded(GrayImage::new(1, 1), ImageFormat::Png);
    // Width and height of the header, and its checksum.
    png[16..24].copy_from_slice(&[0, 0, 0x80, 0, 0, 0, 0x80, 0]);
    let checksum = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    let told = imaging::decode(&png, Path::new("large.png")).unwrap_err().to_string();
    assert!(told.contains("large.png") && told.contains("32768x32768"), "{told}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    })
}
