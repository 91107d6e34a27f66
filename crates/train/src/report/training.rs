//! How training went: losses and validation quality of every validated epoch, as the bundle's report member has them.

use super::chart::{Axis, Chart, Ink};
use super::{escape, number};
use ckaad_bundle::Bundle;
use serde_json::Value;

/// The curves; empty where the bundle says nothing of its training.
pub fn section(bundle: &Bundle) -> String {
    let Some(validations) = training(bundle).and_then(|t| t.get("validations")?.as_array()) else {
        return String::new();
    };
    let series = |pick: &dyn Fn(&Value) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |v: &Value| Some((v.get("epoch")?.as_f64()?, pick(v).filter(|y| y.is_finite())?));
        validations.iter().filter_map(point).collect()
    };
    let quality = series(&|v| v.get("quality")?.as_f64());
    let mut charts = curve("validation quality", &quality, Ink::Anomalous);
    for loss in ["reconstruction", "discriminator", "adversarial"] {
        let points = series(&|v| v.get("losses")?.get(loss)?.as_f64());
        charts.push_str(&curve(&format!("{loss} loss"), &points, Ink::Normal));
    }
    if charts.is_empty() {
        return String::new();
    }
    let best = quality.iter().copied().reduce(|best, next| if next.1 >= best.1 { next } else { best });
    let best = best.map_or(String::new(), |(epoch, quality)| {
        format!(" The best epoch is {epoch}, with {}.", number(Some(quality)))
    });
    format!(
        "<h2>Training</h2><p class=\"soft\">Each validated epoch: mean losses over the epoch, and the quality on held-out training \
         images (image AUROC where anomalies were held out, else the negative reconstruction error).{best}</p>\
         <div class=\"row\">{charts}</div>"
    )
}

/// What the trainer wants read before the numbers.
pub fn warning(bundle: &Bundle) -> String {
    let warning = training(bundle).and_then(|t| t.get("warning")?.as_str());
    warning.map_or(String::new(), |text| format!("<p class=\"warning\">{}</p>", escape(text)))
}

fn training(bundle: &Bundle) -> Option<&Value> {
    bundle.report.as_ref()?.get("training")
}

fn curve(label: &str, points: &[(f64, f64)], ink: Ink) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let x = Axis { label: "epoch", low: first.0, high: last.0 };
    let mut chart = Chart::new(x, Axis { label, low, high }, (338.0, 220.0));
    chart.line(points, ink);
    points.iter().filter(|_| points.len() <= 40).for_each(|(x, y)| chart.dot(*x, *y, ink));
    chart.figure("")
}
