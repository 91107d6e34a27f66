use super::dice::Dice;
use super::{DefectKind, Line, LineConfig, PartKind, StripConfig, StripDefect, Strips};
use image::{DynamicImage, GrayImage, ImageError};
use serde_json::{Value, json};
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
    /// Pictures of every part of the line; a defect shows on one or two of them. Strips have one.
    pub views: u32,
    /// Parts come in several finishes, each part in one on all its views; one more kind of defect, `mismatch`, is a view in another one than the rest,
    /// which no picture shows by itself. For three views and more.
    pub finishes: bool,
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
            views: 1,
            finishes: false,
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
    #[error("cannot write the list {path}: {cause}")]
    List { path: PathBuf, cause: std::io::Error },
    #[error("strips have one view; {views} are asked for")]
    Views { views: u32 },
    #[error("of fewer than three views nobody could say which has another finish than the rest; {views} are asked for")]
    Finishes { views: u32 },
}

/// Writes a data set in the layout of MVTec AD, with coarse labelled anomalies to train on, some of them with masks:
///
/// ```text
/// DIR/train/good/000.png   DIR/train/<defect>/000.png   DIR/ground_truth_train/<defect>/000_mask.png
/// DIR/test/good/000.png    DIR/test/<defect>/000.png    DIR/ground_truth/<defect>/000_mask.png
/// ```
///
/// Of parts with several views in the layout of Real-IAD, a folder a part, which is also what the agent takes for a part; of a defective part the views that do
/// not show its defect are normal images:
///
/// ```text
/// DIR/line.json            which pictures are of which class, to train and to test on, and their masks
/// DIR/line/OK/S0001/line_0001_OK_C1.png                 C1, C2, ...: the views
/// DIR/line/NG/<defect>/S0002/line_0002_NG_<defect>_C1.png    DIR/line/GT/<defect>/S0002/line_0002_NG_<defect>_C1_mask.png
/// ```
pub fn write_dataset(dir: &Path, config: &DatasetConfig) -> Result<DatasetSummary, DatasetError> {
    if config.kind == DatasetKind::Strip && config.views > 1 {
        return Err(DatasetError::Views { views: config.views });
    }
    if config.finishes && config.views < 3 {
        return Err(DatasetError::Finishes { views: config.views });
    }
    create(dir)?;
    if fs::read_dir(dir).map_err(|cause| DatasetError::Create { path: dir.to_owned(), cause })?.next().is_some() {
        return Err(DatasetError::NotEmpty { path: dir.to_owned() });
    }
    let DatasetConfig { seed, width, height, .. } = *config;
    match config.kind {
        DatasetKind::Line if config.views > 1 => fill_with_views(dir, config),
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

/// Good and defective parts of a split, how many of the latter have masks, and where those lie.
fn splits(config: &DatasetConfig) -> [(&'static str, u32, u32, u32, &'static str); 2] {
    [
        ("train", config.train_good, config.train_defective, config.train_masks, "ground_truth_train"),
        ("test", config.test_good, config.test_defective, config.test_defective, "ground_truth"),
    ]
}

/// Name of the one category of parts with several views.
const CATEGORY: &str = "line";

/// What the colour of a part is multiplied with, RGB: as it comes, gilded, blued, browned, reddened, blackened.
const FINISHES: [[f32; 3]; 6] =
    [[1.0, 1.0, 1.0], [1.15, 1.0, 0.7], [0.75, 0.9, 1.2], [0.85, 0.75, 0.6], [1.15, 0.8, 0.8], [0.6, 0.6, 0.65]];

/// What is wrong with a part of several views.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Defect(DefectKind),
    Mismatch,
}

impl Wrong {
    fn name(self) -> &'static str {
        match self {
            Wrong::Defect(kind) => kind.name(),
            Wrong::Mismatch => "mismatch",
        }
    }
}

fn fill_with_views(dir: &Path, config: &DatasetConfig) -> Result<DatasetSummary, DatasetError> {
    let DatasetConfig { seed, width, height, views, .. } = *config;
    let kinds = if config.parts.is_empty() { PartKind::ALL.to_vec() } else { config.parts.clone() };
    // A line each: all views of a part are of its kind. Each with a seed of its own, or lamps and defects would be the same on both.
    let line = |(n, &kind): (usize, &PartKind)| {
        let seed = seed ^ ((n as u64 + 1) << 32);
        Line::new(LineConfig { seed, width, height, defect_rate: 0.0, parts: vec![kind] })
    };
    let mut lines: Vec<Line> = kinds.iter().enumerate().map(line).collect();
    let numbers: Vec<usize> = (0..lines.len()).collect();
    let views: Vec<u32> = (1..=views).collect();
    let (mut fate, mut finishes) = (Dice::new(seed, u64::MAX), Dice::new(seed, u64::MAX - 1));
    let kinds = DefectKind::ALL.into_iter().map(Wrong::Defect);
    let kinds: Vec<Wrong> = kinds.chain(config.finishes.then_some(Wrong::Mismatch)).collect();
    let (mut summary, mut number) = (DatasetSummary::default(), 0);
    let mut listing = serde_json::Map::new();
    listing.insert("meta".into(), json!({ "normal_class": "OK", "prefix": format!("{CATEGORY}/") }));
    let write = |path: &str, picture: DynamicImage| {
        let path = dir.join(CATEGORY).join(path);
        create(path.parent().unwrap_or(dir))?;
        picture.save(&path).map_err(|cause| DatasetError::Write { path, cause })
    };
    for (split, good, defective, masked, _) in splits(config) {
        let mut items: Vec<Value> = vec![];
        let classes = [(None, good)].into_iter().chain(kinds.iter().map(|&kind| (Some(kind), defective)));
        for (defect, i) in classes.flat_map(|(defect, count)| (0..count).map(move |i| (defect, i))) {
            number += 1;
            let class = defect.map_or("OK".to_owned(), |kind| format!("NG/{}", kind.name()));
            let name = format!("{CATEGORY}_{number:04}_{}", class.replace('/', "_"));
            let mut shown = vec![fate.pick(&views), fate.pick(&views)];
            let line = &mut lines[fate.pick(&numbers)];
            let own = if config.finishes { finishes.pick(&FINISHES) } else { FINISHES[0] };
            let others: Vec<[f32; 3]> = FINISHES.into_iter().filter(|finish| *finish != own).collect();
            let other = finishes.pick(&others);
            if defect == Some(Wrong::Mismatch) {
                // Of two views of three nobody could say which is the odd one.
                shown.truncate(1);
            }
            for &view in &views {
                let seen = defect.filter(|_| shown.contains(&view));
                let (picture, mask) = match seen {
                    Some(Wrong::Mismatch) => {
                        let (picture, outline) = line.finished(other, None);
                        (picture.image, outline)
                    }
                    seen => {
                        let kind =
                            seen.and_then(|wrong| if let Wrong::Defect(kind) = wrong { Some(kind) } else { None });
                        let (picture, _) = line.finished(own, kind);
                        (picture.image, picture.mask)
                    }
                };
                let path = format!("{class}/S{number:04}/{name}_C{view}.png");
                write(&path, picture.into())?;
                summary.images += 1;
                let mut item = json!({ "anomaly_class": seen.map_or("OK", Wrong::name), "image_path": path });
                if seen.is_some() && i < masked {
                    let mask_path = format!("{}/S{number:04}/{name}_C{view}_mask.png", class.replace("NG", "GT"));
                    write(&mask_path, mask.into())?;
                    summary.masks += 1;
                    item["mask_path"] = json!(mask_path);
                }
                items.push(item);
            }
        }
        listing.insert(split.into(), Value::Array(items));
    }
    let path = dir.join(format!("{CATEGORY}.json"));
    fs::write(&path, Value::Object(listing).to_string()).map_err(|cause| DatasetError::List { path, cause })?;
    Ok(summary)
}

/// Writes the pictures and masks of a data set into an empty folder.
fn fill<M: Maker>(dir: &Path, config: &DatasetConfig, maker: &mut M) -> Result<DatasetSummary, DatasetError> {
    let mut summary = DatasetSummary::default();
    for (split, good, defective, masked, truth) in splits(config) {
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
