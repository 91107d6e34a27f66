//! A network that is trained, with what moves it.

use super::MethodError;
use super::clip::clip;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use std::path::Path;

/// Adam (Kingma and Ba 2015) with the values of its paper.
pub(super) fn adam() -> ModuleOptimizer {
    AdamConfig::new().init()
}

/// The network, and the state of its optimiser.
pub(super) struct Learner<M> {
    /// As it is now.
    pub network: M,
    optimiser: ModuleOptimizer,
    fresh: fn() -> ModuleOptimizer,
}

impl<M: Module> Learner<M> {
    /// `optimiser` makes one that has not moved anything yet.
    pub fn new(network: M, optimiser: fn() -> ModuleOptimizer) -> Learner<M> {
        Learner { network, optimiser: optimiser(), fresh: optimiser }
    }

    /// One step down the gradient of `loss`, which is scaled down to the length `limit`; 0 leaves it.
    pub fn step(&mut self, rate: f64, limit: f64, loss: &Tensor<1>) {
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        let gradients = clip(gradients, &self.network, limit);
        self.network = self.optimiser.step(rate, self.network.clone(), gradients);
    }

    /// Writes `name.bpk` and `name-optimiser.bpk` into `folder`.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), MethodError> {
        let failed = |cause: String| MethodError::checkpoint(folder, cause);
        let [network, optimiser] = files(name).map(|file| folder.join(file));
        self.network.clone().save_file(network).map_err(|e| failed(e.to_string()))?;
        self.optimiser.save(optimiser).map_err(|e| failed(e.to_string()))
    }

    /// Reads what [`Learner::save`] wrote; where that fails all stays as it was.
    pub fn load(&mut self, folder: &Path, name: &str) -> Result<(), MethodError> {
        let failed = |cause: String| MethodError::checkpoint(folder, cause);
        let [network, optimiser] = files(name).map(|file| folder.join(file));
        let network = self.network.clone().try_load_file(network).map_err(|e| failed(e.to_string()))?;
        let optimiser = (self.fresh)().load(optimiser).map_err(|e| failed(e.to_string()))?;
        (self.network, self.optimiser) = (network, optimiser);
        Ok(())
    }
}

fn files(name: &str) -> [String; 2] {
    [format!("{name}.bpk"), format!("{name}-optimiser.bpk")]
}
