//! A model that means harm, or is only wrong, is refused in a sentence or run by tract; it never stops the process.

use ckaad_bundle::Bundle;
use ckaad_inspect::engine::{EngineError, Plan};
use ckaad_testing::demo_bundle;
use ckaad_testing::onnx::{constant, floats, ints, node, value};
use prost::Message;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataType,
};

/// A model of these nodes with the constants that [`conv`] and [`real`] read; the image is `[1,4,4,3]`.
fn model(nodes: Vec<NodeProto>, outputs: &[(&str, i64)]) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        input: vec![value("image", DataType::Uint8, &[1, 4, 4, 3])],
        output: outputs.iter().map(|(n, c)| value(n, DataType::Float, &[1, *c, 4, 4])).collect(),
        initializer: vec![
            constant("s", DataType::Float, &[], floats(&[0.1])),
            constant("z", DataType::Uint8, &[], vec![7]),
            constant("w", DataType::Int8, &[3, 3, 1, 1], vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
            constant("ws", DataType::Float, &[3], floats(&[0.1, 0.2, 0.3])),
            constant("wz", DataType::Int8, &[3], vec![0; 3]),
            constant("fw", DataType::Float, &[1, 3, 1, 1], floats(&[1.0, 2.0, 3.0])),
            constant("row", DataType::Float, &[1, 3, 1, 1], floats(&[1.0, 2.0, 3.0])),
        ],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![opset], ..Default::default() }
}

fn first() -> NodeProto {
    node("Transpose", &["image"], &["t"])
}

fn conv(from: &str, to: &str) -> NodeProto {
    node("QLinearConv", &[from, "s", "z", "w", "ws", "wz", "s", "z"], &[to])
}

fn real(from: &str, to: &str) -> NodeProto {
    node("DequantizeLinear", &[from, "s", "z"], &[to])
}

fn load(model: &ModelProto) -> Result<Plan, EngineError> {
    Plan::load(&model.encode_to_vec(), 1)
}

#[test]
fn a_sound_model_of_this_kind_is_taken_whole() {
    let plan = load(&model(vec![first(), conv("t", "q"), real("q", "y")], &[("y", 3)])).unwrap();
    assert!(plan.unfused().is_empty(), "{:?}", plan.unfused());
    assert_eq!(plan.run(&[9; 48]).unwrap()[0].len(), 48);
}

#[test]
fn a_name_written_twice_does_not_make_floats_of_bytes() {
    let nodes = vec![first(), conv("t", "q"), real("q", "y"), conv("t", "y"), node("Conv", &["y", "fw"], &["out"])];
    // tract may take the file or leave it; the kernels must not.
    if let Ok(plan) = load(&model(nodes, &[("out", 1)])) {
        assert!(plan.unfused()[0].starts_with("the whole network"));
    }
}

/// A least product whose constants the engine does not take is tract's, and the rest of the network stays the engine's.
#[test]
fn a_least_product_is_taken_with_finite_constants_for_all_channels_or_for_each() {
    let int = |name: &str, i: i64| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i,
        ..Default::default()
    };
    let least = |scale: &[f32], offset: &[f32]| {
        let mut sums = node("ConvInteger", &["real", "w", "z"], &["sums"]);
        sums.attribute.push(ints("kernel_shape", &[1, 1]));
        let mut cast = node("Cast", &["sums"], &["values"]);
        cast.attribute.push(int("to", DataType::Float as i64));
        let mut min = node("ReduceMin", &["moved"], &["y"]);
        min.attribute.extend([ints("axes", &[1]), int("keepdims", 1)]);
        let (scaled, moved) = (node("Mul", &["values", "k"], &["scaled"]), node("Add", &["scaled", "o"], &["moved"]));
        let mut model = model(vec![first(), conv("t", "real"), sums, cast, scaled, moved, min], &[("y", 1)]);
        let dims = |values: &[f32]| if values.len() == 1 { vec![] } else { vec![1, values.len() as i64, 1, 1] };
        let constants = [("k", scale), ("o", offset)].map(|(n, v)| constant(n, DataType::Float, &dims(v), floats(v)));
        model.graph.as_mut().unwrap().initializer.extend(constants);
        load(&model)
    };
    let image: Vec<u8> = (0..48).map(|i| i * 5).collect();
    let run = |plan: &Plan| plan.run(&image).unwrap().swap_remove(0);
    let (one, each) = (least(&[0.5], &[1.0]).unwrap(), least(&[0.5; 3], &[1.0; 3]).unwrap());
    for plan in [&one, &each] {
        assert!(plan.unfused().is_empty(), "{:?}", plan.unfused());
    }
    assert_eq!(run(&one), run(&each));
    assert!(run(&one).iter().any(|&v| v != run(&one)[0]), "{:?}", run(&one));
    for (scale, offset) in [(&[0.5][..], &[f32::INFINITY, 1.0, 1.0][..]), (&[f32::NAN], &[1.0])] {
        let plan = least(scale, offset).unwrap();
        assert!(plan.unfused().iter().all(|node| !node.starts_with("the whole network")), "{:?}", plan.unfused());
        assert!(!plan.unfused().is_empty());
        let _ = plan.run(&image);
    }
    // As many as nobody asked for: an error or tract's, and no read beyond them.
    if let Ok(plan) = least(&[0.5, 0.5], &[1.0]) {
        let _ = plan.run(&image);
    }
}

#[test]
fn a_file_cannot_bring_a_region_of_its_own() {
    let mut region = node("CkaadInt8", &["image"], &["y"]);
    let threads = AttributeProto { name: "threads".into(), i: i64::MAX, ..Default::default() };
    region.attribute.push(threads);
    let error = load(&model(vec![region], &[("y", 3)])).err().unwrap().to_string();
    assert!(error.contains("CkaadInt8, which is no file's to use"), "{error}");
}

#[test]
fn sides_whose_product_overflows_are_refused() {
    let mut huge = model(vec![first(), conv("t", "q"), real("q", "y")], &[("y", 3)]);
    let graph = huge.graph.as_mut().unwrap();
    graph.input = vec![value("image", DataType::Uint8, &[1, 2, 3_074_457_345_618_258_603, 3])];
    graph.output = vec![ValueInfoProto { name: "y".into(), ..Default::default() }];
    assert!(load(&huge).is_err());
}

#[test]
fn a_name_that_leads_back_to_itself_ends() {
    let nodes = vec![first(), node("Cast", &["y"], &["c", "y"]), conv("t", "y"), real("y", "out")];
    let _ = load(&model(nodes, &[("out", 3)]));
}

#[test]
fn nodes_without_outputs_or_inputs_are_refused() {
    for broken in [node("DequantizeLinear", &["q", "s", "z"], &[]), node("Relu", &[], &["r"]), node("Sub", &[], &["r"])]
    {
        let _ = load(&model(vec![first(), conv("t", "q"), broken, real("q", "y")], &[("y", 3)]));
    }
}

#[test]
fn an_output_that_nobody_writes_is_an_error() {
    let error = load(&model(vec![first(), conv("t", "q"), real("q", "y")], &[("nowhere", 3)]));
    assert!(error.is_err());
}

#[test]
fn what_no_kernel_does_is_left_to_tract_with_the_reason() {
    // An addition that broadcasts.
    let nodes = vec![
        first(),
        conv("t", "q"),
        real("q", "a"),
        node("ReduceMean", &["a"], &["mean"]),
        node("Add", &["a", "mean"], &["y"]),
    ];
    let plan = load(&model(nodes, &[("y", 3)])).unwrap();
    let ours = plan.run(&[9; 48]).unwrap();
    assert!(ours[0].iter().all(|v| v.is_finite()));

    let broadcast = vec![first(), conv("t", "q"), real("q", "a"), node("Add", &["a", "row"], &["y"])];
    assert_eq!(load(&model(broadcast, &[("y", 3)])).unwrap().run(&[9; 48]).unwrap()[0].len(), 48);
}

#[test]
fn a_layer_normalisation_whose_scale_is_of_another_shape_is_not_taken() {
    let layer = |dims: &[i64]| {
        let nodes = vec![first(), conv("t", "q"), real("q", "a"), node("LayerNormalization", &["a", "scale"], &["y"])];
        let mut model = model(nodes, &[("y", 3)]);
        let values = (0..dims.iter().product::<i64>()).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
        model.graph.as_mut().unwrap().initializer.push(constant("scale", DataType::Float, dims, values));
        load(&model)
    };
    let image: Vec<u8> = (0..48).map(|i| i * 5).collect();
    let plan = layer(&[3, 4, 4]).unwrap();
    assert!(plan.unfused().is_empty(), "{:?}", plan.unfused());
    assert!(plan.run(&image).unwrap()[0].iter().all(|v| v.is_finite()));
    // As many values, or values to be repeated: tract may run it; our kernels must not.
    for dims in [&[4, 3, 4], &[4, 4, 3], &[3, 1, 1], &[1, 4, 4], &[48, 1, 1]] {
        if let Ok(plan) = layer(dims) {
            assert!(plan.unfused()[0].starts_with("the whole network"), "{dims:?}: {:?}", plan.unfused());
        }
    }
    for dims in [&[4][..], &[4, 4], &[1, 3, 4, 4], &[]] {
        if let Ok(plan) = layer(dims) {
            let _ = plan.run(&image);
        }
    }
}

#[test]
fn a_constant_along_the_width_is_not_taken_for_one_a_channel() {
    // The cosine error of two tensors 3 wide and 3 deep, one of them scaled by a `[3]`, which runs along the width.
    let mut steps = vec![first(), conv("t", "q"), conv("q", "p"), real("q", "a"), real("p", "b")];
    steps.extend([node("Mul", &["a", "along"], &["as"]), node("Add", &["as", "along"], &["x"])]);
    let dot = |name: &str, x: &str, y: &str| {
        [node("Mul", &[x, y], &[&format!("{name}.p")]), node("ReduceSum", &[&format!("{name}.p"), "axis"], &[name])]
    };
    steps.extend(dot("xy", "x", "b").into_iter().chain(dot("xx", "x", "x")).chain(dot("yy", "b", "b")));
    steps.extend([
        node("Mul", &["xx", "yy"], &["squares"]),
        node("Add", &["squares", "epsilon"], &["guarded"]),
        node("Sqrt", &["guarded"], &["norms"]),
        node("Div", &["xy", "norms"], &["cosine"]),
        node("Sub", &["one", "cosine"], &["error"]),
    ]);
    let map = |dims: &[i64]| {
        let mut model = model(steps.clone(), &[("error", 1)]);
        let graph = model.graph.as_mut().unwrap();
        graph.input = vec![value("image", DataType::Uint8, &[1, 3, 3, 3])];
        graph.output = vec![value("error", DataType::Float, &[1, 1, 3, 3])];
        graph.initializer.extend([
            constant("along", DataType::Float, dims, floats(&[0.5, 2.0, 9.0])),
            constant("axis", DataType::Int64, &[1], 1i64.to_le_bytes().to_vec()),
            constant("epsilon", DataType::Float, &[], floats(&[1e-6])),
            constant("one", DataType::Float, &[], floats(&[1.0])),
        ]);
        let image: Vec<u8> = (0..27).map(|i| i * 9).collect();
        load(&model).unwrap().run(&image).unwrap().swap_remove(0)
    };
    let (channels, width) = (map(&[1, 3, 1, 1]), map(&[3]));
    assert!(channels.iter().zip(&width).any(|(a, b)| (a - b).abs() > 1e-3), "{channels:?}");
}

/// One thing of a model changed at random.
fn mutate(graph: &mut GraphProto, rng: &mut ChaCha8Rng) {
    let names: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output).cloned()).collect();
    let name = names.choose(rng).expect("names").clone();
    let at = rng.random_range(0..graph.node.len());
    let node = &mut graph.node[at];
    match rng.random_range(0..9) {
        0 if !node.input.is_empty() => {
            let i = rng.random_range(0..node.input.len());
            node.input[i] = name;
        }
        1 => node.output = vec![name],
        2 => {
            let ops = [
                "QLinearConv",
                "Conv",
                "Add",
                "Concat",
                "MaxPool",
                "Resize",
                "DequantizeLinear",
                "QuantizeLinear",
                "LayerNormalization",
                "LeakyRelu",
                "QLinearLeakyRelu",
                "Sub",
            ];
            node.op_type = ops.choose(rng).expect("operators").to_string();
        }
        3 => {
            graph.node.remove(at);
        }
        4 => {
            if let Some(a) = node.attribute.choose_mut(rng) {
                let value = *[-1, 0, 1, 2, 3, 7, 63, 64, 200].choose(rng).expect("values");
                a.i = value;
                a.ints.iter_mut().for_each(|i| *i = if rng.random() { value } else { *i });
            }
        }
        5 => node.attribute.clear(),
        6 => {
            node.input.truncate(rng.random_range(0..=node.input.len()));
        }
        7 => {
            let tensor = graph.initializer.choose_mut(rng).expect("constants");
            let keep = rng.random_range(0..=tensor.raw_data.len());
            tensor.raw_data.truncate(keep);
        }
        _ => {
            let tensor = graph.initializer.choose_mut(rng).expect("constants");
            match rng.random_range(0..3) {
                0 => tensor.dims.reverse(),
                1 => tensor.data_type = rng.random_range(1..12),
                _ => tensor.raw_data.iter_mut().for_each(|b| *b = rng.random()),
            }
        }
    }
}

#[test]
fn a_shipped_model_changed_at_random_is_run_or_refused() {
    let sound = ModelProto::decode(Bundle::read(&demo_bundle()).unwrap().model.as_slice()).unwrap();
    let (mut ran, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = sound.clone();
        for _ in 0..rng.random_range(1..=3) {
            mutate(model.graph.as_mut().unwrap(), &mut rng);
        }
        // Panics of tract's reader and operators are caught inside, and come as errors.
        match load(&model).and_then(|plan| plan.run(&[100; 192 * 192 * 3])) {
            Ok(_) => ran += 1,
            Err(e) => {
                assert!(!e.to_string().is_empty(), "seed {seed}");
                refused += 1;
            }
        }
    }
    println!("{ran} ran, {refused} refused");
    assert!(ran > 20 && refused > 20, "{ran} ran, {refused} refused");
}
