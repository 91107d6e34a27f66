mod manifest;
pub use manifest::*;

/// A bundle in memory, every digest checked.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub manifest: Manifest,
    /// `model.onnx`, as it stands in the archive.
    pub model: Vec<u8>,
    pub golden: Vec<Golden>,
    /// `report.json`: the evaluation that came with the model.
    pub report: Option<serde_json::Value>,
    /// SHA-256 of the whole file, lower-case hexadecimal.
    pub digest: String,
}

/// A picture with the answer that the model gave when it was packed.
#[derive(Clone, Debug)]
pub struct Golden {
    pub png: Vec<u8>,
    pub expected: GoldenAnswer,
}

/// `golden/NN.json`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenAnswer {
    pub score: f32,
    /// Means of the smoothed map over an 8x8 grid, row by row.
    pub grid: Vec<f32>,
}
