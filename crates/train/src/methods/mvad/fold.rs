//! The trained networks as graph nodes, norms folded into convolutions.

use super::net::{Basic, Block, Bottleneck, ConvNorm, EPSILON, MvadNet, positions};
use crate::backbones::fold_batch_norm;
use crate::graph::{self, Activation, Conv, CrossView, Graph, Id};
use crate::methods::folding::{padded, values, with_batch_norm, with_bias};

/// Appends the networks behind the extractor's `taps`: one prediction a tap.
pub fn predictions(graph: &mut Graph, net: &MvadNet, taps: &[Id], windows: &[CrossView]) -> Vec<Id> {
    let mut beside = vec![];
    for (i, ((blocks, &tap), &how)) in net.attention.iter().zip(taps).zip(windows).enumerate() {
        let shape = graph.shape(tap);
        let position = graph.constant(format!("mvad.{i}.position"), shape, positions(shape));
        let blocks = blocks.iter().enumerate();
        let x = blocks
            .fold(tap, |x, (k, block)| attention(graph, &format!("mvad.{i}.{k}"), x, [tap, position], block, how));
        beside.push(x);
    }
    let fuser = &net.fuser;
    let mut x = beside[0];
    for (i, (reduce, join)) in fuser.reduce.iter().zip(&fuser.join).enumerate() {
        let reduced = conv_norm(graph, &format!("mvad.reduce.{i}"), x, reduce, Activation::Relu);
        let joined = conv_norm(graph, &format!("mvad.join.{i}"), beside[i + 1], join, Activation::Relu);
        x = graph.add(format!("mvad.joined.{i}"), reduced, joined, Activation::Linear);
    }
    x = conv_norm(graph, "mvad.mix", x, &fuser.mix, Activation::Relu);
    for (i, block) in fuser.bottlenecks.iter().enumerate() {
        x = bottleneck(graph, &format!("mvad.bottleneck.{i}"), x, block);
    }
    let mut outputs = vec![];
    for (i, stage) in net.student.iter().enumerate() {
        for (k, block) in stage.blocks.iter().enumerate() {
            x = basic(graph, &format!("mvad.student.{i}.{k}"), x, block);
        }
        outputs.push(match &stage.widen {
            Some(conv) => graph.conv(format!("mvad.student.{i}.features"), x, with_bias(conv, Activation::Linear)),
            None => x,
        });
    }
    outputs.reverse();
    outputs
}

fn attention(graph: &mut Graph, name: &str, x: Id, [tap, position]: [Id; 2], block: &Block, how: CrossView) -> Id {
    let answered = graph.cross_view(format!("{name}.answered"), [x, position, tap], how);
    let summed = if block.keeps { vec![x, answered] } else { vec![answered] };
    let x = graph.channel_norm(format!("{name}.asked"), summed, norm(&block.asked));
    let inner = graph.conv(format!("{name}.widen"), x, with_bias(&block.widen, Activation::Relu));
    let inner = graph.conv(format!("{name}.narrow"), inner, with_bias(&block.narrow, Activation::Linear));
    graph.channel_norm(format!("{name}.told"), vec![x, inner], norm(&block.told))
}

fn norm(module: &super::net::ChannelNorm) -> graph::ChannelNorm {
    let [scale, offset] = [&module.scale, &module.offset].map(|param| values(param.val()).0);
    graph::ChannelNorm { scale, offset, epsilon: EPSILON as f32 }
}

fn bottleneck(graph: &mut Graph, name: &str, x: Id, block: &Bottleneck) -> Id {
    let mut inner = x;
    for (i, conv) in block.convs.iter().enumerate() {
        let activation = if i + 1 < block.convs.len() { Activation::Relu } else { Activation::Linear };
        inner = conv_norm(graph, &format!("{name}.{i}"), inner, conv, activation);
    }
    beside(graph, name, x, inner, block.shortcut.as_ref())
}

fn basic(graph: &mut Graph, name: &str, x: Id, block: &Basic) -> Id {
    let inner = conv_norm(graph, &format!("{name}.first"), x, &block.first, Activation::Relu);
    let inner = conv_norm(graph, &format!("{name}.second"), inner, &block.second, Activation::Linear);
    beside(graph, name, x, inner, block.shortcut.as_ref())
}

/// The rectified sum with the shortcut.
fn beside(graph: &mut Graph, name: &str, x: Id, inner: Id, shortcut: Option<&ConvNorm>) -> Id {
    let shortcut = match shortcut {
        Some(conv) => conv_norm(graph, &format!("{name}.shortcut"), x, conv, Activation::Linear),
        None => x,
    };
    graph.add(format!("{name}.sum"), inner, shortcut, Activation::Relu)
}

fn conv_norm(graph: &mut Graph, name: &str, x: Id, module: &ConvNorm, activation: Activation) -> Id {
    if !module.doubles {
        return graph.conv(name, x, with_batch_norm(&module.conv, &module.norm, activation));
    }
    let four = graph.conv(name, x, doubling(module, activation));
    graph.depth_to_space2(format!("{name}.doubled"), four)
}

/// The norm stands behind the blocks of channels that become one, and scales and moves each of them alike.
fn doubling(module: &ConvNorm, activation: Activation) -> Conv {
    let (weight, dims) = values(module.conv.weight.val());
    let norm = &module.norm;
    let four = |values: Vec<f32>| values.repeat(4);
    let [gamma, beta] = [&norm.gamma, &norm.beta].map(|param| four(values(param.val()).0));
    let [mean, variance] = [&norm.running_mean, &norm.running_var].map(|state| four(values(state.value_sync()).0));
    let (weight, bias) = fold_batch_norm(&weight, &gamma, &beta, &mean, &variance, norm.epsilon as f32);
    padded(weight, bias, &dims, 1, activation)
}
