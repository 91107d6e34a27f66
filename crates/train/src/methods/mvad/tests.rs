//! Attention against its definition, and the graph against the networks.

use super::*;
use crate::backbones::Scale;
use crate::graph::Op;
use crate::graph::Ranges;
use crate::methods::folding::values;
use crate::methods::formula::fill;
use crate::methods::mvad::net::{ChannelNorm, attention, positions};
use crate::methods::specimens::{Set, part};
use crate::methods::{Batch, StepBatch};
use crate::onnx::emit_f32;
use crate::onnx::int8::{self, Dialect};
use ckaad_inspect::engine::Plan;
use ndarray::Array4;

const VIEWS: usize = 3;
const STRIDES: [usize; 3] = [4, 8, 16];

fn config() -> MvadConfig {
    MvadConfig { top: 2, ..MvadConfig::default() }
}

/// Two parts of three views each, of which the last has a defect.
fn parts() -> Set {
    let images: Vec<_> = (0..6).map(|i| part(i, (i == 5).then_some((40, 24)))).collect();
    Set::of(&STRIDES, &images)
}

fn features(n: usize, channels: usize, h: usize, w: usize) -> Array4<f32> {
    Array4::from_shape_vec((n, channels, h, w), fill("features", n * channels * h * w, 0.1, 1.0)).unwrap()
}

/// Cell by cell, from the positions of windows on the map, without one array of windows.
#[test]
fn attention_is_what_its_definition_says() {
    let how = CrossView { views: 3, window: 3, top: 2, heads: 2 };
    let (n, channels, h, w) = (6, 4, 7, 5);
    let x = features(n, channels, h, w);
    let asking = Array4::from_shape_vec((n, channels, h, w), fill("asking", x.len(), 0.0, 1.0)).unwrap();
    let device = device::cpu();
    let others = looked_at(&x, how, &device);
    let tensor = |x: &Array4<f32>| tensors(std::slice::from_ref(x), &device).swap_remove(0);
    let (found, _) = values(attention(tensor(&asking), &others, how));
    let cells = |wy: usize, wx: usize| -> Vec<(usize, usize)> {
        let all = (3 * wy..(3 * wy + 3).min(h)).flat_map(|y| (3 * wx..(3 * wx + 3).min(w)).map(move |x| (y, x)));
        all.collect()
    };
    let mean = |image: usize, wy: usize, wx: usize, c: usize| {
        let cells = cells(wy, wx);
        cells.iter().map(|&(y, v)| x[[image, c, y, v]]).sum::<f32>() / cells.len() as f32
    };
    for image in 0..n {
        for (y, v) in (0..h).flat_map(|y| (0..w).map(move |v| (y, v))) {
            let part = image / 3 * 3;
            let mut seen: Vec<(f32, usize, usize, usize)> = vec![];
            for other in (part..part + 3).filter(|&other| other != image) {
                for (wy, wx) in (0..3).flat_map(|wy| (0..2).map(move |wx| (wy, wx))) {
                    let alike = (0..channels).map(|c| mean(image, y / 3, v / 3, c) * mean(other, wy, wx, c)).sum();
                    seen.push((alike, other, wy, wx));
                }
            }
            seen.sort_by(|a, b| b.0.total_cmp(&a.0));
            let keys: Vec<(usize, usize, usize)> = seen[..2]
                .iter()
                .flat_map(|&(_, other, wy, wx)| cells(wy, wx).into_iter().map(move |(y, v)| (other, y, v)))
                .collect();
            for head in 0..2 {
                let of_head = 2 * head..2 * head + 2;
                let products: Vec<f32> = keys
                    .iter()
                    .map(|&(o, ky, kx)| {
                        of_head.clone().map(|c| asking[[image, c, y, v]] * x[[o, c, ky, kx]]).sum::<f32>() / 2.0
                    })
                    .collect();
                let all: f32 = products.iter().map(|p| p.exp()).sum();
                for c in of_head {
                    let shares = keys.iter().zip(&products);
                    let expected: f32 = shares.map(|(&(o, ky, kx), p)| p.exp() / all * x[[o, c, ky, kx]]).sum();
                    let found = found[((image * channels + c) * h + y) * w + v];
                    assert!((found - expected).abs() < 1e-5, "{image} {c} {y} {v}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn a_part_of_many_steps_has_positions_that_tell_its_places() {
    let (channels, h, w) = (8, 5, 7);
    let position = positions([channels, h, w]);
    let at = |y: usize, x: usize| -> Vec<f32> { (0..channels).map(|c| position[(c * h + y) * w + x]).collect() };
    let all: Vec<Vec<f32>> = (0..h * w).map(|i| at(i / w, i % w)).collect();
    for (i, a) in all.iter().enumerate() {
        for b in &all[..i] {
            assert!(a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-3));
        }
    }
    // Half of the channels know the row alone.
    assert_eq!(at(2, 1)[..4], at(2, 6)[..4]);
    assert_eq!(at(2, 1)[4..], at(4, 1)[4..]);
}

/// After some steps, so that norms and running statistics are none that they began with.
fn trained(set: &Set, steps: usize, own: bool) -> (Mvad, Vec<f32>) {
    let mut method = Mvad::new(&MvadConfig { own, ..config() }, VIEWS, &set.extractor, &device::cpu());
    let losses = (0..steps).map(|i| {
        let normal = Batch { views: VIEWS, ..set.batch(0, 3) };
        let losses = method.step(&StepBatch { normal, tell: true, ..StepBatch::default() }, i as f64 / steps as f64);
        losses.of(RECONSTRUCTION).unwrap()
    });
    let losses = losses.collect();
    (method, losses)
}

fn pixels(set: &Set, images: std::ops::Range<usize>) -> Vec<u8> {
    images.flat_map(|i| set.extractor.pixels(&set.sample(i).path).unwrap()).collect()
}

#[test]
fn the_graph_draws_what_the_networks_draw_and_every_view_depends_on_the_others() {
    [true, false].into_iter().for_each(the_graph_draws_what_the_networks_draw);
}

fn the_graph_draws_what_the_networks_draw(own: bool) {
    let set = parts();
    let (method, losses) = trained(&set, 6, own);
    assert!(losses[5] < losses[0], "{losses:?}");
    let net = method.net.network.valid();
    let batch = set.batch(3, 6);
    let device = device::cpu();
    let others: Vec<_> =
        batch.features.iter().zip(&method.windows).map(|(x, &how)| looked_at(x, how, &device)).collect();
    let drawn = net.forward(&tensors(&batch.features, &device), &others, &method.windows);
    let mut graph = set.extractor.graph.clone();
    let ids = fold::predictions(&mut graph, &net, &set.extractor.taps, &method.windows);
    assert_eq!(graph.views(), VIEWS);
    let model = emit_f32(&graph, Some(&ids));
    let plan = Plan::load(&model, 1).unwrap();
    assert_eq!(plan.views(), VIEWS);
    let found = plan.run(&pixels(&set, 3..6)).unwrap();
    for (scale, (found, drawn)) in found.iter().zip(drawn).enumerate() {
        let (drawn, _) = values(drawn);
        let largest = drawn.iter().fold(0f32, |a, b| a.max(b.abs()));
        let worst = found.iter().zip(&drawn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == drawn.len() && worst < 2e-4 * largest, "scale {scale}: {worst} of {largest}");
    }
    // Another picture in place of the last view changes what is drawn of the first.
    let changed = plan.run(&[pixels(&set, 3..5), pixels(&set, 0..1)].concat()).unwrap();
    let first = |of: &[Vec<f32>]| of[0][..of[0].len() / VIEWS].to_vec();
    assert_ne!(first(&found), first(&changed));
    // Weights are there once, whatever the number of views.
    assert!(model.len() < 2 * 4 * graph.parameters() as usize, "{} bytes", model.len());
}

#[test]
fn in_int8_it_draws_about_the_same() {
    let set = parts();
    let (method, _) = trained(&set, 6, true);
    let mut graph = set.extractor.graph.clone();
    let nodes = method.append(&mut graph, &set.extractor, &|_| true);
    let ids: Vec<Id> = nodes.into_iter().map(|(_, id)| id).collect();
    let measured: Vec<Id> = (0..graph.nodes.len()).filter(|&id| int8::gives_bytes(&graph.nodes[id])).collect();
    let image = pixels(&set, 3..6);
    let seen = Plan::load(&emit_f32(&graph, Some(&measured)), 1).unwrap().run(&image).unwrap();
    let range = |(&id, values): (&Id, &Vec<f32>)| {
        let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        (graph.nodes[id].name.clone(), (low, high))
    };
    let ranges: Ranges = measured.iter().zip(&seen).map(range).collect();
    let exact = Plan::load(&emit_f32(&graph, Some(&ids)), 1).unwrap().run(&image).unwrap();
    let model = int8::emit(&graph, Some(&ids), &ranges.of(&graph), |_| false, Dialect::QOperator);
    let plan = Plan::load(&model, 1).unwrap();
    let rounded = plan.run(&image).unwrap();
    for (exact, rounded) in exact.iter().zip(&rounded) {
        let mean = |values: &mut dyn Iterator<Item = f32>| values.sum::<f32>() / exact.len() as f32;
        let off = mean(&mut exact.iter().zip(rounded).map(|(a, b)| (a - b).abs()));
        let size = mean(&mut exact.iter().map(|v| v.abs()));
        assert!(off < 0.1 * size, "{off} of {size}");
    }
    // What attention and its norms give is made bytes by tract, and so are the images' views picked; all else is the engine's.
    let left = plan.unfused();
    assert!(left.iter().all(|node| node.starts_with("QuantizeLinear: mvad.")), "{left:?}");
}

/// With the teacher, ResNet34 to stride 16, which has 8.170 M parameters and 3.946 GMAC at 256x256: published are 18.40 M, of which 0.60 are not used, and
/// 9.0 GMAC a view, with windows that lie beyond the map besides.
#[test]
fn the_papers_network_is_as_large_as_published() {
    let channels = [64, 128, 256];
    let scales: Vec<Scale> =
        channels.iter().zip([4, 8, 16]).map(|(&channels, stride)| Scale { channels, stride }).collect();
    let how = |i: usize| CrossView { views: 5, window: side(i), top: 4, heads: 8 };
    let windows: Vec<CrossView> = (0..3).map(how).collect();
    assert_eq!(
        windows.iter().zip([64, 32, 16]).map(|(how, side)| how.windows([side; 2])[0]).collect::<Vec<_>>(),
        [13, 8, 6]
    );
    let net = MvadNet::new(&scales, &Shape { size: Size::Paper, dropout: 0.1, own: true }, &device::cpu());
    let mut graph = Graph::new(256, 256);
    let taps: Vec<Id> = channels
        .iter()
        .zip([64, 32, 16])
        .map(|(&c, side)| graph.constant(format!("tap.{c}"), [c, side, side], vec![0.0; c * side * side]))
        .collect();
    fold::predictions(&mut graph, &net, &taps, &windows);
    let attention = graph.nodes.iter().filter(|node| matches!(node.op, Op::CrossView(_))).count();
    assert_eq!(attention, 1 + 2 + 4);
    let (macs, parameters) = (graph.macs() as f64 / 1e9 + 3.946, net.num_params() as f64 / 1e6 + 8.170);
    assert!((macs - 9.0).abs() < 0.1 && (parameters - 17.80).abs() < 0.05, "{macs:.3} GMAC, {parameters:.3} M");
}

#[test]
fn a_norm_over_channels_leaves_each_cell_with_mean_0_and_variance_1() {
    let device = device::cpu();
    let x = features(1, 6, 2, 2);
    let norm = ChannelNorm::new(6, &device);
    let (found, _) = values(norm.forward(tensors(&[x], &device).swap_remove(0)));
    for cell in 0..4 {
        let values: Vec<f32> = (0..6).map(|c| found[c * 4 + cell]).collect();
        let mean = values.iter().sum::<f32>() / 6.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 6.0;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
    }
}
