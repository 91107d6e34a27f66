//! Static calibration: the values that every tensor takes on training images.

use super::graph::{Graph, Op};
use super::onnx;
use crate::bundle::Input;
use crate::engine::Plan;
use crate::imaging;
use crate::inspect;
use crate::train::datasets::Sample;
use crate::train::features::FeatureError;
use crate::train::progress::Progress;
use rayon::prelude::*;

/// Share of an image's values that may lie outside its range at each end: a few extreme values would otherwise cost
/// every other value its resolution.
const CLIPPED: f64 = 1e-4;

/// Smallest and largest value of each node's result over `samples`; of an image the extremes without [`CLIPPED`], over the
/// images the widest.
pub fn measure(
    graph: &Graph,
    samples: &[Sample],
    input: Input,
    progress: &Progress,
) -> Result<Vec<(f32, f32)>, FeatureError> {
    let measured: Vec<usize> = (0..graph.nodes.len())
        .filter(|&id| matches!(graph.nodes[id].op, Op::Conv(_) | Op::Add(_) | Op::InstanceNorm(_)))
        .collect();
    let plan = Plan::load(&onnx::emit_f32(graph, Some(&measured)), 1)?;
    let bar = progress.bar("ranges", samples.len());
    let per_image: Vec<Vec<(f32, f32)>> = samples
        .par_iter()
        .map(|sample| {
            let (pixels, _) = inspect::fit(&imaging::load(&sample.path)?, &input);
            let ranges = plan.run(&pixels)?.into_iter().map(clipped_range).collect();
            bar.advance(1);
            Ok(ranges)
        })
        .collect::<Result<_, FeatureError>>()?;
    let mut ranges = vec![(0.0, 0.0); graph.nodes.len()];
    for image in &per_image {
        for (&id, &(low, high)) in measured.iter().zip(image) {
            let range: &mut (f32, f32) = &mut ranges[id];
            *range = (range.0.min(low), range.1.max(high));
        }
    }
    Ok(ranges)
}

fn clipped_range(mut values: Vec<f32>) -> (f32, f32) {
    let cut = (values.len() as f64 * CLIPPED) as usize;
    let last = values.len() - 1;
    let low = *values.select_nth_unstable_by(cut, f32::total_cmp).1;
    let high = *values.select_nth_unstable_by(last - cut, f32::total_cmp).1;
    (low, high)
}
