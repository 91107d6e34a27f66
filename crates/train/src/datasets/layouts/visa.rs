//! VisA (Zou et al., ECCV 2022): all categories in one table, `split_csv/1cls.csv`.
//!
//! ```text
//! object,split,label,image,mask
//! candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
//! ```
//! The label is normal or anomaly; kinds of defects are not told apart. The values of a mask are small numbers, not
//! 255.

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::Sample;
use std::path::Path;

pub const EXPECTED: &str = "split_csv/1cls.csv and a folder of each category";
const TABLE: &str = "split_csv/1cls.csv";

pub fn fits(root: &Path) -> bool {
    root.join(TABLE).is_file()
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let (root, table) = (&source.root, source.root.join(TABLE));
    let rows = listing::table(&table, ["object", "split", "label", "image", "mask"])?;
    let mut categories: Vec<String> = rows.iter().map(|[object, ..]| object.clone()).collect();
    categories.sort();
    categories.dedup();
    if categories.is_empty() {
        return Err(DataError::Listing { path: table, reason: "at least one image expected, none found".into() });
    }
    let category = categories.swap_remove(listing::choose(source, &categories)?);
    let mut data = DataSet::empty(root, Layout::Visa);
    for (i, [object, split, label, image, mask]) in rows.iter().enumerate() {
        if *object != category {
            continue;
        }
        let wrong = |column, value: &str, expected| DataError::Listing {
            path: table.clone(),
            reason: format!("row {}: {column} is {value:?}; {expected} expected", i + 1),
        };
        let mut sample = Sample::new(listing::file_below(root, image, &table)?, None);
        match label.as_str() {
            "normal" => {}
            "anomaly" => sample.defect = Some("anomaly".into()),
            other => return Err(wrong("label", other, "normal or anomaly")),
        }
        if !mask.is_empty() {
            sample.mask = Some(listing::file_below(root, mask, &table)?.into());
        }
        match split.as_str() {
            "train" => data.add_training([sample]),
            "test" => data.test.push(sample),
            other => return Err(wrong("split", other, "train or test")),
        }
    }
    data.category = Some(category);
    Ok(data)
}
