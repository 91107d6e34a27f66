//! Features as the backbone gave them, where the extractor standardises them.

use crate::graph::{ChannelStatistics, Graph, Id, Term};
use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Standardisation lifts channels that hardly vary to the weight of those that carry the picture; for the error of a reconstruction
/// that is noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorSpace {
    /// As the backbone gives them.
    Raw,
    /// With mean 0 and variance 1 a channel.
    Standardised,
}

/// The cosine error of what was drawn for each of the extractor's `taps`, as summands of `term`; `spread` as [`Raw::new`] takes it.
pub fn cosine_errors(
    graph: &mut Graph,
    term: Term,
    taps: &[Id],
    outputs: Vec<Id>,
    spread: Option<&[ChannelStatistics]>,
) -> Vec<(Term, Id)> {
    let error = |(i, (&tap, output)): (usize, (&Id, Id))| {
        let raw = spread.map(|all| all[i].clone());
        (term, graph.cosine_error(format!("{}.{i}", term.name), tap, output, raw))
    };
    taps.iter().zip(outputs).enumerate().map(error).collect()
}

/// What brings the features of every scale back from standardised to raw ones; nothing where they are to stay as they are.
pub struct Raw(Vec<Spread>);

/// Deviation and mean of one scale's channels, `[1,C,1,1]`, without gradients.
struct Spread {
    deviation: Tensor<4>,
    mean: Tensor<4>,
}

impl Raw {
    /// `spread` is what the features of each scale were standardised with.
    pub fn new(spread: &[ChannelStatistics], device: &Device) -> Raw {
        let tensor =
            |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), [1, values.len(), 1, 1]), device);
        let one = |s: &ChannelStatistics| Spread { deviation: tensor(&s.deviation), mean: tensor(&s.mean) };
        Raw(spread.iter().map(one).collect())
    }

    /// Standardised features as the backbone gave them.
    pub fn of(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        if self.0.is_empty() {
            return features.to_vec();
        }
        let back = |(x, s): (&Tensor<4>, &Spread)| {
            let recording = x.device().is_autodiff();
            let beside = |t: &Tensor<4>| if recording { Tensor::from_inner(t.clone()) } else { t.clone() };
            x.clone() * beside(&s.deviation) + beside(&s.mean)
        };
        features.iter().zip(&self.0).map(back).collect()
    }

    /// The mean squared errors of all scales, summed.
    pub fn squared_error(&self, features: &[Tensor<4>], outputs: &[Tensor<4>]) -> Tensor<1> {
        let squares = self.of(features).into_iter().zip(self.of(outputs)).map(|(f, g)| (g - f).square().mean());
        squares.reduce(|a, b| a + b).expect("an extractor has at least one scale")
    }
}
