//! `bench`: how long each stage takes on this machine.

use super::{Outcome, peak_rss_bytes, quantile};
use ckaad_bundle::{Bundle, BundleError};
use ckaad_inspect::console::{OutputError, say};
use ckaad_inspect::engine::{instruction_set, peak_macs_per_second};
use ckaad_inspect::imaging::RgbImage;
use ckaad_inspect::{InspectError, InspectOptions, Inspector};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What `bench` was asked for.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub bundle: PathBuf,
    pub threads: usize,
    /// Width and height of the frame; without, those of the model's input.
    pub frame: Option<(u32, u32)>,
    pub runs: usize,
    pub json: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the bundle {0} cannot be run: {1}")]
    Inspect(PathBuf, InspectError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs that are not counted: caches and clock speed settle.
const WARM_UP: usize = 3;
/// How long the instruction set's peak is measured.
const PEAK_SECONDS: f64 = 0.05;

/// Judges the first golden sample, or a grey picture where there is none, `runs` times.
///
/// # Errors
/// The bundle cannot be read or run.
pub fn bench(options: &BenchOptions) -> Result<Outcome, BenchError> {
    let bundle = Bundle::read(&options.bundle)?;
    let cannot = |e| BenchError::Inspect(options.bundle.clone(), e);
    let begun = Instant::now();
    let inspect = InspectOptions { threads: options.threads, threshold: None };
    let inspector = Inspector::new(&bundle, &inspect).map_err(cannot)?;
    let load_ms = ms(begun.elapsed());
    let input = bundle.manifest.input;
    let golden =
        bundle.golden.first().and_then(|g| ckaad_inspect::imaging::decode(&g.png, "golden sample".as_ref()).ok());
    let mut image = golden.unwrap_or_else(|| RgbImage::from_pixel(input.width, input.height, image::Rgb([127; 3])));
    if let Some((width, height)) = options.frame {
        image = image::imageops::resize(&image, width, height, image::imageops::FilterType::Triangle);
    }

    let mut stages: [(&str, Vec<f64>); 4] = ["resize", "engine", "score", "total"].map(|name| (name, Vec::new()));
    for run in 0..WARM_UP + options.runs.max(1) {
        let begun = Instant::now();
        let verdict = inspector.inspect(&image).map_err(cannot)?;
        let total = begun.elapsed();
        if run >= WARM_UP {
            let times = [verdict.times.resize, verdict.times.engine, verdict.times.score, total];
            stages.iter_mut().zip(times).for_each(|((_, all), time)| all.push(ms(time)));
        }
    }
    let rows = stages.map(|(name, mut t)| (name, quantile(&mut t, 0.5), quantile(&mut t, 0.0), quantile(&mut t, 0.99)));
    let rss = peak_rss_bytes();
    // Multiply-adds as the trainer counted them, all operators together.
    let gmac = bundle.report.as_ref().and_then(|r| r["gmac"].as_f64());
    let peak = peak_macs_per_second(PEAK_SECONDS).map(|macs| macs / 1e9);
    let engine_s = rows[1].1 / 1e3;
    if options.json {
        let stages =
            rows.map(|(name, median, min, p99)| (name, json!({ "median_ms": median, "min_ms": min, "p99_ms": p99 })));
        let stages: serde_json::Map<_, _> = stages.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let line = json!({
            "bundle": options.bundle.display().to_string(), "threads": options.threads, "runs": options.runs,
            "width": image.width(), "height": image.height(), "load_ms": load_ms, "stages": stages, "peak_rss_bytes": rss,
            "gmac": gmac, "instruction_set": instruction_set(), "peak_gmac_per_s_a_core": peak,
        });
        say(format_args!("{line}"))?;
        return Ok(Outcome::Well);
    }
    let (w, h) = image.dimensions();
    say(format_args!(
        "{} runs over a {w}x{h} picture, {} thread(s); loading took {load_ms:.0} ms",
        options.runs, options.threads
    ))?;
    say(format_args!("stage     median ms    min ms    p99 ms"))?;
    for (name, median, min, p99) in rows {
        say(format_args!("{name:<8} {median:>10.2}{min:>10.2}{p99:>10.2}"))?;
    }
    say(format_args!("peak memory {:.1} MiB", rss as f64 / f64::from(1 << 20)))?;
    if let (Some(gmac), Some(peak)) = (gmac, peak) {
        let (reached, possible) = (gmac / engine_s, peak * options.threads as f64);
        say(format_args!(
            "{gmac:.2} G multiply-adds: {reached:.0} G/s of {possible:.0} G/s that {} can do at most, {:.0} %",
            instruction_set(),
            100.0 * reached / possible
        ))?;
    }
    Ok(Outcome::Well)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
