//! What stands around a frame of another shape than the network's input.

use ckaad_bundle::{Filter, Input, ResizeMode};
use ckaad_inspect::imaging::resize;
use image::{Rgb, RgbImage};

/// A row of `input` that is 8 pixels high, as the red value of its pixels.
fn row(pixels: &[u8], width: usize, y: usize) -> Vec<u8> {
    pixels.chunks_exact(3).skip(y * width).take(width).map(|p| p[0]).collect()
}

#[test]
fn padding_goes_on_with_the_frames_border() {
    // Each pixel has a value of its own, so that the test sees which one was repeated.
    let upright = RgbImage::from_fn(4, 8, |x, y| Rgb([(10 * y + x) as u8, 1, 2]));
    let input = Input { width: 8, height: 8, fit: ResizeMode::Pad, filter: Filter::Bilinear };
    let (padded, placement) = resize(&upright, &input);
    assert_eq!(row(&padded, 8, 0), [0, 0, 0, 1, 2, 3, 3, 3]);
    assert_eq!(row(&padded, 8, 7), [70, 70, 70, 71, 72, 73, 73, 73]);
    let (boxed, same) = resize(&upright, &Input { fit: ResizeMode::Letterbox, ..input });
    assert_eq!(row(&boxed, 8, 7), [127, 127, 70, 71, 72, 73, 127, 127]);
    assert_eq!(placement, same, "boxes on the original image lie where they would with a letterbox");

    let lying = RgbImage::from_fn(8, 4, |x, y| Rgb([(10 * y + x) as u8, 1, 2]));
    let padded = resize(&lying, &input).0;
    for (y, from) in [0, 0, 0, 1, 2, 3, 3, 3].into_iter().enumerate() {
        assert_eq!(row(&padded, 8, y), (0..8).map(|x| 10 * from + x).collect::<Vec<u8>>(), "row {y}");
    }
    // An odd rest: one pixel more on the right than on the left.
    let narrow = RgbImage::from_fn(5, 8, |x, _| Rgb([x as u8; 3]));
    assert_eq!(row(&resize(&narrow, &input).0, 8, 3), [0, 0, 1, 2, 3, 4, 4, 4]);
}
