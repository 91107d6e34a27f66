//! What judges as a bundle will, before there is one.

use super::ExportError;
use ckaad_bundle::{Bundle, Draft, GoldenAnswer};
use ckaad_inspect::imaging::RgbImage;
use ckaad_inspect::{InspectOptions, Inspector};

/// What judges as the bundle will.
pub fn inspector(draft: Draft) -> Result<Inspector, ExportError> {
    let Draft { manifest, model, forest, segments, gpu, .. } = draft;
    let (golden, report, digest) = (vec![], None, String::new());
    let bundle = Bundle { manifest, model, golden, forest, segments, gpu, report, digest };
    Ok(Inspector::new(&bundle, &InspectOptions::default())?)
}

/// What is kept of the verdicts on the views of a part.
pub fn golden_answers(inspector: &Inspector, images: &[RgbImage]) -> Result<Vec<GoldenAnswer>, ExportError> {
    let verdicts = inspector.inspect_part(&images.iter().collect::<Vec<_>>(), inspector.limits())?;
    Ok(verdicts.iter().map(ckaad_inspect::golden_answer).collect())
}
