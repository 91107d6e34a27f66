//! Models in ONNX Runtime, on a GPU for instance, where the configuration asks for it and their golden samples come out as where they were made.
//! Whatever does not work is said in one sentence, and the agent's own engine judges: a line does not stop for a driver.

use ckaad_bundle::Bundle;
use ckaad_inspect::engine::{Provider, RuntimeOptions};
use ckaad_inspect::{InspectOptions, Inspector};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// `[engine] backend = "onnxruntime"`, with `[engine.onnxruntime]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceleratorSettings {
    /// `libonnxruntime.so`.
    pub library: PathBuf,
    /// In the order in which they are tried.
    pub providers: Vec<Provider>,
    /// A folder of the agent's for the engines that TensorRT builds.
    pub cache: PathBuf,
    /// For loading a model and judging its golden samples.
    pub load_timeout: Duration,
}

/// Folders of engines that are kept; a bundle has one for each library.
const KEPT: usize = 8;

impl AcceleratorSettings {
    /// The model of `bundle`, once it has judged its golden samples as it did where it was made.
    ///
    /// # Errors
    /// In a sentence, why it cannot be used.
    pub fn load(&self, bundle: &Bundle, threads: usize) -> Result<Inspector, String> {
        if bundle.golden.is_empty() {
            return Err("the bundle has no golden samples, by which a GPU would have to be checked".into());
        }
        let cache = self.cache(&bundle.digest)?;
        let runtime =
            RuntimeOptions { library: self.library.clone(), providers: self.providers.clone(), cache, threads };
        let (said, answer) = mpsc::channel();
        let bundle = bundle.clone();
        // A driver that hangs cannot be stopped; its thread is left to itself.
        let work = move || {
            fail::fail_point!("accelerator");
            // Nobody listens any more where it took too long.
            let _ = said.send(checked(&bundle, runtime));
        };
        std::thread::Builder::new().name("accelerator".into()).spawn(work).map_err(|e| e.to_string())?;
        match answer.recv_timeout(self.load_timeout) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(format!(
                "it was not ready within {} s (engine.onnxruntime.load_timeout_s)",
                self.load_timeout.as_secs()
            )),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err("loading it failed half-way".into()),
        }
    }

    /// The folder for the engines of a bundle with this library; others that nobody has used for long are removed.
    fn cache(&self, digest: &str) -> Result<Option<PathBuf>, String> {
        if !self.providers.contains(&Provider::Tensorrt) {
            return Ok(None);
        }
        let library = fs::canonicalize(&self.library).unwrap_or_else(|_| self.library.clone());
        let library = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let short: String = digest.chars().take(16).collect();
        let own = self.cache.join(format!("{short}-{library}"));
        fs::create_dir_all(&own)
            .map_err(|e| format!("the folder {} for its engines cannot be made: {e}", own.display()))?;
        for old in old(&self.cache, &own) {
            if let Err(e) = fs::remove_dir_all(&old) {
                tracing::warn!("{}: engines that nobody uses cannot be removed: {e}", old.display());
            }
        }
        Ok(Some(own))
    }
}

/// What lies in `cache` beside `own` and is not among the last that were made.
fn old(cache: &Path, own: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries
        .filter(|entry| entry.path() != own)
        .filter_map(|entry| Some((entry.metadata().ok().filter(fs::Metadata::is_dir)?.modified().ok()?, entry.path())))
        .collect();
    folders.sort();
    let kept = folders.len().min(KEPT - 1);
    folders.drain(folders.len() - kept..);
    folders.into_iter().map(|(_, path)| path).collect()
}

fn checked(bundle: &Bundle, runtime: RuntimeOptions) -> Result<Inspector, String> {
    let options = InspectOptions { runtime: Some(runtime), ..InspectOptions::default() };
    // The sentence names the model already.
    let inspector = Inspector::new(bundle, &options).map_err(|e| e.to_string())?;
    let results = inspector.check_golden(bundle).map_err(|e| format!("its golden samples: {e}"))?;
    match results.iter().filter(|result| !result.passed).count() {
        0 => Ok(inspector),
        failed => {
            Err(format!("{failed} of its {} golden samples are judged otherwise than where it was made", results.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_of_the_last_bundles_are_kept() {
        let cache = tempfile::tempdir().unwrap();
        let settings = AcceleratorSettings {
            library: "libonnxruntime.so.1.2.3".into(),
            providers: vec![Provider::Tensorrt],
            cache: cache.path().join("engines"),
            load_timeout: Duration::from_secs(1),
        };
        for i in 0..KEPT + 3 {
            let own = settings.cache(&format!("{i:016}ffff")).unwrap().unwrap();
            assert!(own.ends_with(format!("{i:016}-libonnxruntime.so.1.2.3")), "{}", own.display());
            // File systems keep times of a few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = fs::read_dir(&settings.cache).unwrap().count();
        assert_eq!(left, KEPT);
        assert!(settings.cache.join(format!("{:016}-libonnxruntime.so.1.2.3", KEPT + 2)).is_dir());
        let none = AcceleratorSettings { providers: vec![Provider::Cuda], ..settings };
        assert_eq!(none.cache("ab").unwrap(), None);
    }
}
