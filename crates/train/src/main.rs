//! Command line of the trainer; the work is the library's.

use anyhow::{Context, Result, bail};
use ckaad_bundle::Bundle;
use ckaad_inspect::console::{end, say};
use ckaad_inspect::synthetic::{DatasetConfig, DatasetKind, write_dataset};
use ckaad_train::augment::defects;
use ckaad_train::config::{MethodChoice, TrainConfig};
use ckaad_train::datasets::{DataLocation, DataSet, Layout};
use ckaad_train::device::DeviceChoice;
use ckaad_train::doctor;
use ckaad_train::evaluate::evaluate;
use ckaad_train::export::{self, Form};
use ckaad_train::fit::{FitOptions, fit};
use ckaad_train::progress::ProgressDisplay;
use ckaad_train::publish::{self, KeysCommand, PublishArgs, ResignArgs, RevokeArgs};
use ckaad_train::report;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Trains anomaly detectors from images of good parts and packs them for ckaad-agent.
///
/// A first model, from a folder of images to a judged bundle:
///
///   ckaad-train data DIR
///   ckaad-train fit --config configs/train/ckaad-magtile.toml --data DIR --out runs/first
///   ckaad-train export --run runs/first --out first.ckaad
///   ckaad-train evaluate --bundle first.ckaad --data DIR --report first.html
///
/// Exit codes: 0 done; 1 the model is below a bar that was asked for, or results on the data set would mislead; 2 wrong
/// usage or input.
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
    /// Say what is wrong with a data set, and what results on it can prove
    ///
    /// Every image and mask is read once. Looked for: the same or almost the same picture in training and test, parts on
    /// both sides, contradictory labels, what cannot be read, and more that docs/data.md lists. With --run it ranks the
    /// labels that models which never saw the image doubt most. Exits with 1 when results on the set would mislead.
    Data(DataDoctorArgs),
    /// Show the defects that are painted into normal images, and the controls that are none
    ///
    /// Rows: a normal training image, what was painted, and the outline of its mask; a control has none.
    Augment(AugmentArgs),
    /// Train a detector on a folder of images
    ///
    /// DIR holds train/good and, where there are, train/<defect> with anomalous images that nobody need outline; or it is
    /// one of the public sets that docs/data.md lists, as it comes out of its archive. A run that was stopped (Ctrl-C,
    /// power) goes on with --resume from its last checkpoint.
    Fit(FitArgs),
    /// Pack a trained run into one bundle: fold, quantise, calibrate
    Export(ExportArgs),
    /// Judge a test set through a bundle, with the agent's own engine
    Evaluate(EvaluateArgs),
    /// Keys of an update repository
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Put a bundle into an update repository, signed: devices take it by themselves
    ///
    /// The repository is a folder of static files for any web server or object store. Whoever fetches meanwhile finds the old state or the new one.
    Publish(PublishArgs),
    /// Sign the repository again, so that it does not expire: once a week, by a timer
    Resign(ResignArgs),
    /// Withdraw a bundle: it is never offered again, and devices that have it go back
    Revoke(RevokeArgs),
    /// Print what a repository holds
    Repository(RepositoryArgs),
}

#[derive(Args)]
struct RepositoryArgs {
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// Folder with the keys' root.json
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
}

#[derive(Args)]
struct SynthArgs {
    /// Folder to write; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to draw
    #[arg(long, value_enum, default_value_t = SynthKind::Line)]
    kind: SynthKind,
    /// The same seed draws the same parts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Good parts to train on
    #[arg(long, default_value_t = 300, value_name = "N")]
    train_good: u32,
    /// Defective parts of each kind to train on
    #[arg(long, default_value_t = 10, value_name = "N")]
    train_defective: u32,
    /// How many of those have a mask; the others have coarse labels only
    #[arg(long, default_value_t = 0, value_name = "N")]
    train_masks: u32,
    /// Good parts to test on
    #[arg(long, default_value_t = 100, value_name = "N")]
    test_good: u32,
    /// Defective parts of each kind to test on
    #[arg(long, default_value_t = 20, value_name = "N")]
    test_defective: u32,
    /// Pictures of every part of the line, in the layout of Real-IAD where there are several; a defect shows on one or two of them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=ckaad_bundle::MAX_VIEWS as i64))]
    views: u32,
    /// Parts of three views and more come in several finishes, and one more kind of defect is a view in another finish than the others
    #[arg(long)]
    finishes: bool,
    /// Width of every image in pixels [default: 320 for line, 500 for strip]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(256..=4096))]
    width: Option<u32>,
    /// Height of every image in pixels [default: 320 for line, 1250 for strip]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(256..=4096))]
    height: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SynthKind {
    /// Two kinds of parts on a conveyor, in colour, with six kinds of defects
    Line,
    /// Machined metal strips, large and grey, with cracks and pits a few pixels wide among harmless marks
    Strip,
}

// No doc comment: clap would take it for the about of whatever command this is part of.
#[derive(Args)]
struct DataArgs {
    /// Data set, in one of the layouts of docs/data.md; more than once: several as one
    #[arg(long, value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// How it lies on disk; found out when not given
    #[arg(long, value_name = "NAME", value_enum)]
    layout: Option<Layout>,
    /// Which category, where DIR holds several; more than once: several as one
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
}

impl DataArgs {
    fn locations(self) -> Result<Vec<DataLocation>> {
        locations(&self.data, self.layout, self.category)
    }

    fn open(self) -> Result<DataSet> {
        Ok(DataSet::open_all(&self.locations()?)?)
    }
}

fn locations(data: &[PathBuf], layout: Option<Layout>, categories: Vec<String>) -> Result<Vec<DataLocation>> {
    let at = |root: &PathBuf, category: Option<String>| DataLocation { root: root.clone(), layout, category };
    match data {
        roots if categories.is_empty() => Ok(roots.iter().map(|root| at(root, None)).collect()),
        [root] => Ok(categories.into_iter().map(|category| at(root, Some(category))).collect()),
        _ => bail!("--category goes with one data set; of several, each can be a category's own folder"),
    }
}

#[derive(Args)]
struct DataDoctorArgs {
    /// Data set, in one of the layouts of docs/data.md; more than one: several as one
    #[arg(value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// How it lies on disk; found out when not given
    #[arg(long, value_name = "NAME", value_enum)]
    layout: Option<Layout>,
    /// Which category, where DIR holds several; more than once: several as one
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// Write all findings here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the pictures in question here: with --run the doubtful labels, else pairs of near duplicates
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Folder that `fit` and `export` wrote from this set: rank the labels by its models
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
}

#[derive(Args)]
struct AugmentArgs {
    /// Sheet of pictures to write
    #[arg(long, value_name = "FILE.png")]
    show: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Columns of the sheet; each kind of change comes in turn, and a labelled defect where masks outline some
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=120))]
    count: u16,
    /// The same seed paints the same
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    /// Methods in place of the config's, with commas between; or auto: all that the data can teach are trained, and what the folds say is worth its
    /// time is exported
    #[arg(long, value_name = "METHODS")]
    method: Option<MethodChoice>,
    /// auto (a GPU when one can be used), cpu, wgpu:N (by its Vulkan driver) or cuda:N
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
    /// Put the network in f16 beside the one in int8, for agents that run it on a GPU
    #[arg(long, conflicts_with_all = ["precision", "format"])]
    gpu: bool,
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

/// What libraries below burn read from the environment before anything runs: what trains or reads a checkpoint begins once more with it, where it
/// is not set.
/// - An optimiser that is read from a file goes by way of burn's default device: a GPU, where the program can use one, whether there is one or not.
/// - Mesa asks the desktop which GPU comes first, and complains on standard error where there is no desktop.
const ENVIRONMENT: [(&str, &str); 2] = [("BURN_DEVICE", "flex"), ("NODEVICE_SELECT", "1")];

fn with_environment() -> Result<()> {
    let missing: Vec<_> = ENVIRONMENT.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let failed = std::process::Command::new(program).args(std::env::args_os().skip(1)).envs(missing).exec();
    Err(failed).context("cannot start this program once more")
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Synth(args) => synth(args),
        Command::Data(args) => run_data(args),
        Command::Augment(args) => show_augmented(args),
        Command::Fit(args) => run_fit(args),
        Command::Export(args) => run_export(args),
        Command::Evaluate(args) => run_evaluate(args),
        Command::Keys(command) => publish::keys(command).map(|()| ExitCode::SUCCESS),
        Command::Publish(args) => publish::publish(args).map(|()| ExitCode::SUCCESS),
        Command::Resign(args) => publish::resign(&args).map(|()| ExitCode::SUCCESS),
        Command::Revoke(args) => publish::revoke(&args).map(|()| ExitCode::SUCCESS),
        Command::Repository(args) => publish::show(&args.repo, &args.keys).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| end("ckaad-train", error.as_ref()))
}

fn synth(args: SynthArgs) -> Result<ExitCode> {
    let defaults = DatasetConfig::of(match args.kind {
        SynthKind::Line => DatasetKind::Line,
        SynthKind::Strip => DatasetKind::Strip,
    });
    let (masks, defective) = (args.train_masks, args.train_defective);
    if masks > defective {
        bail!(
            "--train-masks is {masks}; up to {defective} expected, the defective parts of each kind (--train-defective)"
        );
    }
    let config = DatasetConfig {
        seed: args.seed,
        width: args.width.unwrap_or(defaults.width),
        height: args.height.unwrap_or(defaults.height),
        train_good: args.train_good,
        train_defective: args.train_defective,
        train_masks: args.train_masks,
        test_good: args.test_good,
        test_defective: args.test_defective,
        views: args.views,
        finishes: args.finishes,
        ..defaults
    };
    let summary = write_dataset(&args.out, &config)?;
    say(format_args!("{}: {} images, {} masks", args.out.display(), summary.images, summary.masks))?;
    Ok(ExitCode::SUCCESS)
}

fn run_data(args: DataDoctorArgs) -> Result<ExitCode> {
    let data = DataSet::open_all(&locations(&args.data, args.layout, args.category)?)?;
    // Before the images are read: a wrong run is told at once.
    let suspects = args.run.map(|run| doctor::suspects(&run, &data)).transpose()?;
    let findings = doctor::examine(&data, &ProgressDisplay::detect())?;
    if let Some(path) = &args.json {
        let text = serde_json::to_vec_pretty(&serde_json::json!({ "findings": findings, "suspects": suspects }))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut unwritten = None;
    match (&args.sheet, &suspects) {
        (Some(sheet), Some(suspects)) => doctor::suspect_sheet(suspects, &data.root, sheet)?,
        (Some(sheet), None) if findings.near_duplicates.is_empty() => unwritten = Some(sheet),
        (Some(sheet), None) => doctor::near_duplicate_sheet(&findings.near_duplicates, &data.root, sheet)?,
        (None, _) => {}
    }
    for line in doctor::finding_lines(&findings).into_iter().chain(suspects.iter().flat_map(doctor::suspect_lines)) {
        say(format_args!("{line}"))?;
    }
    if let Some(sheet) = unwritten {
        say(format_args!("{} is not written: there are no near duplicates to show", sheet.display()))?;
    }
    Ok(if findings.dishonest() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn show_augmented(args: AugmentArgs) -> Result<ExitCode> {
    let data = args.data.open()?;
    let columns = defects::sheet(&data, args.count.into(), args.seed, &args.show)?;
    for (i, column) in columns.iter().enumerate() {
        let defects::Column { change, path, changed, marked } = column;
        let (name, is_defect) = change.map_or(("labelled", true), |change| (change.name(), change.is_defect()));
        let outcome = match (changed, is_defect) {
            (false, _) => "unchanged".into(),
            (true, false) => "normal".into(),
            (true, true) => format!("{marked} pixels"),
        };
        say(format_args!("{:>3}  {:<10}  {outcome:<12}  {path}", i + 1, name))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_fit(args: FitArgs) -> Result<ExitCode> {
    with_environment()?;
    let config = TrainConfig::load(&args.config)?;
    let done = fit(&FitOptions {
        config,
        data: args.data.locations()?,
        out: args.out.clone(),
        device: args.device,
        method: args.method.clone(),
        resume: args.resume,
    })?;
    say(format_args!(
        "{}: {} models in {:.0} s: one without each of {} folds, by which ckaad-train export weighs and calibrates, and one of all images",
        args.out.display(),
        done.models,
        done.seconds,
        done.folds
    ))?;
    if args.method == Some(MethodChoice::Auto) {
        say(format_args!("{}", export::choose_methods(&args.out)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_export(args: ExportArgs) -> Result<ExitCode> {
    with_environment()?;
    let form = match (args.precision, args.format) {
        _ if args.gpu => Form::Gpu,
        (PrecisionArg::F32, FormatArg::Qdq) => bail!("--format qdq is int8; leave --precision f32 out"),
        (PrecisionArg::F32, FormatArg::Qoperator) => Form::F32,
        (PrecisionArg::Int8, FormatArg::Qoperator) => Form::Int8,
        (PrecisionArg::Int8, FormatArg::Qdq) => Form::Qdq,
    };
    let done = export::export(&args.run, &args.out, form)?;
    let bytes = std::fs::metadata(&args.out).map(|m| m.len()).unwrap_or(0);
    let manifest = &done.manifest;
    say(format_args!(
        "{}: {} {}, {:.2} MB, {:.2} M parameters, {:.3} GMAC, map {}, {}{}",
        args.out.display(),
        manifest.name,
        manifest.version,
        bytes as f64 / 1e6,
        done.parameters as f64 / 1e6,
        done.macs as f64 / 1e9,
        manifest.describe_map(),
        manifest.describe_score(),
        done.digest.map_or(String::new(), |digest| format!(", sha256 {digest}")),
    ))?;
    for line in report::evidence_lines(&done.evidence, &manifest.calibration) {
        say(format_args!("{line}"))?;
    }
    if let Some(gpu) = &manifest.gpu_calibration {
        say(format_args!("on a GPU: threshold {:.4}: {}", gpu.threshold, gpu.describe()))?;
    }
    if let Some(quantisation) = &done.quantisation {
        say(format_args!("{quantisation}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_evaluate(args: EvaluateArgs) -> Result<ExitCode> {
    let bundle = Bundle::read(&args.bundle)?;
    let data = args.data.open()?;
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
