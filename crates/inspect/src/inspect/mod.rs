//! Bundle + image → [`Verdict`]: the one way from pixels to a decision, the same for the agent and for the trainer's
//! evaluation.
//!
//! ```text
//! image ─fit─► u8 [1,H,W,3] ─engine─► map [h,w] ─bilinear─► [H,W] ─Gaussian─► smoothed map ─top-k mean─► score ≥ threshold?
//!                                                                                  └─ ≥ pixel threshold ─► regions
//! ```
//!
//! Not here: what happens with a verdict (`events`), and how good the verdicts are (`train::metrics`).

mod calibrate;
mod counts;
mod golden;
mod heatmap;
mod quantile;
mod regions;
mod smooth;
mod verdict;

pub use calibrate::{CalibrationError, MIN_IMAGES, calibrate};
pub use counts::Counts;
pub use golden::{GoldenResult, golden_answer};
pub use heatmap::heatmap;
pub use quantile::quantile;
pub use regions::MAX_REGIONS;
pub use smooth::{image_score, smooth, top_k_mean};
pub use verdict::{Region, StageTimes, Verdict};

use crate::engine::{Engine, EngineError};
use crate::imaging::{self, RgbImage};
use ckaad_bundle::{Bundle, Manifest};
use std::time::Instant;

/// Why an image cannot be judged, and by which model.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum InspectError {
    #[error("model {name} {version}: {cause}")]
    Engine { name: String, version: String, cause: EngineError },
    #[error(
        "model {name} {version}: the manifest says {}x{} input pixels, the network takes {}x{}",
        manifest.0, manifest.1, network.0, network.1
    )]
    InputSize { name: String, version: String, manifest: (usize, usize), network: (usize, usize) },
    #[error(
        "model {name} {version}: the manifest's output_stride makes a map of {}x{}, the network gives {}x{}",
        manifest.0, manifest.1, network.0, network.1
    )]
    MapSize { name: String, version: String, manifest: (usize, usize), network: (usize, usize) },
}

/// What the one who runs the model may set.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectOptions {
    /// Threads inside the network's matrix products.
    pub threads: usize,
    /// Replaces the bundle's threshold.
    pub threshold: Option<f32>,
}

impl Default for InspectOptions {
    fn default() -> Self {
        InspectOptions { threads: 1, threshold: None }
    }
}

/// A loaded model, ready to judge images.
pub struct Inspector {
    manifest: Manifest,
    engine: Engine,
    threshold: f32,
}

impl Inspector {
    /// Loads and plans the network of `bundle`.
    ///
    /// # Errors
    /// When the network cannot be run, or does not fit the manifest.
    pub fn new(bundle: &Bundle, options: &InspectOptions) -> Result<Inspector, InspectError> {
        let manifest = bundle.manifest.clone();
        let (name, version) = (manifest.name.clone(), manifest.version.to_string());
        let engine = match Engine::load(&bundle.model, options.threads) {
            Ok(engine) => engine,
            Err(cause) => return Err(InspectError::Engine { name, version, cause }),
        };
        let stated = (manifest.input.width as usize, manifest.input.height as usize);
        if engine.input_size() != stated {
            return Err(InspectError::InputSize { name, version, manifest: stated, network: engine.input_size() });
        }
        let stride = (manifest.output_stride as usize).max(1);
        let map = (stated.0 / stride, stated.1 / stride);
        if engine.map_size() != map {
            return Err(InspectError::MapSize { name, version, manifest: map, network: engine.map_size() });
        }
        let threshold = options.threshold.unwrap_or(manifest.calibration.threshold);
        Ok(Inspector { manifest, engine, threshold })
    }

    /// The manifest of the bundle that it was made from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Quantised operators that the int8 engine leaves to tract; see [`Engine::unfused`].
    pub fn unfused(&self) -> &[String] {
        self.engine.unfused()
    }

    /// The score from which an image is defective: the bundle's, or [`InspectOptions::threshold`].
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Judges one image of any size.
    ///
    /// # Errors
    /// When the network stops or gives values that are not finite.
    pub fn inspect(&mut self, image: &RgbImage) -> Result<Verdict, InspectError> {
        let started = Instant::now();
        let (pixels, placement) = imaging::resize(image, &self.manifest.input);
        let fitted = Instant::now();
        let map = self.engine.run(&pixels).map_err(|cause| InspectError::Engine {
            name: self.manifest.name.clone(),
            version: self.manifest.version.to_string(),
            cause,
        })?;
        let ran = Instant::now();
        let (width, height) = (self.manifest.input.width as usize, self.manifest.input.height as usize);
        let smoothed = smooth(map.view(), (height, width), self.manifest.score.sigma_px);
        let score = image_score(smoothed.view(), &self.manifest.score);
        let pixel_threshold = self.manifest.calibration.pixel_threshold;
        let regions = if score >= self.threshold {
            regions::find(smoothed.view(), pixel_threshold, &placement, image.dimensions())
        } else {
            vec![]
        };
        let times = StageTimes { resize: fitted - started, engine: ran - fitted, score: ran.elapsed() };
        Ok(Verdict { score, threshold: self.threshold, map: smoothed, placement, pixel_threshold, regions, times })
    }
}
