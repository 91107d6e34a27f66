//! How long the pixel metrics of a test set take, and how much memory: `metrics_speed [MAPS [MEMORY_MIB]]`.
//!
//!     cargo run --release -p ckaad-train --example metrics_speed -- 1000
//!
//! The maps are 256x256: half of them noise, half noise with two brighter spots under a mask. Drawing them is not
//! timed.

use ckaad_train::metrics::{MEMORY_BYTES, Pixels};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

const SIDE: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |n: usize| std::env::args().nth(n).map(|a| a.parse::<usize>()).transpose();
    let maps = argument(1)?.unwrap_or(1_000);
    let memory = argument(2)?.map_or(MEMORY_BYTES, |mib| mib << 20);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut pixels = Pixels::within(memory);
    let mut adding = Duration::ZERO;
    for index in 0..maps {
        let mask = (index % 2 == 1).then(|| spots(&mut rng));
        let map = map(&mut rng, mask.as_ref());
        let started = Instant::now();
        pixels.add(map.view(), mask.as_ref().map(|mask| mask.view()))?;
        adding += started.elapsed();
    }
    let runs = pixels.spilled();
    let started = Instant::now();
    let found = pixels.metrics()?;
    let (adding, ranking) = (adding.as_secs_f64(), started.elapsed().as_secs_f64());
    println!("{found:?}");
    println!(
        "{maps} maps of {SIDE}x{SIDE}: {adding:.2} s adding, {ranking:.2} s ranking, {:.2} s in all; {runs} runs on disk; peak {}",
        adding + ranking,
        peak_memory().unwrap_or_else(|| "unknown".into())
    );
    Ok(())
}

fn spots(rng: &mut ChaCha8Rng) -> Array2<bool> {
    let centres: Vec<[f32; 2]> = (0..2).map(|_| [0; 2].map(|_| rng.random_range(30.0..226.0))).collect();
    let radius: f32 = rng.random_range(4.0..25.0);
    Array2::from_shape_fn((SIDE, SIDE), |(y, x)| {
        centres.iter().any(|[cx, cy]| (x as f32 - cx).hypot(y as f32 - cy) < radius)
    })
}

fn map(rng: &mut ChaCha8Rng, mask: Option<&Array2<bool>>) -> Array2<f32> {
    let lift = |at| if mask.is_some_and(|m| m[at]) { 0.3 } else { 0.0 };
    Array2::from_shape_fn((SIDE, SIDE), |at| rng.random::<f32>() * rng.random::<f32>() + lift(at))
}

/// Largest resident memory so far, as Linux counts it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().to_owned())
}
