//! Automatic mixed precision: which layers stay in float.
//!
//! A float layer between int8 ones still reads and hands on bytes; all that it gains is the rounding of its weights. So
//! whole blocks are tried, the neighbours that share a name up to its last dot: within one, floats pass on as floats.

use super::QuantiseError;
use super::config::QuantiseConfig;
use super::judge::{HeldOutSet, Quality, Reference, Regions, movement};
use crate::graph::{Graph, Id, Ranges};
use crate::onnx;
use crate::onnx::int8::{self, Dialect};
use ndarray::Array2;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// Held-out images of each class that sensitivities are measured on.
const PROBES: usize = 12;
/// Blocks whose sensitivity is measured one by one; deeper nets are cut more coarsely.
const MAX_BLOCKS: usize = 40;

/// What int8 costs and what was done about it; the bundle's report holds it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How ranges were found.
    pub calibration: super::Calibration,
    /// Images that ranges were measured on.
    pub images: usize,
    /// Layers that could be in int8 or in float.
    pub layers: usize,
    /// Names of the layers in float.
    pub float_layers: Vec<String>,
    /// Of the model in f32.
    pub f32: Quality,
    /// Of the model in int8.
    pub int8: Quality,
    /// What int8 loses of the image AUROC.
    pub image_auroc_loss: f64,
    /// What int8 loses of the AUPRO.
    pub aupro_loss: f64,
    /// Mean absolute difference of the smoothed maps in units of the f32 maps' standard deviation.
    pub moves_map_by: f64,
    /// What the AUPRO was measured against.
    pub regions: Regions,
    /// Whether both losses are within what the config allows.
    pub holds: bool,
    /// How far quantising one block alone moves the map, the worst first; empty where that was not needed.
    pub sensitivities: Vec<Sensitivity>,
    /// What was tried, the all-int8 model first.
    pub rounds: Vec<Round>,
}

/// What one block costs.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// What the names of its layers share.
    pub block: String,
    /// How many layers it has.
    pub layers: usize,
    /// As [`Report::moves_map_by`].
    pub moves_map_by: f64,
}

/// One model that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Layers in float.
    pub float_layers: usize,
    /// As [`Report::image_auroc_loss`].
    pub image_auroc_loss: f64,
    /// As [`Report::aupro_loss`].
    pub aupro_loss: f64,
}

impl fmt::Display for Report {
    /// One plain line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |n: Option<f64>| n.map_or("n/a".into(), |n| format!("{n:.4}"));
        write!(
            f,
            "int8 against f32 on held-out images: image AUROC {} against {}, AUPRO {} against {} by {}; {}",
            number(self.int8.image_auroc),
            number(self.f32.image_auroc),
            number(self.int8.aupro),
            number(self.f32.aupro),
            self.regions,
            if self.holds { "within the allowed losses" } else { "MORE than the allowed losses" },
        )?;
        match self.float_layers.len() {
            0 => write!(f, "; all {} layers in int8", self.layers),
            n => write!(f, "; {n} of {} layers in float: {}", self.layers, self.float_layers.join(", ")),
        }
    }
}

/// An int8 model that is good enough, or the best that was found.
pub struct MixedPrecision {
    /// The ONNX file.
    pub model: Vec<u8>,
    /// Smoothed maps of the held-out images.
    pub maps: Vec<Array2<f32>>,
    /// What was tried and what it costs.
    pub report: Report,
}

/// One graph with its measured ranges, to be written in int8 with any choice of layers in float.
pub struct Int8Graph<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// What its tensors cover.
    pub ranges: &'a Ranges,
    /// Images that the ranges were measured on.
    pub images: usize,
    /// What the config asks for.
    pub config: &'a QuantiseConfig,
    /// How int8 is written down.
    pub dialect: Dialect,
}

impl Int8Graph<'_> {
    /// The model with the layers of `float` in float.
    pub fn model(&self, float: &BTreeSet<Id>) -> Vec<u8> {
        self.with_outputs(None, float)
    }

    /// The same with other nodes as its outputs, which are float in any precision.
    pub fn with_outputs(&self, outputs: Option<&[Id]>, float: &BTreeSet<Id>) -> Vec<u8> {
        int8::emit(self.graph, outputs, &self.ranges.of(self.graph), |id| float.contains(&id), self.dialect)
    }

    /// The layers with these names.
    pub fn named(&self, asked: &[String]) -> BTreeSet<Id> {
        named(self.graph, asked)
    }

    /// The layers that the config wants in float.
    pub fn asked(&self) -> BTreeSet<Id> {
        self.named(&self.config.float_layers)
    }

    /// Leaves layers in float until the loss is small enough. `maps` are those of [`Int8Graph::model`] with what was
    /// [`Int8Graph::asked`].
    pub fn search(&self, held_out: &HeldOutSet, maps: Vec<Array2<f32>>) -> Result<MixedPrecision, QuantiseError> {
        let f32_maps = held_out.maps(&onnx::emit_f32(self.graph, None), "judging f32")?;
        let reference = Reference::of(held_out, &f32_maps)?;
        let mut best = self.judged(held_out, &reference, self.asked(), maps)?;
        let mut rounds = vec![best.round()];
        let mut sensitivities = vec![];
        if self.config.mixed && !best.holds(self.config) {
            let blocks = self.blocks();
            sensitivities = self.sensitivities(held_out, &blocks, &f32_maps)?;
            for float in self.steps(&blocks, &sensitivities) {
                let maps = held_out.maps(&self.model(&float), &format!("{} layers in float", float.len()))?;
                let next = self.judged(held_out, &reference, float, maps)?;
                rounds.push(next.round());
                if next.excess(self.config) < best.excess(self.config) {
                    best = next;
                }
                if best.holds(self.config) {
                    break;
                }
            }
        }
        let report = Report {
            calibration: self.config.calibration,
            images: self.images,
            layers: layers(self.graph).len(),
            float_layers: best.float.iter().map(|&id| self.graph.nodes[id].name.clone()).collect(),
            f32: reference.quality,
            int8: best.quality,
            image_auroc_loss: best.loss.0,
            aupro_loss: best.loss.1,
            moves_map_by: movement(&best.maps, &f32_maps.iter().collect::<Vec<_>>()),
            regions: reference.regions,
            holds: best.holds(self.config),
            sensitivities,
            rounds,
        };
        Ok(MixedPrecision { model: self.model(&best.float), maps: best.maps, report })
    }

    fn judged(
        &self,
        held_out: &HeldOutSet,
        reference: &Reference,
        float: BTreeSet<Id>,
        maps: Vec<Array2<f32>>,
    ) -> Result<Attempt, QuantiseError> {
        let quality = reference.judge(held_out, &maps)?;
        Ok(Attempt { float, quality, loss: quality.loss(&reference.quality), maps })
    }

    /// Neighbouring layers with what their names share, in the graph's order.
    fn blocks(&self) -> Vec<(String, Vec<Id>)> {
        let mut depth = 0;
        loop {
            let mut blocks: Vec<(String, Vec<Id>)> = vec![];
            for id in layers(self.graph) {
                let name = block(&self.graph.nodes[id].name, depth);
                match blocks.iter_mut().find(|(block, _)| block == name) {
                    Some((_, ids)) => ids.push(id),
                    None => blocks.push((name.to_owned(), vec![id])),
                }
            }
            if blocks.len() <= MAX_BLOCKS || depth >= 2 {
                return blocks;
            }
            depth += 1;
        }
    }

    /// How far each block moves the map when it alone is in int8, the worst first.
    fn sensitivities(
        &self,
        held_out: &HeldOutSet,
        blocks: &[(String, Vec<Id>)],
        f32_maps: &[Array2<f32>],
    ) -> Result<Vec<Sensitivity>, QuantiseError> {
        let all: BTreeSet<Id> = layers(self.graph).into_iter().collect();
        let probes: Vec<usize> =
            spread(0, held_out.normal).chain(spread(held_out.normal, held_out.samples.len())).collect();
        let expected: Vec<&Array2<f32>> = probes.iter().map(|&i| &f32_maps[i]).collect();
        let mut sensitivities = vec![];
        for (name, ids) in blocks {
            let float = all.iter().copied().filter(|id| !ids.contains(id)).collect();
            let maps = held_out.maps_of(&self.model(&float), &probes, &format!("sensitivity of {name}"))?;
            let moves_map_by = movement(&maps, &expected);
            sensitivities.push(Sensitivity { block: name.clone(), layers: ids.len(), moves_map_by });
        }
        sensitivities.sort_by(|a, b| b.moves_map_by.total_cmp(&a.moves_map_by));
        Ok(sensitivities)
    }

    /// Float layers of one round after the other: the worst block, the worst two, four, ..., as far as the config
    /// allows.
    fn steps(&self, blocks: &[(String, Vec<Id>)], worst_first: &[Sensitivity]) -> Vec<BTreeSet<Id>> {
        let mut float = self.asked();
        let (mut steps, mut taken, mut due) = (vec![], 0, 1);
        for sensitivity in worst_first {
            let ids = blocks.iter().filter(|(name, _)| *name == sensitivity.block).flat_map(|(_, ids)| ids);
            let with: BTreeSet<Id> = float.iter().chain(ids).copied().collect();
            if with.len() > self.config.max_float_layers {
                break;
            }
            float = with;
            taken += 1;
            if taken == due {
                steps.push(float.clone());
                due *= 2;
            }
        }
        // What is left of the allowance.
        if taken > 0 && steps.last() != Some(&float) {
            steps.push(float);
        }
        steps
    }
}

struct Attempt {
    float: BTreeSet<Id>,
    quality: Quality,
    /// Of image AUROC and AUPRO.
    loss: (f64, f64),
    maps: Vec<Array2<f32>>,
}

impl Attempt {
    fn holds(&self, config: &QuantiseConfig) -> bool {
        self.loss.0 <= config.auroc_loss && self.loss.1 <= config.aupro_loss
    }

    /// By how much the losses exceed what is allowed, together.
    fn excess(&self, config: &QuantiseConfig) -> f64 {
        (self.loss.0 - config.auroc_loss).max(0.0) + (self.loss.1 - config.aupro_loss).max(0.0)
    }

    fn round(&self) -> Round {
        Round { float_layers: self.float.len(), image_auroc_loss: self.loss.0, aupro_loss: self.loss.1 }
    }
}

/// Checks that every name in the config means a layer.
pub fn check_names(graph: &Graph, config: &QuantiseConfig) -> Result<(), QuantiseError> {
    let known: Vec<&str> = layers(graph).into_iter().map(|id| graph.nodes[id].name.as_str()).collect();
    match config.float_layers.iter().find(|asked| !known.iter().any(|name| names(asked, name))) {
        Some(unknown) => Err(QuantiseError::UnknownLayer { name: unknown.clone(), known: known.join(", ") }),
        None => Ok(()),
    }
}

/// The layers of `graph` with these names.
pub fn named(graph: &Graph, asked: &[String]) -> BTreeSet<Id> {
    let wanted = |name: &str| asked.iter().any(|asked| names(asked, name));
    layers(graph).into_iter().filter(|&id| wanted(&graph.nodes[id].name)).collect()
}

fn layers(graph: &Graph) -> Vec<Id> {
    (0..graph.nodes.len()).filter(|&id| int8::is_layer(&graph.nodes[id])).collect()
}

/// Whether `asked` is the layer's name or its beginning up to a dot.
fn names(asked: &str, layer: &str) -> bool {
    layer.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The name without its last part, or without `more` others before it.
fn block(name: &str, more: usize) -> &str {
    let mut block = name;
    for _ in 0..=more {
        block = block.rsplit_once('.').map_or(block, |(head, _)| head);
    }
    block
}

/// At most [`PROBES`] of `from..to`, evenly.
fn spread(from: usize, to: usize) -> impl Iterator<Item = usize> {
    (from..to).step_by((to - from).div_ceil(PROBES).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_named_whole_or_up_to_a_dot() {
        assert!(names("blocks.1.0.expand", "blocks.1.0.expand") && names("blocks.1", "blocks.1.0.expand"));
        assert!(!names("blocks.1", "blocks.10.0.expand") && !names("blocks.1.0.expand", "blocks.1"));
        assert_eq!((block("blocks.1.0.expand", 0), block("blocks.1.0.expand", 1)), ("blocks.1.0", "blocks.1"));
        assert_eq!(block("stem", 1), "stem");
    }

    #[test]
    fn probes_are_few_and_evenly_taken() {
        assert_eq!(spread(2, 4).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(spread(0, 24).collect::<Vec<_>>(), (0..24).step_by(2).collect::<Vec<_>>());
        assert_eq!(spread(5, 5).count(), 0);
    }
}
