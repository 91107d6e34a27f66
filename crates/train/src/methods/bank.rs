//! The baseline: distance to the nearest of a bank of normal patches (as PatchCore, Roth et al. 2022, arXiv 2106.08265:
//! features averaged over 3x3 cells, scales brought to one grid, a greedy k-centre coreset). No training; exported, it
//! is one 1x1 convolution.

use super::{Method, MethodError, TrainingImages};
use crate::features::Extractor;
use crate::graph::{self, Graph, Id, Joint, Term};
use ckaad_bundle::replace;
use ndarray::ArrayView3;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// `[bank]` of the training config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BankConfig {
    /// Patch vectors that are kept.
    pub vectors: usize,
    /// Input pixels a cell of the grid; one of `features.strides`.
    pub stride: usize,
}

impl Default for BankConfig {
    fn default() -> Self {
        BankConfig { vectors: 1024, stride: 8 }
    }
}

/// Distance of every patch to the nearest of the bank.
const DISTANCE: Term = Term::map("distance");

/// The method.
pub struct Bank(Coreset);

impl Bank {
    /// An empty bank.
    pub fn new(config: BankConfig) -> Bank {
        Bank(Coreset::new(config))
    }

    fn patches(&self, graph: &mut Graph, extractor: &Extractor) -> Id {
        self.0.patches(graph, extractor, "patches", extractor.taps.clone())
    }
}

/// The most different patches of normal images, and the grid on which patches lie.
pub(super) struct Coreset {
    config: BankConfig,
    /// Empty until it has learned.
    bank: graph::Bank,
}

impl Coreset {
    /// Empty.
    pub fn new(config: BankConfig) -> Coreset {
        Coreset { config, bank: graph::Bank { vectors: vec![], channels: 1 } }
    }

    /// Appends the grid of patch vectors of `scales`, which have the sizes of the extractor's taps.
    pub fn patches(&self, graph: &mut Graph, extractor: &Extractor, name: &str, scales: Vec<Id>) -> Id {
        let grid = extractor.tap(self.config.stride).unwrap_or(extractor.taps[0]);
        let [_, h, w] = graph.shape(grid);
        graph.joint(name, scales, Joint { smooth: true, unit: false }, [h, w])
    }

    /// Keeps the most different of what `patches` of `graph` gives for the normal images.
    pub fn learn(&mut self, images: &TrainingImages, graph: &Graph, patches: Id) -> Result<(), MethodError> {
        let normal = images.normal();
        let mut candidates = Candidates::new(graph.shape(patches)[0], normal.len(), images.seed());
        images.each(graph, patches, &normal, "patches", |map| candidates.add(map.view()))?;
        self.bank = candidates.coreset(self.config.vectors);
        Ok(())
    }

    /// Appends the distance of `patches` to the nearest.
    pub fn append(&self, graph: &mut Graph, name: &str, patches: Id) -> Id {
        let mut bank = self.bank.clone();
        if bank.vectors.is_empty() {
            // Untrained, it has its size but says nothing.
            bank.channels = graph.shape(patches)[0];
            bank.vectors = vec![0.0; self.config.vectors * bank.channels];
        }
        graph.nearest(name, patches, bank)
    }

    /// Writes it into `folder`, whole or not at all.
    pub fn save(&self, folder: &Path) -> Result<(), MethodError> {
        save(&self.bank, &folder.join(FILE))
    }

    /// Reads what [`Coreset::save`] wrote.
    pub fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.bank = load(&folder.join(FILE))?;
        Ok(())
    }
}

impl Method for Bank {
    fn name(&self) -> String {
        "bank".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![DISTANCE]
    }

    fn learn(&mut self, images: &TrainingImages) -> Result<(), MethodError> {
        let mut graph = images.extractor().graph.clone();
        let patches = self.patches(&mut graph, images.extractor());
        self.0.learn(images, &graph, patches)
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let patches = self.patches(graph, extractor);
        vec![(DISTANCE, self.0.append(graph, "distance", patches))]
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        self.0.save(folder)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        self.0.load(folder)
    }
}

/// Vectors that the coreset is chosen from: enough to cover a set of parts, few enough for seconds.
const CANDIDATES: usize = 20_000;

/// Patch vectors of normal images, from which a coreset keeps the most different.
struct Candidates {
    channels: usize,
    vectors: Vec<f32>,
    rng: StdRng,
    per_image: usize,
}

impl Candidates {
    /// None yet; they will come from so many images.
    fn new(channels: usize, images: usize, seed: u64) -> Candidates {
        let per_image = CANDIDATES.div_ceil(images.max(1));
        Candidates { channels, vectors: vec![], rng: StdRng::seed_from_u64(seed), per_image }
    }

    /// Takes a random share of the patches of `map`, `[channels,h,w]`.
    fn add(&mut self, map: ArrayView3<f32>) {
        let (_, _, width) = map.dim();
        let cells = map.len() / self.channels;
        let mut order: Vec<usize> = (0..cells).collect();
        let (chosen, _) = order.partial_shuffle(&mut self.rng, self.per_image.min(cells));
        for &mut cell in chosen {
            self.vectors.extend((0..self.channels).map(|c| map[[c, cell / width, cell % width]]));
        }
    }

    /// Greedy k-centre: again and again the vector that is furthest from all that were chosen.
    fn coreset(self, count: usize) -> graph::Bank {
        let channels = self.channels;
        let rows: Vec<&[f32]> = self.vectors.chunks_exact(channels).collect();
        let mut nearest = vec![f32::INFINITY; rows.len()];
        let mut vectors = Vec::with_capacity(count * channels);
        let mut next = 0;
        for _ in 0..count.min(rows.len()) {
            let centre = rows[next];
            vectors.extend_from_slice(centre);
            nearest.par_iter_mut().zip(&rows).with_min_len(512).for_each(|(d, row)| {
                let squared = row.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                *d = d.min(squared);
            });
            next = (0..nearest.len()).max_by(|&a, &b| nearest[a].total_cmp(&nearest[b])).unwrap_or(0);
        }
        graph::Bank { vectors, channels }
    }
}

/// Name of the bank in a checkpoint.
const FILE: &str = "bank.safetensors";
const KEY: &str = "bank";

/// Writes the bank, whole or not at all.
fn save(bank: &graph::Bank, path: &Path) -> Result<(), MethodError> {
    let failed = |cause: String| MethodError::checkpoint(path, cause);
    let bytes: Vec<u8> = bank.vectors.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = vec![bank.vectors.len() / bank.channels, bank.channels];
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(|e| failed(e.to_string()))?;
    let file = serialize([(KEY, view)], None).map_err(|e| failed(e.to_string()))?;
    replace(path, |out| out.write_all(&file)).map_err(|e| failed(e.to_string()))
}

/// Reads what [`save`] wrote.
fn load(path: &Path) -> Result<graph::Bank, MethodError> {
    let failed = |cause: String| MethodError::checkpoint(path, cause);
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
    let view = file.tensor(KEY).map_err(|e| failed(e.to_string()))?;
    let (Dtype::F32, [_, channels]) = (view.dtype(), view.shape()) else {
        return Err(failed(format!("an f32 matrix is expected, found {:?} {:?}", view.dtype(), view.shape())));
    };
    let vectors = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(graph::Bank { vectors, channels: *channels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn the_coreset_covers_far_clusters_first() {
        // 1,000 cells around 0 and one each at 10 and at -10, two channels.
        let mut map = Array3::zeros((2, 1, 1002));
        (0..1000).for_each(|i| map[[0, 0, i]] = i as f32 * 1e-4);
        (map[[0, 0, 1000]], map[[0, 0, 1001]]) = (10.0, -10.0);
        let mut candidates = Candidates::new(2, 1, 1);
        candidates.add(map.view());
        let bank = candidates.coreset(3);
        let mut firsts: Vec<i32> = bank.vectors.chunks(2).map(|v| v[0].round() as i32).collect();
        firsts.sort();
        assert_eq!(firsts, [-10, 0, 10]);
    }

    #[test]
    fn a_bank_comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bank.safetensors");
        let bank = graph::Bank { vectors: vec![1.0, 2.0, 3.0, 4.0], channels: 2 };
        save(&bank, &path).unwrap();
        assert_eq!(load(&path).unwrap(), bank);
        std::fs::write(&path, b"no").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("bank.safetensors"));
    }
}
