//! What was trained, in inference form, and the graph of its map.

use super::ckaad::{AutoEncoder, Fold, PatchDiscriminator, Trainer};
use super::nearest::{self, PatchBank};
use crate::features::Extractor;
use crate::graph::{ChannelStatistics, Graph, MapWeights, Term};

/// Each part gives one term of the map.
pub struct Network {
    auto_encoder: Option<AutoEncoder>,
    /// What brings the features of each tap back from standardised to raw ones before errors are measured; `None`
    /// measures them as they are.
    raw: Option<Vec<ChannelStatistics>>,
    patch: Option<PatchDiscriminator>,
    bank: Option<PatchBank>,
}

impl Network {
    /// CKAAD's networks, and its bank where it has one.
    pub fn ckaad(trainer: &Trainer, raw: Option<&[ChannelStatistics]>, bank: Option<PatchBank>) -> Network {
        let (auto_encoder, patch) = trainer.networks();
        Network { auto_encoder: Some(auto_encoder), raw: raw.map(<[_]>::to_vec), patch, bank }
    }

    /// The baseline, which is nothing but its bank.
    pub fn nearest(bank: Option<PatchBank>) -> Network {
        Network { auto_encoder: None, raw: None, patch: None, bank }
    }

    /// The terms that it can give.
    pub fn terms(&self) -> Vec<Term> {
        let there = [
            (Term::Error, self.auto_encoder.is_some()),
            (Term::Energy, self.patch.is_some()),
            (Term::Distance, self.bank.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(term, _)| term).collect()
    }

    /// Extractor, networks, and the weighted sum of their maps as one graph. A term of weight 0 is left out with all
    /// that leads to it.
    pub fn graph(&self, extractor: &Extractor, weights: MapWeights) -> Graph {
        let mut graph = extractor.graph.clone();
        let taps = &extractor.taps;
        let (mut maps, mut factors) = (vec![], vec![]);
        if let Some(auto_encoder) = self.auto_encoder.as_ref().filter(|_| weights.error > 0.0) {
            let outputs = Fold { graph: &mut graph }.auto_encoder(auto_encoder, taps);
            for (i, (&tap, output)) in taps.iter().zip(outputs).enumerate() {
                let raw = self.raw.as_ref().map(|all| all[i].clone());
                maps.push(graph.cosine_error(format!("error.{i}"), tap, output, raw));
                factors.push(weights.error);
            }
        }
        if let Some(patch) = self.patch.as_ref().filter(|_| weights.energy > 0.0) {
            for energy in (Fold { graph: &mut graph }).energies(patch, taps) {
                maps.push(energy);
                factors.push(weights.energy);
            }
        }
        if let Some(PatchBank { bank, stride }) = self.bank.as_ref().filter(|_| weights.distance > 0.0) {
            let patches = nearest::patches(&mut graph, taps, taps[extractor.scale_of(*stride)]);
            maps.push(graph.nearest("distance", patches, bank.clone()));
            factors.push(weights.distance);
        }
        graph.sum_maps("map", maps, factors);
        graph
    }
}
