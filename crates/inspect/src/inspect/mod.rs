//! Bundle + image → [`Verdict`]: the one way from pixels to a decision, the same for the agent and for the trainer's
//! evaluation.
//!
//! ```text
//! image ─fit─► u8 [V,H,W,3] ─engine─► map [h,w] ─bilinear─► [H,W] ─Gaussian─► smoothed map ─rule─► map score ─fuse─► score ≥ threshold?
//!                                │                                                 └─ ≥ pixel threshold ─► regions   │
//!                                └─► image score, where the model has one ───────────────────────────────────────────┘
//! ```
//!
//! Not here: what happens with a verdict (`events`), and how good the verdicts are (`train::metrics`).

mod calibrate;
mod counts;
mod forest;
mod golden;
mod heatmap;
mod quantile;
mod regions;
mod score;
mod smooth;
mod verdict;

pub use calibrate::{CalibrationError, MIN_IMAGES, Prospect, calibrate, expected};
pub use counts::Counts;
pub use forest::{Forest, ForestError, MAX_NODES, MAX_TREES, Node, SegmentForest, segment_features};
pub use golden::{GoldenResult, golden_answer};
pub use heatmap::heatmap;
pub use quantile::quantile;
pub use regions::MAX_REGIONS;
pub use score::{fuse, map_score, top_k_mean};
pub use smooth::smooth;
pub use verdict::{DecidedBy, Limits, Region, StageTimes, Verdict};

use crate::engine::{Engine, EngineError, Outputs, Pool, Provider, RuntimeOptions};
use crate::imaging::{self, RgbImage};
use ckaad_bundle::{Bundle, Calibration, Manifest, ScoreRule};
use ndarray::{Array2, ArrayView2};
use std::time::{Duration, Instant};

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
    #[error("model {name} {version}: it takes {views} view(s) of a part at once, and was shown {shown}")]
    Views { name: String, version: String, views: usize, shown: usize },
    #[error("model {name} {version}: the manifest says {manifest} views, the network takes {network}")]
    ViewCount { name: String, version: String, manifest: usize, network: usize },
    #[error("model {name} {version}: the manifest has score.image, the network has no output image_score")]
    NoImageScore { name: String, version: String },
    #[error("model {name} {version}: the network has the output image_score, the manifest has no score.image")]
    NoImageBranch { name: String, version: String },
    #[error("model {name} {version}: {cause}")]
    Forest { name: String, version: String, cause: ForestError },
    #[error("model {name} {version}: an image has the score {score}, which is not finite")]
    Score { name: String, version: String, score: f32 },
}

/// What the one who runs the model may set.
#[derive(Clone, Debug)]
pub struct InspectOptions {
    /// The threads of the network.
    pub pool: Pool,
    /// Replaces the bundle's threshold.
    pub threshold: Option<f32>,
    /// Compute in ONNX Runtime, by the network for a GPU where the bundle has one. There is no way back: who falls back to the own engine says so.
    pub runtime: Option<RuntimeOptions>,
}

impl Default for InspectOptions {
    fn default() -> Self {
        InspectOptions { pool: 1.into(), threshold: None, runtime: None }
    }
}

/// A loaded model, ready to judge images.
pub struct Inspector {
    manifest: Manifest,
    engine: Engine,
    forest: Option<SegmentForest>,
    /// Of the network that computes.
    calibration: Calibration,
    threshold: f32,
    /// It computes by the network for a GPU.
    for_gpu: bool,
}

impl Inspector {
    /// Loads and plans the network of `bundle`.
    ///
    /// # Errors
    /// When the network cannot be run, or it, or the forest of the score rule, does not fit the manifest.
    pub fn new(bundle: &Bundle, options: &InspectOptions) -> Result<Inspector, InspectError> {
        let manifest = bundle.manifest.clone();
        let (name, version) = (manifest.name.clone(), manifest.version.to_string());
        let forest = match SegmentForest::of(bundle) {
            Ok(forest) => forest,
            Err(cause) => return Err(InspectError::Forest { name, version, cause }),
        };
        let gpu = bundle.gpu.as_ref().filter(|_| options.runtime.is_some());
        let model = gpu.map_or(&bundle.model, |gpu| &gpu.model);
        let engine = match &options.runtime {
            None => Engine::load(model, options.pool.clone()),
            Some(runtime) if gpu.is_none() && runtime.providers != [Provider::Cpu] => {
                Err(EngineError::Runtime("the bundle has no network for a GPU (`ckaad-train export --gpu`)".into()))
            }
            Some(runtime) => Engine::in_runtime(model, runtime),
        };
        let engine = match engine {
            Ok(engine) => engine,
            Err(cause) => return Err(InspectError::Engine { name, version, cause }),
        };
        let views = manifest.views as usize;
        if engine.views() != views {
            return Err(InspectError::ViewCount { name, version, manifest: views, network: engine.views() });
        }
        let stated = (manifest.input.width as usize, manifest.input.height as usize);
        if engine.input_size() != stated {
            return Err(InspectError::InputSize { name, version, manifest: stated, network: engine.input_size() });
        }
        let stride = (manifest.output_stride as usize).max(1);
        let map = (stated.0 / stride, stated.1 / stride);
        if engine.map_size() != map {
            return Err(InspectError::MapSize { name, version, manifest: map, network: engine.map_size() });
        }
        match (manifest.score.image.is_some(), engine.has_image_score()) {
            (true, false) => return Err(InspectError::NoImageScore { name, version }),
            (false, true) => return Err(InspectError::NoImageBranch { name, version }),
            _ => {}
        }
        let for_gpu = gpu.is_some();
        let own = manifest.gpu_calibration.as_ref().filter(|_| for_gpu);
        let calibration = own.unwrap_or(&manifest.calibration).clone();
        let threshold = options.threshold.unwrap_or(calibration.threshold);
        Ok(Inspector { manifest, engine, forest, calibration, threshold, for_gpu })
    }

    /// The manifest of the bundle that it was made from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Of normal images, as the network that computes here judges them: with [`InspectOptions::runtime`] that for a GPU, where the bundle has one.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Quantised operators that the int8 engine leaves to tract; see [`Engine::unfused`].
    pub fn unfused(&self) -> &[String] {
        self.engine.unfused()
    }

    /// Which of ONNX Runtime's providers computes; none where the own engine does.
    pub fn provider(&self) -> Option<Provider> {
        self.engine.provider()
    }

    /// The score from which an image is defective: the bundle's, or [`InspectOptions::threshold`].
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Judges one image of any size. Several threads may judge at one time.
    ///
    /// # Errors
    /// When the network stops or gives values that are not finite.
    pub fn inspect(&self, image: &RgbImage) -> Result<Verdict, InspectError> {
        self.inspect_within(image, self.limits())
    }

    /// The bundle's own limits, but for [`InspectOptions::threshold`].
    pub fn limits(&self) -> Limits {
        Limits { threshold: self.threshold, smallest_region_px: 0.0 }
    }

    /// As [`Inspector::inspect`], defective from these limits on: cameras that share a model have their own.
    ///
    /// # Errors
    /// As [`Inspector::inspect`].
    pub fn inspect_within(&self, image: &RgbImage, limits: Limits) -> Result<Verdict, InspectError> {
        Ok(self.inspect_part(&[image], limits)?.swap_remove(0))
    }

    /// Judges the views of one part, in the order of [`Manifest::view_names`]: a verdict each.
    ///
    /// # Errors
    /// As [`Inspector::inspect`]; or there are not as many as the model takes at once.
    pub fn inspect_part(&self, images: &[&RgbImage], limits: Limits) -> Result<Vec<Verdict>, InspectError> {
        let named = || (self.manifest.name.clone(), self.manifest.version.to_string());
        if images.len() != self.manifest.views as usize {
            let (name, version) = named();
            let (views, shown) = (self.manifest.views as usize, images.len());
            return Err(InspectError::Views { name, version, views, shown });
        }
        let share = |time: Duration| time / images.len() as u32;
        let started = Instant::now();
        let (pixels, placements): (Vec<_>, Vec<_>) =
            images.iter().map(|image| imaging::resize(image, &self.manifest.input)).unzip();
        let fitted = Instant::now();
        let outputs = self.engine.run(&pixels.concat()).map_err(|cause| {
            let (name, version) = named();
            InspectError::Engine { name, version, cause }
        })?;
        let (resize, engine) = (share(fitted - started), share(fitted.elapsed()));
        let seen = images.iter().zip(placements).zip(outputs);
        seen.map(|((image, placement), outputs)| {
            let times = StageTimes { resize, engine, score: Duration::ZERO };
            self.verdict(image, placement, outputs, limits, times)
        })
        .collect()
    }

    /// Judges an image as if every view showed it, for the time that it takes.
    ///
    /// # Errors
    /// As [`Inspector::inspect`].
    pub fn rehearse(&self, image: &RgbImage) -> Result<Vec<Verdict>, InspectError> {
        self.inspect_part(&vec![image; self.manifest.views as usize], self.limits())
    }

    /// Of one image, as far as `times` say.
    fn verdict(
        &self,
        image: &RgbImage,
        placement: imaging::Placement,
        outputs: Outputs,
        limits: Limits,
        times: StageTimes,
    ) -> Result<Verdict, InspectError> {
        let begun = Instant::now();
        let Limits { threshold, smallest_region_px } = limits;
        let Manifest { input, score: rule, .. } = &self.manifest;
        let smoothed = smooth(outputs.map.view(), (input.height as usize, input.width as usize), rule.sigma_px);
        let (map_score, segment) = self.map_score(smoothed.view());
        let score = fuse(map_score, outputs.image_score, rule);
        if !score.is_finite() {
            let (name, version) = (self.manifest.name.clone(), self.manifest.version.to_string());
            return Err(InspectError::Score { name, version, score });
        }
        let decided_by = match (score::larger(map_score, outputs.image_score, rule), segment) {
            (DecidedBy::Map, Some(label)) => DecidedBy::Segment(label),
            (decided_by, _) => decided_by,
        };
        let pixel_threshold = self.calibration.pixel_threshold;
        let (mut regions, mut too_small) = (vec![], false);
        if score >= threshold {
            let found =
                regions::find(smoothed.view(), pixel_threshold, smallest_region_px, &placement, image.dimensions());
            let without = |map: &Array2<f32>| fuse(self.map_score(map.view()).0, outputs.image_score, rule);
            too_small = found.regions.is_empty() && found.without_small.is_some_and(|map| without(&map) < threshold);
            // Whoever is told of a defect is told where.
            regions = if found.regions.is_empty() && !too_small { found.small } else { found.regions };
        }
        Ok(Verdict {
            score,
            map_score,
            image_score: outputs.image_score,
            decided_by,
            threshold,
            normal_score: self.calibration.median(),
            map: smoothed,
            placement,
            pixel_threshold,
            regions,
            smallest_region_px,
            too_small,
            times: StageTimes { score: begun.elapsed(), ..times },
        })
    }

    /// The score of a smoothed map, and with a forest the segment that it is owed to most.
    fn map_score(&self, map: ArrayView2<f32>) -> (f32, Option<u32>) {
        match (&self.manifest.score.rule, &self.forest) {
            (ScoreRule::Forest { tie_break, .. }, Some(forest)) => {
                let features = forest.features(map);
                (score::forest_score(map, forest, &features, *tie_break), forest.deciding(&features))
            }
            (rule, _) => (map_score(map, rule, None), None),
        }
    }
}
