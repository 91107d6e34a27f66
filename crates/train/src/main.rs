//! Command line of the trainer; the work is the library's.

use anyhow::{Context, Result, bail};
use ckaad_bundle::{Bundle, ScoreRule};
use ckaad_inspect::console::{end, say};
use ckaad_inspect::synthetic::{DatasetConfig, write_dataset};
use ckaad_train::config::TrainConfig;
use ckaad_train::datasets::{DataLocation, DataSet, Layout};
use ckaad_train::device::DeviceChoice;
use ckaad_train::evaluate::evaluate;
use ckaad_train::export::{self, Form};
use ckaad_train::fit::{FitOptions, Fitted, fit};
use ckaad_train::graph::MapWeights;
use ckaad_train::report;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Trains anomaly detectors from images of good parts and packs them for ckaad-agent.
///
/// A first model, from a folder of images to a judged bundle:
///
///   ckaad-train fit --config configs/train/ckaad-magtile.toml --data DIR --out runs/first
///   ckaad-train export --run runs/first --out first.ckaad
///   ckaad-train evaluate --bundle first.ckaad --data DIR --report first.html
///
/// Exit codes: 0 done; 1 the model is below a bar that was asked for; 2 wrong usage or input.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a synthetic data set: drawn parts with drawn defects and their masks, in MVTec AD's layout
    Synth(SynthArgs),
    /// Train a detector on a folder of images
    ///
    /// DIR holds train/good and, where there are, train/<defect> with anomalous images that nobody outlined; or it is
    /// one of the public sets that docs/data.md lists, as it comes out of its archive. A run that was stopped (Ctrl-C,
    /// power) goes on with --resume from its last validation.
    Fit(FitArgs),
    /// Pack a trained run into one bundle: fold, quantise, calibrate
    Export(ExportArgs),
    /// Judge a test set through a bundle, with the agent's own engine
    Evaluate(EvaluateArgs),
}

#[derive(Args)]
struct SynthArgs {
    /// Folder to write; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The same seed draws the same parts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Good parts to train on
    #[arg(long, default_value_t = 300, value_name = "N")]
    train_good: u32,
    /// Defective parts of each kind to train on (coarse labels, no masks)
    #[arg(long, default_value_t = 10, value_name = "N")]
    train_defective: u32,
    /// Good parts to test on
    #[arg(long, default_value_t = 100, value_name = "N")]
    test_good: u32,
    /// Defective parts of each kind to test on
    #[arg(long, default_value_t = 20, value_name = "N")]
    test_defective: u32,
}

// No doc comment: clap would take it for the about of whatever command this is part of.
#[derive(Args)]
struct DataArgs {
    /// Data set, in one of the layouts of docs/data.md
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How it lies on disk; found out when not given
    #[arg(long, value_name = "NAME", value_enum)]
    layout: Option<Layout>,
    /// Which category, where DIR holds several
    #[arg(long, value_name = "NAME")]
    category: Option<String>,
}

impl From<DataArgs> for DataLocation {
    fn from(args: DataArgs) -> DataLocation {
        DataLocation { root: args.data, layout: args.layout, category: args.category }
    }
}

#[derive(Args)]
struct FitArgs {
    /// Training config; every key has a default, see configs/train/
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Folder of the run: checkpoints, cached features, progress
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// auto (a GPU when one can be used), cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Go on with the run in --out
    #[arg(long)]
    resume: bool,
}

#[derive(Args)]
struct ExportArgs {
    /// Folder that `fit` wrote
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// Bundle to write; with --format qdq an ONNX file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[arg(long, value_enum, default_value_t = PrecisionArg::Int8)]
    precision: PrecisionArg,
    #[arg(long, value_enum, default_value_t = FormatArg::Qoperator)]
    format: FormatArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    Int8,
    F32,
}

/// How int8 is written down
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// A bundle for ckaad-agent, its network with quantised operators
    Qoperator,
    /// A plain ONNX file for TensorRT: QuantizeLinear and DequantizeLinear around float operators
    Qdq,
}

#[derive(Args)]
struct EvaluateArgs {
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Write all numbers and every image's score here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with curves, histograms and heatmaps here
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Exit with 1 when the image AUROC is below this
    #[arg(long, value_name = "BAR")]
    min_auroc: Option<f64>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Synth(args) => synth(args),
        Command::Fit(args) => run_fit(args),
        Command::Export(args) => run_export(args),
        Command::Evaluate(args) => run_evaluate(args),
    };
    done.unwrap_or_else(|error| end("ckaad-train", error.as_ref()))
}

fn synth(args: SynthArgs) -> Result<ExitCode> {
    let config = DatasetConfig {
        seed: args.seed,
        train_good: args.train_good,
        train_defective: args.train_defective,
        test_good: args.test_good,
        test_defective: args.test_defective,
        ..Default::default()
    };
    let summary = write_dataset(&args.out, &config)?;
    say(format_args!("{}: {} images, {} masks", args.out.display(), summary.images, summary.masks))?;
    Ok(ExitCode::SUCCESS)
}

fn run_fit(args: FitArgs) -> Result<ExitCode> {
    let config = TrainConfig::load(&args.config)?;
    let done = fit(&FitOptions {
        config,
        data: args.data.into(),
        out: args.out.clone(),
        device: args.device,
        resume: args.resume,
    })?;
    let out = args.out.display();
    match done {
        Fitted::Trained(done) => {
            let best = done.best.context("no epoch was validated")?;
            say(format_args!(
                "{out}: {} epochs in {:.0} s; best after epoch {} with {:.4} on held-out training images",
                done.epochs_done, done.seconds, best.epoch, best.quality
            ))?;
        }
        Fitted::Bank { vectors, seconds } => say(format_args!(
            "{out}: a bank of {vectors} patches in {seconds:.0} s; nothing was validated, which is left to export"
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_export(args: ExportArgs) -> Result<ExitCode> {
    let form = match (args.precision, args.format) {
        (PrecisionArg::F32, FormatArg::Qdq) => bail!("--format qdq is int8; leave --precision f32 out"),
        (PrecisionArg::F32, FormatArg::Qoperator) => Form::F32,
        (PrecisionArg::Int8, FormatArg::Qoperator) => Form::Int8,
        (PrecisionArg::Int8, FormatArg::Qdq) => Form::Qdq,
    };
    let done = export::export(&args.run, &args.out, form)?;
    let bytes = std::fs::metadata(&args.out).map(|m| m.len()).unwrap_or(0);
    say(format_args!(
        "{}: {} {}, {:.2} MB, {:.2} M parameters, {:.3} GMAC, map {}, {}, threshold {:.4}, held-out image AUROC {}{}",
        args.out.display(),
        done.manifest.name,
        done.manifest.version,
        bytes as f64 / 1e6,
        done.parameters as f64 / 1e6,
        done.macs as f64 / 1e9,
        terms(done.weights),
        rule(&done.manifest.score.rule),
        done.manifest.calibration.threshold,
        report::number(done.validation_auroc),
        done.digest.map_or(String::new(), |digest| format!(", sha256 {digest}")),
    ))?;
    if let Some(quantisation) = &done.quantisation {
        say(format_args!("{quantisation}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The terms of the map with their weights.
fn terms(weights: MapWeights) -> String {
    let all = [("error", weights.error), ("energy", weights.energy), ("distance", weights.distance)];
    let used: Vec<String> = all.iter().filter(|(_, w)| *w != 0.0).map(|(name, w)| format!("{w:.3} x {name}")).collect();
    used.join(" + ")
}

fn rule(rule: &ScoreRule) -> String {
    match rule {
        ScoreRule::TopK { top_k } => format!("top-k {top_k}"),
        ScoreRule::Combined { terms } => format!("{} score terms", terms.len()),
        ScoreRule::Forest { segments, .. } => format!("a forest over {segments} segments"),
    }
}

fn run_evaluate(args: EvaluateArgs) -> Result<ExitCode> {
    let bundle = Bundle::read(&args.bundle)?;
    let data = DataSet::open(&args.data.into())?;
    let mut gallery = report::Gallery::new(&bundle);
    let evaluation = evaluate(&bundle, &data, |judged, image, verdict| gallery.add(judged, image, verdict))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_vec_pretty(&evaluation)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.report {
        let page = report::page(&bundle, &evaluation, &gallery);
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // Behind the files, so that a reader who has seen enough does not cost them.
    for line in report::lines(&evaluation) {
        say(format_args!("{line}"))?;
    }
    if let Some(bar) = args.min_auroc {
        let reached = evaluation.image.auroc.context("the set has only one class, so there is no AUROC to compare")?;
        if reached < bar {
            eprintln!("ckaad-train: image AUROC {reached:.4} is below {bar}");
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}
