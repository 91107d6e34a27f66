//! The trained head as graph nodes.

use super::net::MilNet;
use crate::graph::{Activation, Graph, Id, Linear, Pool};
use crate::methods::adapt::norm_of_sum;
use crate::methods::folding::{values, with_batch_norm, with_bias};

/// The head behind the extractor's `taps`, the finest first.
pub struct Folded {
    /// The logit of every place, `[1,h,w]`.
    pub places: Id,
    /// The image's logit, `[1,1,1]`; `None` where nobody asks.
    pub image: Option<Id>,
}

/// Appends the head; the image branch as far as it is `wanted`.
pub fn append(graph: &mut Graph, net: &MilNet, taps: &[Id], wanted: bool) -> Folded {
    let adapted = net.adapt.append(graph, "mil.adapt", taps);
    let hidden = with_batch_norm(&net.hidden, &net.hidden_norm, Activation::Relu);
    let hidden = graph.conv("mil.hidden", adapted, hidden);
    let places = graph.conv("mil.logit", hidden, with_bias(&net.logit, Activation::Linear));
    if !wanted {
        return Folded { places, image: None };
    }
    let coarsest = &taps[taps.len() - net.context.len()..];
    let parts: Vec<Id> = norm_of_sum(&net.context, &net.context_norm)
        .into_iter()
        .zip(coarsest)
        .enumerate()
        .map(|(i, (conv, &tap))| graph.conv(format!("mil.context.{i}"), tap, conv))
        .collect();
    let context = rectified_sum(graph, "mil.context", &parts);
    let [_, h, w] = graph.shape(context);
    let largest = graph.pool("mil.context.pool", context, Pool { one_in: h * w });
    let [_, h, w] = graph.shape(places);
    let pooled = graph.pool("mil.logit.pool", places, Pool { one_in: (h * w / net.places).max(1) });
    // burn keeps a linear layer's weights input by output.
    let bias = net.bag.bias.as_ref().map_or(0.0, |bias| values(bias.val()).0[0]);
    let linear = Linear { weights: values(net.bag.weight.val()).0, bias };
    Folded { places, image: Some(graph.linear("mil.bag", vec![largest, pooled], linear)) }
}

fn rectified_sum(graph: &mut Graph, name: &str, parts: &[Id]) -> Id {
    match *parts {
        [a, b] => graph.add(format!("{name}.sum"), a, b, Activation::Relu),
        _ => parts[0],
    }
}
