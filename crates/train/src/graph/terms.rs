//! The terms of an anomaly map.

/// What a map is summed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Reconstruction error.
    Error,
    /// Patch discriminator's energy.
    Energy,
    /// Distance to the bank of normal patches.
    Distance,
}

/// The map is the sum of the terms, each times its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct MapWeights {
    /// Of the reconstruction error.
    pub error: f32,
    /// Of the patch energy.
    pub energy: f32,
    /// Of the distance to the bank.
    pub distance: f32,
}

impl MapWeights {
    /// One term alone.
    pub fn only(term: Term) -> MapWeights {
        let mut weights = MapWeights::default();
        *weights.of_mut(term) = 1.0;
        weights
    }

    /// Several terms alike.
    pub fn equal(terms: &[Term]) -> MapWeights {
        let mut weights = MapWeights::default();
        terms.iter().for_each(|&term| *weights.of_mut(term) = 1.0);
        weights
    }

    /// The weight of a term.
    pub fn of(&self, term: Term) -> f32 {
        match term {
            Term::Error => self.error,
            Term::Energy => self.energy,
            Term::Distance => self.distance,
        }
    }

    /// The weight of a term, to be changed.
    pub fn of_mut(&mut self, term: Term) -> &mut f32 {
        match term {
            Term::Error => &mut self.error,
            Term::Energy => &mut self.energy,
            Term::Distance => &mut self.distance,
        }
    }

    /// The single term that has a weight.
    pub fn alone(&self) -> Option<Term> {
        let mut used = [Term::Error, Term::Energy, Term::Distance].into_iter().filter(|&t| self.of(t) != 0.0);
        used.next().filter(|_| used.next().is_none())
    }
}
