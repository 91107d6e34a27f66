//! `infer`: one line an image, through the same inspector as the line.

use super::Outcome;
use crate::events::RegionBox;
use ckaad_bundle::{Bundle, BundleError, view_shown};
use ckaad_inspect::console::{OutputError, say};
use ckaad_inspect::imaging::{self, DecodeError, RgbImage};
use ckaad_inspect::{InspectError, InspectOptions, Inspector, Verdict};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `infer` was asked for.
#[derive(Clone, Debug)]
pub struct InferOptions {
    pub bundle: PathBuf,
    pub images: Vec<PathBuf>,
    pub json: bool,
    /// Where a heatmap of every image goes.
    pub heatmaps: Option<PathBuf>,
    pub threads: usize,
    /// Overrides the bundle's.
    pub threshold: Option<f32>,
}

#[derive(Debug, thiserror::Error)]
pub enum InferError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the bundle {0} cannot be run: {1}")]
    Inspect(PathBuf, InspectError),
    #[error("cannot write the heatmap {0}: {1}")]
    Heatmap(PathBuf, String),
    #[error("{failed} of {of} images could not be judged")]
    Images { failed: usize, of: usize },
    #[error(transparent)]
    Output(#[from] OutputError),
}

#[derive(Debug, thiserror::Error)]
enum ImageError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{0} could not be judged: {1}")]
    Inspect(PathBuf, InspectError),
    #[error("{0} could not be judged: the model takes the views {1} of a part at once, one picture each in one folder")]
    Views(String, String),
}

/// Judges every image. One that cannot be judged is named on standard error, and the others are judged all the same.
///
/// # Errors
/// The bundle is no good, a heatmap cannot be written, or not every image could be judged.
pub fn infer(options: &InferOptions) -> Result<Outcome, InferError> {
    let bundle = Bundle::read(&options.bundle)?;
    let inspect = InspectOptions { pool: options.threads.into(), threshold: options.threshold, runtime: None };
    let inspector = Inspector::new(&bundle, &inspect).map_err(|e| InferError::Inspect(options.bundle.clone(), e))?;
    if let Some(folder) = &options.heatmaps {
        std::fs::create_dir_all(folder).map_err(|e| InferError::Heatmap(folder.clone(), e.to_string()))?;
    }
    let mut failed = 0;
    let mut told = 0;
    for paths in parts(&options.images, &bundle.manifest.view_names) {
        match judge(&inspector, &paths) {
            Ok(judged) => {
                for (path, image, verdict) in &judged {
                    print(path, verdict, options.json)?;
                    if let Some(folder) = &options.heatmaps {
                        // The running number keeps images of one name in different folders apart.
                        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                        let target = folder.join(format!("{told:04}-{stem}.png"));
                        let picture = ckaad_inspect::heatmap(image, verdict, u32::MAX);
                        picture.save(&target).map_err(|e| InferError::Heatmap(target, e.to_string()))?;
                    }
                    told += 1;
                }
            }
            Err(why) => {
                (failed, told) = (failed + paths.len(), told + paths.len());
                eprintln!("{why}");
            }
        }
    }
    match failed {
        0 => Ok(Outcome::Well),
        failed => Err(InferError::Images { failed, of: options.images.len() }),
    }
}

/// Each image by itself; or, by a model that takes several views of a part at once, the images of each part, in the order in which their first comes: those
/// of one folder whose names are the same but for the view.
fn parts<'a>(images: &'a [PathBuf], names: &[String]) -> Vec<Vec<&'a Path>> {
    if names.is_empty() {
        return images.iter().map(|path| vec![path.as_path()]).collect();
    }
    // By folder and what a name is without its view.
    type Key<'a> = (Option<&'a Path>, String);
    let mut parts: Vec<(Key, Vec<&Path>)> = vec![];
    for path in images {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let rest = view_shown(names, &stem)
            .map_or(stem.to_string(), |view| format!("_{stem}_").replacen(&format!("_{}_", names[view]), "_", 1));
        let key = (path.parent(), rest);
        match parts.iter_mut().find(|(known, _)| *known == key) {
            Some((_, paths)) => paths.push(path),
            None => parts.push((key, vec![path])),
        }
    }
    parts.into_iter().map(|(_, paths)| paths).collect()
}

/// One image, or those of one part.
fn judge<'a>(inspector: &Inspector, paths: &[&'a Path]) -> Result<Vec<(&'a Path, RgbImage, Verdict)>, ImageError> {
    let (names, mut paths) = (&inspector.manifest().view_names, paths.to_vec());
    if !names.is_empty() {
        let view = |path: &Path| view_shown(names, &path.file_stem().unwrap_or_default().to_string_lossy());
        paths.sort_by_key(|path| view(path));
        if paths.len() != names.len() || paths.iter().enumerate().any(|(i, path)| view(path) != Some(i)) {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(ImageError::Views(paths.join(", "), names.join(", ")));
        }
    }
    let images = paths.iter().map(|path| imaging::load(path)).collect::<Result<Vec<_>, _>>()?;
    let verdicts = inspector.inspect_part(&images.iter().collect::<Vec<_>>(), inspector.limits());
    let verdicts = verdicts.map_err(|e| ImageError::Inspect(paths[0].to_owned(), e))?;
    Ok(paths.into_iter().zip(images).zip(verdicts).map(|((path, image), verdict)| (path, image, verdict)).collect())
}

/// One line of `--json`. Serialised as it is, an f32 is written with the fewest digits that tell it apart, as everywhere else; made a JSON
/// value first, it would be widened to f64.
#[derive(Serialize)]
struct JudgedImage {
    path: String,
    score: f32,
    threshold: f32,
    verdict: &'static str,
    severity: f32,
    decided_by: String,
    regions: Vec<RegionBox>,
}

fn print(path: &Path, verdict: &Verdict, as_json: bool) -> Result<(), OutputError> {
    let word = if verdict.is_defective() { "defective" } else { "good" };
    let boxes: Vec<RegionBox> = verdict.regions.iter().map(|r| RegionBox::new(r, None)).collect();
    if as_json {
        let line = JudgedImage {
            path: path.display().to_string(),
            score: verdict.score,
            threshold: verdict.threshold,
            verdict: word,
            severity: verdict.severity(),
            decided_by: verdict.decided_by.to_string(),
            regions: boxes,
        };
        return say(format_args!("{}", serde_json::to_string(&line).expect("a judged image is plain data")));
    }
    let regions: Vec<String> = boxes.iter().map(|r| format!("{}x{}+{}+{}", r.width, r.height, r.x, r.y)).collect();
    let (score, threshold) = (verdict.score, verdict.threshold);
    say(format_args!("{}  score {score:.4}  threshold {threshold:.4}  {word}  {}", path.display(), regions.join(" ")))
}
