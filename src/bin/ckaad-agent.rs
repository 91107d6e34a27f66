//! Command lines of the agent; what they do is in `ckaad_edge::agent`.

use ckaad_edge::agent::{self, Outcome};
use ckaad_inspect::console;
use ckaad_inspect::engine::Provider;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Visual inspection on the line: judges a camera's frames with a trained bundle and publishes what is defective over MQTT.
#[derive(Parser)]
#[command(name = "ckaad-agent", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 the thing asked about is not well, 2 the command line or its input is wrong.";

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: inspect, publish, until SIGTERM (or until every `once` source has ended and all is delivered)
    #[command(
        after_help = "Exit codes: 0 ended as asked, 1 a part of it broke down (start it again), 2 it cannot start (configuration, bundle, source).\n\
        A broker that is away or refuses us is no reason to end: events wait in the outbox and the connection is tried again.\n\
        Every key of FILE can be overridden by a variable: CKAAD__MQTT__HOST=broker CKAAD__CAMERA__LEFT__THRESHOLD=0.4"
    )]
    Run(ConfigFile),
    /// See it work: a broker, a synthetic line and a trained model, all in this one process
    #[command(after_help = "Exit codes: 0 ended as asked, 2 it cannot start.")]
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Look after configuration, outbox, broker, bundles and cameras, and print a line for each
    #[command(after_help = "Exit codes: 0 all is well, 1 a line says FAIL.")]
    Check(ConfigFile),
    /// Judge image files: a line each with score, threshold, verdict and the places of the defects
    #[command(
        after_help = "Exit codes: 0 every image was judged, whatever the verdicts; 2 the bundle or an image cannot be used.\n\
        Places are WIDTHxHEIGHT+X+Y in pixels of the image."
    )]
    Infer(Infer),
    /// Measure how many milliseconds each stage takes on this machine, and the peak memory
    #[command(after_help = EXIT_CODES)]
    Bench(Bench),
    /// List the cameras of this machine and the formats that can be asked for
    #[command(after_help = "Exit codes: 0 listed, 1 there is none, or none that can be opened.")]
    Cameras,
    /// Look into a bundle, or try it on this machine
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// The bundles that updates brought to this device
    #[command(subcommand)]
    Model(ModelArgs),
    /// Print a schema, generated from the types that the agent runs with
    Schema {
        /// Payloads on the broker, the configuration file, or the topics as an AsyncAPI document
        what: Schema,
    },
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration; configs/agent.toml shows every key with its default
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[cfg(feature = "demo")]
#[derive(Args)]
struct Demo {
    /// End by itself after this many parts and print what was measured; 0 goes on until Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 0)]
    frames: u64,
    /// Where the demo's broker listens, on this machine only; a free port is taken if it is in use
    #[arg(long, value_name = "P", default_value_t = 1883)]
    port: u16,
    /// Folder for the heatmaps
    #[arg(long, value_name = "DIR", default_value = "demo-out")]
    out: PathBuf,
    /// Another model than the one that comes with the program
    #[arg(long, value_name = "B")]
    bundle: Option<PathBuf>,
    /// Other parts: every seed gives its own line
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Infer {
    /// The model
    #[arg(long, value_name = "B")]
    bundle: PathBuf,
    /// PNG, JPEG, BMP or TIFF
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Write each image with its anomaly map over it into this folder
    #[arg(long, value_name = "DIR")]
    heatmaps: Option<PathBuf>,
    /// Threads of the network
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Score from which an image is defective, instead of the bundle's own
    #[arg(long, value_name = "SCORE")]
    threshold: Option<f32>,
}

#[derive(Args)]
struct Bench {
    /// The model
    #[arg(long, value_name = "B")]
    bundle: PathBuf,
    /// Threads of all networks together; 0: one for each core. Several numbers, as in 1,2, are measured in turns and compared
    #[arg(long, value_name = "N,...", default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(0..=256))]
    threads: Vec<u16>,
    /// Frames judged at one time, each with its share of the threads; 0: one for each camera, as far as the threads go
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    judges: u16,
    /// Cameras that all have a frame at any time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    cameras: u16,
    /// Size of the frame, as a camera would give it [default: the model's input]
    #[arg(long, value_name = "WxH", value_parser = frame_size)]
    frame: Option<(u32, u32)>,
    /// Frames of each camera that are measured, after three that are not
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
    /// One JSON object a line, for each number of threads
    #[arg(long)]
    json: bool,
    /// libonnxruntime.so, in place of the agent's own engine; the bundle's network for a GPU where it has one
    #[arg(long, value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// ONNX Runtime's providers, tried in this order
    #[arg(
        long,
        value_name = "P,...",
        default_value = "tensorrt,cuda",
        value_delimiter = ',',
        requires = "onnxruntime"
    )]
    providers: Vec<Provider>,
}

/// `1920x1080` → width and height.
fn frame_size(text: &str) -> Result<(u32, u32), String> {
    let side = |s: &str| s.parse().ok().filter(|side| (1..=16_384).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "WIDTHxHEIGHT expected, each from 1 to 16384, for instance 1920x1080".into())
}

#[derive(Subcommand)]
enum BundleCommand {
    /// Print what a bundle is: model, input, threshold, members; every digest is checked on the way
    #[command(after_help = "Exit codes: 0 printed, 2 it is no good bundle.")]
    Inspect {
        bundle: PathBuf,
        /// The manifest as JSON instead of a line a fact
        #[arg(long)]
        json: bool,
    },
    /// Judge the bundle's golden samples with this machine's engine and compare with the answers packed with them
    #[command(after_help = "Exit codes: 0 all agree, 1 one differs, 2 it is no good bundle.")]
    Verify { bundle: PathBuf },
}

#[derive(Subcommand)]
enum ModelArgs {
    /// Print what is in force, what was before it, what is on its way, and what is not tried again
    List(ModelPlace),
    /// Put another bundle of this device in force; the agent must not run
    Activate {
        /// Its version or digest
        version: String,
        #[command(flatten)]
        place: ModelPlace,
    },
    /// Go back to the bundle before, or to that of the configuration; the agent must not run
    Rollback(ModelPlace),
}

#[derive(Args)]
struct ModelPlace {
    #[command(flatten)]
    file: ConfigFile,
    /// The model, where there are several
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Schema {
    Events,
    Config,
    Asyncapi,
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    match carry_out(Cli::parse().command) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::NotWell) => ExitCode::from(1),
        Err(error) => console::end("ckaad-agent", &*error),
    }
}

fn carry_out(command: Command) -> Result<Outcome, Box<dyn std::error::Error>> {
    match command {
        Command::Run(ConfigFile { config }) => {
            let settings = agent::Settings::read(&config)?;
            agent::init_logs(&settings.log);
            let report = match agent::run_until_signal(settings) {
                Err(broken) if broken.is_breakdown() => {
                    tracing::error!("{broken}");
                    return Ok(Outcome::NotWell);
                }
                result => result?,
            };
            tracing::info!("{}", report.outbox_line());
            Ok(Outcome::Well)
        }
        #[cfg(feature = "demo")]
        Command::Demo(Demo { frames, port, out, bundle, seed }) => {
            agent::init_logs("warn,rumqttd=off");
            Ok(agent::demo(&agent::DemoOptions { frames, port, out, bundle, seed })?)
        }
        Command::Check(ConfigFile { config }) => Ok(agent::check(&config)?),
        Command::Infer(Infer { bundle, images, json, heatmaps, threads, threshold }) => {
            let threads = usize::from(threads);
            Ok(agent::infer(&agent::InferOptions { bundle, images, json, heatmaps, threads, threshold })?)
        }
        Command::Bench(Bench { bundle, threads, judges, cameras, frame, runs, json, onnxruntime, providers }) => {
            let threads = threads.into_iter().map(usize::from).collect();
            let [judges, cameras] = [judges, cameras].map(usize::from);
            let runtime = onnxruntime.map(|library| (library, providers));
            Ok(agent::bench(&agent::BenchOptions { bundle, threads, judges, cameras, frame, runs, json, runtime })?)
        }
        Command::Cameras => Ok(agent::cameras()?),
        Command::Bundle(BundleCommand::Inspect { bundle, json }) => Ok(agent::show(&bundle, json)?),
        Command::Bundle(BundleCommand::Verify { bundle }) => Ok(agent::verify(&bundle)?),
        Command::Model(args) => {
            let (command, place) = match args {
                ModelArgs::List(place) => (agent::ModelCommand::List, place),
                ModelArgs::Activate { version, place } => (agent::ModelCommand::Activate(version), place),
                ModelArgs::Rollback(place) => (agent::ModelCommand::RollBack, place),
            };
            Ok(agent::models(&place.file.config, &command, place.model.as_deref())?)
        }
        Command::Schema { what } => {
            let schema = match what {
                Schema::Events => ckaad_edge::events::schemas(),
                Schema::Asyncapi => ckaad_edge::events::asyncapi(),
                Schema::Config => agent::config_schema(),
            };
            console::say(format_args!("{schema:#}"))?;
            Ok(Outcome::Well)
        }
    }
}
