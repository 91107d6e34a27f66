//! The baseline: distance to the nearest of a bank of normal patches (as PatchCore, Roth et al. 2022, arXiv 2106.08265:
//! features averaged over 3x3 cells, scales brought to one grid, a greedy k-centre coreset). No training; exported, it
//! is one 1x1 convolution.

use crate::graph::{Bank, Graph, Id, Joint};
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
use std::path::{Path, PathBuf};

/// The bank of normal patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BankConfig {
    /// Patch vectors that are kept; 0 leaves the bank out of a CKAAD model's map.
    pub vectors: usize,
    /// Input pixels a cell of the grid; one of `features.strides`.
    pub stride: usize,
}

impl Default for BankConfig {
    fn default() -> Self {
        BankConfig { vectors: 1024, stride: 8 }
    }
}

/// A bank, and the grid on which its patches lie.
pub struct PatchBank {
    /// The patches' vectors.
    pub bank: Bank,
    /// Input pixels a cell of the grid.
    pub stride: usize,
}

/// A bank cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("bank {path}: {reason}")]
pub struct BankError {
    path: PathBuf,
    reason: String,
}

/// Vectors that the coreset is chosen from: enough to cover a set of parts, few enough for seconds.
const CANDIDATES: usize = 20_000;

/// Appends the grid of patch vectors, at the resolution of `taps[grid]`.
pub fn patches(graph: &mut Graph, taps: &[Id], grid: Id) -> Id {
    let [_, h, w] = graph.shape(grid);
    graph.joint("patches", taps.to_vec(), Joint { smooth: true, unit: false }, [h, w])
}

/// Patch vectors of normal images, from which [`Candidates::coreset`] keeps the most different.
pub struct Candidates {
    channels: usize,
    vectors: Vec<f32>,
    rng: StdRng,
    per_image: usize,
}

impl Candidates {
    /// None yet; they will come from so many images.
    pub fn new(channels: usize, images: usize, seed: u64) -> Candidates {
        let per_image = CANDIDATES.div_ceil(images.max(1));
        Candidates { channels, vectors: vec![], rng: StdRng::seed_from_u64(seed), per_image }
    }

    /// Takes a random share of the patches of `map`, `[channels,h,w]`.
    pub fn add(&mut self, map: ArrayView3<f32>) {
        let (_, _, width) = map.dim();
        let cells = map.len() / self.channels;
        let mut order: Vec<usize> = (0..cells).collect();
        let (chosen, _) = order.partial_shuffle(&mut self.rng, self.per_image.min(cells));
        for &mut cell in chosen {
            self.vectors.extend((0..self.channels).map(|c| map[[c, cell / width, cell % width]]));
        }
    }

    /// Greedy k-centre: again and again the vector that is furthest from all that were chosen.
    pub fn coreset(self, count: usize) -> Bank {
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
        Bank { vectors, channels }
    }
}

/// Name of the bank in a checkpoint.
pub const FILE: &str = "bank.safetensors";
const KEY: &str = "bank";

/// Writes the bank, whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn save(bank: &Bank, path: &Path) -> Result<(), BankError> {
    let failed = |reason: String| BankError { path: path.to_owned(), reason };
    let bytes: Vec<u8> = bank.vectors.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = vec![bank.vectors.len() / bank.channels, bank.channels];
    let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(|e| failed(e.to_string()))?;
    let file = serialize([(KEY, view)], None).map_err(|e| failed(e.to_string()))?;
    replace(path, |out| out.write_all(&file)).map_err(|e| failed(e.to_string()))
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// It cannot be read, or holds no such matrix.
pub fn load(path: &Path) -> Result<Bank, BankError> {
    let failed = |reason: String| BankError { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
    let view = file.tensor(KEY).map_err(|e| failed(e.to_string()))?;
    let (Dtype::F32, [_, channels]) = (view.dtype(), view.shape()) else {
        return Err(failed(format!("an f32 matrix is expected, found {:?} {:?}", view.dtype(), view.shape())));
    };
    let vectors = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Bank { vectors, channels: *channels })
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
        let bank = Bank { vectors: vec![1.0, 2.0, 3.0, 4.0], channels: 2 };
        save(&bank, &path).unwrap();
        assert_eq!(load(&path).unwrap(), bank);
        std::fs::write(&path, b"no").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("bank.safetensors"));
    }
}
