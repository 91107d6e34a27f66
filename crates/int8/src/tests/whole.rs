//! A region with every operator: the same bits from every instruction set and any number of threads, and no allocation
//! while it runs.

use super::case::weights;
use super::*;
use crate::operator::{Operator, Reads};
use crate::ops::layer_norm::Affine;
use crate::ops::lookup::Scale;
use crate::ops::*;
use crate::pack::CacheLine;
use crate::pool::Pool;
use crate::program::{Output, Program, outputs};
use crate::region::{NodeId, Region};
use crate::shape::{Activation, ElementType, Input, Window};
use crate::weights::{FloatWeights, Weights};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, which counts what watched threads ask of it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Watches this thread and the pool's, or stops it.
fn watch(pool: &Pool, threads: usize, watched: bool) {
    // Another test may have the pool for a moment, and then this thread is alone in here.
    for _ in 0..60 {
        let here = AtomicUsize::new(0);
        pool.run(&|| {
            here.fetch_add(1, Ordering::AcqRel);
            let start = Instant::now();
            while here.load(Ordering::Acquire) < threads && start.elapsed() < Duration::from_secs(1) {
                std::thread::yield_now();
            }
            WATCHED.set(watched);
        });
        if here.load(Ordering::Acquire) == threads {
            return;
        }
    }
    panic!("the pool's threads did not come");
}

const IMAGE: [usize; 4] = [1, 19, 15, 3];

fn push(region: &mut Region, op: impl Operator + 'static, inputs: &[NodeId]) -> NodeId {
    let name = op.name();
    region.push(name, Arc::new(op), inputs.to_vec())
}

fn window(kernel: [usize; 2], stride: [usize; 2], pads: [usize; 4]) -> Window {
    Window { kernel, stride, pads }
}

/// Operators on bytes; gives the nodes that others read.
fn bytes(r: &mut Region, rng: &mut ChaCha8Rng) -> NodeId {
    let mut conv = |dims: [usize; 4], stride: [usize; 2], pads: [usize; 4], depthwise: bool| {
        let mut weights = weights(rng, dims);
        // Two readers of a tensor must agree about what its border holds.
        weights.x_zero = 77;
        Conv { weights, window: window([dims[2], dims[3]], stride, pads), depthwise }
    };
    let image = push(r, Input { index: 0, channels_last: true, element: ElementType::U8, append: Some(9) }, &[]);
    let stem = push(r, conv([24, 4, 3, 3], [2, 2], [0, 0, 1, 1], false), &[image]);
    let wide = push(r, conv([90, 24, 1, 1], [1, 1], [0; 4], false), &[stem]);
    let deep = push(r, conv([90, 1, 5, 5], [1, 1], [2; 4], true), &[wide]);
    let back = push(r, conv([24, 90, 1, 1], [1, 1], [0; 4], false), &[deep]);
    let sum = push(r, Add { scale_a: 0.7, scale_b: 0.6, offset: -30.0, low: 60, high: 255 }, &[stem, back]);
    let leaky = |x: f32| if x < 0.0 { 0.1 * x } else { x };
    let bent = Lookup::new(Scale { scale: 0.1, zero: 99 }, Scale { scale: 0.07, zero: 31 }, leaky);
    let sum = push(r, bent, &[sum]);
    let values: Vec<u8> = (0..24 * 9 * 7).map(|i| (i * 37 % 256) as u8).collect();
    let values = Constant::new([24, 9, 7], values).unwrap();
    let constant = push(r, values, &[]);
    let [x, gamma, beta] = [(0.02, 40), (0.01, 128), (0.05, 77)].map(|(scale, zero)| Scale { scale, zero });
    let modulated =
        push(r, Modulate { x, gamma, beta, result: Scale { scale: 0.07, zero: 99 } }, &[constant, sum, stem]);
    let space = push(r, DepthToSpace(2), &[modulated]);
    let space = push(r, ByteOutput(ElementType::U8), &[space]);
    let pool = push(r, MaxPool(window([3, 3], [1, 1], [1; 4])), &[sum]);
    let large = push(r, ResizeNearest([2, 3]), &[pool]);
    let both = push(r, Concat, &[pool, sum, stem]);
    let head = push(r, conv([20, 72, 3, 3], [1, 1], [1, 0, 1, 2], false), &[both]);
    let map = push(r, DequantisedOutput { scale: 0.1, zero: 3.0 }, &[head]);
    let bytes = push(r, ByteOutput(ElementType::I8), &[large]);
    let [scale_a, offset_a, scale_b, offset_b] = [0.02, -1.0, 0.03, -2.0].map(|value| vec![value]);
    let cosine = CosineError { reads: Reads::Bytes, scale_a, offset_a, scale_b, offset_b, epsilon: 1e-6 };
    let error = push(r, cosine, &[pool, sum]);
    // 90 vectors: the last block has lanes to spare.
    let mut of_vectors = weights(rng, [90, 24, 1, 1]);
    of_vectors.bias.fill(0);
    let offset = floats(rng, 90, 40.0);
    let least = push(r, LeastProduct { weights: of_vectors, offset }, &[sum]);
    let real = push(r, Dequantise { scale: 0.05, zero: 77.0 }, &[sum]);
    let distance = push(r, Distance, &[least, real]);
    let least = push(r, FloatOutput, &[least]);
    [map, bytes, error, space, least, distance].into_iter().for_each(|id| r.output(id));
    stem
}

/// Operators on floats: sums of 24 channels, so that there are lanes behind the last.
fn reals(r: &mut Region, rng: &mut ChaCha8Rng, stem: NodeId) {
    let mut values = |count: usize| -> Vec<f32> { floats(rng, count, 0.1) };
    let affine = Affine { scale: values(24 * 9 * 7), offset: values(24 * 9 * 7) };
    let mut conv = |dims: [usize; 4], stride: [usize; 2], pads: [usize; 4], depthwise: bool| {
        let (bias, values) = (values(dims[0]), values(dims.iter().product()));
        let weights = FloatWeights { values, dims, bias, activation: Activation::Leaky(0.1), ceiling: 40.0 };
        FloatConv { weights, window: window([dims[2], dims[3]], stride, pads), depthwise }
    };
    let real = push(r, Dequantise { scale: 0.05, zero: 77.0 }, &[stem]);
    let layer = push(r, LayerNorm { shape: [24, 9, 7], affine: Some(affine), epsilon: 1e-5 }, &[real]);
    let mean = push(r, AveragePool(window([3, 3], [1, 1], [1; 4])), &[layer]);
    let dense = push(r, conv([70, 24, 3, 3], [1, 1], [1; 4], false), &[mean]);
    let deep = push(r, conv([70, 1, 3, 3], [2, 2], [1; 4], true), &[dense]);
    let top = push(r, MaxPool(window([3, 3], [2, 2], [1; 4])), &[dense]);
    let sum = push(r, FloatAdd { activation: Activation::Relu, ceiling: 6.0 }, &[deep, top]);
    let constant: Vec<f32> = (0..70 * 5 * 4).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let constant = push(r, Constant::new([70, 5, 4], constant).unwrap(), &[]);
    let sum = push(r, FloatModulate, &[constant, sum, top]);
    let sum = push(r, FloatActivation { activation: Activation::Leaky(0.2), ceiling: 3.0 }, &[sum]);
    let norm = push(r, InstanceNorm { scale: vec![1.5; 70], offset: vec![0.25; 70], epsilon: 1e-5 }, &[sum]);
    let more = push(r, AppendChannel(2.0), &[norm]);
    let unit = push(r, UnitLength { epsilon: 1e-6 }, &[more]);
    let wide = push(r, ResizeLinear([2, 2]), &[unit]);
    let nearest = push(r, ResizeNearest([2, 2]), &[norm]);
    let all = push(r, Concat, &[wide, nearest]);
    let products = push(r, conv([40, 141, 1, 1], [1, 1], [0; 4], false), &[all]);
    let distance = push(r, Distance, &[products, all]);
    let [scale_a, offset_a, scale_b, offset_b] = [1.0, 0.5, 2.0, 0.1].map(|value| vec![value]);
    let cosine = CosineError { reads: Reads::Floats, scale_a, offset_a, scale_b, offset_b, epsilon: 1e-9 };
    let error = push(r, cosine, &[more, unit]);
    let again = push(r, Quantise { scale: 0.02, zero: 100.0 }, &[sum]);
    let again = push(r, ByteOutput(ElementType::U8), &[again]);
    let layer = push(r, LayerNorm { shape: [70, 5, 4], affine: None, epsilon: 1e-5 }, &[sum]);
    let layer = push(r, FloatOutput, &[layer]);
    let pooled = push(r, PooledStatistics { scale: 0.05, zero: 77.0, cells: 63, count: 4 }, &[stem]);
    let score = push(r, conv([1, 72, 1, 1], [1, 1], [0; 4], false), &[pooled]);
    let score = push(r, FloatOutput, &[score]);
    let all = push(r, FloatOutput, &[all]);
    [distance, error, again, layer, all, score].into_iter().for_each(|id| r.output(id));
}

fn region(rng: &mut ChaCha8Rng) -> Region {
    let mut region = Region::default();
    let stem = bytes(&mut region, rng);
    reals(&mut region, rng, stem);
    region
}

/// Results of a run, each on lines of its own, as f32 must be aligned.
struct Results(Vec<(Vec<CacheLine>, usize)>);

impl Results {
    fn of(region: &Region, fill: u8) -> Results {
        let one = |output: &Output| (vec![CacheLine([fill; 64]); output.bytes().div_ceil(64)], output.bytes());
        Results(outputs(region, &[IMAGE]).unwrap().iter().map(one).collect())
    }

    fn bytes(&mut self) -> Vec<&mut [u8]> {
        let bytes = |(lines, bytes): &mut (Vec<CacheLine>, usize)| {
            assert!(*bytes <= lines.len() * 64);
            // SAFETY: lines are bytes and nothing else, and there are as many; each vector is borrowed once.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), *bytes) }
        };
        self.0.iter_mut().map(bytes).collect()
    }
}

#[test]
fn a_region_gives_the_same_bits_everywhere() {
    for seed in 0..6 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (region, image) = (region(&mut rng), noise(&mut rng, IMAGE.iter().product()));
        let run = |isa: Isa, threads: usize| {
            let program = Program::compile(&region, &[IMAGE], isa, threads).unwrap();
            let (pool, mut scratch) = (Pool::from(threads), program.scratch());
            let mut results = Results::of(&region, 0);
            for round in 0..20 {
                // A second run finds the first one's bytes in its memory, and others where the results belong.
                let mut now = Results::of(&region, round);
                program.run(&pool, &mut scratch, &[&image], &mut now.bytes());
                assert!(
                    round == 0 || now.bytes() == results.bytes(),
                    "{isa:?}, {threads} threads, run {round}, seed {seed}"
                );
                results = now;
            }
            results.bytes().into_iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>()
        };
        let right = run(Isa::PORTABLE, 1);
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [1, 2, 4].map(|threads| (isa, threads))) {
            assert!(run(isa, threads) == right, "{isa:?}, {threads} threads, seed {seed}");
        }
    }
}

#[test]
fn nothing_is_allocated_while_a_region_runs() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (region, image) = (region(&mut rng), noise(&mut rng, IMAGE.iter().product()));
    for threads in [1, 2] {
        let program = Program::compile(&region, &[IMAGE], Isa::best(), threads).unwrap();
        let (pool, mut scratch, mut results) = (Pool::from(threads), program.scratch(), Results::of(&region, 0));
        let mut results = results.bytes();
        watch(&pool, threads, true);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..50 {
            program.run(&pool, &mut scratch, &[&image], &mut results);
        }
        let counted = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // That the counter counts: one more.
        drop(std::hint::black_box(Box::new(counted)));
        let one_more = ALLOCATIONS.load(Ordering::Relaxed) - before;
        watch(&pool, threads, false);
        assert_eq!((counted, one_more), (0, 1), "{threads} threads");
    }
}

#[test]
fn layer_normalisation_is_the_formula() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let [channels, height, width] = [21, 6, 5];
    let count = channels * height * width;
    let (scale, offset) = (floats(&mut rng, count, 2.0), floats(&mut rng, count, 2.0));
    let image = noise(&mut rng, count);
    let affine = Affine { scale: scale.clone(), offset: offset.clone() };
    let got = floats_of([1, channels, height, width], &image, |region, input| {
        let real = push(region, Dequantise { scale: 0.1, zero: 120.0 }, &[input]);
        let shape = [channels, height, width];
        let norm = push(region, LayerNorm { shape, affine: Some(affine), epsilon: 1e-5 }, &[real]);
        push(region, FloatOutput, &[norm])
    });
    let x: Vec<f64> = image.iter().map(|&b| (f64::from(b) - 120.0) * 0.1).collect();
    let mean = x.iter().sum::<f64>() / count as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
    for (i, &got) in got.iter().enumerate() {
        let right = (x[i] - mean) / (variance + 1e-5).sqrt() * f64::from(scale[i]) + f64::from(offset[i]);
        assert!((f64::from(got) - right).abs() < 1e-5, "value {i}: {got}, not {right}");
    }
}

/// A region on bytes `[1,C,H,W]`, run with two threads on every instruction set, which all give the same; its one result is floats.
fn floats_of(shape: [usize; 4], image: &[u8], rest: impl FnOnce(&mut Region, NodeId) -> NodeId) -> Vec<f32> {
    let mut region = Region::default();
    let input = Input { index: 0, channels_last: false, element: ElementType::U8, append: None };
    let input = push(&mut region, input, &[]);
    let out = rest(&mut region, input);
    region.output(out);
    let run = |isa: Isa| {
        let program = Program::compile(&region, &[shape], isa, 2).unwrap();
        let mut results = outputs(&region, &[shape]).unwrap();
        let bytes = results.pop().unwrap().bytes();
        let mut result = vec![CacheLine([0; 64]); bytes.div_ceil(64)];
        // SAFETY: lines are bytes and nothing else.
        let result = unsafe { std::slice::from_raw_parts_mut(result.as_mut_ptr().cast::<u8>(), bytes) };
        program.run(&Pool::from(2), &mut program.scratch(), &[image], &mut [&mut *result]);
        result.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect::<Vec<f32>>()
    };
    let right = run(Isa::PORTABLE);
    others().into_iter().for_each(|isa| assert!(run(isa) == right, "{isa:?}"));
    right
}

#[test]
fn the_nearest_of_many_vectors_is_as_far_as_the_formula_says() {
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (vectors, channels) = (rng.random_range(1..=150), rng.random_range(1..=70));
        let (height, width) = (rng.random_range(1..=9), rng.random_range(1..=9));
        let cells = height * width;
        let (x_scale, x_zero): (f32, u8) = (rng.random_range(0.01..0.1), rng.random());
        let image = noise(&mut rng, channels * cells);
        let scales: Vec<f32> = (0..vectors).map(|_| rng.random_range(0.005..0.05)).collect();
        let values: Vec<i8> = (0..vectors * channels).map(|_| rng.random()).collect();
        let rows = || values.chunks_exact(channels).zip(&scales);
        let real: Vec<Vec<f64>> =
            rows().map(|(row, &scale)| row.iter().map(|&w| f64::from(w) * f64::from(scale)).collect()).collect();
        let offset = real.iter().map(|row| row.iter().map(|w| w * w).sum::<f64>() as f32).collect();
        let multipliers = scales.iter().map(|scale| -2.0 * scale * x_scale).collect();
        let dims = [vectors, channels, 1, 1];
        let weights = Weights { values: values.clone(), dims, bias: vec![0; vectors], multipliers, x_zero, y_zero: 0 };
        let op = LeastProduct { weights, offset };
        let got = floats_of([1, channels, height, width], &image, |region, input| {
            let least = push(region, op.clone(), &[input]);
            let x = push(region, Dequantise { scale: x_scale, zero: f32::from(x_zero) }, &[input]);
            push(region, Distance, &[least, x])
        });
        // Alone it may read pixels that nothing fills up.
        let alone = floats_of([1, channels, height, width], &image, |region, input| {
            let least = push(region, op, &[input]);
            push(region, FloatOutput, &[least])
        });
        for (cell, (&got, &least)) in got.iter().zip(&alone).enumerate() {
            let x = |c: usize| (f64::from(image[c * cells + cell]) - f64::from(x_zero)) * f64::from(x_scale);
            let squared = |row: &Vec<f64>| row.iter().enumerate().map(|(c, w)| (x(c) - w).powi(2)).sum::<f64>();
            let right = real.iter().map(squared).fold(f64::INFINITY, f64::min).sqrt();
            // Of squares that take each other away; so much is left of those of the operands.
            let size = (0..channels).map(|c| x(c).powi(2)).sum::<f64>() + right * right;
            let error = (f64::from(got).powi(2) - right * right).abs();
            assert!(error < 1e-5 * size + 1e-6, "seed {seed}, cell {cell}: {got}, not {right}");
            let own: f64 = (0..channels).map(|c| x(c).powi(2)).sum();
            let error = (f64::from(least) + own - right * right).abs();
            assert!(error < 1e-5 * size + 1e-6, "seed {seed}, cell {cell}: {least} of {right}");
        }
    }
}

#[test]
fn pooled_statistics_are_what_sorting_gives() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for (channels, height, width, count) in [(1, 1, 1, 1), (21, 6, 5, 1), (40, 7, 9, 4), (16, 3, 2, 6)] {
        let cells = height * width;
        // Few different values, so that equal ones lie on both sides of where the extreme ones end.
        let image: Vec<u8> = (0..channels * cells).map(|_| rng.random_range(0..9)).collect();
        let got = floats_of([1, channels, height, width], &image, |region, input| {
            let pooled = push(region, PooledStatistics { scale: 0.25, zero: 7.0, cells, count }, &[input]);
            push(region, FloatOutput, &[pooled])
        });
        for (channel, values) in image.chunks_exact(cells).enumerate() {
            let mut sorted: Vec<f64> = values.iter().map(|&b| (f64::from(b) - 7.0) * 0.25).collect();
            sorted.sort_by(f64::total_cmp);
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let right = [mean(&sorted), mean(&sorted[cells - count..]), mean(&sorted[..count])];
            for (part, right) in right.into_iter().enumerate() {
                let got = f64::from(got[part * channels + channel]);
                assert!((got - right).abs() < 1e-5, "part {part} of channel {channel}: {got}, not {right}");
            }
        }
    }
}
