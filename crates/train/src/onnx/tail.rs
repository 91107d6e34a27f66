//! The float tail of both precisions: cosine errors, patch energies, distances to a bank, and their weighted sum; pooled
//! statistics and what is scored by them; logits as maps, and as shares of maps; what looks across views.

use super::cross_view;
use super::proto::{GraphBuilder, conv_attributes, float, int, ints, string, weight_dims};
use crate::graph::{
    Activation, Bank, COSINE_EPSILON, ChannelNorm, ChannelStatistics, Conv, EnergyHead, Graph, Joint, LEAK, Linear,
    Mahalanobis, Node, Op, Pool, Regrid, regrid,
};

/// Writes `node`, whose inputs are the float tensors `inputs`, as `out`.
pub fn emit(b: &mut GraphBuilder, graph: &Graph, node: &Node, inputs: &[String], out: &str) {
    match &node.op {
        Op::CosineError(raw) => {
            let [x, y] = [0, 1].map(|i| match raw {
                Some(statistics) => unstandardise(b, &inputs[i], statistics, &format!("{out}.{i}"), out),
                None => inputs[i].clone(),
            });
            cosine_error(b, &x, &y, out);
        }
        Op::Joint(how) => joint(b, graph, node, *how, inputs, out),
        Op::Energy(head) => energy(b, head, &inputs[0], out),
        Op::Nearest(bank) => nearest(b, bank, &inputs[0], out),
        Op::SumMaps(weights) => sum_maps(b, graph, node, weights, inputs, out),
        Op::Pool(how) => pool(b, graph.shape(node.inputs[0]), *how, &inputs[0], out),
        Op::Linear(weights) => linear(b, weights, inputs, out),
        Op::Mahalanobis(of) => mahalanobis(b, of, inputs, out),
        Op::Softplus => b.node("Softplus", &[&inputs[0]], out, vec![]),
        Op::Capped(limit) => {
            let [factor, one] = [b.f32s(&format!("{out}.factor"), &[], &[1.0 / limit]), b.f32s("one", &[], &[1.0])];
            let scaled = format!("{out}.scaled");
            b.node("Mul", &[&inputs[0], &factor], &scaled, vec![]);
            b.node("Min", &[&scaled, &one], out, vec![]);
        }
        Op::ChannelNorm(norm) => channel_norm(b, norm, inputs, out),
        Op::CrossView(how) => cross_view::emit(b, *how, node.shape, inputs, out),
        Op::Gated => {
            let share = format!("{out}.share");
            b.node("Sigmoid", &[&inputs[0]], &share, vec![]);
            b.node("Mul", &[&share, &inputs[1]], out, vec![]);
        }
        _ => unreachable!("the callers send only the operators of the tail"),
    }
}

/// `(x - mean) / sqrt(variance + ε) * scale + offset` of the sum `x` of its inputs, mean and variance those of a cell's channels.
fn channel_norm(b: &mut GraphBuilder, norm: &ChannelNorm, inputs: &[String], out: &str) {
    let name = |what: &str| format!("{out}.{what}");
    let over_channels = || vec![ints("axes", &[1]), int("keepdims", 1)];
    let along = [1, norm.scale.len(), 1, 1];
    let [scale, offset] =
        [("scale", &norm.scale), ("offset", &norm.offset)].map(|(what, of)| b.f32s(&name(what), &along, of));
    let epsilon = b.f32s(&name("epsilon"), &[], &[norm.epsilon]);
    let x = match inputs {
        [a, other] => {
            b.node("Add", &[a, other], &name("sum"), vec![]);
            name("sum")
        }
        one => one.concat(),
    };
    b.node("ReduceMean", &[&x], &name("mean"), over_channels());
    b.node("Sub", &[&x, &name("mean")], &name("centred"), vec![]);
    b.node("Mul", &[&name("centred"), &name("centred")], &name("squares"), vec![]);
    b.node("ReduceMean", &[&name("squares")], &name("variance"), over_channels());
    b.node("Add", &[&name("variance"), &epsilon], &name("guarded"), vec![]);
    b.node("Sqrt", &[&name("guarded")], &name("deviation"), vec![]);
    b.node("Div", &[&name("centred"), &name("deviation")], &name("standard"), vec![]);
    b.node("Mul", &[&name("standard"), &scale], &name("scaled"), vec![]);
    b.node("Add", &[&name("scaled"), &offset], out, vec![]);
}

fn joint(b: &mut GraphBuilder, graph: &Graph, node: &Node, how: Joint, inputs: &[String], out: &str) {
    let mut parts = vec![];
    for (i, input) in inputs.iter().enumerate() {
        let name = format!("{out}.{i}");
        let mut x = input.clone();
        if how.smooth {
            let mean = format!("{name}.mean");
            let attributes = vec![ints("kernel_shape", &[3, 3]), ints("strides", &[1, 1]), ints("pads", &[1, 1, 1, 1])];
            b.node("AveragePool", &[&x], &mean, attributes);
            x = mean;
        }
        let (from, to) = (graph.shape(node.inputs[i])[2], node.shape[2]);
        x = to_grid(b, &x, regrid(from, to), &name);
        if how.unit {
            x = normalise(b, &x, &name);
        }
        parts.push(x);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    b.node("Concat", &parts, out, vec![int("axis", 1)]);
}

fn energy(b: &mut GraphBuilder, head: &EnergyHead, joint: &str, out: &str) {
    let mut x = joint.to_owned();
    for (i, conv) in head.convs.iter().enumerate() {
        if i > 0 {
            let leaky = format!("{out}.{i}.leaky");
            b.node("LeakyRelu", &[&x], &leaky, vec![float("alpha", LEAK)]);
            x = leaky;
        }
        let name = format!("{out}.{i}.conv");
        let weight = b.f32s(&format!("{name}.weight"), &weight_dims(conv), &conv.weight);
        b.node("Conv", &[&x, &weight], &name, conv_attributes(conv));
        x = name;
    }
    b.node("Abs", &[&x], out, vec![]);
}

/// `sqrt(min over the bank of |x - b|²)`, with `|x - b|² = |x|² - 2 x·b + |b|²`.
fn nearest(b: &mut GraphBuilder, bank: &Bank, joint: &str, out: &str) {
    let name = |what: &str| format!("{out}.{what}");
    let weight = b.f32s(&name("bank"), &[bank.count(), bank.channels, 1, 1], &products_of(bank).weight);
    let squares = bank.vectors.chunks_exact(bank.channels).map(|row| row.iter().map(|v| v * v).sum());
    let bias = b.f32s(&name("bank.squares"), &[bank.count()], &squares.collect::<Vec<f32>>());
    b.node("Conv", &[joint, &weight, &bias], &name("products"), vec![ints("kernel_shape", &[1, 1])]);
    distance(b, &name("products"), joint, out);
}

/// `-2 x·b` for every vector of the bank, as a convolution.
pub fn products_of(bank: &Bank) -> Conv {
    let weight = bank.vectors.iter().map(|v| -2.0 * v).collect();
    let out = bank.count();
    let bias = vec![0.0; out];
    Conv { weight, bias, out, kernel: 1, stride: 1, pads: [0; 4], groups: 1, activation: Activation::Linear }
}

/// `|b|²` for every vector of the bank whose products are `-2 x·b` with the weights `values`, of which each row has a scale.
pub fn squares_of(values: &[i8], scales: &[f32]) -> Vec<f32> {
    let rows = values.chunks_exact(values.len() / scales.len().max(1)).zip(scales);
    let squared = |(row, &scale): (&[i8], &f32)| {
        let sum: i64 = row.iter().map(|&w| i64::from(w) * i64::from(w)).sum();
        (sum as f64 * f64::from(scale) * f64::from(scale) / 4.0) as f32
    };
    rows.map(squared).collect()
}

/// `sqrt(max(0, min p + |x|²))`, where `products` are `p`.
pub fn distance(b: &mut GraphBuilder, products: &str, x: &str, out: &str) {
    let name = |what: &str| format!("{out}.{what}");
    b.node("ReduceMin", &[products], &name("smallest"), vec![ints("axes", &[1]), int("keepdims", 1)]);
    let own = squared_length(b, x, &name("own"));
    b.node("Add", &[&name("smallest"), &own], &name("squared"), vec![]);
    b.node("Relu", &[&name("squared")], &name("clamped"), vec![]);
    b.node("Sqrt", &[&name("clamped")], out, vec![]);
}

/// Of each channel of the `[C,h,w]` tensor `x` the mean, the mean of the largest cells and that of the smallest.
fn pool(b: &mut GraphBuilder, shape: [usize; 3], how: Pool, x: &str, out: &str) {
    let [channels, h, w] = shape.map(|n| n as i64);
    let name = |what: &str| format!("{out}.{what}");
    b.node("ReduceMean", &[x], &name("mean"), vec![ints("axes", &[2, 3]), int("keepdims", 1)]);
    let cells = b.i64s(&name("cells"), &[1, channels, h * w]);
    b.node("Reshape", &[x, &cells], &name("flat"), vec![]);
    let count = b.i64s(&name("count"), &[how.count((h * w) as usize) as i64]);
    let channel = b.i64s(&name("channel"), &[1, channels, 1, 1]);
    let mut parts = vec![name("mean")];
    for (what, largest) in [("largest", 1), ("smallest", 0)] {
        let [values, mean, part] = ["", ".mean", ".part"].map(|step| name(&format!("{what}{step}")));
        let order = vec![int("axis", 2), int("largest", largest), int("sorted", 1)];
        b.node_with_outputs("TopK", &[&name("flat"), &count], &[&values, &format!("{values}.places")], order);
        b.node("ReduceMean", &[&values], &mean, vec![ints("axes", &[2]), int("keepdims", 1)]);
        b.node("Reshape", &[&mean, &channel], &part, vec![]);
        parts.push(part);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    b.node("Concat", &parts, out, vec![int("axis", 1)]);
}

/// All inputs behind one another along the channels.
fn together(b: &mut GraphBuilder, inputs: &[String], out: &str) -> String {
    let [one] = inputs else {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let x = format!("{out}.values");
        b.node("Concat", &inputs, &x, vec![int("axis", 1)]);
        return x;
    };
    one.clone()
}

/// Directions are a convolution over the one cell that pooled values have.
fn mahalanobis(b: &mut GraphBuilder, to: &Mahalanobis, inputs: &[String], out: &str) {
    let name = |what: &str| format!("{out}.{what}");
    let x = together(b, inputs, out);
    let columns = to.mean.len();
    let [mean, inverse] = [("mean", &to.mean), ("inverse", &to.inverse)]
        .map(|(what, values)| b.f32s(&name(what), &[1, columns, 1, 1], values));
    b.node("Sub", &[&x, &mean], &name("centred"), vec![]);
    b.node("Mul", &[&name("centred"), &inverse], &name("standard"), vec![]);
    let mut squared = squared_length(b, &name("standard"), &name("own"));
    if !to.directions.is_empty() {
        let weight = b.f32s(&name("directions"), &[to.count(), columns, 1, 1], &to.directions);
        b.node("Conv", &[&name("standard"), &weight], &name("along"), vec![ints("kernel_shape", &[1, 1])]);
        let along = squared_length(b, &name("along"), &name("along.squared"));
        b.node("Sub", &[&squared, &along], &name("squared"), vec![]);
        squared = name("squared");
    }
    b.node("Relu", &[&squared], &name("clamped"), vec![]);
    b.node("Sqrt", &[&name("clamped")], out, vec![]);
}

/// A convolution over the one cell that pooled values have.
fn linear(b: &mut GraphBuilder, linear: &Linear, inputs: &[String], out: &str) {
    let x = together(b, inputs, out);
    let weight = b.f32s(&format!("{out}.weight"), &[1, linear.weights.len(), 1, 1], &linear.weights);
    let bias = b.f32s(&format!("{out}.bias"), &[1], &[linear.bias]);
    b.node("Conv", &[&x, &weight, &bias], out, vec![ints("kernel_shape", &[1, 1])]);
}

fn to_grid(b: &mut GraphBuilder, x: &str, how: Regrid, name: &str) -> String {
    let out = format!("{name}.grid");
    match how {
        Regrid::Same => return x.to_owned(),
        Regrid::Pool(k) => {
            let k = k as i64;
            b.node("AveragePool", &[x], &out, vec![ints("kernel_shape", &[k, k]), ints("strides", &[k, k])]);
        }
        Regrid::Enlarge(k) => enlarge(b, x, k as f32, k as f32, &out),
    }
    out
}

/// Bilinear, half-pixel.
fn enlarge(b: &mut GraphBuilder, x: &str, down: f32, across: f32, out: &str) {
    let scales = b.f32s(&format!("{out}.scales"), &[4], &[1.0, 1.0, down, across]);
    let attributes = vec![string("mode", "linear"), string("coordinate_transformation_mode", "half_pixel")];
    b.node("Resize", &[x, "", &scales], out, attributes);
}

/// `x * deviation + mean` of every channel.
fn unstandardise(b: &mut GraphBuilder, x: &str, statistics: &ChannelStatistics, name: &str, shared: &str) -> String {
    let dims = [1, statistics.mean.len(), 1, 1];
    let deviation = b.f32s(&format!("{shared}.deviation"), &dims, &statistics.deviation);
    let mean = b.f32s(&format!("{shared}.channel_mean"), &dims, &statistics.mean);
    let (scaled, out) = (format!("{name}.scaled"), format!("{name}.raw"));
    b.node("Mul", &[x, &deviation], &scaled, vec![]);
    b.node("Add", &[&scaled, &mean], &out, vec![]);
    out
}

/// Length 1 along the channels at every position.
fn normalise(b: &mut GraphBuilder, x: &str, name: &str) -> String {
    let squared = squared_length(b, x, name);
    let epsilon = b.f32s("cosine.epsilon", &[], &[COSINE_EPSILON]);
    let (guarded, length, out) = (format!("{name}.guarded"), format!("{name}.length"), format!("{name}.unit"));
    b.node("Add", &[&squared, &epsilon], &guarded, vec![]);
    b.node("Sqrt", &[&guarded], &length, vec![]);
    b.node("Div", &[x, &length], &out, vec![]);
    out
}

/// `Σ x²` along the channels.
fn squared_length(b: &mut GraphBuilder, x: &str, name: &str) -> String {
    let axis = b.i64s("channel.axis", &[1]);
    let (squares, out) = (format!("{name}.squares"), format!("{name}.squared_length"));
    b.node("Mul", &[x, x], &squares, vec![]);
    b.node("ReduceSum", &[&squares, &axis], &out, vec![int("keepdims", 1)]);
    out
}

/// `1 - a·b / sqrt(a·a * b·b + ε)` along the channels.
fn cosine_error(b: &mut GraphBuilder, x: &str, y: &str, out: &str) {
    let axis = b.i64s("channel.axis", &[1]);
    let mut dot = |x: &str, y: &str, what: &str| {
        let (product, sum) = (format!("{out}.{what}.product"), format!("{out}.{what}"));
        b.node("Mul", &[x, y], &product, vec![]);
        b.node("ReduceSum", &[&product, &axis], &sum, vec![int("keepdims", 1)]);
        sum
    };
    let (xy, xx, yy) = (dot(x, y, "xy"), dot(x, x, "xx"), dot(y, y, "yy"));
    let epsilon = b.f32s("cosine.epsilon", &[], &[COSINE_EPSILON]);
    let one = b.f32s("one", &[], &[1.0]);
    let name = |what: &str| format!("{out}.{what}");
    b.node("Mul", &[&xx, &yy], &name("squares"), vec![]);
    b.node("Add", &[&name("squares"), &epsilon], &name("guarded"), vec![]);
    b.node("Sqrt", &[&name("guarded")], &name("norms"), vec![]);
    b.node("Div", &[&xy, &name("norms")], &name("cosine"), vec![]);
    b.node("Sub", &[&one, &name("cosine")], out, vec![]);
}

fn sum_maps(b: &mut GraphBuilder, graph: &Graph, node: &Node, weights: &[f32], maps: &[String], out: &str) {
    let [_, height, width] = node.shape;
    let mut sum = String::new();
    for (i, (map, weight)) in maps.iter().zip(weights).enumerate() {
        let [_, h, w] = graph.shape(node.inputs[i]);
        let mut term = map.clone();
        if (h, w) != (height, width) {
            term = format!("{map}.resized");
            enlarge(b, map, height as f32 / h as f32, width as f32 / w as f32, &term);
        }
        if *weight != 1.0 {
            let factor = b.f32s(&format!("{map}.factor"), &[], &[*weight]);
            let weighted = format!("{map}.weighted");
            b.node("Mul", &[&term, &factor], &weighted, vec![]);
            term = weighted;
        }
        let next = if i + 1 == maps.len() { out.to_owned() } else { format!("{out}.{i}") };
        if i == 0 {
            b.node("Identity", &[&term], &next, vec![]);
        } else {
            b.node("Add", &[&sum, &term], &next, vec![]);
        }
        sum = next;
    }
}
