//! Static calibration: the values that every tensor takes on training images.
//!
//! One pass over the images. Percentile and minmax need two numbers a tensor, entropy and mse a [`Histogram`] (96 KiB):
//! memory does not grow with the images.

use super::clip;
use super::config::Calibration;
use super::histogram::Histogram;
use crate::datasets::Sample;
use crate::features::{Extractor, FeatureError};
use crate::graph::{Graph, Node, Ranges};
use crate::onnx::int8;
use crate::progress::ProgressDisplay;
use ckaad_inspect::engine::Plan;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Share of an image's values that `percentile` leaves outside at each end: a few extreme values would otherwise cost
/// every other value its resolution.
const CLIPPED: f64 = 1e-4;

/// Measures every convolution, sum and norm of `graph` whose range is not known, on `parts`, of which each has the views that the graph takes at once:
/// through the extractor as it is, in int8 where its ranges are known, and with all behind it in float.
///
/// # Errors
/// An image cannot be read.
pub fn measure(
    graph: &Graph,
    extractor: &Extractor,
    parts: &[Vec<Sample>],
    calibration: Calibration,
    progress: &ProgressDisplay,
) -> Result<Ranges, FeatureError> {
    let known = |node: &Node| extractor.ranges.as_ref().is_some_and(|ranges| ranges.know(node));
    let wanted = |node: &Node| int8::gives_bytes(node) && !known(node);
    let measured: Vec<usize> = (0..graph.nodes.len()).filter(|&id| wanted(&graph.nodes[id])).collect();
    if measured.is_empty() {
        return Ok(Ranges::default());
    }
    let plan = Plan::load(&extractor.emit(graph, &measured), 1)?;
    let seen: Vec<Mutex<Seen>> = measured.iter().map(|_| Mutex::new(Seen::default())).collect();
    let bar = progress.bar("ranges", parts.len());
    parts.par_iter().try_for_each(|part| -> Result<(), FeatureError> {
        let views = part.iter().map(|sample| extractor.pixels(&sample.path)).collect::<Result<Vec<_>, _>>()?;
        let values = plan.run(&views.concat())?;
        for (values, seen) in values.into_iter().zip(&seen) {
            Seen::add(seen, values, calibration);
        }
        bar.advance(1);
        Ok(())
    })?;
    let range = |(&id, seen): (&usize, Mutex<Seen>)| {
        let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        (graph.nodes[id].name.clone(), seen.range(calibration))
    };
    Ok(measured.iter().zip(seen).map(range).collect())
}

/// What was seen of one tensor.
#[derive(Default)]
struct Seen {
    low: f32,
    high: f32,
    histogram: Option<Histogram>,
}

impl Seen {
    /// Adds the values of one image. The outcome does not depend on the order of the images.
    fn add(seen: &Mutex<Seen>, values: Vec<f32>, calibration: Calibration) {
        let (low, high) = match calibration {
            Calibration::Percentile => clipped_range(values, CLIPPED),
            Calibration::Minmax => clipped_range(values, 0.0),
            Calibration::Entropy | Calibration::Mse => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                return seen.histogram.get_or_insert_default().add(&values);
            }
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.low, seen.high) = (seen.low.min(low), seen.high.max(high));
    }

    fn range(&self, calibration: Calibration) -> (f32, f32) {
        match (&self.histogram, calibration) {
            (Some(histogram), Calibration::Entropy) => clip::entropy(histogram),
            (Some(histogram), _) => clip::mse(histogram),
            (None, _) => (self.low, self.high),
        }
    }
}

/// The extremes of all values but the share `clipped` at each end.
fn clipped_range(mut values: Vec<f32>, clipped: f64) -> (f32, f32) {
    let Some(last) = values.len().checked_sub(1) else { return (0.0, 0.0) };
    let cut = (values.len() as f64 * clipped) as usize;
    let low = *values.select_nth_unstable_by(cut, f32::total_cmp).1;
    let high = *values.select_nth_unstable_by(last - cut, f32::total_cmp).1;
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::View;
    use crate::backbones::Backbone;
    use crate::features::Reading;
    use ckaad_bundle::{Filter, Input, ResizeMode};
    use image::{Rgb, RgbImage};

    #[test]
    fn percentile_drops_one_value_in_ten_thousand_at_each_end_and_minmax_none() {
        let values: Vec<f32> = (0..20_000).map(|i| i as f32 - 5000.0).rev().collect();
        assert_eq!(clipped_range(values.clone(), CLIPPED), (-4998.0, 14_997.0));
        assert_eq!(clipped_range(values, 0.0), (-5000.0, 14_999.0));
        assert_eq!(clipped_range(vec![3.0], CLIPPED), (3.0, 3.0));
    }

    /// What learns from features learns from what the device will give: values of one byte, close to the exact ones. What
    /// lies behind the backbone is measured alone.
    #[test]
    fn features_of_an_extractor_with_ranges_are_those_of_the_int8_network() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.png");
        RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 4) as u8, (y * 4) as u8, ((x * y) % 251) as u8]))
            .save(&path)
            .unwrap();
        let backbone = Backbone::EfficientNetLite0;
        let input = Input { width: 64, height: 64, fit: ResizeMode::Stretch, filter: Filter::Bilinear };
        let reading = Reading { backbone, strides: &[8, 16], deepest: 16, input };
        let weights = backbone.weights(None).unwrap();
        let exact = Extractor::new(reading, &weights, None, None).unwrap();
        let samples = [vec![Sample { path: path.clone(), ..Sample::default() }]];
        let progress = ProgressDisplay::detect();
        let ranges = measure(&exact.graph, &exact, &samples, Calibration::Minmax, &progress).unwrap();
        let rounded = Extractor::new(reading, &weights, None, Some(&ranges)).unwrap();
        let features = |of: &Extractor| of.compute(&[(path.as_path(), View::default())]).unwrap().swap_remove(0);
        for (exact, rounded) in features(&exact).iter().zip(features(&rounded)) {
            let distinct = |values: &ndarray::Array3<f32>| {
                values.iter().map(|v| v.to_bits()).collect::<std::collections::BTreeSet<u32>>().len()
            };
            assert!(distinct(exact) > 256 && distinct(&rounded) <= 256);
            let size = exact.iter().map(|v| v * v).sum::<f32>().sqrt();
            let off = exact.iter().zip(&rounded).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            assert!(off < 0.2 * size, "{off} of {size}");
        }
        let again = measure(&rounded.graph, &rounded, &samples, Calibration::Minmax, &progress).unwrap();
        assert_eq!(again, Ranges::default(), "all of the backbone is known");
    }

    #[test]
    fn over_images_the_widest_range_counts() {
        for calibration in [Calibration::Percentile, Calibration::Minmax] {
            let seen = Mutex::new(Seen::default());
            Seen::add(&seen, vec![-1.0, 2.0], calibration);
            Seen::add(&seen, vec![0.5, 7.0], calibration);
            assert_eq!(seen.into_inner().unwrap().range(calibration), (-1.0, 7.0));
        }
    }
}
