//! One self-contained HTML page of an evaluation. It fetches nothing and runs nothing, and says so to the browser;
//! every text that comes from outside (names of files, folders, models, licences) is escaped.
//!
//! | part of the page | module |
//! |---|---|
//! | headline, metrics, sets, confusion, defects, the model | `tables` |
//! | score histogram, ROC, precision and recall | `curves`, drawn with `chart` |
//! | losses, and verdicts on training images | `training` |
//! | heatmaps | `gallery` |
//!
//! The same numbers as lines of a terminal are [`lines`]; what an export rests on are [`evidence_lines`].

mod chart;
mod curves;
mod gallery;
mod lines;
mod tables;
mod training;

pub use gallery::Gallery;
pub use lines::{evidence_lines, lines};

use super::evaluate::Evaluation;
use ckaad_bundle::Bundle;

const STYLE: &str = include_str!("style.css");

/// The whole page as HTML.
pub fn page(bundle: &Bundle, e: &Evaluation, gallery: &Gallery) -> String {
    let title = format!("{} {} on {}", escape(&e.model), escape(&e.version), escape(&e.data));
    let sections = [
        training::warning(bundle),
        tables::tiles(e),
        tables::metrics(e),
        tables::at_threshold(e),
        curves::histogram(e),
        curves::roc_and_precision(e),
        tables::categories(e),
        tables::defects(e),
        training::section(bundle),
        tables::model(bundle, e),
        gallery.sections(e.threshold),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"/>\
         <meta name=\"viewport\" content=\"width=device-width\"/><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1><p class=\"soft\">{} normal and {} anomalous images, each judged through the bundle with the agent's own \
         engine.</p>\n{}</body></html>\n",
        e.normal_images,
        e.anomalous_images,
        sections.join("\n"),
    )
}

/// `0.1234`, or a dash where there is no number.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

/// `0.123 to 0.234`, or a dash.
pub fn interval(value: Option<(f64, f64)>) -> String {
    value.map_or_else(|| "–".to_owned(), |(low, high)| format!("{low:.3} to {high:.3}"))
}

/// An image score: four digits that count.
fn score(value: f32) -> String {
    let digits = 3 - i64::from(value.abs().max(1e-9).log10().floor() as i32);
    format!("{value:.*}", digits.clamp(0, 9) as usize)
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "–".to_owned() } else { format!("{:.1} %", part as f64 / whole as f64 * 100.0) }
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
        out
    })
}
