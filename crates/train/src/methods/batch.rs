//! What a step is given, and what it says.

use super::folding;
use crate::augment::defects::Cell;
use burn::prelude::{Device, Tensor};
use ndarray::{Array2, Array4, Axis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Some images, as the methods of a model asked for them.
#[derive(Default)]
pub struct Batch {
    /// Frozen features, one `[N,C,h,w]` a scale, the finest first; empty where no method reads features.
    pub features: Vec<Array4<f32>>,
    /// RGB at the network's input size, `[N,H,W,3]`; `None` where no method reads images.
    pub images: Option<Array4<u8>>,
    /// Rows that show one part, behind one another: N is a multiple of it.
    pub views: usize,
}

impl Batch {
    /// Features of one view a part.
    pub fn of_features(features: Vec<Array4<f32>>) -> Batch {
        Batch { features, images: None, views: 1 }
    }

    /// Some of its images, of one view each.
    fn rows(&self, rows: &[usize]) -> Batch {
        Batch {
            features: self.features.iter().map(|scale| scale.select(Axis(0), rows)).collect(),
            images: self.images.as_ref().map(|images| images.select(Axis(0), rows)),
            views: self.views,
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        let images = self.images.as_ref().map(|images| images.dim().0);
        self.features.first().map(|features| features.dim().0).or(images).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The images of one step.
#[derive(Default)]
pub struct StepBatch {
    /// Normal ones.
    pub normal: Batch,
    /// The same in another light, where a method asked to see them twice.
    pub relit: Option<Batch>,
    /// Coarse-labelled or made anomalies, where a method asked for them and there are any.
    pub anomalous: Option<Batch>,
    /// Whether those are made, since none are labelled.
    pub made: bool,
    /// Images of which it is known what each place is, where a method asked for painted ones.
    pub outlined: Option<Outlined>,
    /// Whether the losses of this step are wanted: to read them, a GPU has to be waited for.
    pub tell: bool,
}

/// Normal images with painted defects, or with controls that are none, and labelled ones with masks.
pub struct Outlined {
    /// The images.
    pub batch: Batch,
    /// Where a method asked to see images twice, each before something was painted into it; in place of a labelled one any normal one.
    pub before: Option<Batch>,
    /// What the places of each are, on the grid of the finest scale.
    pub cells: Vec<Array2<Cell>>,
    /// Of each, whether its defect is a labelled one, laid in or its own.
    pub labelled: Vec<bool>,
}

impl Outlined {
    /// Those alone in which no label has a part; `None` where there are none.
    pub fn drawn(&self) -> Option<Outlined> {
        let rows: Vec<usize> = (0..self.cells.len()).filter(|&i| !self.labelled[i]).collect();
        (!rows.is_empty()).then(|| Outlined {
            batch: self.batch.rows(&rows),
            before: self.before.as_ref().map(|before| before.rows(&rows)),
            cells: rows.iter().map(|&i| self.cells[i].clone()).collect(),
            labelled: vec![false; rows.len()],
        })
    }

    /// `[N,1,h,w]`: 1 at places that are so, 0 at the others.
    pub fn plane(&self, is: impl Fn(Cell) -> bool) -> Array4<f32> {
        let (h, w) = self.cells.first().map_or((0, 0), |cells| cells.dim());
        let value = |(n, _, y, x): (usize, usize, usize, usize)| f32::from(u8::from(is(self.cells[n][[y, x]])));
        Array4::from_shape_fn((self.cells.len(), 1, h, w), value)
    }
}

/// The features of several batches behind one another, one tensor a scale.
pub fn together(batches: &[&Batch], device: &Device) -> Vec<Tensor<4>> {
    let scales = batches.first().map_or(0, |batch| batch.features.len());
    let of = |scale: usize| batches.iter().map(|batch| folding::tensor(&batch.features[scale], device)).collect();
    (0..scales).map(|scale| Tensor::cat(of(scale), 0)).collect()
}

/// For the places of normal images and of `outlined` ones behind them, `[N,1,h,w]` on the finest grid: `untouched` for the first, and for the others 1 where
/// a place `is` so and 0 elsewhere.
pub fn plane(
    normal: &Batch,
    untouched: f32,
    outlined: Option<&Outlined>,
    is: impl Fn(Cell) -> bool,
    device: &Device,
) -> Tensor<4> {
    let (n, _, h, w) = normal.features.first().map_or((0, 0, 0, 0), |finest| finest.dim());
    let normal = Tensor::full([n, 1, h, w], untouched, device);
    match outlined {
        None => normal,
        Some(outlined) => Tensor::cat(vec![normal, folding::tensor(&outlined.plane(is), device)], 0),
    }
}

/// The losses of a step, or their means over several, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Losses(BTreeMap<String, f32>);

impl Losses {
    /// These, and one more.
    pub fn with(mut self, name: &str, value: f32) -> Losses {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// The loss of that name.
    pub fn of(&self, name: &str) -> Option<f32> {
        self.0.get(name).copied()
    }

    /// Every loss, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f32)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Adds `other`, weighted.
    pub fn add(&mut self, other: &Losses, weight: f32) {
        for (name, value) in other.iter() {
            *self.0.entry(name.to_owned()).or_default() += value * weight;
        }
    }

    /// The first that is not a number to go on with.
    pub fn not_finite(&self) -> Option<(&str, f32)> {
        self.iter().find(|(_, value)| !value.is_finite())
    }
}

/// Means over steps; a loss that only some steps have is the mean over these.
#[derive(Default)]
pub struct MeanLosses {
    sums: Losses,
    steps: BTreeMap<String, u32>,
}

impl MeanLosses {
    /// One step more.
    pub fn add(&mut self, losses: &Losses) {
        self.sums.add(losses, 1.0);
        losses.iter().for_each(|(name, _)| *self.steps.entry(name.to_owned()).or_default() += 1);
    }

    /// The means.
    pub fn losses(&self) -> Losses {
        let mean = |(name, sum): (&str, f32)| (name.to_owned(), sum / self.steps[name] as f32);
        Losses(self.sums.iter().map(mean).collect())
    }
}

impl fmt::Display for Losses {
    /// `reconstruction 0.1234, discriminator 2.0000`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name} {value:.4}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// The losses of a step as they lie on the device.
#[derive(Default)]
pub struct UnreadLosses(Vec<(&'static str, Tensor<1>)>);

impl UnreadLosses {
    /// These, and one more.
    pub fn with(mut self, name: &'static str, value: &Tensor<1>) -> UnreadLosses {
        self.0.push((name, value.clone().detach()));
        self
    }

    /// All of them, read at once.
    pub fn read(self) -> Losses {
        let (names, values): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        if names.is_empty() {
            return Losses::default();
        }
        let (values, _) = folding::values(Tensor::cat(values, 0));
        names.into_iter().zip(values).fold(Losses::default(), |losses, (name, value)| losses.with(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_by_name() {
        let mut mean = Losses::default();
        mean.add(&Losses::default().with("a", 2.0), 0.5);
        mean.add(&Losses::default().with("a", 4.0).with("b", f32::NAN), 0.5);
        assert_eq!((mean.of("a"), mean.of("c")), (Some(3.0), None));
        assert_eq!(mean.not_finite().map(|(name, _)| name), Some("b"));
        assert_eq!(mean.to_string(), "a 3.0000, b NaN");
    }

    /// Regression: in the epoch in which one loss took over from another both looked smaller than they were.
    #[test]
    fn a_loss_that_some_steps_have_is_the_mean_over_these() {
        let mut mean = MeanLosses::default();
        for step in ["first", "first", "second"] {
            mean.add(&Losses::default().with(step, 2.0).with("both", 3.0));
        }
        assert_eq!(mean.losses().to_string(), "both 3.0000, first 2.0000, second 2.0000");
    }
}
