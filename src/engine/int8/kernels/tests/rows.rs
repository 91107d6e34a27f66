//! The elementwise kernels.

use super::*;
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
        let low = if rng.random() { i32::from(zero) } else { 0 };
        let how = AddRow { scale_a, scale_b, offset, low, high: 255 };
        let sum = |(&a, &b): (&u8, &u8)| {
            let sum = f32::from(a).mul_add(scale_a, f32::from(b).mul_add(scale_b, offset));
            (sum.round_ties_even() as i32).clamp(low, 255) as u8
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
fn cosine_errors_have_the_same_bits_and_are_the_formula() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for channels in 1..=130 {
        let per_channel = |rng: &mut ChaCha8Rng, range: Range<f32>| -> Vec<f32> {
            (0..channels).map(|_| rng.random_range(range.clone())).collect()
        };
        let of_channels = CosineRow {
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
        let right = bits(Isa::Portable);
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
