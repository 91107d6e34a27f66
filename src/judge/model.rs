//! A loaded bundle.

use crate::events::ModelRef;
use ckaad_bundle::{Bundle, BundleError, Calibration, Input};
use ckaad_inspect::engine::Pool;
use ckaad_inspect::imaging::{self, RgbImage};
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

/// What times are measured with: the first golden sample, or a grey picture where there is none.
pub fn sample_picture(bundle: &Bundle) -> RgbImage {
    let golden = bundle.golden.first().and_then(|g| imaging::decode(&g.png, "golden sample".as_ref()).ok());
    golden.unwrap_or_else(|| grey_picture(bundle.manifest.input))
}

/// A picture of the model's own size that shows nothing.
pub fn grey_picture(input: Input) -> RgbImage {
    RgbImage::from_pixel(input.width, input.height, image::Rgb([127; 3]))
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
