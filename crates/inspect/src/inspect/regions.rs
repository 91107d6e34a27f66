//! Where in the frame a defect is.

use super::verdict::Region;
use crate::imaging::Placement;
use image::{GrayImage, Luma};
use imageproc::region_labelling::{Connectivity, connected_components};
use ndarray::{Array2, ArrayView2};

/// More than these are not told apart by a person, and would only lengthen the event.
pub const MAX_REGIONS: usize = 16;

/// What [`find`] finds.
pub struct Found {
    /// The largest peak first.
    pub regions: Vec<Region>,
    /// Those that have less than `smallest` pixels of the frame, alike.
    pub small: Vec<Region>,
    /// The map as it were without the small ones: its lowest value where they lie. None where there are none.
    pub without_small: Option<Array2<f32>>,
}

/// Connected areas of `map` at or above `threshold`, as boxes in the frame. Where nothing reaches the threshold (a score over many pixels can), the map's
/// largest pixel stands for the region; how large that is nobody knows, and it is not small.
pub fn find(map: ArrayView2<f32>, threshold: f32, smallest: f32, placement: &Placement, frame: (u32, u32)) -> Found {
    let (height, width) = map.dim();
    let largest = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let smallest = if largest < threshold { 0.0 } else { smallest };
    let threshold = threshold.min(largest);
    let binary = GrayImage::from_fn(width as u32, height as u32, |x, y| {
        Luma([if map[[y as usize, x as usize]] >= threshold { 255 } else { 0 }])
    });
    let labels = connected_components(&binary, Connectivity::Eight, Luma([0]));
    let mut found: Vec<Cells> = vec![];
    for (x, y, Luma([label])) in labels.enumerate_pixels() {
        if *label == 0 {
            continue;
        }
        let index = *label as usize - 1;
        if found.len() <= index {
            found.resize(index + 1, Cells::EMPTY);
        }
        found[index].add(x, y, map[[y as usize, x as usize]]);
    }
    let all: Vec<Region> = found.iter().map(|cells| cells.region(placement, frame)).collect();
    let is_small = |region: &Region| region.area_px < smallest;
    let without_small = all.iter().any(is_small).then(|| {
        let lowest = map.iter().copied().fold(f32::INFINITY, f32::min);
        let of = |(y, x)| match labels.get_pixel(x as u32, y as u32).0[0] {
            0 => map[[y, x]],
            label if is_small(&all[label as usize - 1]) => lowest,
            _ => map[[y, x]],
        };
        Array2::from_shape_fn(map.dim(), of)
    });
    let (mut small, mut regions): (Vec<Region>, Vec<Region>) = all.into_iter().partition(is_small);
    for list in [&mut regions, &mut small] {
        list.sort_by(|a, b| b.peak.total_cmp(&a.peak));
        list.truncate(MAX_REGIONS);
    }
    Found { regions, small, without_small }
}

/// Bounds of one label, in map cells, both ends included.
#[derive(Clone, Copy)]
struct Cells {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
    count: u32,
    peak: f32,
}

impl Cells {
    const EMPTY: Cells =
        Cells { left: u32::MAX, top: u32::MAX, right: 0, bottom: 0, count: 0, peak: f32::NEG_INFINITY };

    fn add(&mut self, x: u32, y: u32, value: f32) {
        self.left = self.left.min(x);
        self.top = self.top.min(y);
        self.right = self.right.max(x);
        self.bottom = self.bottom.max(y);
        self.count += 1;
        self.peak = self.peak.max(value);
    }

    fn region(&self, placement: &Placement, (frame_width, frame_height): (u32, u32)) -> Region {
        let (x0, y0) = placement.to_frame(self.left as f32, self.top as f32);
        let (x1, y1) = placement.to_frame((self.right + 1) as f32, (self.bottom + 1) as f32);
        let clamp = |v: f32, limit: u32| v.round().clamp(0.0, limit as f32) as u32;
        let x = clamp(x0, frame_width.saturating_sub(1));
        let y = clamp(y0, frame_height.saturating_sub(1));
        Region {
            x,
            y,
            width: clamp(x1, frame_width).saturating_sub(x).max(1),
            height: clamp(y1, frame_height).saturating_sub(y).max(1),
            area_px: self.count as f32 * placement.scale.0 * placement.scale.1,
            peak: self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_areas_become_two_boxes_in_frame_pixels() {
        let mut map = Array2::zeros((4, 8));
        map[[1, 1]] = 2.0;
        map[[2, 2]] = 1.0; // touches the first at a corner
        map[[0, 6]] = 5.0;
        let placement = Placement { scale: (10.0, 20.0), origin: (0.0, 0.0) };
        let Found { regions, small, without_small } = find(map.view(), 0.5, 0.0, &placement, (80, 80));
        assert_eq!((regions.len(), small.len(), without_small), (2, 0, None));
        assert_eq!((regions[0].x, regions[0].y, regions[0].width, regions[0].height), (60, 0, 10, 20));
        assert_eq!((regions[1].x, regions[1].y, regions[1].width, regions[1].height), (10, 20, 20, 40));
        assert_eq!(regions[1].area_px, 400.0);
        // As large as is asked for is large enough.
        let found = find(map.view(), 0.5, 400.0, &placement, (80, 80));
        assert_eq!((found.regions, found.small), (vec![regions[1]], vec![regions[0]]));
        map[[0, 6]] = 0.0;
        assert_eq!(found.without_small, Some(map));
    }

    #[test]
    fn small_regions_make_room_for_a_large_one_whatever_their_peaks() {
        let value = |(y, x): (usize, usize)| match (y, x) {
            (0, x) if x % 2 == 0 => 9.0,
            (4..8, 3..7) => 1.0,
            _ => 0.0,
        };
        let map = Array2::from_shape_fn((9, 80), value);
        let placement = Placement { scale: (1.0, 1.0), origin: (0.0, 0.0) };
        let Found { regions, small, .. } = find(map.view(), 0.5, 2.0, &placement, (80, 9));
        assert_eq!((regions.len(), regions[0].area_px, small.len()), (1, 16.0, MAX_REGIONS));
    }

    #[test]
    fn a_map_below_the_threshold_still_points_at_its_peak() {
        let mut map = Array2::from_elem((4, 4), 0.1);
        map[[1, 1]] = 0.2;
        let placement = Placement { scale: (1.0, 1.0), origin: (0.0, 0.0) };
        let Found { regions, small, .. } = find(map.view(), 9.0, 16.0, &placement, (4, 4));
        assert_eq!((regions.len(), regions[0].x, regions[0].y, small.len()), (1, 1, 1, 0));
    }
}
