//! Networks over the images of a set, as many views of a part at once as they take.

use crate::datasets::{Parts, Sample};
use crate::progress::ProgressDisplay;
use ckaad_bundle::Input;
use ckaad_inspect::imaging::{self, DecodeError};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// An image cannot be judged by a network of several views.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no view of a whole part: the run was made with other views")]
pub struct NoView(PathBuf);

/// Images, and how a network sees them.
pub struct Seen<'a> {
    /// All that there are: those that were not asked for may be views of the same parts.
    pub samples: Vec<&'a Sample>,
    /// Names of the views that the network takes at once; none where it takes one.
    pub views: &'a [String],
    /// What the network takes.
    pub input: Input,
}

impl Seen<'_> {
    /// What `run` makes of each of the samples at the places `wanted`, in their order, several at a time: it is given the pixels of a part's views behind
    /// one another, and gives something for each.
    ///
    /// # Errors
    /// An image cannot be read, is no view of a whole part, or `run` fails.
    pub fn each<T: Send, E: Send + From<DecodeError> + From<NoView>>(
        &self,
        wanted: &[usize],
        what: &str,
        progress: &ProgressDisplay,
        run: impl Fn(&[u8]) -> Result<Vec<T>, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let asked: BTreeSet<usize> = wanted.iter().copied().collect();
        let parts = Parts::of(self.samples.iter().copied(), self.views).with(|i| asked.contains(&i)).complete;
        let bar = progress.bar(what, parts.len());
        let one = |part: &Vec<usize>| -> Result<Vec<(usize, T)>, E> {
            let views = part.iter().map(|&i| imaging::load_fitted(&self.samples[i].path, &self.input));
            let found = run(&views.collect::<Result<Vec<_>, _>>()?.concat())?;
            bar.advance(1);
            Ok(part.iter().copied().zip(found).collect())
        };
        let found = parts.par_iter().map(one).collect::<Result<Vec<_>, E>>()?;
        let mut found: BTreeMap<usize, T> = found.into_iter().flatten().collect();
        let no_view = |i: usize| NoView(self.samples[i].path.clone());
        wanted.iter().map(|&i| Ok(found.remove(&i).ok_or_else(|| no_view(i))?)).collect()
    }
}
