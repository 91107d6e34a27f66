//! The sanity of every number and name of a bundle.

use super::error::Problem;
use super::limits::{MAX_METHODS, MAX_SEGMENTS, MAX_TERMS, MAX_VIEWS};
use super::{
    Appearance, Calibration, FORMAT, GoldenAnswer, Manifest, MapTerm, Score, ScoreRule, ScoreTerm, Tail, TrainingData,
};
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
    let count = m.methods.len();
    need("the length of methods", count, (1..=MAX_METHODS).contains(&count), "1 to 16")?;
    for method in &m.methods {
        need("methods", format!("{method:?}"), plain(method, 64), "a plain text of 1 to 64 characters each")?;
    }
    need("backbone", &m.backbone, plain(&m.backbone, 64), "a plain text of 1 to 64 characters")?;

    let (w, h) = (m.input.width, m.input.height);
    need("input.width", w, (16..=4096).contains(&w), "a number from 16 to 4096")?;
    need("input.height", h, (16..=4096).contains(&h), "a number from 16 to 4096")?;
    need("views", m.views, (1..=MAX_VIEWS as u32).contains(&m.views), "a number from 1 to 16")?;
    let (count, views) = (m.view_names.len(), m.views as usize);
    need("the length of view_names", count, count == views || count == 0 && views == 1, "one name a view")?;
    for (i, name) in m.view_names.iter().enumerate() {
        let own = plain(name, 64) && !m.view_names[..i].contains(name);
        need("view_names", format!("{name:?}"), own, "a plain text of 1 to 64 characters of its own each")?;
    }
    let s = m.output_stride;
    need("output_stride", s, s > 0 && w % s == 0 && h % s == 0, "a divisor of the input's width and height")?;
    need("the length of terms", m.terms.len(), m.terms.len() <= MAX_TERMS, "at most 16")?;
    for MapTerm { name, weight } in &m.terms {
        need("terms.name", format!("{name:?}"), plain(name, 64), "a plain text of 1 to 64 characters")?;
        need("terms.weight", weight, weight.is_finite(), "a finite number")?;
    }
    score(&m.score, w * h)?;
    calibration(&m.calibration)?;
    m.gpu_calibration.as_ref().map_or(Ok(()), calibration).map_err(of_gpu)?;
    training_data(&m.training_data)?;
    need("the length of licences", m.licences.len(), m.licences.len() <= 32, "at most 32")?;
    match m.licences.iter().find(|line| !plain(line, 512)) {
        Some(line) => need("licences", format!("{line:?}"), false, "one plain line of 1 to 512 characters each"),
        None => Ok(()),
    }
}

fn score(score: &Score, pixels: u32) -> Result<(), Problem> {
    need("score.sigma_px", score.sigma_px, (0.0..=64.0).contains(&score.sigma_px), "a number from 0 to 64")?;
    let mean = |field, k: u32| need(field, k, k >= 1 && k <= pixels, "a number from 1 to the input's pixels");
    match &score.rule {
        ScoreRule::TopK { top_k } => mean("score.rule.top_k", *top_k)?,
        ScoreRule::Combined { terms } => {
            let count = terms.len();
            need("the length of score.rule.terms", count, (1..=MAX_TERMS).contains(&count), "1 to 16")?;
            for &ScoreTerm { top_k, weight } in terms {
                mean("score.rule.terms.top_k", top_k)?;
                need("score.rule.terms.weight", weight, weight.is_finite(), "a finite number")?;
            }
        }
        ScoreRule::Forest { segments, tie_break } => {
            need("score.rule.segments", segments, (1..=MAX_SEGMENTS).contains(segments), "a number from 1 to 256")?;
            let good = *tie_break >= 0.0 && tie_break.is_finite();
            need("score.rule.tie_break", tie_break, good, "a finite number from 0 on")?;
        }
    }
    let Some(branch) = &score.image else { return Ok(()) };
    need("score.image.map.centre", branch.map.centre, branch.map.centre.is_finite(), "a finite number")?;
    above_zero("score.image.map.spread", branch.map.spread)?;
    need("score.image.image.centre", branch.image.centre, branch.image.centre.is_finite(), "a finite number")?;
    above_zero("score.image.image.spread", branch.image.spread)?;
    share("score.image.weight", branch.weight)
}

fn calibration(c: &Calibration) -> Result<(), Problem> {
    need("calibration.images", c.images, c.images > 0, "at least 1")?;
    let count = c.quantiles.len();
    need("the length of calibration.quantiles", count, count == 21, "21")?;
    if let Some(q) = c.quantiles.iter().find(|q| !q.is_finite()) {
        need("calibration.quantiles", q, false, "a finite number")?;
    }
    if let Some(pair) = c.quantiles.windows(2).find(|pair| pair[0] > pair[1]) {
        need("calibration.quantiles", format!("{} before {}", pair[0], pair[1]), false, "an ascending list")?;
    }
    need("calibration.threshold", c.threshold, c.threshold.is_finite(), "a finite number")?;
    need("calibration.pixel_threshold", c.pixel_threshold, c.pixel_threshold.is_finite(), "a finite number")?;
    let budget = c.false_alarm_budget;
    need("calibration.false_alarm_budget", budget, budget > 0.0 && budget < 1.0, "a share between 0 and 1")?;
    if let Some(rank) = c.rank {
        need("calibration.rank", rank, (1..=c.images).contains(&rank), "a number from 1 to calibration.images")?;
    }
    let Tail { start, share: above, scale, shape } = c.tail;
    need("calibration.tail.start", start, start.is_finite(), "a finite number")?;
    share("calibration.tail.share", above)?;
    above_zero("calibration.tail.scale", scale)?;
    need("calibration.tail.shape", shape, (-1.0..=1.0).contains(&shape), "a number from -1 to 1")?;
    share("calibration.expected_rate", c.expected_rate)?;
    let [low, high] = c.interval;
    let good = (0.0..=1.0).contains(&low) && (low..=1.0).contains(&high);
    need("calibration.interval", format!("[{low}, {high}]"), good, "two ascending shares from 0 to 1")
}

/// The problem with `calibration` as one with `gpu_calibration`.
fn of_gpu(problem: Problem) -> Problem {
    match problem {
        Problem::Value { field, found, expected } => {
            Problem::Value { field: field.replace("calibration.", "gpu_calibration.").into(), found, expected }
        }
        other => other,
    }
}

fn training_data(data: &TrainingData) -> Result<(), Problem> {
    let digest = &data.sha256;
    need("training_data.sha256", digest, is_sha256(digest), "64 digits of lower-case hexadecimal")?;
    let Some(Appearance { brightness, sharpness }) = &data.appearance else { return Ok(()) };
    for (mean, deviation, of) in [
        ("training_data.appearance.brightness.mean", "training_data.appearance.brightness.deviation", brightness),
        ("training_data.appearance.sharpness.mean", "training_data.appearance.sharpness.deviation", sharpness),
    ] {
        need(mean, of.mean, of.mean.is_finite(), "a finite number")?;
        let good = of.deviation >= 0.0 && of.deviation.is_finite();
        need(deviation, of.deviation, good, "a finite number from 0 on")?;
    }
    Ok(())
}

/// `branch`: whether the network has the output `image_score`.
pub(super) fn golden(member: &str, answer: &GoldenAnswer, branch: bool) -> Result<(), Problem> {
    let fail = |field, found, expected| Err(Problem::Golden { member: member.into(), field, found, expected });
    if !answer.score.is_finite() {
        return fail("score", answer.score.to_string(), "a finite number");
    }
    match answer.image_score {
        Some(score) if !branch => return fail("image_score", score.to_string(), "none without score.image"),
        Some(score) if !score.is_finite() => return fail("image_score", score.to_string(), "a finite number"),
        None if branch => return fail("image_score", "absent".into(), "a number with score.image"),
        _ => {}
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

fn above_zero(field: &'static str, found: f32) -> Result<(), Problem> {
    need(field, found, found > 0.0 && found.is_finite(), "a finite number above 0")
}

fn share(field: &'static str, found: f32) -> Result<(), Problem> {
    need(field, found, (0.0..=1.0).contains(&found), "a share from 0 to 1")
}

fn need(field: &'static str, found: impl ToString, holds: bool, expected: &'static str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::Value { field: field.into(), found: found.to_string(), expected }) }
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
