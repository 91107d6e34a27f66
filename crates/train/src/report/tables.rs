//! The page's tables: what the model is, its metrics, the threshold's outcome, and every kind of defect.

use super::{escape, interval, number, percent, score};
use crate::evaluate::{Evaluation, PartMetrics};
use crate::metrics::{ImageMetrics, PixelMetrics};
use ckaad_bundle::Bundle;
use std::fmt::Write;

/// A table whose cells are HTML; the first row is its head.
fn table(class: &str, caption: &str, rows: &[Vec<String>]) -> String {
    let mut out = format!("<div class=\"scroll\"><table class=\"{class}\">");
    if !caption.is_empty() {
        let _ = write!(out, "<caption>{caption}</caption>");
    }
    for (index, row) in rows.iter().enumerate() {
        let cell = if index == 0 && class != "facts" { "th" } else { "td" };
        out.push_str("<tr>");
        row.iter().for_each(|text| out.push_str(&format!("<{cell}>{text}</{cell}>")));
        out.push_str("</tr>");
    }
    out + "</table></div>"
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The four numbers that are asked for first.
pub fn tiles(e: &Evaluation) -> String {
    let c = e.at_threshold;
    let tile = |value: String, what: String| format!("<div class=\"tile\"><b>{value}</b><span>{what}</span></div>");
    let tiles = [
        tile(number(e.image.auroc), format!("image AUROC, 95 % interval {}", interval(e.image.auroc_95))),
        tile(percent(c.hits, c.defective()), format!("{} of {} anomalous images alerted", c.hits, c.defective())),
        tile(
            percent(c.false_alarms, c.good()),
            format!("{} false alarms in {} normal images", c.false_alarms, c.good()),
        ),
        tile(format!("{:.1} ms", e.median_ms), "an image, median, one thread".to_owned()),
    ];
    format!("<div class=\"tiles\">{}</div>", tiles.concat())
}

pub fn metrics(e: &Evaluation) -> String {
    let mut out = String::from("<h2>Metrics</h2>");
    out.push_str(&ranking(e));
    match &e.pixel {
        Some(pixel) => out.push_str(&pixels(pixel)),
        None => out.push_str("<p class=\"soft\">The set has no masks, so there are no pixel metrics.</p>"),
    }
    out
}

fn ranking(e: &Evaluation) -> String {
    let line = |what: &str, m: &ImageMetrics| {
        let [auroc, precision, best, trivial] = [m.auroc, m.average_precision, m.f1_max, m.f1_trivial].map(number);
        vec![what.to_owned(), auroc, interval(m.auroc_95), precision, best, trivial]
    };
    let mut rows = vec![row(["", "AUROC", "95 % interval", "AP", "F1-max", "F1, all called anomalous"])];
    rows.push(line("image, by the bundle's score", &e.image));
    rows.push(line("image, by the map's maximum (as ADer)", &e.image_by_map_maximum));
    let mut caption = String::from(
        "All metrics lie between 0 and 1; 1 is best, and chance gives an AUROC of 0.5. The interval is a bootstrap over images.",
    );
    if let Some(PartMetrics { normal_parts, anomalous_parts, by_score, by_map_maximum }) = &e.part {
        rows.push(line("part, by the bundle's score", by_score));
        rows.push(line("part, by the map's maximum (as ADer)", by_map_maximum));
        let _ = write!(
            caption,
            " {normal_parts} normal and {anomalous_parts} anomalous parts, each with the largest score of its views."
        );
    }
    if let Some(by_mask) = e.by_mask.filter(|by_mask| by_mask.differ > 0) {
        rows.push(line("image, label by its mask (as ADer)", &by_mask.image));
        let _ = write!(caption, " {} images have another label by their mask at the network's size.", by_mask.differ);
    }
    table("", &caption, &rows)
}

fn pixels(p: &PixelMetrics) -> String {
    let share = p.anomalous_pixels as f64 / (p.anomalous_pixels + p.normal_pixels).max(1) as f64 * 100.0;
    let caption = format!(
        "{} images, {} regions; {share:.2} % of the pixels are anomalous. AUPRO: area under the mean overlap of all regions up to \
         the given false-positive rate.",
        p.images, p.regions
    );
    let exact = [p.auroc, p.average_precision, p.f1_max, p.f1_trivial, p.aupro_30, p.aupro_05].map(number).to_vec();
    let mut first = vec!["pixel, all thresholds".to_owned()];
    first.extend(exact);
    let head = row(["", "AUROC", "AP", "F1-max", "F1, all called anomalous", "AUPRO (0.3)", "AUPRO (0.05)"]);
    let mut out = table("", &caption, &[head, first]);
    if let Some(a) = &p.ader {
        let head = row(["", "F1-max", "IoU-max", "F1 .2–.8", "Acc .2–.8", "IoU .2–.8", "AUPRO (0.3)"]);
        let mut second = vec!["pixel, ADer's thresholds".to_owned()];
        let values = [Some(a.f1_max), Some(a.iou_max), Some(a.f1_mean), Some(a.acc_mean), Some(a.iou_mean), a.aupro_30];
        second.extend(values.map(number));
        let caption = "Scores stretched to 0..1 over the whole set: the best of 21 thresholds, the mean of 7 from 0.2 to 0.8, and \
                       AUPRO from 100. Acc is the share of anomalous pixels found.";
        out.push_str(&table("", caption, &[head, second]));
    }
    out
}

pub fn at_threshold(e: &Evaluation) -> String {
    let c = e.at_threshold;
    let line = |what: &str, alerted: u64, passed: u64| {
        let of = |n: u64| format!("{n} ({})", percent(n, alerted + passed));
        vec![what.to_owned(), of(alerted), of(passed), (alerted + passed).to_string()]
    };
    let rows = [
        row(["", "alerted", "passed", "images"]),
        line("anomalous", c.hits, c.misses),
        line("normal", c.false_alarms, c.passed),
    ];
    let caption = format!("An image is alerted when its score is at least {}.", score(e.threshold));
    format!("<h2>At the threshold</h2>{}", table("", &caption, &rows))
}

/// Nothing where one set was judged.
pub fn categories(e: &Evaluation) -> String {
    if e.categories.is_empty() {
        return String::new();
    }
    let head = [
        "",
        "normal",
        "anomalous",
        "image AUROC",
        "AP",
        "F1-max",
        "pixel AUROC",
        "AUPRO (0.3)",
        "alerted",
        "false alarms",
    ];
    let mut rows = vec![row(head)];
    rows.extend(e.categories.iter().chain(&e.category_mean).map(|c| {
        let [image, precision, best, pixel, regions] =
            [c.image_auroc, c.average_precision, c.f1_max, c.pixel_auroc, c.aupro].map(number);
        let [hits, alarms] = [c.at_threshold.hits, c.at_threshold.false_alarms].map(|n| n.to_string());
        let [normal, anomalous] = [c.normal_images, c.anomalous_images].map(|n| n.to_string());
        vec![escape(&c.category), normal, anomalous, image, precision, best, pixel, regions, hits, alarms]
    }));
    let caption = "Each set is ranked by itself; the threshold is one for all.";
    format!("<h2>Sets</h2>{}", table("", caption, &rows))
}

pub fn defects(e: &Evaluation) -> String {
    let mut rows = vec![row(["defect", "images", "alerted", "share alerted", "AUROC against normal"])];
    rows.extend(e.defects.iter().map(|d| {
        vec![escape(&d.defect), d.images.to_string(), d.hits.to_string(), percent(d.hits, d.images), number(d.auroc)]
    }));
    if e.defects.is_empty() {
        return "<h2>By defect</h2><p class=\"soft\">The set has no anomalous images.</p>".into();
    }
    format!("<h2>By defect</h2>{}", table("", "", &rows))
}

/// What the bundle says of itself; rows that it says nothing about are left out.
pub fn model(bundle: &Bundle, e: &Evaluation) -> String {
    let m = &bundle.manifest;
    let mut rows: Vec<Vec<String>> = vec![];
    let mut fact = |what: &str, value: String| rows.push(vec![what.to_owned(), escape(&value)]);
    fact("methods, backbone", format!("{} on {}", m.methods.join(", "), m.backbone));
    fact("precision", format!("{:?}", e.precision).to_lowercase());
    fact(
        "input",
        format!("{}x{} pixels; one map cell every {} pixels", m.input.width, m.input.height, m.output_stride),
    );
    if let Some(parameters) = reported(bundle, "parameters") {
        fact("parameters", format!("{:.2} million", parameters / 1e6));
    }
    if let Some(gmac) = reported(bundle, "gmac") {
        fact("multiply-accumulates an image", format!("{gmac:.2} billion"));
    }
    fact("network file", format!("{:.2} MB", bundle.model.len() as f64 / 1e6));
    fact("anomaly map", m.describe_map());
    fact("image score", m.describe_score());
    fact(
        "threshold",
        format!(
            "{}, for at most {} % false alarms: {}",
            score(m.calibration.threshold),
            m.calibration.false_alarm_budget * 100.0,
            m.calibration.describe()
        ),
    );
    fact(
        "trained on",
        format!("{} normal and {} anomalous images", m.training_data.normal_images, m.training_data.anomalous_images),
    );
    quantised(bundle).into_iter().for_each(|(what, value)| fact(what, value));
    fact("packed", format!("{:.0}", m.created));
    m.licences.iter().for_each(|licence| fact("licence", licence.clone()));
    fact("bundle SHA-256", e.bundle_sha256.clone());
    format!("<h2>Model</h2>{}", table("facts", "", &rows))
}

/// What int8 cost on held-out images, and which layers stay in float for it.
fn quantised(bundle: &Bundle) -> Vec<(&'static str, String)> {
    let Some(q) = bundle.report.as_ref().and_then(|r| r.get("quantisation")).filter(|q| q.is_object()) else {
        return vec![];
    };
    let of = |model: &str, metric: &str| number(q.get(model).and_then(|m| m.get(metric)).and_then(|v| v.as_f64()));
    let cost = format!(
        "image AUROC {} against {}, AUPRO {} against {} on held-out images; ranges by {}",
        of("int8", "image_auroc"),
        of("f32", "image_auroc"),
        of("int8", "aupro"),
        of("f32", "aupro"),
        q.get("calibration").and_then(|c| c.as_str()).unwrap_or("?"),
    );
    let layers: Vec<&str> =
        q.get("float_layers").and_then(|l| l.as_array()).into_iter().flatten().filter_map(|l| l.as_str()).collect();
    let all = q.get("layers").and_then(|l| l.as_u64()).unwrap_or_default();
    let float = match layers.as_slice() {
        [] => format!("none of {all}"),
        some => format!("{} of {all}: {}", some.len(), some.join(", ")),
    };
    vec![("int8 against f32", cost), ("layers in float", float)]
}

fn reported(bundle: &Bundle, key: &str) -> Option<f64> {
    bundle.report.as_ref()?.get(key)?.as_f64()
}
