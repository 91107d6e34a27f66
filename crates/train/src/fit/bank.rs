//! Filling the bank of normal patches.

use super::{FitContext, FitError};
use crate::features::FeatureError;
use crate::methods::nearest::{self, Candidates, PatchBank};
use crate::{onnx, run};
use ckaad_inspect::engine::Plan;

/// Chooses the bank out of the patches of the normal training images and keeps it in the run. `None` when none is
/// wanted.
pub fn fill(context: &FitContext) -> Result<Option<PatchBank>, FitError> {
    let FitContext { config, run, extractor, info, progress } = *context;
    let (path, stride) = (run.path(nearest::FILE), config.bank.stride);
    if config.bank.vectors == 0 {
        return Ok(None);
    }
    if path.exists() {
        return Ok(Some(PatchBank { bank: nearest::load(&path)?, stride }));
    }
    let mut graph = extractor.graph.clone();
    let patches = nearest::patches(&mut graph, &extractor.taps, extractor.taps[extractor.scale_of(stride)]);
    let plan = Plan::load(&onnx::emit_f32(&graph, Some(&[patches])), 1).map_err(FeatureError::from)?;
    let samples = run::samples(&info.data, &info.split.train_normal);
    let mut candidates = Candidates::new(graph.shape(patches)[0], samples.len(), config.seed);
    let bar = progress.bar("patches", samples.len());
    for chunk in samples.chunks(32) {
        for maps in extractor.compute_with(&plan, chunk)? {
            candidates.add(maps[0].view());
        }
        bar.advance(chunk.len());
    }
    let bank = candidates.coreset(config.bank.vectors);
    nearest::save(&bank, &path)?;
    Ok(Some(PatchBank { bank, stride }))
}
