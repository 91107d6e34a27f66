//! Real-IAD (Wang et al., CVPR 2024): parts seen from five sides. A JSON file a category lists the images; they lie in
//! a folder a resolution:
//!
//! ```text
//! realiad_jsons/CATEGORY.json     {"meta": {"normal_class": "OK", "prefix": "CATEGORY/"}, "train": [...], "test": [{"anomaly_class",
//!                                  "image_path", "mask_path"}]}, paths below the prefix
//! realiad_1024/CATEGORY/OK/S0001/CATEGORY_0001_OK_C1_*.jpg         C1 to C5: the sides; S0001: the part
//! realiad_1024/CATEGORY/NG/<defect>/S0002/CATEGORY_0002_NG_<defect>_C1_*.jpg and .png, its mask
//! ```
//! The folder given may be the one above (the largest resolution is taken) or one of a resolution. Of a defective part
//! the sides on which the defect does not show are normal images.

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::Sample;
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub const EXPECTED: &str = "CATEGORY.json in it, in realiad_jsons or in ../realiad_jsons, beside the folder CATEGORY, realiad_1024, \
                            realiad_512 or realiad_256";
const JSONS: [&str; 5] =
    ["", "realiad_jsons", "realiad_jsons/realiad_jsons", "../realiad_jsons", "../realiad_jsons/realiad_jsons"];
const RESOLUTIONS: [&str; 4] = ["", "realiad_1024", "realiad_512", "realiad_256"];

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    meta: Meta,
    train: Vec<Item>,
    test: Vec<Item>,
}

#[derive(Default, Deserialize)]
struct Meta {
    normal_class: Option<String>,
    prefix: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    anomaly_class: String,
    image_path: String,
    mask_path: Option<String>,
}

pub fn fits(root: &Path) -> bool {
    !categories(root).is_empty()
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let categories = categories(&source.root);
    let names: Vec<String> = categories.iter().map(|(name, ..)| name.clone()).collect();
    let (category, json, images) = &categories[listing::choose(source, &names)?];
    let malformed = |reason: String| DataError::Listing { path: json.clone(), reason };
    let listed: Listing = serde_json::from_str(&listing::text(json)?).map_err(|e| {
        malformed(format!("meta, train and test with anomaly_class and image_path expected; found {e}"))
    })?;
    let prefix = listed.meta.prefix.filter(|p| !p.is_empty()).unwrap_or_else(|| category.clone());
    let reader = Reader {
        json,
        root: listing::below(images, &prefix, json)?,
        normal: listed.meta.normal_class.unwrap_or_else(|| "OK".into()),
    };
    let mut data = DataSet::empty(images, Layout::RealIad);
    data.add_training(reader.samples(&listed.train)?);
    data.test = reader.samples(&listed.test)?;
    data.category = Some(category.clone());
    Ok(data)
}

struct Reader<'a> {
    json: &'a Path,
    root: PathBuf,
    normal: String,
}

impl Reader<'_> {
    fn samples(&self, items: &[Item]) -> Result<Vec<Sample>, DataError> {
        items.iter().map(|item| self.sample(item)).collect()
    }

    fn sample(&self, item: &Item) -> Result<Sample, DataError> {
        let path = listing::file_below(&self.root, &item.image_path, self.json)?;
        let mask = item.mask_path.as_deref().filter(|m| !m.is_empty());
        let mask = mask.map(|m| listing::file_below(&self.root, m, self.json)).transpose()?.map(Into::into);
        // With all folders above the image: the numbers of good and of defective parts are the same.
        let part = Path::new(&item.image_path).parent().map(|p| p.to_string_lossy().into_owned());
        let part = part.filter(|p| !p.is_empty());
        let defect = (item.anomaly_class != self.normal).then(|| item.anomaly_class.clone());
        Ok(Sample { mask, group: part.clone(), part, ..Sample::new(path, defect) })
    }
}

/// Name, JSON file and the folder above the images of each category.
fn categories(root: &Path) -> Vec<(String, PathBuf, PathBuf)> {
    let images =
        |category: &str| RESOLUTIONS.iter().map(|r| root.join(r)).find(|images| images.join(category).is_dir());
    let category = |json: PathBuf| {
        let name = json.file_stem()?.to_str()?.to_owned();
        let images = images(&name)?;
        Some((name, json, images))
    };
    let listed_in =
        |jsons: &&str| -> Vec<_> { json_files(&root.join(jsons)).into_iter().filter_map(category).collect() };
    JSONS.iter().map(listed_in).find(|found| !found.is_empty()).unwrap_or_default()
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = listing::entries(folder).unwrap_or_default();
    entries.into_iter().filter(|p| p.extension().is_some_and(|e| e == "json")).collect()
}
