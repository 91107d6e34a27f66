//! The methods by name, and which of them a run begins with.

use super::TrainConfig;
use crate::score::FEW_LABELS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::str::FromStr;

/// What a model can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MethodKind {
    /// The auto-encoder with its discriminators: terms `error` and `energy` of the map.
    Ckaad,
    /// A bank of normal patches: term `distance` of the map.
    Bank,
    /// The distance of an image's pooled features from those of normal ones: term `mahalanobis` of the image branch.
    Mahalanobis,
    /// Logistic regression on pooled features: term `pooled` of the image branch.
    Pooled,
    /// A head taught by coarse labels, masks where there are some, and painted defects: term `instance` of the map, term `bag` of the image branch.
    Mil,
    /// A decoder that is told about an image by narrow style maps alone: term `inversion` of the map.
    Invad,
    /// Residuals of a reconstruction where they are a defect's, taught by images that are known to be defective: term `mask` of the map.
    Sparsity,
    /// A bank of normal patches on features that have learned, from painted defects, what a defect looks like: term `adapted` of the map.
    Tocoad,
    /// The backbone's last stages, taught by coarse labels: term `deviation` of the map, term `devnet` of the image branch.
    Devnet,
    /// Every view of a part, drawn again from what it and the other views show: term `cross-view` of the map.
    Mvad,
}

impl MethodKind {
    /// Every one.
    pub const ALL: [MethodKind; 10] = [
        MethodKind::Ckaad,
        MethodKind::Bank,
        MethodKind::Mahalanobis,
        MethodKind::Pooled,
        MethodKind::Mil,
        MethodKind::Invad,
        MethodKind::Sparsity,
        MethodKind::Tocoad,
        MethodKind::Devnet,
        MethodKind::Mvad,
    ];

    /// As configs and command lines write it.
    pub fn name(self) -> &'static str {
        self.section().trim_end_matches('.')
    }

    /// The one that gives the term of this name.
    pub fn of_term(term: &str) -> Option<MethodKind> {
        MethodKind::ALL.into_iter().find(|kind| kind.map_terms().contains(&term) || kind.image_terms().contains(&term))
    }

    /// What the keys of its own section begin with.
    pub fn section(self) -> &'static str {
        match self {
            MethodKind::Ckaad => "ckaad.",
            MethodKind::Bank => "bank.",
            MethodKind::Mahalanobis => "mahalanobis.",
            MethodKind::Pooled => "pooled.",
            MethodKind::Mil => "mil.",
            MethodKind::Invad => "invad.",
            MethodKind::Sparsity => "sparsity.",
            MethodKind::Tocoad => "tocoad.",
            MethodKind::Devnet => "devnet.",
            MethodKind::Mvad => "mvad.",
        }
    }

    /// The terms of the map that it can give.
    pub fn map_terms(self) -> &'static [&'static str] {
        match self {
            MethodKind::Ckaad => &["error", "energy"],
            MethodKind::Bank => &["distance"],
            MethodKind::Mahalanobis | MethodKind::Pooled => &[],
            MethodKind::Mil => &["instance"],
            MethodKind::Invad => &["inversion"],
            MethodKind::Sparsity => &["mask"],
            MethodKind::Tocoad => &["adapted"],
            MethodKind::Devnet => &["deviation"],
            MethodKind::Mvad => &["cross-view"],
        }
    }

    /// The terms of the image branch that it gives.
    pub fn image_terms(self) -> &'static [&'static str] {
        match self {
            MethodKind::Mahalanobis => &["mahalanobis"],
            MethodKind::Pooled => &["pooled"],
            MethodKind::Mil => &["bag"],
            MethodKind::Devnet => &["devnet"],
            MethodKind::Ckaad | MethodKind::Bank | MethodKind::Invad => &[],
            MethodKind::Sparsity | MethodKind::Tocoad | MethodKind::Mvad => &[],
        }
    }

    /// What learns in minutes, costs the device little, and is always there where the folds choose.
    pub const BASE: [MethodKind; 3] = [MethodKind::Bank, MethodKind::Mahalanobis, MethodKind::Pooled];

    /// What may join [`MethodKind::BASE`] under `config`: all, but those that its other keys rule out. With few labelled anomalies none, since
    /// nothing could tell whether it helps.
    pub fn extras(config: &TrainConfig, labels: usize) -> Vec<MethodKind> {
        let joins = |kind: &MethodKind| {
            let methods = [&MethodKind::BASE[..], &[*kind]].concat();
            !MethodKind::BASE.contains(kind) && TrainConfig { methods, ..config.clone() }.check(Path::new("")).is_ok()
        };
        if labels < FEW_LABELS { vec![] } else { MethodKind::ALL.into_iter().filter(joins).collect() }
    }

    /// Those of [`MethodKind::BASE`] among `methods`, and the others.
    pub fn apart(methods: &[MethodKind]) -> (Vec<MethodKind>, Vec<MethodKind>) {
        methods.iter().partition(|kind| MethodKind::BASE.contains(kind))
    }
}

/// `--method`, in place of the config's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodChoice {
    /// All that the data can teach are trained, and the folds say which of them are worth their time.
    Auto,
    /// These.
    These(Vec<MethodKind>),
}

/// `bank + pooled`.
pub fn join(kinds: &[MethodKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" + ")
}

impl FromStr for MethodChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(MethodChoice::Auto);
        }
        let kind = |name: &str| {
            let names = MethodKind::ALL.map(MethodKind::name).join(", ");
            let unknown = format!("{name:?} is no method; auto is expected, or some of {names} with commas between");
            MethodKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(unknown)
        };
        text.split(',').map(kind).collect::<Result<_, _>>().map(MethodChoice::These)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use crate::methods::specimens::extractor;

    #[test]
    fn a_list_of_methods_is_read_and_a_name_that_is_none_is_told() {
        assert_eq!("auto".parse(), Ok(MethodChoice::Auto));
        assert_eq!("bank,mil".parse(), Ok(MethodChoice::These(vec![MethodKind::Bank, MethodKind::Mil])));
        let told = "bank, mil".parse::<MethodChoice>().unwrap_err();
        assert!(told.starts_with("\" mil\" is no method; auto is expected, or some of ckaad, bank, "), "{told}");
    }

    /// A method that gives a term of which its kind knows nothing would be left out of every choice.
    #[test]
    fn kinds_know_the_terms_of_their_methods() {
        let extractor = extractor([64, 64], &[8, 16], 32);
        for kind in MethodKind::ALL {
            let config = TrainConfig { methods: vec![kind], ..TrainConfig::default() };
            let terms = config.model(&extractor, &device::cpu()).terms();
            assert!(!terms.is_empty());
            for term in terms {
                assert_eq!(MethodKind::of_term(term.name), Some(kind), "{}", term.name);
                assert_eq!(term.is_map(), kind.map_terms().contains(&term.name), "{}", term.name);
            }
        }
    }

    #[test]
    fn what_other_keys_rule_out_is_not_tried() {
        let mut config = TrainConfig::default();
        assert_eq!(MethodKind::extras(&config, 4), []);
        assert_eq!(join(&MethodKind::extras(&config, 5)), "ckaad + mil + invad + sparsity + tocoad + devnet");
        // Keys of methods that nobody lists are nobody's fault.
        config.features.strides = vec![16, 32];
        config.bank.stride = 16;
        assert_eq!(join(&MethodKind::extras(&config, 5)), "mil + invad + sparsity + devnet");
        config = TrainConfig::default();
        config.augment.rotate_deg = 5.0;
        config.anomalies.source = crate::augment::AnomalySource::Perlin;
        assert_eq!(join(&MethodKind::extras(&config, 5)), "ckaad + mil + invad");
    }
}
