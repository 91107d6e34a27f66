//! Maps of several scales at one width on the finest grid: 1x1 convolutions, their sum, a batch norm and a ReLU; as layers that learn, and as
//! nodes of the graph.

use super::folding::{scaled_by_batch_norm, with_batch_norm};
use super::places::Places;
use crate::graph::{Activation, Conv, Graph, Id};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer};
use burn::prelude::*;
use burn::tensor::activation::relu;

/// The layers.
#[derive(Module, Debug)]
pub struct Adapt {
    /// One an input, the finest first.
    pub convs: Vec<Conv2d>,
    /// Of their sum.
    pub norm: BatchNorm,
}

impl Adapt {
    /// Untrained, for inputs of so many channels, the finest first; several may lie on one grid.
    pub fn new(channels: &[usize], width: usize, device: &Device) -> Adapt {
        let conv = |&input: &usize| {
            Conv2dConfig::new([input, width], [1, 1])
                .with_bias(false)
                .with_initializer(Initializer::KaimingNormal { gain: 1.0, fan_out_only: false })
                .init(device)
        };
        Adapt { convs: channels.iter().map(conv).collect(), norm: BatchNormConfig::new(width).init(device) }
    }

    /// `inputs` are `[N,C,h,w]`, the finest first.
    pub fn forward(&self, inputs: &[Tensor<4>]) -> Places {
        let mut sum: Option<Places> = None;
        for (conv, x) in self.convs.iter().zip(inputs).rev() {
            let own = Places::of(x).pointwise(conv);
            sum = Some(match sum {
                None => own,
                Some(coarse) => {
                    let coarse = if coarse.grid == own.grid { coarse } else { coarse.doubled() };
                    Places { values: own.values + coarse.values, ..own }
                }
            });
        }
        sum.expect("an extractor has at least one scale").normalised(&self.norm).map(relu)
    }

    /// The same behind the nodes `inputs`; nodes are named `name.0`, `name.1` ….
    pub fn append(&self, graph: &mut Graph, name: &str, inputs: &[Id]) -> Id {
        let convs = norm_of_sum(&self.convs, &self.norm);
        let mut sum: Option<Id> = None;
        for (i, (conv, &input)) in convs.into_iter().zip(inputs).enumerate().rev() {
            let x = graph.conv(format!("{name}.{i}"), input, conv);
            sum = Some(match sum {
                None => x,
                Some(mut coarse) => {
                    if graph.shape(coarse) != graph.shape(x) {
                        coarse = graph.upsample2(format!("{name}.{}.up", i + 1), coarse);
                    }
                    let activation = if i == 0 { Activation::Relu } else { Activation::Linear };
                    graph.add(format!("{name}.{i}.sum"), x, coarse, activation)
                }
            });
        }
        sum.expect("an extractor has at least one scale")
    }
}

/// Convolutions whose sum a batch norm normalises: each is scaled, the first also moves the sum. The only one is rectified
/// at once; sums are where they are added.
pub fn norm_of_sum(convs: &[Conv2d], norm: &BatchNorm) -> Vec<Conv> {
    let alone = if convs.len() == 1 { Activation::Relu } else { Activation::Linear };
    let one = |(i, conv): (usize, &Conv2d)| match i {
        0 => with_batch_norm(conv, norm, alone),
        _ => scaled_by_batch_norm(conv, norm),
    };
    convs.iter().enumerate().map(one).collect()
}
