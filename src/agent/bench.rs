//! `bench`: how long each stage takes on this machine.

use super::{Outcome, peak_rss_bytes, quantile};
use crate::judge::{EnginePool, EngineSettings, sample_picture};
use ckaad_bundle::{Bundle, BundleError};
use ckaad_inspect::console::{OutputError, say};
use ckaad_inspect::engine::{Provider, RuntimeOptions, instruction_set, peak_macs_per_second};
use ckaad_inspect::imaging::RgbImage;
use ckaad_inspect::{InspectError, InspectOptions, Inspector, StageTimes};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What `bench` was asked for.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub bundle: PathBuf,
    /// Of all networks together; 0: one for each core. Of several numbers each is measured, in turns.
    pub threads: Vec<usize>,
    /// As many as may judge at one time; 0: as `[engine]` finds it.
    pub judges: usize,
    /// Cameras that all have a frame at any time.
    pub cameras: usize,
    /// Width and height of the frame; without, those of the model's input.
    pub frame: Option<(u32, u32)>,
    pub runs: usize,
    pub json: bool,
    /// ONNX Runtime's library, and the providers that are tried, in place of the own engine.
    pub runtime: Option<(PathBuf, Vec<Provider>)>,
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

/// Rounds in which several numbers of threads take turns.
const ROUNDS: usize = 5;

/// A model loaded for one number of threads, and what was measured of it.
struct Subject {
    engine: Arc<EnginePool>,
    inspector: Inspector,
    load_ms: f64,
    stages: [(&'static str, Vec<f64>); 5],
    seconds: f64,
    frames: usize,
}

/// Judges the first golden sample, or a grey picture where there is none, `runs` times for each camera and number of threads.
///
/// # Errors
/// The bundle cannot be read or run.
pub fn bench(options: &BenchOptions) -> Result<Outcome, BenchError> {
    let bundle = Bundle::read(&options.bundle)?;
    let cannot = |e| BenchError::Inspect(options.bundle.clone(), e);
    let cameras = options.cameras.max(1);
    let runtime = |threads: usize| {
        let (library, providers) = options.runtime.clone()?;
        Some(RuntimeOptions { library, providers, cache: None, threads })
    };
    let load = |&threads: &usize| -> Result<Subject, BenchError> {
        let begun = Instant::now();
        let engine = EnginePool::new(EngineSettings::of(threads, options.judges, cameras));
        let inspect = InspectOptions { pool: engine.pool(), threshold: None, runtime: runtime(threads) };
        let inspector = Inspector::new(&bundle, &inspect).map_err(cannot)?;
        let load_ms = ms(begun.elapsed());
        let stages = ["wait", "resize", "engine", "score", "total"].map(|name| (name, Vec::new()));
        Ok(Subject { engine, inspector, load_ms, stages, seconds: 0.0, frames: 0 })
    };
    let mut subjects = options.threads.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let mut image = sample_picture(&bundle);
    if let Some((width, height)) = options.frame {
        image = image::imageops::resize(&image, width, height, image::imageops::FilterType::Triangle);
    }

    let rounds = if subjects.len() > 1 { ROUNDS } else { 1 };
    let runs = options.runs.max(1).div_ceil(rounds);
    for _ in 0..rounds {
        for subject in &mut subjects {
            let (stages, seconds) =
                measure(&subject.inspector, &subject.engine, &image, cameras, runs).map_err(cannot)?;
            subject.stages.iter_mut().zip(stages).for_each(|((_, all), new)| all.extend(new));
            subject.seconds += seconds;
            subject.frames += cameras * runs;
        }
    }
    // Multiply-adds as the trainer counted them, all operators together.
    let gmac = bundle.report.as_ref().and_then(|r| r["gmac"].as_f64());
    let peak = peak_macs_per_second(PEAK_SECONDS).map(|macs| macs / 1e9);
    let mut first = None;
    for subject in subjects {
        let (settings, rate) = (subject.engine.settings(), subject.frames as f64 / subject.seconds);
        let engine_ms = print(subject, options, &image, gmac, peak)?;
        let &mut (threads, before, rate_before) = first.get_or_insert((settings.threads, engine_ms, rate));
        if threads != settings.threads && !options.json {
            // With several cameras more threads are more judges, and no frame is judged sooner.
            let (what, faster) =
                if cameras > 1 { ("frames/s are", rate / rate_before) } else { ("the engine is", before / engine_ms) };
            say(format_args!("{} threads: {what} {faster:.2} times as fast as with {threads}", settings.threads))?;
        }
    }
    Ok(Outcome::Well)
}

/// Returns the engine's median in milliseconds.
fn print(
    subject: Subject,
    options: &BenchOptions,
    image: &RgbImage,
    gmac: Option<f64>,
    peak: Option<f64>,
) -> Result<f64, BenchError> {
    let Subject { engine, inspector, load_ms, stages, seconds, frames } = subject;
    let (provider, views) = (inspector.provider().map(Provider::name), inspector.manifest().views);
    let (settings, cameras) = (engine.settings(), options.cameras.max(1));
    let frames_per_second = f64::from(views) * frames as f64 / seconds;
    let rows = stages.map(|(name, mut t)| (name, quantile(&mut t, 0.5), quantile(&mut t, 0.0), quantile(&mut t, 0.99)));
    let rss = peak_rss_bytes();
    let engine_ms = rows[2].1;
    let (w, h) = image.dimensions();
    if options.json {
        let stages =
            rows.map(|(name, median, min, p99)| (name, json!({ "median_ms": median, "min_ms": min, "p99_ms": p99 })));
        let stages: serde_json::Map<_, _> = stages.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let line = json!({
            "bundle": options.bundle.display().to_string(), "threads": settings.threads, "judges": settings.judges,
            "cameras": cameras, "runs": frames / cameras, "frames_per_s": frames_per_second,
            "views": views, "width": w, "height": h, "load_ms": load_ms, "stages": stages, "peak_rss_bytes": rss,
            "gmac": gmac, "provider": provider, "instruction_set": instruction_set(), "peak_gmac_per_s_a_core": peak,
        });
        say(format_args!("{line}"))?;
        return Ok(engine_ms);
    }
    say(format_args!(
        "{} runs over {}a {w}x{h} picture, {} thread(s) for {} judge(s); loading took {load_ms:.0} ms",
        frames / cameras,
        if views > 1 { format!("{views} views of a part, each ") } else { String::new() },
        settings.threads,
        settings.judges
    ))?;
    if let Some(provider) = provider {
        say(format_args!("in ONNX Runtime, provider {provider}"))?;
    }
    say(format_args!("stage     median ms    min ms    p99 ms"))?;
    for (name, median, min, p99) in rows {
        say(format_args!("{name:<8} {median:>10.2}{min:>10.2}{p99:>10.2}"))?;
    }
    say(format_args!("{cameras} camera(s): {frames_per_second:.0} frames/s together"))?;
    say(format_args!("peak memory {:.1} MiB", rss as f64 / f64::from(1 << 20)))?;
    if let (Some(gmac), Some(peak), None) = (gmac, peak, provider) {
        let (reached, possible) = (f64::from(views) * gmac / engine_ms * 1e3, peak * settings.each() as f64);
        say(format_args!(
            "{gmac:.2} G multiply-adds: {reached:.0} G/s of {possible:.0} G/s that {} can do at most, {:.0} %",
            instruction_set(),
            100.0 * reached / possible
        ))?;
    }
    Ok(engine_ms)
}

/// Milliseconds of each stage of each frame, and the seconds that all cameras together took.
type Measured = ([Vec<f64>; 5], f64);

/// Each camera has a thread, as in the agent, and its next frame is there when one is judged.
fn measure(
    inspector: &Inspector,
    engine: &EnginePool,
    image: &RgbImage,
    cameras: usize,
    runs: usize,
) -> Result<Measured, InspectError> {
    let judge = || {
        let turn = engine.turn();
        let begun = Instant::now();
        let verdicts = inspector.rehearse(image)?;
        let all = |stage: fn(&StageTimes) -> Duration| verdicts.iter().map(|verdict| stage(&verdict.times)).sum();
        let stages = [all(|times| times.resize), all(|times| times.engine), all(|times| times.score)];
        Ok([turn.waited, stages[0], stages[1], stages[2], begun.elapsed()].map(ms))
    };
    for _ in 0..WARM_UP {
        judge()?;
    }
    let begun = Instant::now();
    let camera = || (0..runs).map(|_| judge()).collect::<Result<Vec<_>, InspectError>>();
    let measured: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..cameras).map(|_| scope.spawn(camera)).collect();
        let own = camera();
        let others = threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(own).chain(others.collect::<Vec<_>>()).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut stages = [const { Vec::new() }; 5];
    for camera in measured {
        for times in camera? {
            stages.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        }
    }
    Ok((stages, seconds))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
