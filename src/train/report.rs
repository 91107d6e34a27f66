//! One self-contained HTML page of an evaluation: numbers, score histograms, ROC, best and worst heatmaps.

use super::evaluate::{Evaluation, Judged};
use super::metrics;
use crate::bundle::Bundle;
use crate::imaging::{self, RgbImage};
use crate::inspect::{self, Verdict};
use base64::Engine as _;
use std::fmt::Write;

/// Heatmaps of each kind that the page shows.
const SHOWN: usize = 8;

/// `0.1234`, or a dash where there is no number.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

/// `0.1234 to 0.2345`, or a dash.
pub fn interval(value: Option<(f64, f64)>) -> String {
    value.map_or_else(|| "–".to_owned(), |(low, high)| format!("{low:.4} to {high:.4}"))
}

/// Keeps the pictures worth showing while a set is judged, so that memory does not grow with the set.
pub struct Gallery<'a> {
    bundle: &'a Bundle,
    /// Anomalous images with the highest and with the lowest scores, normal images with the highest.
    hits: Vec<Shown>,
    misses: Vec<Shown>,
    alarms: Vec<Shown>,
}

#[derive(Clone)]
struct Shown {
    caption: String,
    score: f32,
    jpeg: Vec<u8>,
}

impl<'a> Gallery<'a> {
    pub fn new(bundle: &'a Bundle) -> Gallery<'a> {
        Gallery { bundle, hits: vec![], misses: vec![], alarms: vec![] }
    }

    pub fn add(&mut self, judged: &Judged, image: &RgbImage, verdict: &Verdict) {
        let score = judged.score;
        let wanted = |list: &[Shown], better: fn(f32, f32) -> bool| {
            list.len() < SHOWN || list.last().is_some_and(|last| better(score, last.score))
        };
        let high: fn(f32, f32) -> bool = |a, b| a > b;
        let low: fn(f32, f32) -> bool = |a, b| a < b;
        let defective = judged.defect.is_some();
        let into_hits = defective && wanted(&self.hits, high);
        let into_misses = defective && wanted(&self.misses, low);
        let into_alarms = !defective && wanted(&self.alarms, high);
        if !(into_hits || into_misses || into_alarms) {
            return;
        }
        let Some(jpeg) = side_by_side(self.bundle, image, verdict) else { return };
        let shown = Shown { caption: judged.path.clone(), score, jpeg };
        for (wanted, list, better) in [
            (into_hits, &mut self.hits, high),
            (into_misses, &mut self.misses, low),
            (into_alarms, &mut self.alarms, high),
        ] {
            if wanted {
                let at = list.iter().position(|s| better(score, s.score)).unwrap_or(list.len());
                list.insert(at, shown.clone());
                list.truncate(SHOWN);
            }
        }
    }
}

/// The image as the network sees it, and beside it the same under its map.
fn side_by_side(bundle: &Bundle, image: &RgbImage, verdict: &Verdict) -> Option<Vec<u8>> {
    let input = &bundle.manifest.input;
    let plain = RgbImage::from_raw(input.width, input.height, inspect::fit(image, input).0)?;
    let heat = inspect::heatmap(image, verdict, input);
    let mut both = RgbImage::new(2 * input.width, input.height);
    image::imageops::replace(&mut both, &plain, 0, 0);
    image::imageops::replace(&mut both, &heat, i64::from(input.width), 0);
    imaging::encode_jpeg(&both, 80).ok()
}

pub fn page(bundle: &Bundle, e: &Evaluation, gallery: &Gallery) -> String {
    let mut out = String::new();
    let m = &bundle.manifest;
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name} {version} on {data}</title><style>{STYLE}</style>\
         <h1>{name} {version} on {data}</h1><p>{method}, {backbone}, {precision}, {w}x{h} pixels; bundle <code>{digest}</code>. \
         Every number was computed through this bundle with the agent's own engine.</p>",
        name = escape(&e.model),
        version = escape(&e.version),
        data = escape(&e.data),
        method = escape(&m.method),
        backbone = escape(&m.backbone),
        precision = format!("{:?}", e.precision).to_lowercase(),
        w = m.input.width,
        h = m.input.height,
        digest = &e.bundle_sha256[..e.bundle_sha256.len().min(16)],
    );
    out.push_str(&numbers(e));
    out.push_str("<h2>Scores</h2>");
    out.push_str(&histogram(e));
    out.push_str("<h2>ROC, image level</h2>");
    out.push_str(&roc_curve(e));
    out.push_str(&defect_table(e));
    for (title, list) in [
        ("Anomalous, highest scores", &gallery.hits),
        ("Anomalous, lowest scores", &gallery.misses),
        ("Normal, highest scores", &gallery.alarms),
    ] {
        out.push_str(&pictures(title, list, e.threshold));
    }
    out.push_str("</html>\n");
    out
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#1c2430}\
    h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}td,th{padding:.25em .9em;text-align:right;\
    border-bottom:1px solid #dde3ea}td:first-child,th:first-child{text-align:left}code{color:#57606a}figure{display:inline-block;margin:0 12px 14px 0}\
    figcaption{font-size:12px;color:#57606a;max-width:340px;overflow-wrap:anywhere}figure img{width:340px;border-radius:4px}\
    svg text{font:12px system-ui,sans-serif;fill:#57606a}.bad{color:#c02a2a;font-weight:600}.good{color:#1a7f4b;font-weight:600}";

fn numbers(e: &Evaluation) -> String {
    let c = e.at_threshold;
    let mut out = String::from("<table><tr><th></th><th>AUROC</th><th>AP</th><th>F1-max</th><th>AUPRO (0.3)</th></tr>");
    let cells = |values: [Option<f64>; 4]| values.map(|v| format!("<td>{}</td>", number(v))).concat();
    let image = cells([e.image.auroc, e.image.average_precision, e.image.f1_max, None]);
    let _ = write!(out, "<tr><td>image</td>{image}</tr>");
    if let Some(p) = &e.pixel {
        let _ = write!(out, "<tr><td>pixel</td>{}</tr>", cells([p.auroc, p.average_precision, None, p.aupro_30]));
    }
    let _ = write!(
        out,
        "</table><p>{} normal and {} anomalous images. At the calibrated threshold {:.4}: <span class=good>{} of {} defects \
         alerted</span>, <span class=bad>{} false alarms</span> in {} normal images. Median {:.1} ms an image on one thread.</p>",
        e.normal_images,
        e.anomalous_images,
        e.threshold,
        c.hits,
        c.hits + c.misses,
        c.false_alarms,
        c.false_alarms + c.passed,
        e.median_ms
    );
    out
}

fn histogram(e: &Evaluation) -> String {
    const BINS: usize = 40;
    let (width, height) = (760.0, 220.0);
    let finite = |pick: fn(f32, f32) -> f32, start: f32| e.samples.iter().map(|s| s.score).fold(start, pick);
    let (low, high) = (finite(f32::min, f32::INFINITY), finite(f32::max, f32::NEG_INFINITY).max(e.threshold));
    let span = (high - low).max(1e-9);
    let mut bins = [[0usize; 2]; BINS];
    for s in &e.samples {
        let bin = (((s.score - low) / span * BINS as f32) as usize).min(BINS - 1);
        bins[bin][usize::from(s.defect.is_some())] += 1;
    }
    // Shares of each class, so that a rare class can be seen beside a common one.
    let totals = [e.normal_images.max(1) as f64, e.anomalous_images.max(1) as f64];
    let share = |bin: &[usize; 2], class: usize| bin[class] as f64 / totals[class];
    let tallest = bins.iter().flat_map(|b| [share(b, 0), share(b, 1)]).fold(1e-9, f64::max);
    let mut out = format!("<svg width=\"{width}\" height=\"{}\" role=img>", height + 40.0);
    let step = width / BINS as f64;
    for (i, bin) in bins.iter().enumerate() {
        for (class, colour) in [(0, "#2c7fb8"), (1, "#d9482b")] {
            let h = share(bin, class) / tallest * height;
            let (x, y) = (i as f64 * step, height - h);
            let _ = write!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{h:.1}\" fill=\"{colour}\" fill-opacity=\".55\"/>",
                step - 1.0
            );
        }
    }
    let at = f64::from((e.threshold - low) / span) * width;
    let _ = write!(
        out,
        "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{height}\" stroke=\"#1c2430\" stroke-dasharray=\"4 3\"/>\
         <text x=\"{:.1}\" y=\"12\" text-anchor=\"{}\">threshold</text>\
         <text x=\"0\" y=\"{}\">{low:.3}</text><text x=\"{width}\" y=\"{}\" text-anchor=\"end\">{high:.3}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">image score: blue normal, red anomalous, share of each class</text></svg>",
        if at > width * 0.8 { at - 5.0 } else { at + 5.0 },
        if at > width * 0.8 { "end" } else { "start" },
        height + 18.0,
        height + 18.0,
        width / 2.0,
        height + 34.0
    );
    out
}

fn roc_curve(e: &Evaluation) -> String {
    let size = 300.0;
    let (scores, labels): (Vec<f32>, Vec<bool>) = e.samples.iter().map(|s| (s.score, s.defect.is_some())).unzip();
    let points: Vec<(f64, f64)> =
        metrics::operating_points(&scores, &labels).iter().map(|p| (p.false_positive_rate, p.recall)).collect();
    let line: Vec<String> =
        points.iter().map(|(x, y)| format!("{:.1},{:.1}", 40.0 + x * size, 10.0 + (1.0 - y) * size)).collect();
    format!(
        "<svg width=\"380\" height=\"360\" role=img><rect x=\"40\" y=\"10\" width=\"{size}\" height=\"{size}\" fill=\"none\" stroke=\"#dde3ea\"/>\
         <line x1=\"40\" y1=\"310\" x2=\"340\" y2=\"10\" stroke=\"#dde3ea\"/><polyline points=\"{}\" fill=\"none\" stroke=\"#2c7fb8\" stroke-width=\"2\"/>\
         <text x=\"190\" y=\"345\" text-anchor=\"middle\">share of normal images alerted</text>\
         <text transform=\"translate(14 160) rotate(-90)\" text-anchor=\"middle\">share of anomalies alerted</text>\
         <text x=\"40\" y=\"326\">0</text><text x=\"340\" y=\"326\" text-anchor=\"end\">1</text></svg>",
        line.join(" ")
    )
}

fn defect_table(e: &Evaluation) -> String {
    let mut out = String::from(
        "<h2>By defect</h2><table><tr><th>defect</th><th>images</th><th>alerted</th><th>AUROC against normal</th></tr>",
    );
    for row in &e.defects {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.defect),
            row.images,
            row.hits,
            number(row.auroc)
        );
    }
    out.push_str("</table>");
    out
}

fn pictures(title: &str, list: &[Shown], threshold: f32) -> String {
    let mut out = format!("<h2>{title}</h2>");
    for shown in list {
        let data = base64::engine::general_purpose::STANDARD.encode(&shown.jpeg);
        let verdict = if shown.score >= threshold { "alert" } else { "pass" };
        let _ = write!(
            out,
            "<figure><img src=\"data:image/jpeg;base64,{data}\" alt=\"\"><figcaption>{} · {:.4} · {verdict}</figcaption></figure>",
            escape(&shown.caption),
            shown.score
        );
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
