use super::{DefectKind, Line, LineConfig, Part, PartKind};
use image::ImageError;
use std::fs;
use std::path::{Path, PathBuf};

/// How many pictures of what; defective counts are per defect kind.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetConfig {
    /// Another seed gives other pictures.
    pub seed: u64,
    /// Of every picture, in pixels.
    pub width: u32,
    /// Of every picture, in pixels.
    pub height: u32,
    /// Empty means every kind.
    pub parts: Vec<PartKind>,
    /// Good parts to train on.
    pub train_good: u32,
    /// Defective parts to train on, of each kind of defect, without masks.
    pub train_defective: u32,
    /// Good parts to test on.
    pub test_good: u32,
    /// Defective parts to test on, of each kind of defect, with masks.
    pub test_defective: u32,
}

impl Default for DatasetConfig {
    fn default() -> DatasetConfig {
        let LineConfig { seed, width, height, parts, .. } = LineConfig::default();
        DatasetConfig {
            seed,
            width,
            height,
            parts,
            train_good: 400,
            train_defective: 10,
            test_good: 200,
            test_defective: 20,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatasetSummary {
    /// Pictures of parts.
    pub images: u32,
    /// Masks of test defects.
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

/// Writes a data set in the layout of MVTec AD, with coarse labelled anomalies (no masks) to train on:
///
/// ```text
/// DIR/train/good/000.png   DIR/train/<defect>/000.png
/// DIR/test/good/000.png    DIR/test/<defect>/000.png    DIR/ground_truth/<defect>/000_mask.png
/// ```
pub fn write_dataset(dir: &Path, config: &DatasetConfig) -> Result<DatasetSummary, DatasetError> {
    create(dir)?;
    if fs::read_dir(dir).map_err(|cause| DatasetError::Create { path: dir.to_owned(), cause })?.next().is_some() {
        return Err(DatasetError::NotEmpty { path: dir.to_owned() });
    }
    let mut line = Line::new(LineConfig {
        seed: config.seed,
        width: config.width,
        height: config.height,
        defect_rate: 0.0,
        parts: config.parts.clone(),
    });
    let mut summary = DatasetSummary::default();
    for (split, good, defective) in
        [("train", config.train_good, config.train_defective), ("test", config.test_good, config.test_defective)]
    {
        let folders = [(None, good)].into_iter().chain(DefectKind::ALL.map(|kind| (Some(kind), defective)));
        for (defect, count) in folders {
            let name = defect.map_or("good", DefectKind::name);
            let folder = dir.join(split).join(name);
            let masks = dir.join("ground_truth").join(name);
            let masked = split == "test" && defect.is_some();
            create(&folder)?;
            if masked {
                create(&masks)?;
            }
            for i in 0..count {
                let Part { image, mask, .. } = line.make(defect);
                let path = folder.join(format!("{i:03}.png"));
                image.save(&path).map_err(|cause| DatasetError::Write { path, cause })?;
                summary.images += 1;
                if masked {
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
