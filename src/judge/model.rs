//! A loaded bundle.

use crate::events::ModelRef;
use ckaad_bundle::{Bundle, BundleError, Calibration};
use ckaad_inspect::engine::Pool;
use ckaad_inspect::{InspectError, InspectOptions, Inspector};
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
    /// Of its training images.
    pub calibration: Calibration,
    /// The one way from an image to a verdict.
    pub inspector: Inspector,
}

impl Model {
    /// Reads and plans a bundle, for the threads of `pool`, which is given back for its golden samples.
    ///
    /// # Errors
    /// It is no good bundle, or cannot be run here.
    pub fn load(path: &Path, pool: Pool) -> Result<(Model, Bundle), ModelError> {
        let bundle = Bundle::read(path).map_err(Box::new)?;
        let options = InspectOptions { pool, threshold: None };
        let inspector =
            Inspector::new(&bundle, &options).map_err(|e| ModelError::Inspect(path.to_owned(), Box::new(e)))?;
        let reference = ModelRef {
            name: bundle.manifest.name.clone(),
            version: bundle.manifest.version.to_string(),
            digest: bundle.digest.clone(),
        };
        let calibration = bundle.manifest.calibration.clone();
        Ok((Model { reference, calibration, inspector }, bundle))
    }
}
