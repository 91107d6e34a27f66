//! The pictures worth a look: the surest hits, the worst misses, the worst false alarms.

use super::{escape, score};
use crate::evaluate::Judged;
use base64::Engine as _;
use ckaad_bundle::Bundle;
use ckaad_inspect::Verdict;
use ckaad_inspect::imaging::{self, RgbImage};
use std::fmt::Write;

/// Heatmaps of each kind that the page shows.
const SHOWN: usize = 8;

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
    /// No picture yet.
    pub fn new(bundle: &'a Bundle) -> Gallery<'a> {
        Gallery { bundle, hits: vec![], misses: vec![], alarms: vec![] }
    }

    /// Looks at one judged image and keeps it if it is worth showing so far.
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

    pub(super) fn sections(&self, threshold: f32) -> String {
        let lists = [
            ("Anomalous images with the highest scores", &self.hits, true),
            ("Anomalous images with the lowest scores", &self.misses, true),
            ("Normal images with the highest scores", &self.alarms, false),
        ];
        lists.map(|(title, list, anomalous)| section(title, list, anomalous, threshold)).concat()
    }
}

/// The image as the network sees it, and beside it the original under its map, as an operator sees it.
fn side_by_side(bundle: &Bundle, image: &RgbImage, verdict: &Verdict) -> Option<Vec<u8>> {
    let input = &bundle.manifest.input;
    let plain = RgbImage::from_raw(input.width, input.height, imaging::resize(image, input).0)?;
    let heat = ckaad_inspect::heatmap(image, verdict, 2 * input.width.max(input.height));
    let mut both = RgbImage::new(input.width + heat.width(), input.height.max(heat.height()));
    image::imageops::replace(&mut both, &plain, 0, 0);
    image::imageops::replace(&mut both, &heat, i64::from(input.width), 0);
    imaging::encode_jpeg(&both, 80).ok()
}

fn section(title: &str, list: &[Shown], anomalous: bool, threshold: f32) -> String {
    let mut out = format!("<h2>{title}</h2>");
    if list.is_empty() {
        return out + "<p class=\"soft\">The set has none.</p>";
    }
    out.push_str(
        "<p class=\"soft\">Left as the network sees it, right the original under its anomaly map; boxes are the regions of an alert. \
         Colours mean the same in every picture.</p><div class=\"row\">",
    );
    for shown in list {
        let data = base64::engine::general_purpose::STANDARD.encode(&shown.jpeg);
        let _ = write!(
            out,
            "<figure class=\"picture\"><img src=\"data:image/jpeg;base64,{data}\" alt=\"{name} and its heatmap\"/>\
             <figcaption>{name}: {}, {}</figcaption></figure>",
            score(shown.score),
            outcome(anomalous, shown.score >= threshold),
            name = escape(&shown.caption),
        );
    }
    out + "</div>"
}

fn outcome(anomalous: bool, alerted: bool) -> &'static str {
    match (anomalous, alerted) {
        (true, true) => "<span class=\"good\">alerted</span>",
        (true, false) => "<span class=\"bad\">missed</span>",
        (false, true) => "<span class=\"bad\">false alarm</span>",
        (false, false) => "passed",
    }
}
