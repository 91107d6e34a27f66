//! One reader a layout. A module of it gives what it expects (for the error's sentence), whether a folder looks like
//! it, and the reading.

mod br35h;
mod btad;
mod chestxray2017;
mod coco_ad;
mod folder;
mod isic2018;
mod loco;
mod mvtec;
mod oct2017;
mod real_iad;
mod visa;

use super::{DataError, DataLocation, DataSet, listing};
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// How a data set lies on disk; tabled in `docs/data.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// MVTec AD: train/good, test/DEFECT, ground_truth
    Mvtec,
    /// MVTec LOCO AD: as MVTec AD with validation/good and several masks an image
    Loco,
    /// VisA: split_csv/1cls.csv
    Visa,
    /// ISIC 2018 task 3: NV is normal
    #[value(name = "isic2018")]
    Isic2018,
    /// OCT2017: train and test with NORMAL, CNV, DME, DRUSEN
    #[value(name = "oct2017")]
    Oct2017,
    /// ChestXRay2017: train and test with NORMAL, PNEUMONIA
    #[value(name = "chestxray2017")]
    ChestXray2017,
    /// Br35H: yes and no, without a split
    #[value(name = "br35h")]
    Br35h,
    /// BTAD: train/ok, test/ok, test/ko, ground_truth/ko
    Btad,
    /// Real-IAD: CATEGORY.json beside the images
    #[value(name = "real-iad")]
    RealIad,
    /// COCO-AD: annotations/instances_{train,val}2017.json, four splits of the categories
    #[value(name = "coco-ad")]
    CocoAd,
    /// Folders of images without a split: good, ok or normal, and any others
    Folder,
}

/// The one with the most particular signs first: a folder is what the first of these makes of it.
const DETECTED: [Layout; 11] = [
    Layout::CocoAd,
    Layout::Visa,
    Layout::Isic2018,
    Layout::RealIad,
    Layout::Loco,
    Layout::Btad,
    Layout::Oct2017,
    Layout::ChestXray2017,
    Layout::Mvtec,
    Layout::Br35h,
    Layout::Folder,
];

impl Layout {
    /// The layout that `root` has.
    ///
    /// # Errors
    /// It cannot be read, or has none.
    pub fn detect(root: &Path) -> Result<Layout, DataError> {
        let entries = listing::entries(root)?;
        DETECTED.into_iter().find(|l| l.fits(root)).ok_or_else(|| DataError::Unknown {
            root: root.to_owned(),
            known: Layout::value_variants().iter().map(|l| l.name()).collect::<Vec<_>>().join(", "),
            found: listing::few(entries.iter().map(|e| listing::name(e))),
        })
    }

    /// As `--layout` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Mvtec => "mvtec",
            Layout::Loco => "loco",
            Layout::Visa => "visa",
            Layout::Isic2018 => "isic2018",
            Layout::Oct2017 => "oct2017",
            Layout::ChestXray2017 => "chestxray2017",
            Layout::Br35h => "br35h",
            Layout::Btad => "btad",
            Layout::RealIad => "real-iad",
            Layout::CocoAd => "coco-ad",
            Layout::Folder => "folder",
        }
    }

    fn fits(self, root: &Path) -> bool {
        match self {
            Layout::Mvtec => listing::here_or_below(root, mvtec::is_category),
            Layout::Loco => listing::here_or_below(root, loco::is_category),
            Layout::Visa => visa::fits(root),
            Layout::Isic2018 => isic2018::fits(root),
            Layout::Oct2017 => listing::here_or_below(root, oct2017::is_set),
            Layout::ChestXray2017 => listing::here_or_below(root, chestxray2017::is_set),
            Layout::Br35h => br35h::fits(root),
            Layout::Btad => listing::here_or_below(root, btad::is_category),
            Layout::RealIad => real_iad::fits(root),
            Layout::CocoAd => coco_ad::fits(root),
            Layout::Folder => folder::fits(root),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Layout::Mvtec => mvtec::EXPECTED,
            Layout::Loco => loco::EXPECTED,
            Layout::Visa => visa::EXPECTED,
            Layout::Isic2018 => isic2018::EXPECTED,
            Layout::Oct2017 => oct2017::EXPECTED,
            Layout::ChestXray2017 => chestxray2017::EXPECTED,
            Layout::Br35h => br35h::EXPECTED,
            Layout::Btad => btad::EXPECTED,
            Layout::RealIad => real_iad::EXPECTED,
            Layout::CocoAd => coco_ad::EXPECTED,
            Layout::Folder => folder::EXPECTED,
        }
    }

    pub(super) fn read(self, source: &DataLocation) -> Result<DataSet, DataError> {
        listing::entries(&source.root)?;
        if !self.fits(&source.root) {
            return Err(self.wrong(&source.root));
        }
        match self {
            Layout::Mvtec => mvtec::read(source),
            Layout::Loco => loco::read(source),
            Layout::Visa => visa::read(source),
            Layout::Isic2018 => isic2018::read(source),
            Layout::Oct2017 => oct2017::read(source),
            Layout::ChestXray2017 => chestxray2017::read(source),
            Layout::Br35h => br35h::read(source),
            Layout::Btad => btad::read(source),
            Layout::RealIad => real_iad::read(source),
            Layout::CocoAd => coco_ad::read(source),
            Layout::Folder => folder::read(source),
        }
    }

    /// The sentence for a folder that has another layout.
    pub(super) fn wrong(self, root: &Path) -> DataError {
        DataError::Layout {
            root: root.to_owned(),
            layout: self.name(),
            expected: self.expected(),
            found: listing::found(root),
        }
    }
}

/// `root` itself, or the folder in it that is the category asked for; the only one need not be named.
fn category(source: &DataLocation, layout: Layout, is_category: fn(&Path) -> bool) -> Result<PathBuf, DataError> {
    let root = &source.root;
    let found = if is_category(root) {
        vec![root.clone()]
    } else {
        listing::folders(root)?.into_iter().filter(|p| is_category(p)).collect()
    };
    if found.is_empty() {
        return Err(layout.wrong(root));
    }
    let names: Vec<String> = found.iter().map(|p| listing::name(p)).collect();
    Ok(found[listing::choose(source, &names)?].clone())
}
