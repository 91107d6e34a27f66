//! A loaded bundle.

use super::EnginePool;
use crate::events::{CameraPhase, CameraState, ModelRef};
use ckaad_bundle::{Bundle, BundleError, Calibration};
use ckaad_inspect::{InspectError, InspectOptions, Inspector};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// Why a bundle cannot judge.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is.
pub enum ModelError {
    #[error(transparent)]
    Bundle(#[from] Box<BundleError>),
    #[error("the bundle {0} cannot be run: {1}")]
    Inspect(PathBuf, Box<InspectError>),
}

/// A bundle, ready to judge; shared by the cameras that judge with it.
pub struct Model {
    /// What events call it.
    pub reference: ModelRef,
    /// Of its training images, as what computes here judges them.
    pub calibration: Calibration,
    /// The one way from an image to a verdict.
    pub inspector: Inspector,
    /// What computes: `cpu`, or `onnxruntime` and its provider.
    pub backend: String,
    /// Why an accelerator that is configured does not.
    pub declined: Option<String>,
}

impl Model {
    /// Reads and plans a bundle, for the accelerator of `engine` or else for its threads; the bundle is given back for its golden samples.
    ///
    /// # Errors
    /// It is no good bundle, or cannot be run here.
    pub fn load(path: &Path, engine: &EnginePool) -> Result<(Model, Bundle), ModelError> {
        let bundle = Bundle::read(path).map_err(Box::new)?;
        let threads = engine.settings().each();
        let accelerated = engine.accelerator().map(|accelerator| accelerator.load(&bundle, threads)).transpose();
        let (accelerated, declined) = accelerated.map_or_else(|why| (None, Some(why)), |inspector| (inspector, None));
        let inspector = match accelerated {
            Some(inspector) => inspector,
            None => {
                let options = InspectOptions { pool: engine.pool(), ..InspectOptions::default() };
                Inspector::new(&bundle, &options).map_err(|e| ModelError::Inspect(path.to_owned(), Box::new(e)))?
            }
        };
        let backend = inspector.provider().map_or("cpu".into(), |provider| format!("onnxruntime {}", provider.name()));
        let (name, version) = (&bundle.manifest.name, &bundle.manifest.version);
        match &declined {
            Some(why) => tracing::warn!("model {name} {version} is judged by the processor: {why}"),
            None if inspector.provider().is_some() => tracing::info!("model {name} {version} runs in {backend}"),
            None => {}
        }
        let reference = ModelRef {
            name: bundle.manifest.name.clone(),
            version: bundle.manifest.version.to_string(),
            digest: bundle.digest.clone(),
        };
        let calibration = inspector.calibration().clone();
        Ok((Model { reference, calibration, inspector, backend, declined }, bundle))
    }
    /// What a camera that judges with it says of itself.
    pub fn camera_state(&self, state: CameraPhase, reason: String, fps: f64, since: Timestamp) -> CameraState {
        CameraState {
            state,
            reason,
            fps,
            since,
            model: self.reference.clone(),
            backend: self.backend.clone(),
            backend_declined: self.declined.clone().unwrap_or_default(),
        }
    }
}
