use super::*;
use crate::graph::Joint;
use ckaad_inspect::engine::{Engine, Plan};
use tract_onnx::pb::{GraphProto, ModelProto, tensor_proto::DataType};

const SIDE: usize = 16;

/// A small net with every operator that int8 knows: a residual block, pooling, upsampling and concatenation, an
/// instance norm, and a convolution that a constant and a modulation lead to.
fn net() -> Graph {
    let mut graph = Graph::new(SIDE, SIDE);
    let conv = |seed: usize, out: usize, depth: usize, kernel: usize, groups: usize, activation| Conv {
        weight: (0..out * depth * kernel * kernel)
            .map(|i| ((i * 7919 + seed * 104_729) % 201) as f32 / 100.0 - 1.0)
            .map(|w| w / ((depth * kernel * kernel) as f32).sqrt())
            .collect(),
        bias: (0..out).map(|i| i as f32 * 0.1 - 0.2).collect(),
        out,
        kernel,
        stride: 1,
        pads: [kernel / 2; 4],
        groups,
        activation,
    };
    let ones = graph.ones();
    let stem = graph.conv("stem", ones, conv(1, 6, 4, 3, 1, Activation::Relu6));
    let depthwise = graph.conv("block.depthwise", stem, conv(2, 6, 1, 3, 6, Activation::Relu6));
    let project = graph.conv("block.project", depthwise, conv(3, 6, 6, 1, 1, Activation::Linear));
    let sum = graph.add("block.add", project, stem, Activation::Relu);
    let pooled = graph.max_pool("pool", sum);
    let deep = graph.conv("deep.conv", pooled, conv(4, 6, 6, 1, 1, Activation::Linear));
    let norm = InstanceNorm { scale: vec![1.0; 6], offset: vec![0.1; 6], epsilon: 1e-5, activation: Activation::Relu };
    let deep = graph.instance_norm("deep.norm", deep, norm);
    let up = graph.upsample2("up", deep);
    let up = graph.conv("up.conv", up, conv(5, 6, 6, 1, 1, Activation::Linear));
    let both = graph.concat("both", vec![up, project]);
    let wide = graph.conv("wide.conv", deep, conv(7, 24, 6, 1, 1, Activation::Linear));
    let wide = graph.leaky_relu("wide.leaky", wide, 0.2);
    let space = graph.depth_to_space2("space", wide);
    let normal = graph.layer_norm("space.norm", space, 1e-5);
    let values = (0..6 * SIDE * SIDE).map(|i| ((i * 53) % 29) as f32 / 20.0 - 0.6).collect();
    let constant = graph.constant("constant", [6, SIDE, SIDE], values);
    let told = graph.modulate("told", constant, normal, project);
    // Unlike those of the other, the first of this concatenation has a quantisation that it cannot change.
    let wide = graph.concat("wide.both", vec![space, told]);
    let wide = graph.conv("wide.out", wide, conv(8, 6, 12, 1, 1, Activation::Linear));
    let out = graph.conv("out", both, conv(6, 6, 12, 3, 1, Activation::Linear));
    let out = graph.add("out.sum", out, wide, Activation::Linear);
    let map = graph.cosine_error("error", out, sum, None);
    graph.sum_maps("map", vec![map], vec![1.0]);
    graph
}

fn image() -> Vec<u8> {
    (0..SIDE * SIDE * 3).map(|i| ((i * 31) % 256) as u8 / 2 + 60 + ((i / 3 % SIDE) * 4) as u8).collect()
}

fn ranges(graph: &Graph) -> Vec<(f32, f32)> {
    let measured: Vec<Id> = (0..graph.nodes.len()).filter(|&id| gives_bytes(&graph.nodes[id])).collect();
    let plan = Plan::load(&float::emit_f32(graph, Some(&measured)), 1).unwrap();
    let mut ranges = vec![(0.0, 0.0); graph.nodes.len()];
    for (id, values) in measured.iter().zip(plan.run(&image()).unwrap()) {
        ranges[*id] = values.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
    }
    ranges
}

fn map(model: &[u8]) -> Vec<f32> {
    Engine::load(model, 1).unwrap().run(&image()).unwrap().swap_remove(0).map.into_iter().collect()
}

fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

fn structure(model: &[u8]) -> GraphProto {
    ModelProto::decode(model).unwrap().graph.unwrap()
}

#[test]
fn both_dialects_give_the_f32_map_but_for_quantisation_noise() {
    let graph = net();
    let exact = map(&float::emit_f32(&graph, None));
    let range = exact.iter().fold(0f32, |m, v| m.max(*v));
    for dialect in [Dialect::QOperator, Dialect::Qdq] {
        let difference = mean_difference(&map(&emit(&graph, None, &ranges(&graph), |_| false, dialect)), &exact);
        assert!(0.0 < difference && difference < 0.04 * range, "{dialect:?}: {difference} of {range}");
    }
}

/// Two features that a bank reads, one of them half as large.
fn net_with_a_bank() -> Graph {
    let mut graph = Graph::new(SIDE, SIDE);
    let image = Graph::IMAGE;
    let weights = |count: usize, step: usize| (0..count).map(move |i| (i * step % 19) as f32 / 19.0 - 0.45).collect();
    let conv = |out: usize, depth: usize, step: usize| Conv {
        weight: weights(out * depth * 9, step),
        bias: (0..out).map(|i| i as f32 * 0.3 - 1.0).collect(),
        out,
        kernel: 3,
        stride: 1,
        pads: [1; 4],
        groups: 1,
        activation: Activation::Linear,
    };
    let fine = graph.conv("fine", image, conv(10, 3, 7));
    let coarse = graph.max_pool("coarse", fine);
    let coarse = graph.conv("deep", coarse, conv(13, 10, 5));
    let joint = Joint { smooth: true, unit: false };
    let patches = graph.joint("patches", vec![fine, coarse], joint, [SIDE, SIDE]);
    let bank = Bank { vectors: weights(40 * 23, 11), channels: 23 };
    let distance = graph.nearest("distance", patches, bank);
    graph.sum_maps("map", vec![distance], vec![1.0]);
    graph
}

#[test]
fn the_distance_to_a_bank_is_made_of_bytes_unless_it_is_left_in_float() {
    let graph = net_with_a_bank();
    let (exact, ranges) = (map(&float::emit_f32(&graph, None)), ranges(&graph));
    let range = exact.iter().fold(0f32, |m, v| m.max(*v));
    let left = |id: Id| graph.nodes[id].name == "distance";
    let kinds = |model: &[u8]| -> Vec<String> { structure(model).node.iter().map(|n| n.op_type.clone()).collect() };
    for dialect in [Dialect::QOperator, Dialect::Qdq] {
        let model = emit(&graph, None, &ranges, |_| false, dialect);
        let difference = mean_difference(&map(&model), &exact);
        assert!(0.0 < difference && difference < 0.02 * range, "{dialect:?}: {difference} of {range}");
        let (integer, conv) = if dialect == Dialect::QOperator { (1, 0) } else { (0, 3) };
        let count = |kind: &str| kinds(&model).iter().filter(|k| *k == kind).count();
        assert_eq!((count("ConvInteger"), count("Conv")), (integer, conv), "{dialect:?}");
        let model = emit(&graph, None, &ranges, left, dialect);
        assert!(mean_difference(&map(&model), &exact) < 0.02 * range);
        assert!(!kinds(&model).contains(&"ConvInteger".into()));
    }
    // All of it is the engine's own.
    let unfused = Plan::load(&emit(&graph, None, &ranges, |_| false, Dialect::QOperator), 1).unwrap();
    assert!(unfused.unfused().is_empty(), "{:?}", unfused.unfused());
}

/// What the bytes of patches cannot say, the bytes of their features cannot either: to half a step they cover the same, and no more than they need.
#[test]
fn the_bytes_of_patches_cover_what_their_features_cover() {
    let graph = net_with_a_bank();
    let quantisation = quantisations(&graph, &ranges(&graph), Dialect::QOperator);
    let [fine, deep, patches] =
        ["fine", "deep", "patches"].map(|name| quantisation[graph.nodes.iter().position(|n| n.name == name).unwrap()]);
    let [(a, b), (c, d), (low, high)] = [fine, deep, patches].map(|q| q.ends(Dialect::QOperator));
    let half = 0.51 * patches.scale;
    assert!((low - a.min(c)).abs() <= half && (high - b.max(d)).abs() <= half, "{low} to {high}");
}

#[test]
fn layers_left_in_float_are_float() {
    let graph = net();
    let (exact, ranges) = (map(&float::emit_f32(&graph, None)), ranges(&graph));
    let all = emit(&graph, None, &ranges, |_| true, Dialect::QOperator);
    assert!(mean_difference(&map(&all), &exact) < 1e-5);
    let quantised = |g: &GraphProto| g.node.iter().filter(|n| n.op_type == "QuantizeLinear").count();
    assert_eq!(quantised(&structure(&all)), 0, "floats pass on as floats");
    // One block in float: its three layers, and bytes for those that read it.
    let block = |id: Id| graph.nodes[id].name.starts_with("block.");
    let mixed = structure(&emit(&graph, None, &ranges, block, Dialect::QOperator));
    let names = |op: &str| -> Vec<&str> {
        mixed.node.iter().filter(|n| n.op_type == op).map(|n| n.output[0].as_str()).collect()
    };
    assert_eq!(names("Conv"), ["block.depthwise.f32.linear", "block.project.f32"]);
    assert_eq!(
        names("QLinearConv"),
        ["stem.u8", "deep.conv.u8", "up.conv.u8", "wide.conv.u8", "wide.out.u8", "out.u8"]
    );
    let of_wide = ["wide.leaky.u8", "space.norm.u8", "told.u8", "wide.both.u8", "out.sum.u8"];
    assert_eq!(names("QuantizeLinear"), [&["pool.u8", "deep.norm.u8", "block.project.u8"][..], &of_wide].concat());
    // Its pooled result is float too, and becomes bytes for the convolution behind.
    let none = map(&emit(&graph, None, &ranges, |_| false, Dialect::QOperator));
    let block = map(&emit(&graph, None, &ranges, block, Dialect::QOperator));
    assert!(mean_difference(&block, &exact) < mean_difference(&none, &exact));
}

/// What TensorRT wants of a model that brings its own quantisation: i8 with zero point 0 everywhere, weights along axis
/// 0, biases and the input not quantised.
#[test]
fn qdq_holds_to_what_tensorrt_takes() {
    let model = structure(&emit(&net(), None, &ranges(&net()), |_| false, Dialect::Qdq));
    let constant = |name: &str| model.initializer.iter().find(|t| t.name == name);
    let mut pairs = 0;
    for node in &model.node {
        match node.op_type.as_str() {
            "QuantizeLinear" | "DequantizeLinear" => {
                let zero = constant(&node.input[2]).unwrap();
                assert!(zero.data_type == DataType::Int8 as i32 && zero.raw_data.iter().all(|&z| z == 0));
                pairs += 1;
            }
            "Conv" => {
                let from = |i: usize| model.node.iter().find(|n| n.output[0] == node.input[i]);
                assert!((0..2).all(|i| from(i).unwrap().op_type == "DequantizeLinear"), "{}", node.name);
                let axis = from(1).unwrap().attribute.iter().find(|a| a.name == "axis").unwrap();
                assert_eq!(axis.i, 0);
                assert_eq!(constant(&node.input[2]).unwrap().data_type, DataType::Float as i32);
            }
            _ => {}
        }
        let reads_image = node.input.iter().any(|i| i == "image");
        assert!(!reads_image || node.op_type == "Cast", "TensorRT only casts u8");
    }
    assert!(pairs > 20, "{pairs}");
}

#[test]
fn a_range_is_covered_in_255_steps_and_zero_is_exact() {
    let q = Quantisation::covering(-1.0, 4.1);
    assert!((q.scale - 0.02).abs() < 1e-6 && q.zero_point == 50);
    assert_eq!(Quantisation::covering(0.5, 5.1).zero_point, 0);
    let q = Quantisation::symmetric(-1.0, 2.54);
    assert!((q.scale - 0.02).abs() < 1e-6 && q.zero_point == 0);
}
