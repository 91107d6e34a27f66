//! The elementwise kernels.

use super::*;
use crate::kernels::{dense_f32, depthwise_f32};
use crate::operator::Reads;
use crate::ops::add::{Add, add_row, add_row_f32};
use crate::ops::cosine::{CosineError, cosine_row, cosine_row_f32};
use crate::ops::distance::distance_row;
use crate::ops::lookup::{Scale, bend_row};
use crate::ops::modulate::{Modulate, modulate_row, modulate_row_f32};
use crate::ops::norm::unit_row;
use crate::ops::pool::{max_row, max_row_f32, sum_row};
use crate::ops::quantise::{to_byte_row, to_float_row};
use crate::ops::resize::blend_row;
use crate::pack::{DenseF32, DepthwiseF32};
use crate::shape::Activation;
use crate::weights::FloatWeights;
use rand::seq::IndexedRandom;

/// Lengths around every register's, and some longer.
fn lengths() -> impl Iterator<Item = usize> {
    (0..140).chain([255, 256, 257, 1000])
}

/// Runs `kernel` on a part of some noise; the rest must stay as it was.
fn inside<T: Copy + PartialEq>(noise: &[T], part: Range<usize>, kernel: impl FnOnce(&mut [T])) -> Vec<T> {
    let mut all = noise.to_vec();
    kernel(&mut all[part.clone()]);
    assert!(all[..part.start] == noise[..part.start] && all[part.end..] == noise[part.end..]);
    all[part].to_vec()
}

#[test]
fn sums_and_maxima_of_rows_agree_at_every_length() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for length in lengths() {
        let (a, b, out) = (noise(&mut rng, length), noise(&mut rng, length), noise(&mut rng, length + 32));
        let (scale_a, scale_b) = *[(1.0, 0.5), (0.5, 0.25), (0.013, 1.7), (3.0, 300.0)].choose(&mut rng).unwrap();
        let (zero_a, zero_b, zero) = (rng.random::<u8>(), rng.random::<u8>(), rng.random::<u8>());
        let offset = f32::from(zero) - (f32::from(zero_a) * scale_a + f32::from(zero_b) * scale_b);
        let low = if rng.random() { zero } else { 0 };
        let how = Add { scale_a, scale_b, offset, low, high: 255 };
        let sum = |(&a, &b): (&u8, &u8)| {
            let sum = f32::from(a).mul_add(scale_a, f32::from(b).mul_add(scale_b, offset));
            (sum.round_ties_even() as i32).clamp(i32::from(low), 255) as u8
        };
        let sums: Vec<u8> = a.iter().zip(&b).map(sum).collect();
        let maxima: Vec<u8> = a.iter().zip(&out[16..]).map(|(&a, &b)| a.max(b)).collect();
        for isa in Isa::available() {
            let got = inside(&out, 16..16 + length, |out| add_row(isa, &how, &a, &b, out));
            assert!(got == sums, "{isa:?}, sums of {length} bytes");
            let got = inside(&out, 16..16 + length, |out| max_row(isa, &a, out));
            assert!(got == maxima, "{isa:?}, maxima of {length} bytes");
        }
    }
}

#[test]
fn modulations_are_the_four_operators_behind_one_another_at_every_length() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for length in lengths() {
        let [x, gamma, beta, out] = [length, length, length, length + 32].map(|bytes| noise(&mut rng, bytes));
        let mut scale = |largest: f32| Scale { scale: rng.random_range(0.001..largest), zero: rng.random() };
        let how = Modulate { x: scale(0.1), gamma: scale(0.1), beta: scale(1.0), result: scale(1.0) };
        let real = |byte: u8, q: Scale| (f32::from(byte) - f32::from(q.zero)) * q.scale;
        let one = |i: usize| {
            let product = std::hint::black_box(real(x[i], how.x) * real(gamma[i], how.gamma));
            let steps = (product + real(beta[i], how.beta)) / how.result.scale;
            (steps.round_ties_even() + f32::from(how.result.zero)) as u8
        };
        let right: Vec<u8> = (0..length).map(one).collect();
        for isa in Isa::available() {
            let got = inside(&out, 16..16 + length, |out| modulate_row(isa, &how, [&x, &gamma, &beta], out));
            assert!(got == right, "{isa:?}, {length} bytes");
        }
    }
}

#[test]
fn cosine_errors_have_the_same_bits_and_are_the_formula() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for channels in 1..=130 {
        let per_channel = |rng: &mut ChaCha8Rng, range: Range<f32>| -> Vec<f32> {
            (0..channels).map(|_| rng.random_range(range.clone())).collect()
        };
        let of_channels = CosineError {
            reads: Reads::Bytes,
            scale_a: per_channel(&mut rng, 0.01..0.1),
            offset_a: per_channel(&mut rng, -5.0..1.0),
            scale_b: vec![0.02],
            offset_b: vec![-1.5],
            epsilon: 1e-6,
        };
        let how = of_channels.for_channels(channels).unwrap();
        let (pixels, lanes) = (rng.random_range(0..20), channels.next_multiple_of(16));
        let (a, b) = (noise(&mut rng, pixels * lanes), noise(&mut rng, pixels * lanes));
        let bits = |isa: Isa| {
            inside(&vec![7.0f32; pixels + 8], 4..4 + pixels, |out| cosine_row(isa, &how, &a, &b, out))
                .iter()
                .map(|v| v.to_bits())
                .collect::<Vec<u32>>()
        };
        let right = bits(Isa::PORTABLE);
        for isa in others() {
            assert_eq!(bits(isa), right, "{isa:?}, {channels} channels");
        }
        for (pixel, bits) in right.into_iter().enumerate() {
            let real = |bytes: &[u8], scale: &[f32], offset: &[f32]| -> Vec<f64> {
                let values = bytes[pixel * lanes..][..channels].iter().zip(scale).zip(offset);
                values.map(|((&v, &s), &o)| f64::from(v) * f64::from(s) + f64::from(o)).collect()
            };
            let (x, y) = (real(&a, &how.scale_a, &how.offset_a), real(&b, &how.scale_b, &how.offset_b));
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let error = 1.0 - dot(&x, &y) / (dot(&x, &x) * dot(&y, &y) + 1e-6).sqrt();
            assert!((f64::from(f32::from_bits(bits)) - error).abs() < 1e-5, "{channels} channels");
        }
    }
}

#[test]
fn rows_of_floats_have_the_same_bits_everywhere() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for length in lengths() {
        let [a, b, c, d, out] = [(); 5].map(|()| floats(&mut rng, length, 300.0));
        let (bytes, room) = (noise(&mut rng, length), noise(&mut rng, length));
        let (across, down) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
        // Pixels of two lines, of which the second is in part filled up.
        let (lanes, pixels) = (32, length / 32);
        let (x, products) = (&a[..pixels * lanes], &b[..pixels * lanes]);
        let [scale_a, offset_a, scale_b, offset_b] = [0.5, -1.0, 0.3, -2.0].map(|value| vec![value]);
        let cosine = CosineError { reads: Reads::Floats, scale_a, offset_a, scale_b, offset_b, epsilon: 1e-6 }
            .for_channels(21)
            .unwrap();
        let run = |isa: Isa| {
            let mut results: Vec<Vec<f32>> = vec![out.clone(); 8];
            to_float_row(isa, 0.013, 77.0, &bytes, &mut results[0]);
            sum_row(isa, &a, &mut results[1]);
            blend_row(isa, [&a, &b], [&c, &d], across, down, &mut results[2]);
            unit_row(isa, lanes, 1e-6, x, &mut results[3][..pixels * lanes]);
            max_row_f32(isa, &a, &mut results[4]);
            add_row_f32(isa, 0.1, 6.0, &a, &b, &mut results[5]);
            modulate_row_f32(isa, [&a, &b, &c], &mut results[6]);
            bend_row(isa, 0.2, 50.0, &a, &mut results[7]);
            let (mut distances, mut errors) = (vec![0.0; pixels], vec![0.0; pixels]);
            cosine_row_f32(isa, &cosine, x, products, &mut errors);
            if pixels > 0 {
                distance_row(isa, 21, products, x, &mut distances);
            }
            results.extend([distances, errors]);
            let mut quantised = room.clone();
            to_byte_row(isa, 1.7, 99.0, &a, &mut quantised);
            (results.concat().into_iter().map(f32::to_bits).collect::<Vec<u32>>(), quantised)
        };
        let right = run(Isa::PORTABLE);
        for isa in others() {
            assert!(run(isa) == right, "{isa:?}, {length} values");
        }
        let expected = a.iter().map(|x| ((x / 1.7).round_ties_even() + 99.0).clamp(0.0, 255.0) as u8);
        assert!(expected.eq(right.1), "{length} values");
    }
}

#[test]
fn convolutions_of_floats_have_the_same_bits_everywhere() {
    for seed in 0..240 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let depthwise = seed % 3 == 0;
        let channels = rng.random_range(1..=70);
        let out = if depthwise { channels } else { rng.random_range(1..=100) };
        let depth = if depthwise { 1 } else { channels };
        let [height, width, high, wide]: [usize; 4] = std::array::from_fn(|_| rng.random_range(1..=4));
        let activations = [Activation::None, Activation::Relu, Activation::Leaky(0.1), Activation::Abs];
        let conv = FloatWeights {
            values: floats(&mut rng, out * depth * height * width, 1.0),
            dims: [out, depth, height, width],
            bias: floats(&mut rng, out, 3.0),
            activation: *activations.choose(&mut rng).unwrap(),
            ceiling: *[6.0, f32::INFINITY].choose(&mut rng).unwrap(),
        };
        let pixel = channels.next_multiple_of(BLOCK) * 4;
        let row = (wide + width - 1) * pixel;
        let input = floats(&mut rng, (high + height - 1) * row / 4, 2.0);
        let (all, each) = (DenseF32::new(&conv, pixel, row), DepthwiseF32::new(&conv, pixel, row));
        let (blocks, out_column) = (out.div_ceil(BLOCK), out.next_multiple_of(BLOCK) * 4);
        let at = Pixels { width: wide, in_row: row, in_column: pixel, out_row: wide * out_column, out_column };
        let run = |isa: Isa, parts: &[Range<usize>], groups: &[Range<usize>]| {
            let mut result = vec![0f32; high * at.out_row / 4];
            let (from, to) = (input.as_ptr().cast(), result.as_mut_ptr().cast());
            for (pixels, blocks) in parts.iter().flat_map(|p| groups.iter().map(move |g| (p.clone(), g.clone()))) {
                // SAFETY: both tensors have room for all pixels.
                unsafe {
                    let area = Area { at, input: from, output: to, pixels, blocks };
                    if depthwise { depthwise_f32(isa, &each, area) } else { dense_f32(isa, &all, area) }
                }
            }
            result.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        let one_by_one: Vec<Range<usize>> = (0..blocks).map(|b| b..b + 1).collect();
        let right = run(Isa::PORTABLE, std::slice::from_ref(&(0..high * wide)), &one_by_one);
        for isa in others() {
            let (parts, groups) = (cut(&mut rng, high * wide, 13), cut(&mut rng, blocks, MAX_BLOCKS));
            assert!(run(isa, &parts, &groups) == right, "{isa:?}, seed {seed}: {:?}", conv.dims);
        }
    }
}
