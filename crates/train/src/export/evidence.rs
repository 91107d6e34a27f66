//! What weights, score rule and threshold rest on, for the log, the report and the data doctor.

use super::folds::{Decided, Folds};
use crate::metrics::Placements;
use crate::run::HeldOutScore;
use serde::Serialize;

/// Verdicts on training images, each by a model that never saw it, and how sure they are.
#[derive(Clone, Debug, Serialize)]
pub struct Evidence {
    /// Normal images.
    pub normal_images: usize,
    /// Anomalous images: so many positives stand behind every AUROC here.
    pub anomalous_images: usize,
    /// How many folds they were dealt into.
    pub folds: usize,
    /// Image AUROC; `None` where one class is missing.
    pub image_auroc: Option<f64>,
    /// Its standard error.
    pub standard_error: Option<f64>,
    /// One row a kind of defect.
    pub kinds: Vec<KindRow>,
    /// Each term alone; and the image branch, where it has several.
    pub terms: Vec<TermRow>,
    /// Every image with its score.
    #[serde(skip)]
    pub scores: Vec<HeldOutScore>,
}

/// How one kind of defect is told from normal images.
#[derive(Clone, Debug, Serialize)]
pub struct KindRow {
    /// Its name.
    pub kind: String,
    /// Images that show it.
    pub images: usize,
    /// Image AUROC.
    pub image_auroc: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The same where the image branch never saw the kind; `None` without an image branch, or where that was not tried.
    pub unseen_auroc: Option<f64>,
}

/// How one thing alone tells anomalous from normal images.
#[derive(Clone, Debug, Serialize)]
pub struct TermRow {
    /// A term's name, of a map with the default rule; or `image`, the image branch.
    pub term: String,
    /// Image AUROC.
    pub image_auroc: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Evidence {
    /// Of verdicts that were decided.
    pub(super) fn of(folds: &Folds, decided: &Decided) -> Evidence {
        let info = folds.context.info;
        let positive = &folds.judged.positive;
        let row = |term: &str, scores: &[f32]| {
            Placements::of(scores, positive).map(|p| TermRow {
                term: term.to_owned(),
                image_auroc: p.auroc(),
                standard_error: p.standard_error(),
            })
        };
        let mut terms: Vec<TermRow> = folds.alone().iter().filter_map(|(name, scores)| row(name, scores)).collect();
        terms.extend(folds.image_terms.iter().filter_map(|term| row(term.term.name, &term.seen)));
        if let Some(branch) = decided.branch.as_ref().filter(|_| folds.image_terms.len() > 1) {
            terms.extend(row("image", &branch.seen));
        }
        let placements = decided.choice.placements.as_ref();
        let scored = |(image, &score): (&crate::methods::Labelled, &f32)| HeldOutScore {
            path: image.sample.path.to_string_lossy().into_owned(),
            defect: image.sample.defect.clone(),
            fold: image.fold,
            score,
        };
        let anomalous = positive.iter().filter(|&&p| p).count();
        Evidence {
            normal_images: positive.len() - anomalous,
            anomalous_images: anomalous,
            folds: info.folds,
            image_auroc: placements.map(Placements::auroc),
            standard_error: placements.map(Placements::standard_error),
            kinds: info.kinds().iter().filter_map(|kind| kind_row(folds, decided, kind)).collect(),
            terms,
            scores: info.images.iter().zip(&decided.choice.scores).map(scored).collect(),
        }
    }

    /// The AUROC with what it rests on, for a line of text.
    pub fn sentence(&self) -> String {
        match (self.image_auroc, self.standard_error) {
            (Some(auroc), Some(error)) => format!(
                "image AUROC {auroc:.4} ± {error:.4} over {} anomalous and {} normal images, each judged by a model that never saw it",
                self.anomalous_images, self.normal_images
            ),
            _ => "no AUROC without anomalous images".into(),
        }
    }
}

fn kind_row(folds: &Folds, decided: &Decided, kind: &str) -> Option<KindRow> {
    let info = folds.context.info;
    let of_kind = |defect: &Option<String>| defect.is_none() || defect.as_deref() == Some(kind);
    let chosen: Vec<usize> = (0..info.images.len()).filter(|&i| of_kind(&info.images[i].sample.defect)).collect();
    let positive: Vec<bool> = chosen.iter().map(|&i| folds.judged.positive[i]).collect();
    let scores: Vec<f32> = chosen.iter().map(|&i| decided.choice.scores[i]).collect();
    let placements = Placements::of(&scores, &positive)?;
    let branch = decided.branch.as_ref().filter(|_| decided.choice.score.image.is_some());
    let unseen = branch.and_then(|branch| branch.unseen_scores(&decided.map_scores, &decided.choice.score));
    let unseen = unseen.and_then(|all| {
        let scores: Vec<f32> = chosen.iter().map(|&i| all[i]).collect();
        Placements::of(&scores, &positive).map(|p| p.auroc())
    });
    Some(KindRow {
        kind: kind.to_owned(),
        images: positive.iter().filter(|&&p| p).count(),
        image_auroc: placements.auroc(),
        standard_error: placements.standard_error(),
        unseen_auroc: unseen,
    })
}
