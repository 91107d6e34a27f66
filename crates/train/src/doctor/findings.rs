//! What was found, as it is printed and written as JSON.

use super::proof::Proof;
use serde::Serialize;
use std::collections::BTreeMap;

/// What [`super::examine`] found in a data set. Paths are relative to its folder.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// The set's name.
    pub name: String,
    /// How it lies on disk, as `--layout` takes it.
    pub layout: &'static str,
    /// Images by use and class.
    pub counts: ImageCounts,
    /// How large the images are; none where none can be read.
    pub sizes: Option<Sizes>,
    /// What is wrong or suspicious, the grave first.
    pub warnings: Vec<Warning>,
    /// Test images that are almost, and not to the pixel, a training image, each with the one that it is most like; at most
    /// 10,000 pairs, the most alike first.
    pub near_duplicates: Vec<NearDuplicate>,
    /// How sure results on this set can be.
    pub proof: Proof,
}

impl Findings {
    /// Results on this set would mislead.
    pub fn dishonest(&self) -> bool {
        self.warnings.iter().any(|warning| warning.grave)
    }
}

/// Images by use and class, as listed: unreadable ones are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImageCounts {
    /// Normal training images.
    pub train_normal: usize,
    /// The set's own held-out normal images.
    pub validation_normal: usize,
    /// Training anomalies by kind.
    pub train_anomalous: BTreeMap<String, Kind>,
    /// Normal test images.
    pub test_normal: usize,
    /// Anomalous test images by kind.
    pub test_anomalous: BTreeMap<String, Kind>,
}

/// Images of one kind of defect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// All of them.
    pub images: usize,
    /// Those with a mask.
    pub masks: usize,
}

/// Sizes of the readable images, `(width, height)` in pixels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sizes {
    /// Of the image with the fewest pixels.
    pub smallest: (u32, u32),
    /// Of the image with the most pixels.
    pub largest: (u32, u32),
    /// Of the most images.
    pub most_frequent: (u32, u32),
    /// How many images have it.
    pub most_frequent_images: usize,
    /// Smallest and largest width by height.
    pub aspect: (f64, f64),
    /// Images that were read.
    pub images: usize,
}

/// One thing that is wrong or suspicious.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// Which.
    pub problem: Problem,
    /// Results on this set would mislead.
    pub grave: bool,
    /// How many images, masks or parts.
    pub count: usize,
    /// The first three: a path, a pair of paths, or a part.
    pub examples: Vec<String>,
    /// All of it for a person.
    pub sentence: String,
}

/// What can be wrong with a data set; the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The same pixels are both normal and anomalous.
    ContradictoryLabels,
    /// The same pixels are trained on and tested on.
    DuplicatesAcross,
    /// A part or patient is trained on and tested on.
    PartsAcross,
    /// An image cannot be decoded.
    Unreadable,
    /// A mask cannot be decoded, or has another size than its image.
    UnusableMasks,
    /// Almost the same picture is trained on and tested on.
    NearDuplicates,
    /// The same pixels are in the training images more than once.
    DuplicatesInTraining,
    /// The same pixels are in the test images more than once.
    DuplicatesInTest,
    /// A picture of one colour.
    ConstantImages,
    /// A mask without an anomalous pixel.
    EmptyMasks,
    /// A test defect without a mask where others have one.
    MissingMasks,
    /// Images differ much in size.
    UnequalSizes,
    /// Images are far from square.
    Stretched,
    /// Too few normal training images.
    FewNormals,
    /// Too few labelled training anomalies.
    FewLabels,
    /// The test set lacks a class.
    OneSidedTest,
}

impl Problem {
    /// Results on a set with it would mislead, or cannot be had. Of near duplicates only many are grave.
    pub fn is_grave(self) -> bool {
        self <= Problem::UnusableMasks
    }
}

/// A test image and the training image that it is most like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NearDuplicate {
    /// The training image.
    pub training: String,
    /// The test image.
    pub test: String,
    /// Correlation of their whitened thumbnails, above 0.7 and at most 1 (the limit depends on the set).
    pub correlation: f32,
}
