//! The sanity of every number and name of a bundle.

use super::error::Problem;
use super::{FORMAT, GoldenAnswer, Manifest};
use semver::Version;

/// Every number and name of the manifest is one that the agent can work with. `members` is `read`'s affair.
pub(super) fn manifest(m: &Manifest) -> Result<(), Problem> {
    // A newer one was refused before its keys were read.
    if m.format == 0 {
        return Err(Problem::Format { found: m.format.into(), supported: FORMAT });
    }
    let this = Version::parse(env!("CARGO_PKG_VERSION")).expect("cargo accepts only semantic versions");
    if !m.engine.matches(&this) {
        return Err(Problem::Engine { needed: m.engine.clone() });
    }
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    need("name", &m.name, (1..=64).contains(&m.name.len()) && m.name.chars().all(name), "1 to 64 of a-z, 0-9 and -")?;
    need("method", &m.method, plain(&m.method, 64), "a plain text of 1 to 64 characters")?;
    need("backbone", &m.backbone, plain(&m.backbone, 64), "a plain text of 1 to 64 characters")?;

    let (w, h) = (m.input.width, m.input.height);
    need("input.width", w, (16..=4096).contains(&w), "a number from 16 to 4096")?;
    need("input.height", h, (16..=4096).contains(&h), "a number from 16 to 4096")?;
    let s = m.output_stride;
    need("output_stride", s, s > 0 && w % s == 0 && h % s == 0, "a divisor of the input's width and height")?;
    need("score.sigma_px", m.score.sigma_px, (0.0..=64.0).contains(&m.score.sigma_px), "a number from 0 to 64")?;
    let k = m.score.top_k;
    need("score.top_k", k, k >= 1 && k <= w * h, "a number from 1 to the input's pixels")?;
    let terms = &m.score.terms;
    need("the length of score.terms", terms.len(), terms.len() <= 16, "at most 16")?;
    for term in terms {
        let (k, weight) = (term.top_k, term.weight);
        need("score.terms.top_k", k, k >= 1 && k <= w * h, "a number from 1 to the input's pixels")?;
        need("score.terms.weight", weight, weight.is_finite(), "a finite number")?;
    }

    let c = &m.calibration;
    need("calibration.images", c.images, c.images > 0, "at least 1")?;
    let count = c.quantiles.len();
    need("the length of calibration.quantiles", count, count == 21, "21")?;
    if let Some(q) = c.quantiles.iter().find(|q| !q.is_finite()) {
        need("calibration.quantiles", q, false, "a finite number")?;
    }
    if let Some(pair) = c.quantiles.windows(2).find(|pair| pair[0] > pair[1]) {
        need("calibration.quantiles", format!("{} before {}", pair[0], pair[1]), false, "an ascending list")?;
    }
    need("calibration.tail_start", c.tail_start, c.tail_start.is_finite(), "a finite number")?;
    need("calibration.tail_share", c.tail_share, (0.0..=1.0).contains(&c.tail_share), "a share from 0 to 1")?;
    let scale = c.tail_scale;
    need("calibration.tail_scale", scale, scale > 0.0 && scale.is_finite(), "a finite number above 0")?;
    let budget = c.false_alarm_budget;
    need("calibration.false_alarm_budget", budget, budget > 0.0 && budget < 1.0, "a share between 0 and 1")?;
    need("calibration.threshold", c.threshold, c.threshold.is_finite(), "a finite number")?;
    need("calibration.pixel_threshold", c.pixel_threshold, c.pixel_threshold.is_finite(), "a finite number")?;

    let digest = &m.training_data.sha256;
    need("training_data.sha256", digest, is_sha256(digest), "64 digits of lower-case hexadecimal")?;
    need("the length of licences", m.licences.len(), m.licences.len() <= 32, "at most 32")?;
    if let Some(line) = m.licences.iter().find(|line| !plain(line, 512)) {
        need("licences", format!("{line:?}"), false, "one plain line of 1 to 512 characters each")?;
    }
    Ok(())
}

pub(super) fn golden(member: &str, answer: &GoldenAnswer) -> Result<(), Problem> {
    let fail = |field, found, expected| Err(Problem::Golden { member: member.into(), field, found, expected });
    if !answer.score.is_finite() {
        return fail("score", answer.score.to_string(), "a finite number");
    }
    if answer.grid.len() != 64 {
        return fail("the length of grid", answer.grid.len().to_string(), "64");
    }
    match answer.grid.iter().find(|v| !v.is_finite()) {
        Some(v) => fail("grid", v.to_string(), "finite numbers"),
        None => Ok(()),
    }
}

/// Levels of brackets in a JSON text, without parsing it: deep nesting must not reach a recursive parser.
pub(super) fn json_depth(text: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => level += 1,
            b']' | b'}' if !in_string => level = level.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(level);
    }
    deepest
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn plain(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn need(field: &'static str, found: impl ToString, holds: bool, expected: &'static str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::Value { field, found: found.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
    use super::{is_sha256, json_depth};

    #[test]
    fn brackets_inside_strings_are_no_levels() {
        for (text, levels) in [
            (r#"{"a": [1, [2]], "b": {}}"#, 3),
            (r#"{"[[[[": "{{{{"}"#, 1),
            (r#"{"]": "}}"}"#, 1),
            (r#"["a]]", ["b"], [["c"]]]"#, 3),
            (r#"["a\"[[[["]"#, 1),
            (r#"["a\\", [[2]]]"#, 3),
            (r"[\[[]]]", 3),
            ("]]]][[", 2),
            ("7", 0),
        ] {
            assert_eq!(json_depth(text.as_bytes()), levels, "{text}");
        }
    }

    #[test]
    fn a_digest_is_64_digits_of_lower_case_hexadecimal() {
        assert!(is_sha256(&"0123456789abcdef".repeat(4)));
        for wrong in ["a".repeat(63), "a".repeat(65), "A".repeat(64), format!("{}g", "a".repeat(63))] {
            assert!(!is_sha256(&wrong), "{wrong}");
        }
    }
}
