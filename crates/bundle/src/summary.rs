//! A bundle in a few lines.

use super::{
    Appearance, Bundle, Calibration, Filter, Fusion, ImageBranch, Manifest, Moments, Precision, ResizeMode, ScoreRule,
    ScoreTerm,
};
use std::fmt::Write;

impl Bundle {
    /// The text of `ckaad-agent bundle inspect`: a line a fact.
    pub fn summary(&self) -> String {
        let m = &self.manifest;
        let precision = match m.precision {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
        };
        let fit = match m.input.fit {
            ResizeMode::Stretch => "stretched",
            ResizeMode::Letterbox => "letterboxed",
            ResizeMode::Pad => "fitted inside, its border going on around it",
            ResizeMode::Crop => "cropped",
        };
        let filter = match m.input.filter {
            Filter::Bilinear => "bilinear",
            Filter::CatmullRom => "Catmull-Rom",
        };
        let (w, h) = (m.input.width, m.input.height);
        let names = m.view_names.join(", ");
        let views = if m.views == 1 { String::new() } else { format!("the {} views {names} at once, each ", m.views) };
        let mut lines = vec![
            ("model", format!("{} {} (bundle format {})", m.name, m.version, m.format)),
            ("digest", self.digest.clone()),
            ("methods", format!("{} on {}, {precision}", m.methods.join(", "), m.backbone)),
            ("created", m.created.to_string()),
            ("engine", format!("ckaad-edge {}", m.engine)),
            ("input", format!("{views}{w}x{h} RGB, {fit}, {filter}")),
            ("map", format!("{}x{} (stride {})", w / m.output_stride, h / m.output_stride, m.output_stride)),
        ];
        lines.extend(m.judging());
        lines.extend([(
            "trained on",
            format!(
                "{} normal and {} anomalous images, data set {:.12}",
                m.training_data.normal_images, m.training_data.anomalous_images, m.training_data.sha256
            ),
        )]);
        lines.extend(m.training_data.appearance.map(|looks| ("appearance", looks.describe())));
        lines.extend(m.licences.iter().map(|line| ("licence", line.clone())));
        lines.extend(
            m.members.iter().map(|x| ("member", format!("{:<18} {:>9} bytes  {:.12}", x.path, x.size, x.sha256))),
        );
        let mut out = String::new();
        for (key, value) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{key:<12} {value}");
        }
        out
    }
}

impl Manifest {
    /// The terms of the map with their weights, in words.
    pub fn describe_map(&self) -> String {
        let terms: Vec<String> = self.terms.iter().map(|t| format!("{:.3} x {}", t.weight, t.name)).collect();
        terms.join(" + ")
    }

    /// From map to score, in words.
    pub fn describe_score(&self) -> String {
        let rule = self.score.rule.describe(self.input.width * self.input.height);
        let branch = self.score.image.map_or("no image branch".into(), |branch| branch.describe());
        format!("{rule} after a Gaussian of {} px; {branch}", self.score.sigma_px)
    }

    /// The lines on how a map becomes a verdict.
    fn judging(&self) -> Vec<(&'static str, String)> {
        let (score, c) = (&self.score, &self.calibration);
        let rule = score.rule.describe(self.input.width * self.input.height);
        let mut lines: Vec<_> = self.terms.iter().map(|t| ("map term", format!("{} x {}", t.weight, t.name))).collect();
        lines.push(("score", format!("{rule} after a Gaussian of {} px", score.sigma_px)));
        lines.extend(score.image.map(|branch| ("image branch", branch.describe())));
        let scores = format!(
            "{} normal images, scores {} to {}, median {}, at most {} false alarms wanted",
            c.images,
            c.quantiles.first().unwrap_or(&f32::NAN),
            c.quantiles.last().unwrap_or(&f32::NAN),
            c.median(),
            percent(c.false_alarm_budget)
        );
        lines.extend([
            ("threshold", format!("{} (pixels from {})", c.threshold, c.pixel_threshold)),
            ("false alarms", c.describe()),
            ("calibration", scores),
        ]);
        if let Some(gpu) = &self.gpu_calibration {
            lines.push(("on a GPU", format!("threshold {} (pixels from {})", gpu.threshold, gpu.pixel_threshold)));
            lines.push(("", gpu.describe()));
        }
        lines
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
        let term = |t: &ScoreTerm| format!("{:+.3} x {}", t.weight, mean(t.top_k));
        match self {
            ScoreRule::TopK { top_k } => mean(*top_k),
            ScoreRule::Combined { terms } => terms.iter().map(term).collect::<Vec<_>>().join(" "),
            ScoreRule::Forest { segments, tie_break } => {
                format!(
                    "boosted trees over {segments} segments, ties broken by {tie_break} x {}",
                    mean((pixels / 500).max(1))
                )
            }
        }
    }
}

impl ImageBranch {
    /// In words.
    pub fn describe(&self) -> String {
        let (map, image) = (1.0 - self.weight, self.weight);
        match self.fusion {
            Fusion::Sum => format!("{map:.3} x map + {image:.3} x image, both standardised"),
            Fusion::Larger => format!("twice the larger of {map:.3} x map and {image:.3} x image, both standardised"),
        }
    }
}

impl Calibration {
    /// What the threshold promises, in words.
    pub fn describe(&self) -> String {
        promise(self.images, self.rank, self.expected_rate, self.interval)
    }
}

/// What a threshold from the scores of so many normal images promises, in words: where among them it lies (`rank`, from
/// the largest), the share of normal images that is expected to alert, and its 90 % interval.
pub fn promise(images: u32, rank: Option<u32>, expected_rate: f32, interval: [f32; 2]) -> String {
    let from = match rank {
        Some(1) => format!("the largest score of {images} normal images"),
        Some(k) => format!("the score with rank {k}, from the largest, of {images} normal images"),
        None => format!("beyond what {images} normal images show by counting, from the tail of their scores"),
    };
    let [low, high] = interval;
    let sure = match interval {
        [0.0, 1.0] => "how far that may be off is not known".into(),
        _ => format!("90 % interval {} to {}", percent(low), percent(high)),
    };
    format!("{from}; {} of normal images expected to alert, {sure}", percent(expected_rate))
}

impl Appearance {
    /// In words.
    fn describe(&self) -> String {
        let of = |m: &Moments| format!("{:.1} (standard deviation {:.1})", m.mean, m.deviation);
        format!("normal images: brightness {}, sharpness {}", of(&self.brightness), of(&self.sharpness))
    }
}

/// With three digits.
fn percent(share: f32) -> String {
    let percent = f64::from(share) * 100.0;
    let digits = (2.0 - percent.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{percent:.digits$}");
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{short} %")
}
