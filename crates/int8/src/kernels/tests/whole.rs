//! A region with every operator: the same bits from every instruction set and any number of threads, and no allocation while it runs.

use super::case::weights;
use super::*;
use crate::pack::Line;
use crate::pool::Pool;
use crate::program::Program;
use crate::region::{Activation, Conv, ElementType, FloatConv, Id, Input, InstanceNorm, Node, Op, Region, Window};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
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

fn region(rng: &mut ChaCha8Rng) -> Region {
    fn push(region: &mut Region, op: Op, inputs: &[Id]) -> Id {
        region.nodes.push(Node { name: op.name().into(), op, inputs: inputs.to_vec() });
        region.nodes.len() - 1
    }
    let mut conv = |dims: [usize; 4], stride: [usize; 2], pads: [usize; 4], depthwise: bool| {
        let mut weights = weights(rng, dims);
        // Two readers of a tensor must agree about what its border holds.
        weights.x_zero = 77;
        Op::Conv(Conv { weights, window: Window { kernel: [dims[2], dims[3]], stride, pads }, depthwise })
    };
    let mut all = Region::default();
    let r = &mut all;
    let image =
        push(r, Op::Input(Input { index: 0, channels_last: true, element: ElementType::U8, append: Some(9) }), &[]);
    let stem = push(r, conv([24, 4, 3, 3], [2, 2], [0, 0, 1, 1], false), &[image]);
    let wide = push(r, conv([90, 24, 1, 1], [1, 1], [0; 4], false), &[stem]);
    let deep = push(r, conv([90, 1, 5, 5], [1, 1], [2; 4], true), &[wide]);
    let back = push(r, conv([24, 90, 1, 1], [1, 1], [0; 4], false), &[deep]);
    let how = AddRow { scale_a: 0.7, scale_b: 0.6, offset: -30.0, low: 60, high: 255 };
    let sum = push(r, Op::Add(how), &[stem, back]);
    let pool = push(r, Op::MaxPool(Window { kernel: [3, 3], stride: [1, 1], pads: [1; 4] }), &[sum]);
    let large = push(r, Op::Upsample([2, 3]), &[pool]);
    let both = push(r, Op::Concat, &[pool, sum, stem]);
    let head = push(r, conv([20, 72, 3, 3], [1, 1], [1, 0, 1, 2], false), &[both]);
    let map = push(r, Op::Dequantise { scale: 0.1, zero: 3.0 }, &[head]);
    let bytes = push(r, Op::Bytes(ElementType::I8), &[large]);
    let [scale_a, offset_a, scale_b, offset_b] = [0.02, -1.0, 0.03, -2.0].map(|value| vec![value]);
    let cosine = CosineRow { scale_a, offset_a, scale_b, offset_b, epsilon: 1e-6 };
    let error = push(r, Op::CosineError(cosine), &[pool, sum]);
    // Floats: sums of 24 channels, so that there are lanes behind the last.
    let leaky = Activation::Slope(0.1, 40.0);
    let mut float_conv = |dims: [usize; 4], stride: [usize; 2], pads: [usize; 4], depthwise: bool| {
        let mut values = |count: usize| (0..count).map(|_| rng.random_range(-0.1..0.1)).collect();
        let (bias, values) = (values(dims[0]), values(dims.iter().product()));
        let window = Window { kernel: [dims[2], dims[3]], stride, pads };
        Op::FloatConv(FloatConv { values, dims, bias, window, activation: leaky, depthwise })
    };
    let real = push(r, Op::Float { scale: 0.05, zero: 77.0 }, &[stem]);
    let mean = push(r, Op::AveragePool(Window { kernel: [3, 3], stride: [1, 1], pads: [1; 4] }), &[real]);
    let dense = push(r, float_conv([70, 24, 3, 3], [1, 1], [1; 4], false), &[mean]);
    let deep = push(r, float_conv([70, 1, 3, 3], [2, 2], [1; 4], true), &[dense]);
    let top = push(r, Op::MaxPool(Window { kernel: [3, 3], stride: [2, 2], pads: [1; 4] }), &[dense]);
    let sum = push(r, Op::FloatAdd(Activation::Slope(0.0, 6.0)), &[deep, top]);
    let norm = InstanceNorm { scale: vec![1.5; 70], offset: vec![0.25; 70], epsilon: 1e-5 };
    let norm = push(r, Op::InstanceNorm(norm), &[sum]);
    let more = push(r, Op::Append(2.0), &[norm]);
    let unit = push(r, Op::Unit { epsilon: 1e-6 }, &[more]);
    let wide = push(r, Op::Enlarge([2, 2]), &[unit]);
    let nearest = push(r, Op::Upsample([2, 2]), &[norm]);
    let all_floats = push(r, Op::Concat, &[wide, nearest]);
    let products = push(r, float_conv([40, 141, 1, 1], [1, 1], [0; 4], false), &[all_floats]);
    let distance = push(r, Op::Distance, &[products, all_floats]);
    let cosine =
        CosineRow { scale_a: vec![1.0], offset_a: vec![0.5], scale_b: vec![2.0], offset_b: vec![0.1], epsilon: 1e-9 };
    let float_error = push(r, Op::CosineError(cosine), &[more, unit]);
    let again = push(r, Op::Quantise { scale: 0.02, zero: 100.0 }, &[sum]);
    let again = push(r, Op::Bytes(ElementType::U8), &[again]);
    let floats = push(r, Op::Floats, &[all_floats]);
    r.outputs = vec![map, bytes, error, distance, float_error, again, floats];
    all
}

/// Results of a run, each on lines of its own, as f32 must be aligned.
struct Results(Vec<(Vec<Line>, usize)>);

impl Results {
    fn of(region: &Region, fill: u8) -> Results {
        let shapes = region.shapes(&[IMAGE]).unwrap();
        let one = |&id: &Id| {
            let bytes =
                shapes[id].iter().product::<usize>() * if let Op::Bytes(_) = region.nodes[id].op { 1 } else { 4 };
            (vec![Line([fill; 64]); bytes.div_ceil(64)], bytes)
        };
        Results(region.outputs.iter().map(one).collect())
    }

    fn bytes(&mut self) -> Vec<&mut [u8]> {
        let bytes = |(lines, bytes): &mut (Vec<Line>, usize)| {
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
            let (pool, mut scratch) = (Pool::of(threads), program.scratch());
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
        let right = run(Isa::Portable, 1);
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
        let (pool, mut scratch, mut results) = (Pool::of(threads), program.scratch(), Results::of(&region, 0));
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
