//! What a method keeps in its folder of a checkpoint: what it learned in a pass as one JSON file, a network with its optimiser as two of burn's.

use super::MethodError;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use ckaad_bundle::replace;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// Writes `learned` into `file`, whole or not at all.
pub(super) fn write(file: &Path, learned: &impl Serialize) -> Result<(), MethodError> {
    let text = serde_json::to_vec(learned).map_err(|e| MethodError::checkpoint(file, e))?;
    replace(file, |out| out.write_all(&text)).map_err(|e| MethodError::checkpoint(file, e))
}

/// Reads what [`write`] wrote.
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Result<T, MethodError> {
    let text = std::fs::read(file).map_err(|e| MethodError::checkpoint(file, e))?;
    serde_json::from_slice(&text).map_err(|e| MethodError::checkpoint(file, e))
}

/// Writes `name.bpk` and `name-optimiser.bpk` into `folder`.
pub(super) fn write_network(
    folder: &Path,
    name: &str,
    network: &impl Module,
    optimiser: &ModuleOptimizer,
) -> Result<(), MethodError> {
    let failed = |cause: String| MethodError::checkpoint(folder, cause);
    network.clone().save_file(folder.join(format!("{name}.bpk"))).map_err(|e| failed(e.to_string()))?;
    optimiser.save(folder.join(format!("{name}-optimiser.bpk"))).map_err(|e| failed(e.to_string()))
}

/// Reads what [`write_network`] wrote into a network and an optimiser of the same kind.
pub(super) fn read_network<M: Module>(
    folder: &Path,
    name: &str,
    network: M,
    optimiser: ModuleOptimizer,
) -> Result<(M, ModuleOptimizer), MethodError> {
    let failed = |cause: String| MethodError::checkpoint(folder, cause);
    let network = network.try_load_file(folder.join(format!("{name}.bpk"))).map_err(|e| failed(e.to_string()))?;
    let optimiser = optimiser.load(folder.join(format!("{name}-optimiser.bpk"))).map_err(|e| failed(e.to_string()))?;
    Ok((network, optimiser))
}
