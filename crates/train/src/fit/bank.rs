//! Filling the bank of normal patches.

use super::FitError;
use crate::config::TrainConfig;
use crate::export::graph::Bank;
use crate::export::onnx;
use crate::features::{Extractor, FeatureError};
use crate::methods::nearest::{self, Candidates};
use crate::progress::Progress;
use crate::run::{self, Run, RunInfo};
use ckaad_inspect::engine::Plan;

/// Chooses the bank out of the patches of the normal training images and keeps it in the run. `None` when none is wanted.
pub fn fill(
    config: &TrainConfig,
    run: &Run,
    extractor: &Extractor,
    info: &RunInfo,
    progress: &Progress,
) -> Result<Option<Bank>, FitError> {
    let path = run.path(nearest::FILE);
    if config.bank.vectors == 0 {
        return Ok(None);
    }
    if path.exists() {
        return Ok(Some(nearest::load(&path)?));
    }
    let mut graph = extractor.graph.clone();
    let patches = nearest::patches(&mut graph, &extractor.taps, extractor.taps[extractor.scale_of(config.bank.stride)]);
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
    Ok(Some(bank))
}
