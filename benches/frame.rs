//! What a camera's frame costs before the network sees it: the driver's bytes to RGB, and to the network's input.
//!
//!     cargo bench -p ckaad-edge --bench frame

use ckaad_bundle::{Filter, Input, ResizeMode};
use ckaad_edge::capture::{FrameFormat, to_rgb};
use ckaad_inspect::imaging::{self, RgbImage};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const SIZE: (u32, u32) = (1920, 1080);

/// Bytes without a pattern that a branch could learn.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn frame(c: &mut Criterion) {
    let (width, height) = SIZE;
    let pixels = (width * height) as usize;
    let mut group = c.benchmark_group("frame 1920x1080");
    group.throughput(Throughput::Elements(pixels as u64));
    let yuyv = noise(2 * pixels);
    group.bench_function("YUYV to RGB", |b| b.iter(|| to_rgb(black_box(&yuyv), width, height, FrameFormat::YUYV)));
    let nv12 = noise(pixels * 3 / 2);
    group.bench_function("NV12 to RGB", |b| b.iter(|| to_rgb(black_box(&nv12), width, height, FrameFormat::NV12)));
    let image = RgbImage::from_raw(width, height, noise(3 * pixels)).expect("three bytes a pixel");
    for (name, filter) in [("bilinear", Filter::Bilinear), ("Catmull-Rom", Filter::CatmullRom)] {
        let input = Input { width: 224, height: 224, fit: ResizeMode::Letterbox, filter };
        group.bench_function(format!("letterbox to 224x224, {name}"), |b| {
            b.iter(|| imaging::resize(black_box(&image), &input));
        });
    }
    group.finish();
}

criterion_group!(benches, frame);
criterion_main!(benches);
