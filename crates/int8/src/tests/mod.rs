//! Every instruction set against the portable kernels, and those against the definition of ONNX's QLinearConv.
//!
//! A failure names the seed of its case.

mod case;
mod rows;
mod whole;

use crate::isa::Isa;
use crate::kernels::{Area, MAX_BLOCKS, dense, depthwise};
use crate::pack::{Dense, Depthwise, Pixels};
use crate::shape::BLOCK;
use case::{Case, Shape};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

pub fn noise(rng: &mut ChaCha8Rng, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rng.fill(noise.as_mut_slice());
    noise
}

pub fn others() -> Vec<Isa> {
    Isa::available().into_iter().filter(|&isa| isa != Isa::PORTABLE).collect()
}

/// Of both signs, up to `largest`.
pub fn floats(rng: &mut ChaCha8Rng, count: usize, largest: f32) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-largest..largest)).collect()
}

/// Cuts `all` in ranges of at most `longest`.
fn cut(rng: &mut ChaCha8Rng, all: usize, longest: usize) -> Vec<Range<usize>> {
    let (mut parts, mut start) = (vec![], 0);
    while start < all {
        let end = (start + rng.random_range(1..=longest)).min(all);
        parts.push(start..end);
        start = end;
    }
    parts
}

#[test]
fn the_portable_kernels_are_the_definition_of_qlinearconv() {
    for seed in 0..240 {
        let case = Case::any(seed, seed % 3 == 0);
        let result = case.portable(&case.packed());
        for pixel in 0..case.pixels() {
            let bytes = &result[case.bytes_of(pixel, &(0..case.blocks()))];
            for (channel, &byte) in bytes.iter().take(case.weights.dims[0]).enumerate() {
                let sum = case.sum(channel, pixel / case.at.width, pixel % case.at.width);
                let scaled = i32::try_from(sum).unwrap() as f32 * case.weights.multipliers[channel];
                let rounded = f64::from(scaled).round_ties_even() + f64::from(case.weights.y_zero);
                assert_eq!(f64::from(byte), rounded.clamp(0.0, 255.0), "channel {channel}, pixel {pixel} of {case:?}");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_portable_bytes_and_touches_no_others() {
    println!("against the portable kernels: {:?}", others());
    for seed in 1000..1400 {
        let case = Case::any(seed, seed % 3 == 0);
        let packed = case.packed();
        let right = case.portable(&packed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for isa in others() {
            let pixels = cut(&mut rng, case.pixels(), case.pixels());
            let groups = if case.depthwise { case.blocks() } else { MAX_BLOCKS };
            let groups = cut(&mut rng, case.blocks(), groups);
            let units: Vec<_> =
                pixels.iter().flat_map(|p| groups.iter().map(move |g| (p.clone(), g.clone()))).collect();
            case.check(isa, &packed, &right, &units);
        }
    }
}

#[test]
fn every_split_of_pixels_and_blocks_gives_the_same_bytes() {
    for (seed, depthwise, tight) in [(1, false, false), (2, false, true), (3, true, false)] {
        let (channels, out) = if depthwise { (90, 90) } else { (3, 90) };
        let shape = Shape { depthwise, channels, out, kernel: [3, 3], stride: [2, 1], pixels: [4, 7], tight };
        let case = Case::of(seed, ChaCha8Rng::seed_from_u64(seed), &shape);
        let packed = case.packed();
        let right = case.portable(&packed);
        let ranges = |all: usize| (0..all).flat_map(move |start| (start..=all).map(move |end| start..end));
        for isa in Isa::available() {
            for pixels in ranges(case.pixels()) {
                let most = if depthwise { case.blocks() } else { MAX_BLOCKS };
                for blocks in ranges(case.blocks()).filter(|b| b.len() <= most) {
                    case.check(isa, &packed, &right, &[(pixels.clone(), blocks)]);
                }
            }
        }
    }
}

#[test]
fn what_pads_a_pixel_comes_out_as_the_zero_point() {
    // Whoever reads the result multiplies these bytes by 0; they are still the same on every CPU.
    let case = (0..).map(|seed| Case::any(seed, true)).find(|c| c.weights.dims[0] % BLOCK != 0).unwrap();
    let packed = case.packed();
    let right = case.portable(&packed);
    for pixel in 0..case.pixels() {
        let bytes = &right[case.bytes_of(pixel, &(0..case.blocks()))][case.weights.dims[0]..];
        assert!(bytes.iter().all(|&b| b == case.weights.y_zero), "{case:?}");
    }
}
