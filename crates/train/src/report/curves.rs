//! Score histogram, ROC and precision-recall curve of the image scores, each with the calibrated threshold in it.

use super::chart::{Axis, Chart, Ink};
use super::{number, score};
use crate::evaluate::Evaluation;
use crate::metrics::{OperatingPoint, operating_points};

const BINS: usize = 40;

pub fn histogram(e: &Evaluation) -> String {
    let scores = || e.samples.iter().map(|s| f64::from(s.score)).chain([f64::from(e.threshold)]);
    let (low, high) = (scores().fold(f64::INFINITY, f64::min), scores().fold(f64::NEG_INFINITY, f64::max));
    let step = (high - low).max(1e-9) / BINS as f64;
    let mut bins = [[0usize; 2]; BINS];
    for s in &e.samples {
        let bin = (((f64::from(s.score) - low) / step) as usize).min(BINS - 1);
        bins[bin][usize::from(s.defect.is_some())] += 1;
    }
    // Shares of each class, so that a rare class can be seen beside a common one.
    let totals = [e.normal_images.max(1), e.anomalous_images.max(1)];
    let share = |bin: &[usize; 2], class: usize| bin[class] as f64 / totals[class] as f64 * 100.0;
    let tallest = bins.iter().flat_map(|b| [share(b, 0), share(b, 1)]).fold(0.0, f64::max);
    let x = Axis { label: "image score", low, high: low + step * BINS as f64 };
    let y = Axis { label: "share of the class, %", low: 0.0, high: tallest * 1.05 };
    let mut chart = Chart::new(x, y, (1048.0, 280.0));
    for (i, bin) in bins.iter().enumerate() {
        for (class, ink) in [(0, Ink::Normal), (1, Ink::Anomalous)] {
            if bin[class] > 0 {
                chart.bar(low + step * i as f64, low + step * (i + 1) as f64, share(bin, class), ink);
            }
        }
    }
    chart.upright(f64::from(e.threshold), &format!("threshold {}", score(e.threshold)));
    let caption = format!(
        "<span class=\"key normal\">normal</span> ({}), <span class=\"key anomalous\">anomalous</span> ({})",
        e.normal_images, e.anomalous_images
    );
    format!("<h2>Scores</h2>{}", chart.figure(&caption))
}

pub fn roc_and_precision(e: &Evaluation) -> String {
    let (scores, labels): (Vec<f32>, Vec<bool>) = e.samples.iter().map(|s| (s.score, s.defect.is_some())).unzip();
    let points = operating_points(&scores, &labels);
    if points.is_empty() {
        return "<h2>Curves</h2><p class=\"soft\">The set has one class only, so there are no curves.</p>".into();
    }
    let (roc, precision) = (roc(e, &points), precision_recall(e, &points));
    format!("<h2>Curves</h2><div class=\"row\">{roc}{precision}</div>")
}

fn roc(e: &Evaluation, points: &[OperatingPoint]) -> String {
    let mut chart =
        Chart::new(unit("share of normal images alerted"), unit("share of anomalous images alerted"), (516.0, 420.0));
    chart.guide((0.0, 0.0), (1.0, 1.0));
    let mut line = vec![(0.0, 0.0)];
    line.extend(points.iter().map(|p| (p.false_positive_rate, p.recall)));
    chart.line(&line, Ink::Normal);
    if let Some(at) = at_threshold(e, points) {
        chart.dot(at.false_positive_rate, at.recall, Ink::Anomalous);
    }
    chart.figure(&format!("ROC, AUROC {}. Dot: the threshold. Dashed: chance.", number(e.image.auroc)))
}

fn precision_recall(e: &Evaluation, points: &[OperatingPoint]) -> String {
    let mut chart = Chart::new(
        unit("recall: share of anomalous images alerted"),
        unit("precision: share of alerts that are right"),
        (516.0, 420.0),
    );
    let chance = e.anomalous_images as f64 / (e.anomalous_images + e.normal_images).max(1) as f64;
    chart.guide((0.0, chance), (1.0, chance));
    // Level steps, as average precision sums them.
    let mut line = vec![];
    let mut recall = 0.0;
    for p in points {
        line.extend([(recall, p.precision), (p.recall, p.precision)]);
        recall = p.recall;
    }
    chart.line(&line, Ink::Normal);
    if let Some(at) = at_threshold(e, points) {
        chart.dot(at.recall, at.precision, Ink::Anomalous);
    }
    let ap = number(e.image.average_precision);
    chart.figure(&format!("Precision and recall, AP {ap}. Dot: the threshold. Dashed: chance."))
}

/// The lowest score that is still alerted; `None` when nothing is.
fn at_threshold<'a>(e: &Evaluation, points: &'a [OperatingPoint]) -> Option<&'a OperatingPoint> {
    points.iter().take_while(|p| p.threshold >= e.threshold).last()
}

fn unit(label: &str) -> Axis<'_> {
    Axis { label, low: 0.0, high: 1.0 }
}
