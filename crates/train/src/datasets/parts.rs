//! Images of one part, where a network sees several views of it at once.

use super::Sample;
use ckaad_bundle::view_shown;
use std::collections::BTreeMap;

/// Parts out of a list of samples: of each the places of its images in the list, view by view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// In the order in which each part's first image stands in the list.
    pub complete: Vec<Vec<usize>>,
    /// Names of parts that lack a view, and of images that show none, or one that is there already, or are of no part.
    pub incomplete: Vec<String>,
}

impl Parts {
    /// The parts of `samples` that are there from every view of `names`; without names every image is a part of its own.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>, names: &[String]) -> Parts {
        let samples: Vec<&Sample> = samples.into_iter().collect();
        if names.is_empty() {
            return Parts { complete: (0..samples.len()).map(|i| vec![i]).collect(), incomplete: vec![] };
        }
        let mut found: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
        let mut incomplete = vec![];
        for (i, sample) in samples.iter().enumerate() {
            let stem = sample.path.file_stem().unwrap_or_default().to_string_lossy();
            match sample.part.as_deref().zip(view_shown(names, &stem)) {
                Some((part, view)) => {
                    let views = found.entry(part).or_insert_with(|| vec![None; names.len()]);
                    // Of two pictures of one view the first counts.
                    match views[view] {
                        None => views[view] = Some(i),
                        Some(_) => incomplete.push(sample.path.display().to_string()),
                    }
                }
                None => incomplete.push(sample.path.display().to_string()),
            }
        }
        let mut complete = vec![];
        for (part, views) in found {
            match views.into_iter().collect::<Option<Vec<usize>>>() {
                Some(views) => complete.push(views),
                None => incomplete.push(part.to_owned()),
            }
        }
        complete.sort_by_key(|views| views.iter().min().copied());
        Parts { complete, incomplete }
    }

    /// Those of which any image is `wanted`.
    pub fn with(self, wanted: impl Fn(usize) -> bool) -> Parts {
        let of_use = |views: &Vec<usize>| views.iter().any(|&i| wanted(i));
        Parts { complete: self.complete.into_iter().filter(of_use).collect(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_view_by_view_and_what_lacks_one_is_told() {
        let image = |name: &str, part: Option<&str>| Sample {
            part: part.map(str::to_owned),
            ..Sample::new(format!("set/{name}.png").into(), None)
        };
        let samples = [
            image("b_C2_0", Some("b")),
            image("a_C1_0", Some("a")),
            image("b_C1_0", Some("b")),
            image("c_C1_0", Some("c")),
            image("stray_C1", None),
            image("a_C2_0", Some("a")),
            image("a_C9_0", Some("a")),
            image("a_C1_1", Some("a")),
        ];
        let names = ["C1", "C2"].map(str::to_owned);
        let parts = Parts::of(&samples, &names);
        assert_eq!(parts.complete, [[2, 0], [1, 5]]);
        assert_eq!(parts.incomplete, ["set/stray_C1.png", "set/a_C9_0.png", "set/a_C1_1.png", "c"]);
        assert_eq!(parts.with(|i| i == 5).complete, [[1, 5]]);
        assert_eq!(Parts::of(&samples[..2], &[]).complete, [[0], [1]]);
    }
}
