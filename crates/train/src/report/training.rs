//! How training went, as the bundle's report member has it: the losses of every epoch, and how training images were told
//! apart by models that never saw them.

use super::chart::{Axis, Chart, Ink};
use super::{escape, number};
use ckaad_bundle::Bundle;
use serde_json::Value;
use std::collections::BTreeSet;

/// The verdicts on training images and the curves; empty where the bundle says nothing of its training.
pub fn section(bundle: &Bundle) -> String {
    let parts = [evidence(bundle), curves(bundle)].concat();
    if parts.is_empty() { String::new() } else { format!("<h2>Training</h2>{parts}") }
}

/// A row a term, and a row a kind of defect.
fn evidence(bundle: &Bundle) -> String {
    let evidence = bundle.report.as_ref().and_then(|report| report.get("evidence"));
    let Some(evidence) = evidence else { return String::new() };
    let list = |key: &str| evidence.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |row: &Value, key: &str| escape(row.get(key).and_then(Value::as_str).unwrap_or("–"));
    let value = |row: &Value, key: &str| number(row.get(key).and_then(Value::as_f64));
    let terms: String = list("terms")
        .iter()
        .map(|row| {
            let (auroc, error) = (value(row, "image_auroc"), value(row, "standard_error"));
            format!("<tr><td>{} alone</td><td></td><td>{auroc} ± {error}</td><td></td></tr>", text(row, "term"))
        })
        .collect();
    let kinds: String = list("kinds")
        .iter()
        .map(|row| {
            let images = row.get("images").and_then(Value::as_u64).unwrap_or(0);
            let (auroc, error) = (value(row, "image_auroc"), value(row, "standard_error"));
            let unseen = value(row, "unseen_auroc");
            format!(
                "<tr><td>{}</td><td>{images}</td><td>{auroc} ± {error}</td><td>{unseen}</td></tr>",
                text(row, "kind")
            )
        })
        .collect();
    let count = |key: &str| evidence.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (auroc, error) = (value(evidence, "image_auroc"), value(evidence, "standard_error"));
    format!(
        "<p class=\"soft\">{} normal and {} anomalous training images, each judged by a model that never saw it; weights, score rule and \
         threshold come from these verdicts. The last column: had the image branch never seen the kind.</p>\
         <table><tr><th></th><th>images</th><th>image AUROC</th><th>kind unseen</th></tr>\
         <tr><td>all</td><td>{}</td><td>{auroc} ± {error}</td><td></td></tr>{kinds}{terms}</table>",
        count("normal_images"),
        count("anomalous_images"),
        count("anomalous_images"),
    )
}

/// One curve a loss.
fn curves(bundle: &Bundle) -> String {
    let history = training(bundle).and_then(|t| t.get("history")?.as_array()).cloned().unwrap_or_default();
    let names: BTreeSet<&String> =
        history.iter().filter_map(|epoch| epoch.get("losses")?.as_object()).flat_map(|losses| losses.keys()).collect();
    let charts: String = names
        .into_iter()
        .map(|name| {
            let point = |e: &Value| {
                let loss = e.get("losses")?.get(name)?.as_f64().filter(|y| y.is_finite())?;
                Some((e.get("epoch")?.as_f64()?, loss))
            };
            curve(&escape(name), &history.iter().filter_map(point).collect::<Vec<_>>(), Ink::Normal)
        })
        .collect();
    if charts.is_empty() { charts } else { format!("<div class=\"row\">{charts}</div>") }
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
