//! How long a network takes for a frame on this machine.

use ckaad_inspect::engine::{Engine, EngineError};
use std::time::Instant;

/// Frames of a measurement; the fastest counts, since whatever else the machine does only adds.
const RUNS: usize = 7;

/// Milliseconds on one thread for the ONNX file `model` whose input is `height` by `width`, for one view of a part where it takes several at once, for smoothing its map by `sigma_px` and for the mean of
/// its largest pixels.
///
/// # Errors
/// The engine does not take the file.
pub fn milliseconds(model: &[u8], [height, width]: [usize; 2], sigma_px: f32) -> Result<f64, EngineError> {
    let engine = Engine::load(model, 1)?;
    let views = engine.views();
    let pixels = vec![127; views * width * height * 3];
    let mut fastest = f64::INFINITY;
    for _ in 0..RUNS {
        let started = Instant::now();
        for output in engine.run(&pixels)? {
            let smoothed = ckaad_inspect::smooth(output.map.view(), (height, width), sigma_px);
            std::hint::black_box(ckaad_inspect::top_k_mean(smoothed.view(), 100));
        }
        fastest = fastest.min(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(fastest / views as f64)
}
