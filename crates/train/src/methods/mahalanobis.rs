//! How far an image as a whole is from normal ones: the Mahalanobis distance of its pooled frozen features to a Gaussian of
//! those of normal images (as Rippel, Mertens and Merhof 2020, arXiv 2005.14140, with probabilistic principal components
//! in place of a full covariance). No label teaches it, and so it knows kinds of defects that nobody has shown.

use super::pooled::{pools, values};
use super::{Method, MethodError, TrainingImages, checkpoint};
use crate::features::Extractor;
use crate::graph::{self, Graph, Id, Term};
use crate::whitening::Whitening;
use ndarray::Axis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[mahalanobis]` of the training config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MahalanobisConfig {
    /// Strides of the backbone whose channels are pooled.
    pub strides: Vec<usize>,
    /// As `pooled.one_in`.
    pub one_in: usize,
    /// Directions in which normal images spread each in its own way, at most.
    pub directions: usize,
}

impl Default for MahalanobisConfig {
    fn default() -> Self {
        MahalanobisConfig { strides: vec![8, 16, 32], one_in: 50, directions: 128 }
    }
}

/// The term.
const MAHALANOBIS: Term = Term::image("mahalanobis");

/// The method.
pub struct Mahalanobis {
    config: MahalanobisConfig,
    /// `None` until it has learned.
    learned: Option<graph::Mahalanobis>,
}

impl Mahalanobis {
    /// Without a mean yet.
    pub fn new(config: MahalanobisConfig) -> Mahalanobis {
        Mahalanobis { config, learned: None }
    }

    fn pools(&self, graph: &mut Graph, extractor: &Extractor) -> Vec<Id> {
        pools(graph, extractor, &self.config.strides, self.config.one_in)
    }
}

impl Method for Mahalanobis {
    fn name(&self) -> String {
        "mahalanobis".into()
    }

    fn terms(&self) -> Vec<Term> {
        vec![MAHALANOBIS]
    }

    fn learn(&mut self, images: &TrainingImages) -> Result<(), MethodError> {
        let rows = values(images, &self.config.strides, self.config.one_in)?;
        let normal: Vec<usize> =
            images.iter().enumerate().filter(|(_, image)| image.sample.defect.is_none()).map(|(i, _)| i).collect();
        let whitening = Whitening::of(rows.select(Axis(0), &normal).view(), self.config.directions);
        self.learned = Some(whitening.mahalanobis());
        Ok(())
    }

    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let pools = self.pools(graph, extractor);
        let columns = pools.iter().map(|&id| graph.shape(id)[0]).sum();
        // Untrained, it has its size but says nothing.
        let untrained = || graph::Mahalanobis {
            mean: vec![0.0; columns],
            inverse: vec![0.0; columns],
            directions: vec![0.0; columns * self.config.directions],
        };
        let distance = self.learned.clone().unwrap_or_else(untrained);
        vec![(MAHALANOBIS, graph.mahalanobis("mahalanobis", pools, distance))]
    }

    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        checkpoint::write(&folder.join(FILE), &self.learned)
    }

    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        let path = folder.join(FILE);
        let learned: graph::Mahalanobis = checkpoint::read(&path)?;
        let columns = learned.mean.len();
        if columns == 0 || learned.inverse.len() != columns || !learned.directions.len().is_multiple_of(columns) {
            return Err(MethodError::checkpoint(
                &path,
                "as many deviations as means, and whole directions, are expected",
            ));
        }
        self.learned = Some(learned);
        Ok(())
    }
}

/// Name of the file in a checkpoint.
const FILE: &str = "mahalanobis.json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Pool;
    use crate::onnx::emit_f32;
    use ckaad_inspect::engine::Plan;
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The exported graph gives the length of what it pools in the coordinates that were learned, with directions of
    /// their own and without any.
    #[test]
    fn the_graph_gives_the_length_in_the_coordinates_of_normal_images() {
        const SIDE: usize = 32;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let images: Vec<Vec<u8>> = (0..24)
            .map(|_| {
                let bright = random.random_range(20..200);
                (0..3 * SIDE * SIDE).map(|_| bright + random.random_range(0..40)).collect()
            })
            .collect();
        let mut graph = Graph::new(SIDE, SIDE);
        let halved = graph.max_pool("halved", Graph::IMAGE);
        let pools = [Graph::IMAGE, halved].map(|id| graph.pool(format!("pool.{id}"), id, Pool { one_in: 50 }));
        let run = |graph: &Graph, ids: &[Id]| -> Array2<f64> {
            let plan = Plan::load(&emit_f32(graph, Some(ids)), 1).unwrap();
            let rows: Vec<Vec<f32>> = images.iter().map(|image| plan.run(image).unwrap().concat()).collect();
            Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| f64::from(rows[i][j]))
        };
        let values = run(&graph, &pools);
        assert_eq!(values.ncols(), 18);
        for directions in [0, 3] {
            let whitening = Whitening::of(values.view(), directions);
            let mut graph = graph.clone();
            let id = graph.mahalanobis("distance", pools.to_vec(), whitening.mahalanobis());
            let found = run(&graph, &[id]);
            for (white, found) in whitening.rows(values.view()).rows().into_iter().zip(found.rows()) {
                let expected = (white.dot(&white) / 18.0).sqrt();
                // Single precision takes the small difference of two large squares.
                assert!((found[0] - expected).abs() < 1e-2 * expected, "{} {expected}", found[0]);
            }
        }
    }
}
