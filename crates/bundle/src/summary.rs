//! A bundle in a few lines.

use super::{Bundle, Filter, Precision, ResizeMode, ScoreRule, ScoreTerm};
use std::fmt::Write;

impl Bundle {
    /// The text of `ckaad-agent bundle inspect`: a line a fact.
    pub fn summary(&self) -> String {
        let m = &self.manifest;
        let c = &m.calibration;
        let precision = match m.precision {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
        };
        let fit = match m.input.fit {
            ResizeMode::Stretch => "stretched",
            ResizeMode::Letterbox => "letterboxed",
            ResizeMode::Crop => "cropped",
        };
        let filter = match m.input.filter {
            Filter::Bilinear => "bilinear",
            Filter::CatmullRom => "Catmull-Rom",
        };
        let (w, h) = (m.input.width, m.input.height);
        let rule = m.score.describe(w * h);
        let mut lines = vec![
            ("model", format!("{} {}", m.name, m.version)),
            ("digest", self.digest.clone()),
            ("method", format!("{} on {}, {precision}", m.method, m.backbone)),
            ("created", m.created.to_string()),
            ("engine", format!("ckaad-edge {}", m.engine)),
            ("input", format!("{w}x{h} RGB, {fit}, {filter}")),
            ("map", format!("{}x{} (stride {})", w / m.output_stride, h / m.output_stride, m.output_stride)),
            ("score", format!("{rule} after a Gaussian of {} px", m.score.sigma_px)),
            ("threshold", format!("{} (pixels from {})", c.threshold, c.pixel_threshold)),
            (
                "calibration",
                format!(
                    "{} normal images, scores {} to {}, at most {} % false alarms wanted",
                    c.images,
                    c.quantiles.first().unwrap_or(&f32::NAN),
                    c.quantiles.last().unwrap_or(&f32::NAN),
                    c.false_alarm_budget * 100.0
                ),
            ),
            (
                "trained on",
                format!(
                    "{} normal and {} anomalous images, data set {:.12}",
                    m.training_data.normal_images, m.training_data.anomalous_images, m.training_data.sha256
                ),
            ),
        ];
        lines.extend(m.licences.iter().map(|line| ("licence", line.clone())));
        lines.extend(
            m.members.iter().map(|x| ("member", format!("{:<16} {:>9} bytes  {:.12}", x.path, x.size, x.sha256))),
        );
        let mut out = String::new();
        for (key, value) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{key:<12} {value}");
        }
        out
    }
}

impl ScoreRule {
    /// In words; `pixels` is the input's number of pixels.
    pub fn describe(&self, pixels: u32) -> String {
        let mean = |k: u32| match k {
            1 => "the largest pixel".to_owned(),
            k if k == pixels => "the mean of all pixels".to_owned(),
            k => format!("the mean of the {k} largest pixels"),
        };
        if self.terms.is_empty() {
            return mean(self.top_k);
        }
        let term = |t: &ScoreTerm| format!("{:+.3} x {}", t.weight, mean(t.top_k));
        self.terms.iter().map(term).collect::<Vec<_>>().join(" ")
    }
}
