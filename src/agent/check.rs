//! The doctor: one line for each thing that must be well before the line starts.

use super::Outcome;
use super::config::{CameraSettings, Settings};
use crate::capture::{Next, SourceConfig};
use crate::judge::AcceleratorSettings;
use crate::mqtt::{Limits, Outbox, probe};
use crate::ota;
use ckaad_bundle::Bundle;
use ckaad_inspect::console::{OutputError, say};
use ckaad_inspect::engine::Provider;
use ckaad_inspect::{InspectOptions, Inspector};
use std::path::Path;
use std::time::{Duration, Instant};

/// Checks everything that the configuration at `path` names, and prints a line each.
///
/// # Errors
/// Standard output takes no more.
pub fn check(path: &Path) -> Result<Outcome, OutputError> {
    let mut report = Report { well: true };
    let Some(settings) = report.line("config", Settings::read(path).map(|s| (path.display().to_string(), s)))? else {
        return Ok(Outcome::NotWell);
    };
    report.line("outbox", outbox(&settings.outbox_path, settings.outbox_limits).map(|s| (s, ())))?;
    report.line("broker", broker(&settings).map(|s| (s, ())))?;
    if let Some(update) = &settings.update {
        report.line("updates", updates(update).map(|s| (s, ())))?;
    }
    for camera in &settings.cameras {
        let bundle = report.line(&format!("bundle of {}", camera.name), bundle(camera))?;
        if let Some((accelerator, bundle)) = settings.accelerator.as_ref().zip(bundle) {
            report.line(&format!("backend of {}", camera.name), backend(&bundle, accelerator).map(|s| (s, ())))?;
        }
        report.line(&format!("source of {}", camera.name), source(&camera.source).map(|s| (s, ())))?;
    }
    Ok(if report.well { Outcome::Well } else { Outcome::NotWell })
}

struct Report {
    well: bool,
}

impl Report {
    fn line<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        result: Result<(String, T), E>,
    ) -> Result<Option<T>, OutputError> {
        match result {
            Ok((good, value)) => {
                say(format_args!("ok    {what}: {good}"))?;
                Ok(Some(value))
            }
            Err(bad) => {
                self.well = false;
                say(format_args!("FAIL  {what}: {bad}"))?;
                Ok(None)
            }
        }
    }
}

/// Looks into the outbox, also beside a running agent, and changes nothing. A missing one is not created, its folder is tried instead.
fn outbox(path: &Path, limits: Limits) -> Result<String, String> {
    if path.exists() {
        let health = Outbox::look(path).map_err(|e| e.to_string())?;
        return Ok(format!(
            "{} ({} wait, {} of {} bytes)",
            path.display(),
            health.waiting,
            health.bytes,
            limits.max_bytes
        ));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match tempfile::NamedTempFile::new_in(folder) {
        Ok(_) => Ok(format!("{} will be created", path.display())),
        Err(e) => Err(format!("{} cannot be created: {e}", path.display())),
    }
}

fn broker(settings: &Settings) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let probed = runtime.block_on(probe(&settings.mqtt));
    // A look-up of the name that hangs in the system must not keep us.
    runtime.shutdown_background();
    probed.map_err(|e| e.to_string())?;
    Ok(format!("{}:{} takes the connection", settings.mqtt.host, settings.mqtt.port))
}

fn updates(settings: &ota::UpdateSettings) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let probed = runtime.block_on(ota::probe(settings));
    runtime.shutdown_background();
    // The line says "updates" already.
    probed.map_err(|e| e.to_string().trim_start_matches("updates: ").to_owned())
}

fn bundle(camera: &CameraSettings) -> Result<(String, Bundle), String> {
    let bundle = Bundle::read(&camera.bundle).map_err(|e| e.to_string())?;
    let options = InspectOptions { threshold: camera.threshold, ..InspectOptions::default() };
    Inspector::new(&bundle, &options).map_err(|e| format!("{} cannot be run: {e}", camera.bundle.display()))?;
    camera.shows(&bundle.manifest.view_names)?;
    Ok((format!("{} {}", bundle.manifest.name, bundle.manifest.version), bundle))
}

/// The line would run without it, on the processor; but that is not what the configuration asks for.
fn backend(bundle: &Bundle, accelerator: &AcceleratorSettings) -> Result<String, String> {
    let inspector = accelerator.load(bundle, 1).map_err(|why| format!("the processor judges: {why}"))?;
    let provider = inspector.provider().map_or("cpu", Provider::name);
    Ok(format!("onnxruntime {provider}, {} golden sample(s) as where they were made", bundle.golden.len()))
}

/// A source is well when it gives a frame; a hot folder, which may be empty, when it can be listed.
fn source(config: &SourceConfig) -> Result<String, String> {
    let mut source = config.build().map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let patience = Duration::from_secs(5);
    while begun.elapsed() < patience {
        match source.next() {
            Next::Frame(frame) => return Ok(format!("a frame of {}x{}", frame.image.width(), frame.image.height())),
            Next::Idle if matches!(config, SourceConfig::Directory(_)) => return Ok("an empty hot folder".into()),
            Next::Idle => {}
            Next::Skipped(why) => return Err(why.to_string()),
            Next::Condition(condition) => {
                use crate::capture::Condition::{Frozen, Running, Stalled, Unplugged};
                match condition {
                    Running => {}
                    Stalled(why) | Frozen(why) | Unplugged(why) => return Err(why),
                }
            }
            Next::End => return Err("it ended without a frame".into()),
        }
    }
    Err(format!("no frame within {} s", patience.as_secs()))
}
