//! Packing.

use super::error::{BundleError, Problem};
use super::{
    Bundle, FOREST, FORMAT, GPU_MODEL, Golden, GoldenAnswer, GpuModel, MANIFEST, MODEL, Manifest, Member, REPORT,
    SEGMENTS, check, golden_gpu, golden_json, golden_png, read, replace, sha256,
};
use std::io::Write;
use std::path::Path;

/// What goes into a bundle. `manifest.members` and `manifest.format` are filled in when packing.
#[derive(Clone, Debug)]
pub struct Draft {
    /// All of it but the list of members.
    pub manifest: Manifest,
    /// `model.onnx`.
    pub model: Vec<u8>,
    /// At most [`MAX_GOLDEN`](super::MAX_GOLDEN) samples.
    pub golden: Vec<Golden>,
    /// `score/forest.json`, with a score rule of kind forest.
    pub forest: Option<Vec<u8>>,
    /// `score/segments.png`, with a score rule of kind forest.
    pub segments: Option<Vec<u8>>,
    /// The network for a GPU, if there is to be one, with an answer to every golden picture.
    pub gpu: Option<GpuModel>,
    /// `report.json`, if there is to be one.
    pub report: Option<serde_json::Value>,
}

/// To be packed anew, all of it: for another version, for instance.
impl From<Bundle> for Draft {
    fn from(bundle: Bundle) -> Draft {
        let Bundle { manifest, model, golden, forest, segments, gpu, report, digest: _ } = bundle;
        Draft { manifest, model, golden, forest, segments, gpu, report }
    }
}

impl Draft {
    /// Packs into `path` and returns the file's SHA-256. An older file there is replaced at once or not at all, and
    /// nothing is written that [`Bundle::read`] would refuse.
    ///
    /// # Errors
    /// The draft breaks a bound of the format, or the file cannot be written; the sentence names the file.
    pub fn write(self, path: &Path) -> Result<String, BundleError> {
        let fail = |problem| BundleError { path: path.to_owned(), problem };
        let bytes = self.pack().map_err(fail)?;
        replace(path, |file| file.write_all(&bytes)).map_err(|e| fail(Problem::Write(e)))?;
        Ok(sha256(&bytes))
    }

    /// The bundle's bytes; the same draft gives the same bytes.
    ///
    /// # Errors
    /// The draft breaks a bound of the format.
    pub fn pack(mut self) -> Result<Vec<u8>, Problem> {
        let branch = self.manifest.score.image.is_some();
        let answer = |path: String, answer: &GoldenAnswer| {
            check::golden(&path, answer, branch)?;
            let content = text(&path, answer)?;
            Ok::<_, Problem>((path, content))
        };
        let (gpu, gpu_golden) = self.gpu.map_or((None, vec![]), |gpu| (Some(gpu.model), gpu.golden));
        let mut members = vec![(MODEL.to_owned(), self.model)];
        for (path, content) in [(GPU_MODEL, gpu), (FOREST, self.forest), (SEGMENTS, self.segments)] {
            members.extend(content.map(|content| (path.to_owned(), content)));
        }
        for (i, golden) in self.golden.into_iter().enumerate() {
            members.push((golden_png(i), golden.png));
            members.push(answer(golden_json(i), &golden.expected)?);
        }
        for (i, expected) in gpu_golden.iter().enumerate() {
            members.push(answer(golden_gpu(i), expected)?);
        }
        if let Some(report) = &self.report {
            members.push((REPORT.to_owned(), text(REPORT, report)?));
        }
        self.manifest.format = FORMAT;
        let listed = |(path, content): &(String, Vec<u8>)| Member {
            path: path.clone(),
            size: content.len() as u64,
            sha256: sha256(content),
        };
        self.manifest.members = members.iter().map(listed).collect();
        check::manifest(&self.manifest)?;
        read::check_listing(&self.manifest)?;

        let mut archive = tar::Builder::new(Vec::new());
        let manifest = (MANIFEST.to_owned(), text(MANIFEST, &self.manifest)?);
        for (path, content) in [manifest].iter().chain(&members) {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            archive.append_data(&mut header, path, content.as_slice()).map_err(Problem::Write)?;
        }
        let bytes = archive.into_inner().map_err(Problem::Write)?;
        // The reader has the last word: its bounds are not written down a second time here.
        Bundle::from_bytes(&bytes)?;
        Ok(bytes)
    }
}

fn text(member: &str, value: &impl serde::Serialize) -> Result<Vec<u8>, Problem> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Problem::Json { member: member.to_owned(), reason: e.to_string() })?;
    text.push(b'\n');
    Ok(text)
}
