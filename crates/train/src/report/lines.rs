//! An evaluation as the lines of a terminal.

use super::{interval, number};
use crate::evaluate::Evaluation;
use crate::export::Evidence;
use crate::metrics::{ImageMetrics, PixelMetrics};
use ckaad_bundle::Calibration;

/// One line a level (image, part, pixel), then what the threshold makes of the set and of each kind of defect.
pub fn lines(e: &Evaluation) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} {} on {}: {} normal, {} anomalous",
            e.model, e.version, e.data, e.normal_images, e.anomalous_images
        ),
        ranking("image, bundle's score", &e.image),
        ranking("image, map's maximum", &e.image_by_map_maximum),
    ];
    if let Some(part) = &e.part {
        lines.push(format!("{} normal, {} anomalous parts", part.normal_parts, part.anomalous_parts));
        lines.push(ranking("part, bundle's score", &part.by_score));
        lines.push(ranking("part, map's maximum", &part.by_map_maximum));
    }
    if e.left_out > 0 {
        lines
            .push(format!("{} images are left out: their parts are not there from all views of the model", e.left_out));
    }
    if let Some(by_mask) = e.by_mask.filter(|by_mask| by_mask.differ > 0) {
        lines.push(format!("{} images have another label by their mask at the network's size", by_mask.differ));
        lines.push(ranking("image, label by mask", &by_mask.image));
    }
    lines.extend(e.pixel.iter().flat_map(pixels));
    let c = e.at_threshold;
    lines.push(format!(
        "threshold {:.4}: {} of {} defects alerted, {} false alarms in {} good images",
        e.threshold,
        c.hits,
        c.defective(),
        c.false_alarms,
        c.good()
    ));
    lines.extend(e.defects.iter().map(|row| {
        format!("  {:<16} {:>4} of {:>4} alerted, AUROC {}", row.defect, row.hits, row.images, number(row.auroc))
    }));
    lines.extend(e.categories.iter().chain(&e.category_mean).map(|row| {
        format!(
            "  {:<16} {:>4} normal, {:>4} anomalous: image AUROC {}  AP {}  F1-max {}  pixel AUROC {}  AUPRO (0.3) {}; {} alerted, {} false alarms",
            row.category,
            row.normal_images,
            row.anomalous_images,
            number(row.image_auroc),
            number(row.average_precision),
            number(row.f1_max),
            number(row.pixel_auroc),
            number(row.aupro),
            row.at_threshold.hits,
            row.at_threshold.false_alarms
        )
    }));
    lines.push(format!("median {:.1} ms an image, one thread", e.median_ms));
    lines
}

/// What the weights and the threshold of a bundle rest on: the whole, each term alone, each kind of defect, the threshold.
pub fn evidence_lines(e: &Evidence, calibration: &Calibration) -> Vec<String> {
    let mut lines = vec![e.sentence()];
    if !e.terms.is_empty() {
        let alone = e.terms.iter().map(|t| format!("{} {:.4} ± {:.4}", t.term, t.image_auroc, t.standard_error));
        lines.push(format!("  alone: {}", alone.collect::<Vec<_>>().join(", ")));
    }
    lines.extend(e.kinds.iter().map(|kind| {
        let unseen =
            kind.unseen_auroc.map_or(String::new(), |a| format!(", {a:.4} had the image branch never seen it"));
        format!(
            "  {:<16} {:>4} images, AUROC {:.4} ± {:.4}{unseen}",
            kind.kind, kind.images, kind.image_auroc, kind.standard_error
        )
    }));
    lines.push(format!("threshold {:.4}: {}", calibration.threshold, calibration.describe()));
    lines
}

fn ranking(what: &str, m: &ImageMetrics) -> String {
    format!(
        "{what:<22} AUROC {} (95 %: {})  AP {}  F1-max {} (all called anomalous: {})",
        number(m.auroc),
        interval(m.auroc_95),
        number(m.average_precision),
        number(m.f1_max),
        number(m.f1_trivial)
    )
}

fn pixels(p: &PixelMetrics) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<22} AUROC {}  AP {}  F1-max {} (all called anomalous: {})  AUPRO(0.3) {}  AUPRO(0.05) {}, {} regions",
        "pixel, all thresholds",
        number(p.auroc),
        number(p.average_precision),
        number(p.f1_max),
        number(p.f1_trivial),
        number(p.aupro_30),
        number(p.aupro_05),
        p.regions
    )];
    lines.extend(p.ader.iter().map(|a| {
        format!(
            "{:<22} F1-max {:.4}  IoU-max {:.4}  F1 .2-.8 {:.4}  Acc .2-.8 {:.4}  IoU .2-.8 {:.4}  AUPRO(0.3) {}",
            "pixel, ADer's steps",
            a.f1_max,
            a.iou_max,
            a.f1_mean,
            a.acc_mean,
            a.iou_mean,
            number(a.aupro_30)
        )
    }));
    lines
}
