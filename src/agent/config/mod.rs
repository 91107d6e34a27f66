//! Configuration in two stages: [`FileConfig`], what a person wrote, and [`Settings`], what runs.
//!
//! ```text
//! defaults ◄─ file (TOML) ◄─ environment CKAAD__SECTION__KEY ─► FileConfig ─checked─► Settings
//! ```
//! A key that nobody reads is an error that names the nearest one: a typo must not silently mean the default.

mod file;
mod nearest;
mod resolve;

pub use file::{CameraTable, FileConfig, Operation, PictureFormat, SourceKind};
pub use resolve::{CameraSettings, Settings};

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not valid TOML: {reason}")]
    Syntax { path: PathBuf, reason: String },
    #[error("unknown key `{key}` in {place}{}", .nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey { key: String, place: String, nearest: Option<String> },
    #[error("{place}: {reason}")]
    Value { place: String, reason: String },
}

/// JSON Schema of the configuration file.
pub fn config_schema() -> serde_json::Value {
    schemars::schema_for!(FileConfig).to_value()
}

/// Prefix of the variables that override the file: `CKAAD__MQTT__HOST=broker`.
const ENVIRONMENT: &str = "CKAAD";

impl FileConfig {
    /// The file, with the process's environment over it.
    ///
    /// # Errors
    /// One sentence with the file and the key.
    pub fn read(path: &Path) -> Result<FileConfig, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        FileConfig::parse(&text, path, variables.filter(|(k, _)| k.starts_with("CKAAD__")).collect())
    }

    /// As [`FileConfig::read`], from memory; `path` is for the sentences.
    ///
    /// # Errors
    /// As [`FileConfig::read`].
    pub fn parse(text: &str, path: &Path, variables: Vec<(String, String)>) -> Result<FileConfig, ConfigError> {
        let place = path.display().to_string();
        let table: toml::Table = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            path: path.to_owned(),
            reason: e.to_string().trim_end().replace('\n', " "),
        })?;
        let written = serde_json::to_value(&table).expect("a TOML table has string keys");
        nearest::check(&written, &place)?;
        for (name, _) in &variables {
            let keys: Vec<String> = name.split("__").skip(1).map(str::to_lowercase).collect();
            let nested = keys.iter().rev().fold(serde_json::Value::Bool(true), |v, k| serde_json::json!({ k: v }));
            nearest::check(&nested, &format!("the environment variable {name}"))?;
        }
        let value = |e: config::ConfigError| ConfigError::Value { place: place.clone(), reason: e.to_string() };
        let environment = config::Environment::with_prefix(ENVIRONMENT)
            .prefix_separator("__")
            .separator("__")
            // Texts as they are: a key converts its own, and a line named `03` or a protocol `5` is no number.
            .try_parsing(false)
            .source(Some(variables.into_iter().collect()));
        config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .add_source(environment)
            .build()
            .map_err(value)?
            .try_deserialize()
            .map_err(value)
    }
}
