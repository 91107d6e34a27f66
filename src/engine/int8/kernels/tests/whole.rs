//! A region with every operator: the same bits from every instruction set and any number of threads, and no allocation while it runs.

use super::case::weights;
use super::rows::floats;
use super::*;
use crate::engine::int8::pack::Line;
use crate::engine::int8::pool::Pool;
use crate::engine::int8::program::Program;
use crate::engine::int8::region::{Activation, Conv, FloatConv, Id, Input, Node, Op, Region, Window};
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
        region.nodes.push(Node { name: String::new(), op, inputs: inputs.to_vec() });
        region.nodes.len() - 1
    }
    let conv = |rng: &mut ChaCha8Rng, dims: [usize; 4], stride: [usize; 2], pads: [usize; 4], depthwise: bool| {
        let mut weights = weights(rng, dims);
        // Two readers of a tensor must agree about what its border holds.
        weights.x_zero = 77;
        Op::Conv(Conv { weights, window: Window { kernel: [dims[2], dims[3]], stride, pads }, depthwise })
    };
    let mut all = Region::default();
    let r = &mut all;
    let image = push(r, Op::Input(Input { index: 0, channels_last: true, signed: false, append: Some(9) }), &[]);
    let stem = push(r, conv(rng, [24, 4, 3, 3], [2, 2], [0, 0, 1, 1], false), &[image]);
    let wide = push(r, conv(rng, [90, 24, 1, 1], [1, 1], [0; 4], false), &[stem]);
    let deep = push(r, conv(rng, [90, 1, 5, 5], [1, 1], [2; 4], true), &[wide]);
    let back = push(r, conv(rng, [24, 90, 1, 1], [1, 1], [0; 4], false), &[deep]);
    let how = AddRow { scale_a: 0.7, scale_b: 0.6, offset: -30.0, low: 60, high: 255 };
    let sum = push(r, Op::Add(how), &[stem, back]);
    let pool = push(r, Op::MaxPool(Window { kernel: [3, 3], stride: [1, 1], pads: [1; 4] }), &[sum]);
    let large = push(r, Op::Upsample([2, 3]), &[pool]);
    let both = push(r, Op::Concat, &[pool, sum, stem]);
    let head = push(r, conv(rng, [20, 72, 3, 3], [1, 1], [1, 0, 1, 2], false), &[both]);
    let map = push(r, Op::Dequantise { scale: 0.1, zero: 3.0 }, &[head]);
    let float = push(r, Op::Float { scale: 0.01, zero: 60.0 }, &[sum]);
    let activation = Activation::Slope(0.1, 6.0);
    let values: Vec<f32> = floats(rng, 18 * 24 * 9, 0.2);
    let window = Window { kernel: [3, 3], stride: [1, 1], pads: [1; 4] };
    let conv = FloatConv { values, dims: [18, 24, 3, 3], bias: floats(rng, 18, 1.0), window, activation };
    let float_conv = push(r, Op::FloatConv(conv), &[float]);
    let mean = push(r, Op::AveragePool(window), &[float_conv]);
    let joined = push(r, Op::FloatConcat, &[mean, float]);
    let unit = push(r, Op::Unit { epsilon: 1e-6 }, &[joined]);
    let enlarged = push(r, Op::Enlarge([2, 2]), &[unit]);
    let float = push(r, Op::Floats, &[enlarged]);
    let bytes = push(r, Op::Bytes { signed: true }, &[large]);
    let [scale_a, offset_a, scale_b, offset_b] = [0.02, -1.0, 0.03, -2.0].map(|value| vec![value]);
    let cosine = CosineRow { scale_a, offset_a, scale_b, offset_b, epsilon: 1e-6 };
    let error = push(r, Op::CosineError(cosine), &[pool, sum]);
    r.outputs = vec![map, bytes, error, float];
    all
}

/// Results of a run, each on lines of its own, as f32 must be aligned.
struct Results(Vec<(Vec<Line>, usize)>);

impl Results {
    fn of(region: &Region, fill: u8) -> Results {
        let shapes = region.shapes(&[IMAGE]).unwrap();
        let one = |&id: &Id| {
            let bytes =
                shapes[id].iter().product::<usize>() * if let Op::Bytes { .. } = region.nodes[id].op { 1 } else { 4 };
            (vec![Line([fill; 64]); bytes.div_ceil(64)], bytes)
        };
        Results(region.outputs.iter().map(one).collect())
    }

    fn bytes(&mut self) -> [&mut [u8]; 4] {
        let [a, b, c, d] = self.0.as_mut_slice() else { panic!("four results") };
        [a, b, c, d].map(|(lines, bytes)| {
            assert!(*bytes <= lines.len() * 64);
            // SAFETY: lines are bytes and nothing else, and there are as many.
            unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), *bytes) }
        })
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
            results.bytes().map(|bytes| bytes.to_vec())
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
