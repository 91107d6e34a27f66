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
