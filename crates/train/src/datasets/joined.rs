//! Several data sets, or several categories of one, as one: for a model of all of them.

use super::{DataError, DataLocation, DataSet, Sample};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

impl DataSet {
    /// Lists the images of all `sources`. Of more than one, every sample says which it is of, and kinds of defects, groups and parts are
    /// told apart by it.
    ///
    /// # Errors
    /// As [`DataSet::open`]; or two have the same name, or an image is in two of them.
    pub fn open_all(sources: &[DataLocation]) -> Result<DataSet, DataError> {
        if let [source] = sources {
            return DataSet::open(source);
        }
        let (mut sets, mut names) = (vec![], vec![]);
        for source in sources {
            // Below one folder, which may be found from absolute paths alone.
            let read = |cause| DataError::Read { path: source.root.clone(), cause };
            let root = source.root.canonicalize().map_err(read)?;
            let set = DataSet::open(&DataLocation { root, ..source.clone() })?;
            // As it was called: a link may have another name than what it leads to.
            let called = source.root.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = set.category.clone().or(called).unwrap_or_else(|| set.name());
            if names.contains(&name) {
                return Err(DataError::SameName(name));
            }
            names.push(name);
            sets.push(set);
        }
        each_image_once(&sets, &names)?;
        Ok(joined(sets, names))
    }
}

/// Refuses an image that would be of two sets, and so perhaps normal and anomalous, or trained on and tested.
fn each_image_once(sets: &[DataSet], names: &[String]) -> Result<(), DataError> {
    let mut seen: BTreeMap<&Path, &String> = BTreeMap::new();
    for (set, name) in sets.iter().zip(names) {
        let lists = [&set.train_normal, &set.train_anomalous, &set.validation_normal, &set.test];
        let own: BTreeSet<&Path> = lists.into_iter().flatten().map(|sample| sample.path.as_path()).collect();
        for path in own {
            if let Some(first) = seen.insert(path, name) {
                let (first, second) = (first.clone(), name.clone());
                return Err(DataError::InTwoSets { path: path.to_owned(), first, second });
            }
        }
    }
    Ok(())
}

fn joined(sets: Vec<DataSet>, names: Vec<String>) -> DataSet {
    let root = sets.iter().map(|set| set.root.clone()).reduce(|a, b| above(&a, &b)).unwrap_or_default();
    let mut all = DataSet { category: Some(names.join("+")), ..DataSet::empty(&root, sets[0].layout) };
    for (set, category) in sets.into_iter().zip(names) {
        let of = |samples: Vec<Sample>| samples.into_iter().map(|sample| marked(sample, &category)).collect::<Vec<_>>();
        all.train_normal.extend(of(set.train_normal));
        all.train_anomalous.extend(of(set.train_anomalous));
        all.validation_normal.extend(of(set.validation_normal));
        all.test.extend(of(set.test));
    }
    for samples in [&mut all.train_normal, &mut all.train_anomalous, &mut all.validation_normal, &mut all.test] {
        samples.sort();
    }
    all
}

/// The same names in two sets are two things.
fn marked(sample: Sample, category: &str) -> Sample {
    let own = |name: Option<String>| name.map(|name| format!("{category}/{name}"));
    Sample {
        category: Some(category.to_owned()),
        defect: own(sample.defect),
        group: own(sample.group),
        part: own(sample.part),
        ..sample
    }
}

/// The deepest folder that holds both.
fn above(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}
