//! The images that a method may learn from.

use super::MethodError;
use crate::datasets::Sample;
use crate::features::{Extractor, FeatureError};
use crate::graph::{Graph, Id};
use crate::progress::ProgressDisplay;
use ckaad_inspect::engine::Plan;
use ndarray::{Array2, Array3};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// A training image, and the fold in which it is held out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Labelled {
    /// The image, and the kind of defect that it shows.
    #[serde(flatten)]
    pub sample: Sample,
    /// Counted from 0.
    pub fold: usize,
}

/// All training images of a run, and what was computed of them: each is read once, whichever folds ask for it.
pub struct Library<'a> {
    /// Every image, held out or not; its path is whole.
    pub images: &'a [Labelled],
    /// What features come from.
    pub extractor: &'a Extractor,
    /// Where progress is shown.
    pub progress: &'a ProgressDisplay,
    /// Seeds whatever is drawn.
    pub seed: u64,
    emit: Emit<'a>,
    tables: Mutex<HashMap<String, Arc<Array2<f32>>>>,
}

/// The ONNX file of a graph that gives these of its nodes.
pub type Emit<'a> = Box<dyn Fn(&Graph, &[Id]) -> Vec<u8> + Sync + 'a>;

impl<'a> Library<'a> {
    /// Nothing is computed yet; what will be is in the extractor's numbers.
    pub fn new(images: &'a [Labelled], extractor: &'a Extractor, progress: &'a ProgressDisplay, seed: u64) -> Self {
        let emit = Box::new(|graph: &Graph, ids: &[Id]| extractor.emit(graph, ids));
        Library { images, extractor, progress, seed, emit, tables: Mutex::default() }
    }

    /// The same in the numbers of the networks that `emit` writes.
    pub fn with_numbers_of(self, emit: Emit<'a>) -> Self {
        Library { emit, tables: Mutex::default(), ..self }
    }

    /// The values of the node `id` of `graph` for every image, a row each; computed once under `name`.
    ///
    /// # Errors
    /// An image cannot be read.
    fn table(&self, name: &str, graph: &Graph, id: Id) -> Result<Arc<Array2<f32>>, FeatureError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name) {
            return Ok(table.clone());
        }
        let samples: Vec<Sample> = self.images.iter().map(|image| image.sample.clone()).collect();
        let mut table = Array2::zeros((samples.len(), graph.shape(id).iter().product()));
        let mut rows = table.rows_mut().into_iter();
        each(self, graph, id, &samples, name, |values| {
            if let Some(mut row) = rows.next() {
                row.iter_mut().zip(values.iter()).for_each(|(cell, value)| *cell = *value);
            }
        })?;
        let table = Arc::new(table);
        tables.insert(name.to_owned(), table.clone());
        Ok(table)
    }
}

/// Those images of a [`Library`] that one training may see.
pub struct TrainingImages<'a> {
    library: &'a Library<'a>,
    /// Places in the library.
    seen: Vec<usize>,
}

impl<'a> TrainingImages<'a> {
    /// The images that `may` be seen.
    pub fn new(library: &'a Library<'a>, may: impl Fn(&Labelled) -> bool) -> TrainingImages<'a> {
        let seen = (0..library.images.len()).filter(|&i| may(&library.images[i])).collect();
        TrainingImages { library, seen }
    }

    /// The extractor that the features come from.
    pub fn extractor(&self) -> &'a Extractor {
        self.library.extractor
    }

    /// Seeds whatever a method draws.
    pub fn seed(&self) -> u64 {
        self.library.seed
    }

    /// The normal images.
    pub fn normal(&self) -> Vec<Sample> {
        self.seen.iter().map(|&i| &self.library.images[i].sample).filter(|s| s.defect.is_none()).cloned().collect()
    }

    /// The images themselves, in the order of [`TrainingImages::table`]'s rows.
    pub fn iter(&self) -> impl Iterator<Item = &'a Labelled> + '_ {
        self.seen.iter().map(|&i| &self.library.images[i])
    }

    /// Every fold, where no image is held out.
    pub fn folds(&self) -> Option<BTreeSet<usize>> {
        (self.seen.len() == self.library.images.len()).then(|| self.iter().map(|image| image.fold).collect())
    }

    /// The values of the node `id` of `graph` for every image that may be seen, a row each. What is computed under a
    /// `name` is computed once for all folds.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn table(&self, name: &str, graph: &Graph, id: Id) -> Result<Array2<f32>, MethodError> {
        let all = self.library.table(name, graph, id)?;
        Ok(all.select(ndarray::Axis(0), &self.seen))
    }

    /// Calls `take` with the `[C,h,w]` that the node `id` of `graph` gives for each of `samples`, in their order.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn each(
        &self,
        graph: &Graph,
        id: Id,
        samples: &[Sample],
        what: &str,
        take: impl FnMut(Array3<f32>),
    ) -> Result<(), MethodError> {
        Ok(each(self.library, graph, id, samples, what, take)?)
    }
}

fn each(
    library: &Library,
    graph: &Graph,
    id: Id,
    samples: &[Sample],
    what: &str,
    mut take: impl FnMut(Array3<f32>),
) -> Result<(), FeatureError> {
    let plan = Plan::load(&(library.emit)(graph, &[id]), 1)?;
    let bar = library.progress.bar(what, samples.len());
    for chunk in samples.chunks(32) {
        for mut outputs in library.extractor.compute_with(&plan, chunk)? {
            take(outputs.swap_remove(0));
        }
        bar.advance(chunk.len());
    }
    Ok(())
}
