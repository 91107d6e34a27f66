//! The size of the network's input, where the config gives a time in its place: the largest that keeps the images' shape
//! and the time.

use super::{FitError, everything};
use crate::config::{BudgetConfig, Build, MethodKind, TrainConfig};
use crate::datasets::{DataSet, evenly};
use crate::device;
use crate::features::{Extractor, FeatureError};
use crate::frame_time;
use crate::onnx::int8::{self, Dialect};
use crate::progress::ProgressDisplay;
use crate::quantise;
use ckaad_bundle::Input;
use ckaad_inspect::{imaging, quantile};

/// Images whose size is looked at.
const LOOKED_AT: usize = 20;
/// Sides are multiples of it: the deepest stride of every backbone.
const STEP: u32 = 32;
/// The smallest side.
const LEAST: u32 = 64;
/// The largest side.
const MOST: u32 = 2048;

/// The config with the input's size filled in, where it gives a budget.
///
/// # Errors
/// An image cannot be read, or no size fits into the budget.
pub fn resolved(
    config: &TrainConfig,
    data: &DataSet,
    build: Build,
    progress: &ProgressDisplay,
) -> Result<TrainConfig, FitError> {
    let Some(budget) = config.budget else { return Ok(config.clone()) };
    let shape = usual_size(data)?;
    let sizes = sizes(shape);
    let with = |[width, height]: [u32; 2]| {
        let mut config = config.clone();
        (config.input.width, config.input.height) = (width, height);
        config
    };
    let Measured { size: [width, height], ms } = largest(&sizes, budget, |&size| milliseconds(&with(size), build))?;
    progress.say(&format!(
        "input {width}x{height}: {ms:.1} ms of the budget of {:.1} ms, one thread, {} times what was measured here; the images are {}x{}",
        budget.ms, budget.factor, shape[0], shape[1]
    ));
    Ok(with([width, height]))
}

/// The same where methods are still to be chosen: a size at which any of `lists` keeps the budget.
///
/// # Errors
/// As [`resolved`].
pub fn resolved_for(
    lists: &[Vec<MethodKind>],
    config: &TrainConfig,
    data: &DataSet,
    build: Build,
    progress: &ProgressDisplay,
) -> Result<TrainConfig, FitError> {
    if config.budget.is_none() {
        return Ok(config.clone());
    }
    let mut dearest = (0.0, config.clone());
    for methods in lists {
        let config = TrainConfig { methods: methods.clone(), ..config.clone() };
        let ms = milliseconds(&config, build)?;
        if ms > dearest.0 {
            dearest = (ms, config);
        }
    }
    let input = resolved(&dearest.1, data, build, progress)?.input;
    Ok(TrainConfig { input, ..config.clone() })
}

/// Median width and height of the normal training images.
fn usual_size(data: &DataSet) -> Result<[u32; 2], FitError> {
    let (mut widths, mut heights) = (vec![], vec![]);
    for sample in evenly(data.train_normal.iter().collect(), LOOKED_AT) {
        let (width, height) = imaging::load(&sample.path).map_err(FeatureError::from)?.dimensions();
        widths.push(f64::from(width));
        heights.push(f64::from(height));
    }
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        quantile(&values, 0.5).map_or(LEAST, |median| median.round() as u32)
    };
    Ok([middle(widths), middle(heights)])
}

/// Every size of about this shape, width and height, the smallest first; none is larger than the images themselves.
fn sizes([width, height]: [u32; 2]) -> Vec<[u32; 2]> {
    let longer = width.max(height).max(1);
    let side = |of: u32, long: u32| {
        let exact = f64::from(of) * f64::from(long) / f64::from(longer);
        ((exact / f64::from(STEP)).round() as u32 * STEP).clamp(LEAST, MOST)
    };
    let most = longer.div_ceil(STEP).max(LEAST / STEP) * STEP;
    let mut sizes: Vec<[u32; 2]> =
        (LEAST / STEP..=most.min(MOST) / STEP).map(|n| [side(width, n * STEP), side(height, n * STEP)]).collect();
    sizes.dedup();
    sizes
}

struct Measured {
    size: [u32; 2],
    /// On the device.
    ms: f64,
}

/// The largest of `sizes` that keeps the budget, by halving: time grows with the size.
fn largest(
    sizes: &[[u32; 2]],
    budget: BudgetConfig,
    milliseconds: impl Fn(&[u32; 2]) -> Result<f64, FitError>,
) -> Result<Measured, FitError> {
    let (mut low, mut high) = (0, sizes.len());
    let mut best = None;
    let mut least = f64::INFINITY;
    while low < high {
        let middle = (low + high) / 2;
        let ms = milliseconds(&sizes[middle])? * budget.factor;
        least = least.min(ms);
        if ms <= budget.ms {
            best = Some(Measured { size: sizes[middle], ms });
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    best.ok_or(FitError::Budget { ms: budget.ms, least })
}

/// The int8 network of all methods, and smoothing, on one thread of this machine.
fn milliseconds(config: &TrainConfig, build: Build) -> Result<f64, FitError> {
    let weights = config.backbone.weights(config.weights.as_deref())?;
    let extractor = Extractor::new(config.reading(), &weights, None, None)?;
    let model = build(config, &extractor, &device::cpu());
    let graph = model.graph(&extractor, &everything(&model));
    // Which values a byte stands for does not matter to the time.
    let ranges = vec![(-6.0, 6.0); graph.nodes.len()];
    let float = quantise::named(&graph, &config.quantise.float_layers);
    let onnx = int8::emit(&graph, None, &ranges, |id| float.contains(&id), Dialect::QOperator);
    let Input { width, height, .. } = config.input.into();
    let size = [height, width].map(|side| side as usize);
    let failed = |e| FitError::Features(FeatureError::Engine(e));
    frame_time::milliseconds(&onnx, size, config.score.sigma_px).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_the_shape_and_end_at_the_images_own() {
        let strip = sizes([500, 1250]);
        assert_eq!((strip[0], *strip.last().unwrap()), ([64, 64], [512, 1280]));
        assert!(strip.contains(&[256, 640]) && strip.windows(2).all(|w| w[0][0] * w[0][1] < w[1][0] * w[1][1]));
        assert_eq!(sizes([1, 1]), [[64, 64]]);
        assert_eq!(sizes([8000, 6000]).last(), Some(&[2048, 1536]));
    }

    #[test]
    fn the_largest_size_within_the_budget_is_taken() {
        // One millisecond for 10,000 pixels.
        let ms = |size: &[u32; 2]| Ok(f64::from(size[0] * size[1]) / 1e4);
        let of = |ms_allowed, factor| largest(&sizes([500, 1250]), BudgetConfig { ms: ms_allowed, factor }, ms);
        let found = of(17.0, 1.0).unwrap();
        assert_eq!((found.size, found.ms), ([256, 640], 16.384));
        assert!(of(17.0, 4.0).unwrap().ms <= 17.0);
        assert_eq!(of(1e9, 1.0).unwrap().size, [512, 1280]);
        let told = of(0.1, 1.0).err().unwrap().to_string();
        assert_eq!(told, "budget.ms is 0.1: the smallest input that was tried takes 0.4 ms");
    }
}
