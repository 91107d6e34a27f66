//! COCO-AD (Zhang et al., 2024): COCO 2017 as a set for anomaly detection. The 80 categories are cut in four splits of 20; an image with an object of the
//! split is anomalous.
//!
//! ```text
//! annotations/instances_train2017.json   {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "category_id",
//! annotations/instances_val2017.json      "segmentation"}], "categories": [{"id", "name"}]}
//! train2017/*.jpg, val2017/*.jpg
//! ```
//! Images without any object are left out. Of train2017 the normal images train and the others are dropped, as in the paper; val2017 is the test set. The
//! files are read as a stream: those of train2017 have half a gigabyte.

use super::{DataError, DataLocation, DataSet, Layout, listing};
use crate::datasets::each::Each;
use crate::datasets::outlines::{Outlines, Segmentation};
use crate::datasets::{Mask, Sample};
use ckaad_inspect::imaging::MAX_PIXELS;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

pub const EXPECTED: &str = "annotations/instances_train2017.json and annotations/instances_val2017.json beside the folders train2017 and val2017";
/// Twice the file of train2017.
const MAX_BYTES: u64 = 1 << 30;
/// Objects of one file; train2017 has 860,001.
const MAX_OBJECTS: usize = 4_000_000;
/// The splits, and the categories that are anomalous in each.
const SPLITS: [(&str, RangeInclusive<u32>); 4] =
    [("split0", 1..=21), ("split1", 22..=44), ("split2", 46..=65), ("split3", 67..=90)];

pub fn fits(root: &Path) -> bool {
    ["train2017", "val2017"].iter().any(|part| instances(root, part).is_file() && root.join(part).is_dir())
}

fn instances(root: &Path, part: &str) -> PathBuf {
    root.join("annotations").join(format!("instances_{part}.json"))
}

pub fn read(source: &DataLocation) -> Result<DataSet, DataError> {
    let names = SPLITS.map(|(name, _)| name.to_owned());
    let split = listing::choose(source, &names)?;
    let mut data = DataSet::empty(&source.root, Layout::CocoAd);
    // The outlines of anomalous training images would be read for nothing.
    data.train_normal = samples::<IgnoredAny>(&source.root, "train2017", split)?;
    data.train_normal.retain(|sample| sample.defect.is_none());
    data.test = samples::<Segmentation>(&source.root, "val2017", split)?;
    data.category = Some(names[split].clone());
    Ok(data)
}

/// Images of one part with an object at least; none where the part is not there.
fn samples<S: Outline>(root: &Path, part: &str, split: usize) -> Result<Vec<Sample>, DataError> {
    let json = instances(root, part);
    if !json.is_file() {
        return Ok(vec![]);
    }
    let listed = stream::<S>(&json, split)?;
    let names: HashMap<u32, String> = listed.categories.into_iter().map(|c| (c.id, c.name)).collect();
    let mut objects = listed.objects;
    let (mut samples, mut seen) = (vec![], HashSet::new());
    for image in listed.images {
        if !seen.insert(image.id) {
            return Err(DataError::Listing { path: json, reason: format!("the image {} is listed twice", image.id) });
        }
        let Some(objects) = objects.remove(&image.id) else { continue };
        let path = listing::file_below(&root.join(part), &image.file_name, &json)?;
        let Some(category) = objects.category else {
            samples.push(Sample::new(path, None));
            continue;
        };
        let kind = names.get(&category).cloned().unwrap_or_else(|| format!("category {category}"));
        if !(1..=MAX_PIXELS).contains(&(u64::from(image.width) * u64::from(image.height))) {
            let reason =
                format!("{}: {}x{} pixels; 1 to {MAX_PIXELS} expected", image.file_name, image.width, image.height);
            return Err(DataError::Listing { path: json, reason });
        }
        let mut outlines = Outlines::new(json.clone(), &image.file_name, (image.width, image.height));
        for outline in objects.outlines {
            let wrong =
                |reason| DataError::Listing { path: json.clone(), reason: format!("{}: {reason}", image.file_name) };
            outline.add_to(&mut outlines).map_err(wrong)?;
        }
        let mask = (!outlines.is_empty()).then_some(Mask::Outlines(outlines));
        samples.push(Sample { mask, ..Sample::new(path, Some(kind)) });
    }
    match objects.into_keys().min() {
        None => Ok(samples),
        Some(id) => {
            Err(DataError::Listing { path: json, reason: format!("an object is of image {id}, which is not listed") })
        }
    }
}

/// What is kept of an object's outline.
trait Outline: for<'de> Deserialize<'de> {
    fn add_to(self, outlines: &mut Outlines) -> Result<(), String>;
}

impl Outline for IgnoredAny {
    fn add_to(self, _: &mut Outlines) -> Result<(), String> {
        Ok(())
    }
}

impl Outline for Segmentation {
    fn add_to(self, outlines: &mut Outlines) -> Result<(), String> {
        outlines.add(self)
    }
}

/// What is kept of a file.
struct Listed<S> {
    split: usize,
    images: Vec<Image>,
    /// By the image's id.
    objects: HashMap<u64, Objects<S>>,
    categories: Vec<Category>,
    seen: usize,
}

struct Objects<S> {
    /// Of the first object that is anomalous in the split.
    category: Option<u32>,
    /// Of all of those.
    outlines: Vec<S>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Object<S> {
    image_id: u64,
    category_id: u32,
    segmentation: S,
}

#[derive(Deserialize)]
struct Category {
    id: u32,
    name: String,
}

impl<S> Listed<S> {
    fn image(&mut self, image: Image) -> Result<(), String> {
        self.images.push(image);
        at_most(self.images.len(), listing::MAX_ENTRIES, "images")
    }

    fn category(&mut self, category: Category) -> Result<(), String> {
        self.categories.push(category);
        at_most(self.categories.len(), 1000, "categories")
    }

    fn object(&mut self, object: Object<S>) -> Result<(), String> {
        self.seen += 1;
        at_most(self.seen, MAX_OBJECTS, "objects")?;
        let id = object.category_id;
        let Some(split) = SPLITS.iter().position(|(_, ids)| ids.contains(&id)) else {
            return Err(format!("category {id} is in none of the four splits of COCO's"));
        };
        let objects = self.objects.entry(object.image_id).or_insert(Objects { category: None, outlines: vec![] });
        if split == self.split {
            objects.category.get_or_insert(id);
            objects.outlines.push(object.segmentation);
        }
        Ok(())
    }
}

fn at_most(count: usize, most: usize, what: &str) -> Result<(), String> {
    if count <= most { Ok(()) } else { Err(format!("more than the {most} {what} that are accepted")) }
}

fn stream<S: Outline>(json: &Path, split: usize) -> Result<Listed<S>, DataError> {
    let read = |cause| DataError::Read { path: json.to_owned(), cause };
    let file = File::open(json).map_err(read)?;
    if file.metadata().map_err(read)?.len() > MAX_BYTES {
        return Err(DataError::TooLong { path: json.to_owned(), most: MAX_BYTES });
    }
    let mut listed = Listed { split, images: vec![], objects: HashMap::new(), categories: vec![], seen: 0 };
    let mut deserializer =
        serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 20, file.take(MAX_BYTES)));
    let done = deserializer.deserialize_map(Instances(&mut listed)).and_then(|()| deserializer.end());
    done.map_err(|e| DataError::Listing { path: json.to_owned(), reason: format!("{EXPECTED_IN_FILE}; found {e}") })?;
    Ok(listed)
}

const EXPECTED_IN_FILE: &str = "COCO's images, annotations and categories expected";

/// The file, as it comes.
struct Instances<'a, S>(&'a mut Listed<S>);

impl<'de, S: Outline> Visitor<'de> for Instances<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let listed = self.0;
        let mut found = [false; 2];
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "images" => {
                    found[0] = true;
                    map.next_value_seed(Each::new(|image| listed.image(image)))?;
                }
                "annotations" => {
                    found[1] = true;
                    map.next_value_seed(Each::new(|object| listed.object(object)))?;
                }
                "categories" => map.next_value_seed(Each::new(|category| listed.category(category)))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let [images, annotations] = found;
        if images && annotations { Ok(()) } else { Err(A::Error::custom("no images or no annotations")) }
    }
}
