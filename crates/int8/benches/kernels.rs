//! Times of one convolution of each kind on one thread, with this CPU's best instruction set and in plain Rust.
//! Throughput is in multiply-adds, so "elem/s" over the peak of `ckaad-agent bench` says how much of the CPU is used.
//!
//!     cargo bench -p ckaad-int8

use ckaad_int8::Isa;
use ckaad_int8::Operator;
use ckaad_int8::ops::{ByteOutput, Conv, Dequantise, FloatConv, FloatOutput};
use ckaad_int8::pool::Pool;
use ckaad_int8::program::Program;
use ckaad_int8::region::Region;
use ckaad_int8::shape::{Activation, ElementType, Input, Window};
use ckaad_int8::weights::{FloatWeights, Weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;

/// Height and width of all inputs.
const SIDE: usize = 28;
/// Convolutions of a kind one behind the other, so that the way in and out of the region counts for little.
const CHAIN: usize = 4;

fn window(side: usize) -> Window {
    Window { kernel: [side; 2], stride: [1; 2], pads: [side / 2; 4] }
}

fn quantised(dims: [usize; 4], depthwise: bool) -> Conv {
    let values = (0..dims.iter().product::<usize>()).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let (bias, multipliers) = (vec![0; dims[0]], vec![1e-3; dims[0]]);
    let weights = Weights { values, dims, bias, multipliers, x_zero: 0, y_zero: 128 };
    Conv { weights, window: window(dims[2]), depthwise }
}

fn real(dims: [usize; 4]) -> FloatConv {
    let values = (0..dims.iter().product::<usize>()).map(|i| ((i % 17) as f32 - 8.0) * 1e-2).collect();
    let (activation, ceiling) = (Activation::Relu, f32::INFINITY);
    FloatConv {
        weights: FloatWeights { values, dims, bias: vec![0.0; dims[0]], activation, ceiling },
        window: window(dims[2]),
        depthwise: false,
    }
}

/// The image, what comes before the convolutions, the convolutions, and the way out.
fn region(before: Option<Dequantise>, conv: Arc<dyn Operator>, out: Arc<dyn Operator>) -> Region {
    let mut region = Region::default();
    let input = Input { index: 0, channels_last: true, element: ElementType::U8, append: None };
    let mut last = region.push("image", Arc::new(input), vec![]);
    if let Some(before) = before {
        last = region.push("real", Arc::new(before), vec![last]);
    }
    for _ in 0..CHAIN {
        last = region.push("conv", conv.clone(), vec![last]);
    }
    last = region.push("out", out, vec![last]);
    region.output(last);
    region
}

fn kernels(criterion: &mut Criterion) {
    let bytes = || Arc::new(ByteOutput(ElementType::U8));
    let real_input = Dequantise { scale: 0.01, zero: 128.0 };
    let cases = [
        ("dense 1x1, 128 to 128", 128, 128 * 128, region(None, Arc::new(quantised([128, 128, 1, 1], false)), bytes())),
        ("dense 3x3, 64 to 64", 64, 9 * 64 * 64, region(None, Arc::new(quantised([64, 64, 3, 3], false)), bytes())),
        ("depthwise 3x3, 192", 192, 9 * 192, region(None, Arc::new(quantised([192, 1, 3, 3], true)), bytes())),
        ("depthwise 5x5, 192", 192, 25 * 192, region(None, Arc::new(quantised([192, 1, 5, 5], true)), bytes())),
        (
            "f32 3x3, 64 to 64",
            64,
            9 * 64 * 64,
            region(Some(real_input), Arc::new(real([64, 64, 3, 3])), Arc::new(FloatOutput)),
        ),
    ];
    for (name, channels, macs, region) in &cases {
        let mut group = criterion.benchmark_group(*name);
        group.sample_size(10);
        group.throughput(Throughput::Elements((CHAIN * macs * SIDE * SIDE) as u64));
        let image: Vec<u8> = (0..SIDE * SIDE * channels).map(|i| (i * 101 % 251) as u8).collect();
        for isa in [Isa::best(), Isa::PORTABLE] {
            let program = Program::compile(region, &[[1, SIDE, SIDE, *channels]], isa, 1).expect("shapes that fit");
            let (pool, mut scratch) = (Pool::from(1), program.scratch());
            let bytes = program.outputs()[0].bytes();
            let mut values = vec![0; bytes + 4];
            // Floats need an aligned place.
            let start = values.as_ptr().align_offset(4);
            let out = &mut values[start..start + bytes];
            group.bench_function(BenchmarkId::from_parameter(isa.name()), |bencher| {
                bencher.iter(|| program.run(&pool, &mut scratch, &[&image], &mut [&mut *out]));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
