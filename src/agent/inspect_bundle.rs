//! `bundle inspect` and `bundle verify`.

use super::Outcome;
use ckaad_bundle::{Bundle, BundleError, Precision};
use ckaad_inspect::console::{OutputError, say};
use ckaad_inspect::engine::instruction_set;
use ckaad_inspect::{InspectError, InspectOptions, Inspector};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the bundle {0} cannot be run: {1}")]
    Inspect(PathBuf, InspectError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Prints what a bundle is: a line a fact, or the manifest as JSON with the file's digest.
///
/// # Errors
/// The file is no good bundle.
pub fn show(path: &Path, json: bool) -> Result<Outcome, VerifyError> {
    let bundle = Bundle::read(path)?;
    if json {
        let shown = serde_json::json!({
            "digest": bundle.digest, "golden_samples": bundle.golden.len(), "gpu": bundle.gpu.is_some(),
            "report": bundle.report, "manifest": bundle.manifest,
        });
        say(format_args!("{shown:#}"))?;
        return Ok(Outcome::Well);
    }
    say(format_args!("{}", bundle.summary().trim_end()))?;
    if bundle.manifest.precision == Precision::Int8 {
        match Inspector::new(&bundle, &InspectOptions::default()) {
            Ok(inspector) if inspector.unfused().is_empty() => {
                say(format_args!("int8         every quantised operator is fused; {} kernels", instruction_set()))?;
            }
            Ok(inspector) => {
                for node in inspector.unfused() {
                    say(format_args!("not fused    {node}"))?;
                }
            }
            Err(e) => say(format_args!("int8         cannot be run here: {e}"))?,
        }
    }
    if let Some(gpu) = &bundle.gpu {
        let own = &bundle.manifest.calibration;
        let of_gpu = bundle.manifest.gpu_calibration.as_ref().unwrap_or(own);
        let pairs = bundle.golden.iter().zip(&gpu.golden);
        let apart = pairs.map(|(golden, gpu)| {
            (own.calibrated_score(golden.expected.score) - of_gpu.calibrated_score(gpu.score)).abs()
        });
        say(format_args!(
            "gpu          a network of {:.2} MB; golden scores lie up to {:.1} % of the threshold's distance from normal apart",
            gpu.model.len() as f64 / 1e6,
            100.0 * apart.fold(0.0, f32::max)
        ))?;
    }
    Ok(Outcome::Well)
}

/// Reads the bundle, which checks every digest, and judges its golden samples with this machine's engine.
///
/// # Errors
/// The file is no good bundle, or cannot be run. A golden sample that fails is an outcome, not an error.
pub fn verify(path: &Path) -> Result<Outcome, VerifyError> {
    let bundle = Bundle::read(path)?;
    let cannot = |e| VerifyError::Inspect(path.to_owned(), e);
    let inspector = Inspector::new(&bundle, &InspectOptions::default()).map_err(cannot)?;
    let results = inspector.check_golden(&bundle).map_err(cannot)?;
    for r in &results {
        let word = if r.passed { "ok  " } else { "FAIL" };
        let (n, expected, error) = (r.index, r.expected, r.max_grid_error);
        let Some(score) = r.score else {
            say(format_args!(
                "FAIL  golden sample {n}: its picture, or that of another view of the part, cannot be decoded"
            ))?;
            continue;
        };
        let image = r.image_score_error.map_or(String::new(), |error| format!(", image score differs by {error:.2e}"));
        say(format_args!(
            "{word}  golden sample {n}: score {score:.6}, expected {expected:.6}, map differs by at most {error:.2e}{image}"
        ))?;
    }
    let passed = results.iter().filter(|r| r.passed).count();
    let (name, version) = (&bundle.manifest.name, &bundle.manifest.version);
    say(format_args!("{name} {version}: every digest is right; {passed} of {} golden samples agree", results.len()))?;
    Ok(if passed == results.len() { Outcome::Well } else { Outcome::NotWell })
}
