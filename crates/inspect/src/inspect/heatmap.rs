use super::Verdict;
use crate::imaging::{self, ColourScale, RgbImage};

/// The frame under its map, with a box and its peak around each region: what an operator looks at.
///
/// The frame keeps its own sharpness and shape; only its longer side is reduced to `max_side` pixels. Colour starts at the pixel threshold
/// and is full at twice that threshold, the same for every image of a model, so that two heatmaps can be compared; in one that goes beyond that it is full at its
/// peak, so that the defect is seen within its place.
pub fn heatmap(image: &RgbImage, verdict: &Verdict, max_side: u32) -> RgbImage {
    let picture = imaging::shrink(image, max_side);
    let share = (picture.width() as f32 / image.width() as f32, picture.height() as f32 / image.height() as f32);
    let from = verdict.pixel_threshold;
    let peak = verdict.map.iter().copied().fold(from, f32::max);
    let scale = ColourScale { from, full: from + from.abs().max(f32::EPSILON), peak };
    let mut picture = imaging::overlay(&picture, verdict.map.view(), &verdict.placement.on_reduced(share), scale);
    // Legible on a large frame and no larger than the places on a small one.
    let zoom = (picture.width().max(picture.height()) / 400).clamp(1, 4);
    // The strongest is drawn last, over the others.
    for region in verdict.regions.iter().rev() {
        let on_picture = |v: u32, share: f32| (v as f32 * share).round() as i64;
        let (left, top) = (on_picture(region.x, share.0), on_picture(region.y, share.1));
        let (width, height) = (on_picture(region.width, share.0).max(5), on_picture(region.height, share.1).max(5));
        imaging::draw_box(&mut picture, [left, top, width, height]);
        let text = format!("{:.2}", region.peak);
        let (label_width, label_height) = imaging::number_size(&text, zoom);
        let above = top - 2 - i64::from(label_height);
        let label_top = if above >= 0 { above } else { top + height + 2 };
        let most_left = i64::from(picture.width()) - i64::from(label_width);
        imaging::draw_number(&mut picture, &text, (left.min(most_left).max(0), label_top), zoom);
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Placement;
    use crate::inspect::{DecidedBy, Region, StageTimes};
    use image::Rgb;
    use ndarray::Array2;

    /// A grey frame of 200x80, seen at a quarter of that, with one hot place of 10x6 around (25, 10) on the map and a
    /// ramp from 1 to 2 pixel thresholds below it.
    fn judged() -> (RgbImage, Verdict) {
        let map = Array2::from_shape_fn((20, 50), |(y, x)| match (y, x) {
            (7..13, 20..30) => 8.0,
            (16, x) if x >= 30 => 1.0 + (x - 30) as f32 / 20.0,
            _ => 0.5,
        });
        let region = Region { x: 80, y: 28, width: 40, height: 24, area_px: 960.0, peak: 8.0 };
        let verdict = Verdict {
            score: 8.0,
            map_score: 8.0,
            image_score: None,
            decided_by: DecidedBy::Map,
            threshold: 2.0,
            normal_score: 1.0,
            map,
            placement: Placement { scale: (4.0, 4.0), origin: (0.0, 0.0) },
            pixel_threshold: 1.0,
            regions: vec![region],
            smallest_region_px: 0.0,
            too_small: false,
            times: StageTimes::default(),
        };
        (RgbImage::from_pixel(200, 80, Rgb([100; 3])), verdict)
    }

    fn coloured(picture: &RgbImage, x: u32, y: u32) -> bool {
        let Rgb([r, g, b]) = *picture.get_pixel(x, y);
        r.max(g).max(b) - r.min(g).min(b) > 8
    }

    #[test]
    fn the_frame_keeps_its_shape_and_is_coloured_above_the_pixel_threshold_alone() {
        let (frame, verdict) = judged();
        let picture = heatmap(&frame, &verdict, 4000);
        assert_eq!(picture.dimensions(), (200, 80));
        assert!(coloured(&picture, 100, 40), "the middle of the hot place");
        // Where the map stays below the pixel threshold the frame is as it was.
        for (x, y) in [(4, 4), (195, 20), (20, 70)] {
            assert_eq!(picture.get_pixel(x, y), &Rgb([100; 3]), "({x}, {y})");
        }
        let half = heatmap(&frame, &verdict, 100);
        assert_eq!(half.dimensions(), (100, 40));
        assert!(coloured(&half, 50, 20) && !coloured(&half, 2, 2));
    }

    /// The edge of a place is soft: just above the threshold there is less colour than at twice the threshold.
    #[test]
    fn colour_grows_with_the_map() {
        let (frame, mut verdict) = judged();
        verdict.regions.clear();
        let picture = heatmap(&frame, &verdict, 4000);
        let change = |x: u32| {
            let Rgb(values) = *picture.get_pixel(x, 66);
            values.iter().map(|&v| u32::from(v.abs_diff(100))).sum::<u32>()
        };
        let (faint, half, full) = (change(126), change(160), change(196));
        // The colour changes on the way, so half and full are not compared.
        assert!(2 * faint < half && half > 100 && full > 100, "{faint}, {half}, {full}");
    }

    #[test]
    fn a_region_has_its_box_and_its_peak_above_it() {
        let (frame, verdict) = judged();
        let without = heatmap(&frame, &Verdict { regions: vec![], ..verdict.clone() }, 4000);
        let with = heatmap(&frame, &verdict, 4000);
        let drawn: Vec<(u32, u32)> = with
            .enumerate_pixels()
            .filter(|(x, y, p)| *p != without.get_pixel(*x, *y))
            .map(|(x, y, _)| (x, y))
            .collect();
        // The box goes around 40x24 from (80, 28) on, two pixels outside and two inside it, and leaves the middle as it is.
        let at = |x: u32, y: u32| drawn.contains(&(x, y));
        assert!(at(80, 40) && at(119, 40) && at(100, 28) && at(100, 51) && !at(100, 40));
        // The number is above it, two pixels away, and nothing else is drawn.
        let (_, height) = imaging::number_size("8.00", 1);
        assert!(at(85, 28 - 2 - height));
        let outside = drawn.iter().find(|&&(x, y)| !(78..122).contains(&x) || !(28 - 2 - height..54).contains(&y));
        assert_eq!(outside, None);
    }
}
