//! What a model's answer is made of: named terms, each with a weight.

use serde::{Serialize, Serializer, ser::SerializeMap};

/// One contribution of a method, by a name that no other method uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// As configs, logs and bundles write it.
    pub name: &'static str,
    /// What it speaks of.
    pub kind: TermKind,
    /// Whether it learned from anomalous images: what no label has checked may be about anything.
    pub taught: bool,
}

/// What a term speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TermKind {
    /// Every place of an image, `[1,h,w]`: it is a summand of the anomaly map.
    Map,
    /// The whole image, `[1,1,1]`: it is a summand of the image score beside the map.
    Image,
}

impl Term {
    /// A summand of the anomaly map.
    pub const fn map(name: &'static str) -> Term {
        Term { name, kind: TermKind::Map, taught: false }
    }

    /// A summand of the image score beside the map.
    pub const fn image(name: &'static str) -> Term {
        Term { name, kind: TermKind::Image, taught: false }
    }

    /// The same, learned from anomalous images.
    pub const fn taught(self) -> Term {
        Term { taught: true, ..self }
    }

    /// Whether it is a summand of the anomaly map.
    pub fn is_map(self) -> bool {
        self.kind == TermKind::Map
    }
}

/// The weight of each term; a term that is not listed weighs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TermWeights(Vec<(Term, f32)>);

impl TermWeights {
    /// One term alone.
    pub fn only(term: Term) -> TermWeights {
        TermWeights(vec![(term, 1.0)])
    }

    /// Several terms alike.
    pub fn equal(terms: &[Term]) -> TermWeights {
        TermWeights(terms.iter().map(|&term| (term, 1.0)).collect())
    }

    /// These, and `term` with `weight`; a weight of 0 takes it out.
    pub fn with(mut self, term: Term, weight: f32) -> TermWeights {
        self.0.retain(|(t, _)| *t != term);
        if weight != 0.0 {
            self.0.push((term, weight));
        }
        self
    }

    /// The weight of a term.
    pub fn of(&self, term: Term) -> f32 {
        self.0.iter().find(|(t, _)| *t == term).map_or(0.0, |(_, weight)| *weight)
    }

    /// Every term that weighs something.
    pub fn iter(&self) -> impl Iterator<Item = (Term, f32)> + '_ {
        self.0.iter().copied()
    }

    /// The terms of the map alone.
    pub fn map(&self) -> TermWeights {
        TermWeights(self.iter().filter(|(term, _)| term.is_map()).collect())
    }

    /// The terms of the image branch alone.
    pub fn image(&self) -> TermWeights {
        TermWeights(self.iter().filter(|(term, _)| !term.is_map()).collect())
    }

    /// The single term that weighs something.
    pub fn alone(&self) -> Option<Term> {
        match self.0.as_slice() {
            [(term, _)] => Some(*term),
            _ => None,
        }
    }

    /// Whether nothing weighs anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for TermWeights {
    /// `3.200 x energy + 0.130 x distance`.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        for (i, (term, weight)) in self.iter().enumerate() {
            write!(f, "{}{weight:.3} x {}", if i > 0 { " + " } else { "" }, term.name)?;
        }
        Ok(())
    }
}

impl Serialize for TermWeights {
    /// `{"energy": 3.2, "distance": 0.13}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (term, weight) in self.iter() {
            map.serialize_entry(term.name, &weight)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_replaced_and_nought_takes_a_term_out() {
        let (a, b) = (Term::map("a"), Term::image("b"));
        let weights = TermWeights::equal(&[a, b]).with(a, 0.5);
        assert_eq!((weights.of(a), weights.of(b)), (0.5, 1.0));
        assert_eq!((weights.map().alone(), weights.alone()), (Some(a), None));
        assert!(weights.with(a, 0.0).map().is_empty());
        assert_eq!(serde_json::to_string(&TermWeights::only(b).with(a, 2.0)).unwrap(), r#"{"b":1.0,"a":2.0}"#);
    }
}
