use super::{DefectKind, Line, LineConfig, PartKind, StripConfig, StripDefect, Strips};
use image::{DynamicImage, GrayImage, ImageError};
use std::fs;
use std::path::{Path, PathBuf};

/// What a data set shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatasetKind {
    /// Parts of the line, in colour.
    Line,
    /// Strips with thin cracks, large and grey.
    Strip,
}

/// How many pictures of what; defective counts are per defect kind.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetConfig {
    /// What is drawn.
    pub kind: DatasetKind,
    /// Another seed gives other pictures.
    pub seed: u64,
    /// Of every picture, in pixels.
    pub width: u32,
    /// Of every picture, in pixels.
    pub height: u32,
    /// Which parts of the line; empty means every kind. Strips are all of one kind.
    pub parts: Vec<PartKind>,
    /// Good parts to train on.
    pub train_good: u32,
    /// Defective parts to train on, of each kind of defect.
    pub train_defective: u32,
    /// How many of those have a mask, the first of each kind; the others have coarse labels only.
    pub train_masks: u32,
    /// Good parts to test on.
    pub test_good: u32,
    /// Defective parts to test on, of each kind of defect, with masks.
    pub test_defective: u32,
}

impl DatasetConfig {
    /// The defaults of a kind: its frame size, and so many of each.
    pub fn of(kind: DatasetKind) -> DatasetConfig {
        let LineConfig { seed, width, height, parts, .. } = LineConfig::default();
        let (width, height) = match kind {
            DatasetKind::Line => (width, height),
            DatasetKind::Strip => (StripConfig::default().width, StripConfig::default().height),
        };
        DatasetConfig {
            kind,
            seed,
            width,
            height,
            parts,
            train_good: 400,
            train_defective: 10,
            train_masks: 0,
            test_good: 200,
            test_defective: 20,
        }
    }
}

impl Default for DatasetConfig {
    fn default() -> DatasetConfig {
        DatasetConfig::of(DatasetKind::Line)
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetSummary {
    /// Pictures of parts.
    pub images: u32,
    /// Masks of defects.
    pub masks: u32,
}

/// Why a data set cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The sentence of each variant says what it is, and its fields are in it.
pub enum DatasetError {
    #[error("cannot create the folder {path}: {cause}")]
    Create { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not empty; the data set needs a folder of its own")]
    NotEmpty { path: PathBuf },
    #[error("cannot write the image {path}: {cause}")]
    Write { path: PathBuf, cause: ImageError },
}

/// Writes a data set in the layout of MVTec AD, with coarse labelled anomalies to train on, some of them with masks:
///
/// ```text
/// DIR/train/good/000.png   DIR/train/<defect>/000.png   DIR/ground_truth_train/<defect>/000_mask.png
/// DIR/test/good/000.png    DIR/test/<defect>/000.png    DIR/ground_truth/<defect>/000_mask.png
/// ```
pub fn write_dataset(dir: &Path, config: &DatasetConfig) -> Result<DatasetSummary, DatasetError> {
    create(dir)?;
    if fs::read_dir(dir).map_err(|cause| DatasetError::Create { path: dir.to_owned(), cause })?.next().is_some() {
        return Err(DatasetError::NotEmpty { path: dir.to_owned() });
    }
    let DatasetConfig { seed, width, height, .. } = *config;
    match config.kind {
        DatasetKind::Line => {
            let parts = config.parts.clone();
            fill(dir, config, &mut Line::new(LineConfig { seed, width, height, defect_rate: 0.0, parts }))
        }
        DatasetKind::Strip => fill(dir, config, &mut Strips::new(StripConfig { seed, width, height })),
    }
}

/// What draws the pictures of a data set, one after the other.
trait Maker {
    type Defect: Copy + 'static;
    fn defects(&self) -> &'static [Self::Defect];
    fn name(defect: Self::Defect) -> &'static str;
    /// The next picture and its mask.
    fn make(&mut self, defect: Option<Self::Defect>) -> (DynamicImage, GrayImage);
}

impl Maker for Line {
    type Defect = DefectKind;

    fn defects(&self) -> &'static [DefectKind] {
        &DefectKind::ALL
    }

    fn name(defect: DefectKind) -> &'static str {
        defect.name()
    }

    fn make(&mut self, defect: Option<DefectKind>) -> (DynamicImage, GrayImage) {
        let part = Line::make(self, defect);
        (part.image.into(), part.mask)
    }
}

impl Maker for Strips {
    type Defect = StripDefect;

    fn defects(&self) -> &'static [StripDefect] {
        &StripDefect::ALL
    }

    fn name(defect: StripDefect) -> &'static str {
        defect.name()
    }

    fn make(&mut self, defect: Option<StripDefect>) -> (DynamicImage, GrayImage) {
        let strip = Strips::make(self, defect);
        (strip.image.into(), strip.mask)
    }
}

/// Writes the pictures and masks of a data set into an empty folder.
fn fill<M: Maker>(dir: &Path, config: &DatasetConfig, maker: &mut M) -> Result<DatasetSummary, DatasetError> {
    let mut summary = DatasetSummary::default();
    for (split, good, defective, masked, truth) in [
        ("train", config.train_good, config.train_defective, config.train_masks, "ground_truth_train"),
        ("test", config.test_good, config.test_defective, config.test_defective, "ground_truth"),
    ] {
        let folders = [(None, good)].into_iter().chain(maker.defects().iter().map(|kind| (Some(*kind), defective)));
        for (defect, count) in folders {
            let name = defect.map_or("good", M::name);
            let folder = dir.join(split).join(name);
            let masks = dir.join(truth).join(name);
            let masked = if defect.is_some() { masked } else { 0 };
            create(&folder)?;
            if masked > 0 {
                create(&masks)?;
            }
            for i in 0..count {
                let (image, mask) = maker.make(defect);
                let path = folder.join(format!("{i:03}.png"));
                image.save(&path).map_err(|cause| DatasetError::Write { path, cause })?;
                summary.images += 1;
                if i < masked {
                    let path = masks.join(format!("{i:03}_mask.png"));
                    mask.save(&path).map_err(|cause| DatasetError::Write { path, cause })?;
                    summary.masks += 1;
                }
            }
        }
    }
    Ok(summary)
}

fn create(path: &Path) -> Result<(), DatasetError> {
    fs::create_dir_all(path).map_err(|cause| DatasetError::Create { path: path.to_owned(), cause })
}
