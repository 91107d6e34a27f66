//! Findings and suspects as the lines of a terminal.

use super::findings::{Findings, Kind, Warning};
use super::proof::{FalseAlarms, Ranking};
use super::suspects::{Suspect, Suspects};
use std::collections::BTreeMap;

/// What the set is, what it can prove, and what is wrong with it.
pub fn finding_lines(findings: &Findings) -> Vec<String> {
    let counts = &findings.counts;
    let mut lines = vec![format!("{}: layout {}", findings.name, findings.layout)];
    let own = match counts.validation_normal {
        0 => String::new(),
        own => format!(" and {own} of its own validation"),
    };
    lines.push(format!("  training  {} normal{own}, {}", counts.train_normal, kinds(&counts.train_anomalous)));
    lines.push(format!("  test      {} normal, {}", counts.test_normal, kinds(&counts.test_anomalous)));
    if let Some(sizes) = &findings.sizes {
        let size = |(width, height): (u32, u32)| format!("{width}x{height}");
        lines.push(format!(
            "  sizes     {} to {}, most often {} ({} of {}); width by height {:.2} to {:.2}",
            size(sizes.smallest),
            size(sizes.largest),
            size(sizes.most_frequent),
            sizes.most_frequent_images,
            sizes.images,
            sizes.aspect.0,
            sizes.aspect.1
        ));
    }
    let proof = &findings.proof;
    let rankings = [
        ("of the test set", proof.test, proof.test_by_part),
        ("of held-out training images", proof.training, proof.training_by_part),
    ];
    lines.push("what it can prove".into());
    lines.extend(rankings.map(|(whose, images, parts)| auroc(whose, images, parts)));
    lines.extend(proof.false_alarms.iter().map(false_alarms));
    lines.extend(warning_lines(findings));
    if findings.warnings.is_empty() {
        lines.push("nothing is wrong with it that can be seen from here".into());
    }
    lines
}

/// What is wrong with the set, a line each.
pub fn warning_lines(findings: &Findings) -> Vec<String> {
    let line = |w: &Warning| format!("{}: {}", if w.grave { "wrong" } else { "warning" }, w.sentence);
    findings.warnings.iter().map(line).collect()
}

fn kinds(kinds: &BTreeMap<String, Kind>) -> String {
    let (images, masks) = kinds.values().fold((0, 0), |(i, m), kind| (i + kind.images, m + kind.masks));
    if images == 0 {
        return "no anomalous".into();
    }
    let each: Vec<String> = kinds.iter().map(|(name, kind)| format!("{name} {}", kind.images)).collect();
    let with_masks = if masks == 0 { "without masks".into() } else { format!("{masks} with masks") };
    format!("{images} anomalous, {with_masks}: {}", each.join(", "))
}

fn auroc(whose: &str, images: Option<Ranking>, parts: Option<Ranking>) -> String {
    let Some(images) = images else { return format!("  no AUROC {whose}: it needs images of both classes") };
    let by_part = parts.map_or(String::new(), |parts| {
        format!(
            "; were the images of a part as one ({} + {}): {:.3} and {:.3}",
            parts.anomalous, parts.normal, parts.at_90, parts.at_98
        )
    });
    format!(
        "  AUROC {whose} ({} anomalous + {} normal): standard error {:.3} at 0.9, {:.3} at 0.98{by_part}",
        images.anomalous, images.normal, images.at_90, images.at_98
    )
}

fn false_alarms(found: &FalseAlarms) -> String {
    let FalseAlarms { budget, normal, rank, expected, interval_90 } = *found;
    let promise = ckaad_bundle::promise(normal as u32, rank, expected, interval_90);
    format!("  false alarms within {:.1} %: the threshold is {promise}", f64::from(budget) * 100.0)
}

/// The labels that are most worth a second look.
pub fn suspect_lines(suspects: &Suspects) -> Vec<String> {
    let mut lines = vec![format!(
        "labels worth a second look, of {} training images that models judged without having seen them{}",
        suspects.judged,
        if suspects.gone > 0 { format!(" ({} more are gone from the set)", suspects.gone) } else { String::new() }
    )];
    let line = |suspect: &Suspect, than: &str| {
        format!(
            "    {:>10.4}  {} ({than} {:.0} % of the other class)",
            suspect.score,
            suspect.path,
            100.0 * suspect.beyond
        )
    };
    lines.push("  labelled normal, highest scores:".into());
    lines.extend(suspects.normal.iter().map(|suspect| line(suspect, "above")));
    lines.push("  labelled anomalous, lowest scores:".into());
    lines.extend(suspects.anomalous.iter().map(|suspect| line(suspect, "below")));
    lines
}
