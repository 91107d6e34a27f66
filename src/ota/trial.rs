//! What a new model must show before it judges: its golden samples, its speed, and live frames beside the model in force.
//!
//! Whether the broker or the repository can be reached is never part of it.

use crate::judge::{EnginePool, Gatherer, Judged, Model, sample_picture};
use ckaad_bundle::{Bundle, Calibration, view_shown};
use ckaad_inspect::imaging::RgbImage;
use ckaad_inspect::{Limits, quantile};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialConfig {
    /// Live frames that both models judge.
    pub frames: u32,
    /// Time from the beginning of the trial in which they must have come.
    pub deadline: Duration,
    /// How many times slower than the model in force it may be.
    pub slower: f64,
    /// Milliseconds that a picture may take.
    pub budget_ms: Option<f64>,
}

/// Judgements of a picture for its time; the quickest counts.
const TIMED: usize = 15;
/// A trial must not take the cameras' cores: behind a frame, so many times what it took without another one.
const REST: u32 = 3;
/// The views of a part come one right behind the other; what is not whole by then has lost one on its way.
const APART: Duration = Duration::from_secs(5);
/// A model that alarms on so large a share of frames, of which the model in force alarms on less than half, is absurd.
const ALARMS: f64 = 0.9;

/// A model on trial: in the shadow of the one in force it judges the frames that the cameras judged.
pub struct Trial {
    /// The model that is tried.
    pub candidate: Arc<Model>,
    config: TrialConfig,
    seen: Vec<Seen>,
    /// Frames of parts that are not whole, where a model looks across views.
    gathering: Gatherer<Judged>,
    /// No frame is judged until then.
    rest_until: Option<Instant>,
    failed: Option<String>,
}

/// A frame that both models judged.
#[derive(Clone, Copy, Debug)]
struct Seen {
    old_defective: bool,
    /// Its score reached the threshold, if only by what is too small to count.
    old_high: bool,
    old_score: f32,
    defective: bool,
    score: f32,
}

/// What can be said before any frame: golden samples and speed.
///
/// # Errors
/// In a sentence, why the candidate is no good, and whether that is the model's fault for certain: a machine that has much else to do may be slow
/// once.
pub fn examine(
    candidate: &Model,
    bundle: &Bundle,
    in_force: &Model,
    config: &TrialConfig,
) -> Result<(), (String, bool)> {
    let [old, new] = [in_force, candidate].map(|model| &model.inspector.manifest().view_names);
    if old != new {
        let say = |names: &[String]| match names {
            [] => "one view".into(),
            names => format!("the views {}", names.join(", ")),
        };
        return Err((format!("it takes {} of a part at once, the model in force {}", say(new), say(old)), false));
    }
    let results = candidate.inspector.check_golden(bundle).map_err(|e| (format!("its golden samples: {e}"), true))?;
    let failed = results.iter().filter(|result| !result.passed).count();
    if failed > 0 {
        let of = results.len();
        return Err((format!("{failed} of its {of} golden samples are judged otherwise than where it was made"), true));
    }
    let image = sample_picture(bundle);
    // In turns, and the least of each: whatever else the machine does only ever adds.
    let mut least = [Duration::MAX; 2];
    for _ in 0..TIMED {
        for (model, least) in [in_force, candidate].into_iter().zip(&mut least) {
            let begun = Instant::now();
            model.inspector.rehearse(&image).map_err(|e| (format!("a picture could not be judged: {e}"), true))?;
            let views = model.inspector.manifest().views.max(1);
            *least = (begun.elapsed() / views).min(*least);
        }
    }
    let [old, new] = least.map(|time| time.as_secs_f64() * 1000.0);
    if let Some(budget) = config.budget_ms.filter(|&budget| new > budget) {
        return Err((format!("it takes {new:.1} ms a picture; the line allows {budget} ms"), false));
    }
    // Below a millisecond nothing is slow.
    if new > (old * config.slower).max(1.0) {
        let slower = config.slower;
        let why = format!(
            "it takes {new:.1} ms a picture where the model in force takes {old:.1} ms; up to {slower} times as long is allowed"
        );
        return Err((why, false));
    }
    Ok(())
}

impl Trial {
    /// It begins with the first frame.
    pub fn new(candidate: Arc<Model>, config: TrialConfig) -> Trial {
        let gathering = Gatherer::new(APART);
        Trial { candidate, config, seen: vec![], gathering, rest_until: None, failed: None }
    }

    /// Frames that were judged by both, and how many are asked for.
    pub fn progress(&self) -> (u32, u32) {
        // A part's views are judged together, and may be more than are needed.
        ((self.seen.len() as u32).min(self.config.frames), self.config.frames)
    }

    /// Judges a frame that the model in force has judged; nobody hears of it.
    pub fn shadow(&mut self, judged: &Judged, engine: &EnginePool) {
        if self.failed.is_some() || self.seen.len() >= self.config.frames as usize {
            return;
        }
        drop(self.gathering.overdue(Instant::now()));
        let names = &self.candidate.inspector.manifest().view_names;
        let part = judged.frame.part.as_ref();
        match part.and_then(|part| Some((part, view_shown(names, &part.name)?))).filter(|_| !names.is_empty()) {
            None => self.judge(std::slice::from_ref(judged), engine),
            // Pictures are large: none is kept that will not be judged.
            Some(_) if self.rests() => drop(self.gathering.rest()),
            Some((part, view)) => {
                let part = format!("{}/{}", judged.camera, part.part);
                for gathered in self.gathering.take(&part, view, judged.clone(), names.len(), Instant::now()) {
                    // Of what is not whole nothing is known: frames may be lost on their way here.
                    let Ok(views) = gathered.whole(names.len()) else { continue };
                    self.judge(&views, engine);
                    break;
                }
            }
        }
    }

    fn rests(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// A frame, or the views of a part.
    fn judge(&mut self, judged: &[Judged], engine: &EnginePool) {
        let Some(first) = judged.first().filter(|_| !self.rests()) else { return };
        let turn = engine.turn();
        let begun = Instant::now();
        // What is too small to count on this line is so for both.
        let smallest_region_px = first.verdict.smallest_region_px;
        let limits = Limits { threshold: self.candidate.inspector.threshold(), smallest_region_px };
        let images: Vec<&RgbImage> = judged.iter().map(|judged| &judged.frame.image).collect();
        let verdicts = self.candidate.inspector.inspect_part(&images, limits);
        drop(turn);
        self.rest_until = Some(Instant::now() + begun.elapsed() * REST);
        let verdicts = match verdicts {
            Ok(verdicts) => verdicts,
            Err(e) => return self.failed = Some(format!("a live frame could not be judged: {e}")),
        };
        for (judged, new) in judged.iter().zip(verdicts) {
            let old = &judged.verdict;
            tracing::debug!(
                camera = &*judged.camera,
                old = old.score,
                new = new.score,
                "a live frame, judged by the model in force and by the one on trial"
            );
            self.seen.push(Seen {
                old_defective: old.is_defective(),
                old_high: old.score >= old.threshold,
                old_score: old.score,
                defective: new.is_defective(),
                score: new.score,
            });
        }
    }

    /// None while frames are missing. Ok with a sentence when the candidate may judge.
    pub fn verdict(&self) -> Option<Result<String, String>> {
        if let Some(why) = &self.failed {
            return Some(Err(why.clone()));
        }
        (self.seen.len() >= self.config.frames as usize)
            .then(|| absurd(&self.seen, &self.candidate.calibration).map_or_else(|| Ok(sentence(&self.seen)), Err))
    }

    /// Why it is over when its time is: a line that gives no frames is nobody's fault.
    pub fn too_late(&self) -> String {
        let (seen, of) = self.progress();
        format!("{seen} of {of} live frames came within {} s", self.config.deadline.as_secs())
    }
}

fn sentence(seen: &[Seen]) -> String {
    let count = |defective: fn(&Seen) -> bool| seen.iter().filter(|s| defective(s)).count();
    format!(
        "{} live frames judged by both: {} alarms, {} by the model before",
        seen.len(),
        count(|s| s.defective),
        count(|s| s.old_defective)
    )
}

/// Why these scores cannot be those of a model that works; none when they can.
fn absurd(seen: &[Seen], calibration: &Calibration) -> Option<String> {
    let (n, share) = (seen.len(), |count: usize| count as f64 / seen.len().max(1) as f64);
    let alarms = seen.iter().filter(|s| s.defective).count();
    let old_alarms = seen.iter().filter(|s| s.old_defective).count();
    if share(alarms) >= ALARMS && share(old_alarms) < 0.5 {
        return Some(format!("it alarms on {alarms} of {n} live frames, the model in force on {old_alarms}"));
    }
    let constant =
        |score: fn(&Seen) -> f32| seen.iter().all(|s| (score(s) - score(&seen[0])).abs() <= 1e-6 * score(s).abs());
    if n > 1 && constant(|s| s.score) && !constant(|s| s.old_score) {
        return Some(format!("it gives all {n} live frames the score {}", seen[0].score));
    }
    let mut good: Vec<f32> = seen.iter().filter(|s| !s.old_high).map(|s| s.score).collect();
    good.sort_by(f32::total_cmp);
    let median = quantile(&good, 0.5)?;
    let (&low, &high) = (calibration.quantiles.first()?, calibration.quantiles.last()?);
    let spread = (high - low).max(f32::EPSILON);
    if median > high + spread || median < low - spread {
        return Some(format!(
            "parts that the model in force calls good score {median:.4} by median; those that it was calibrated on scored {low:.4} to {high:.4}"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        let quantiles = (0..21).map(|i| 1.0 + i as f32 / 20.0).collect();
        let tail = ckaad_bundle::Tail { start: 2.0, share: 0.1, scale: 0.1, shape: 0.0 };
        Calibration {
            images: 100,
            quantiles,
            threshold: 2.5,
            pixel_threshold: 1.0,
            false_alarm_budget: 0.01,
            rank: None,
            tail,
            expected_rate: 0.01,
            interval: [0.0, 0.05],
        }
    }

    fn frames(scores: impl IntoIterator<Item = (f32, bool)>) -> Vec<Seen> {
        let seen = |(i, (score, old_defective)): (usize, (f32, bool))| Seen {
            old_defective,
            old_high: old_defective,
            old_score: i as f32,
            defective: score >= 2.5,
            score,
        };
        scores.into_iter().enumerate().map(seen).collect()
    }

    #[test]
    fn a_model_that_works_is_let_through_also_when_the_line_makes_nothing_but_defects() {
        let normal = frames((0..50).map(|i| (1.2 + 0.01 * i as f32, i % 10 == 0)));
        assert_eq!(absurd(&normal, &calibration()), None);
        let bad_day = frames((0..50).map(|i| (3.0 + 0.01 * i as f32, true)));
        assert_eq!(absurd(&bad_day, &calibration()), None);
    }

    #[test]
    fn all_alarms_one_score_and_scores_of_another_world_are_absurd() {
        let alarms = frames((0..50).map(|i| (2.6 + 0.001 * i as f32, false)));
        assert_eq!(
            absurd(&alarms, &calibration()).unwrap(),
            "it alarms on 50 of 50 live frames, the model in force on 0"
        );
        let constant = frames((0..50).map(|_| (1.5, false)));
        assert_eq!(absurd(&constant, &calibration()).unwrap(), "it gives all 50 live frames the score 1.5");
        let low = frames((0..50).map(|i| (-3.0 + 0.001 * i as f32, false)));
        assert!(
            absurd(&low, &calibration()).unwrap().contains("those that it was calibrated on scored 1.0000 to 2.0000")
        );
    }
}
