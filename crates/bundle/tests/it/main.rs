//! The bundle's promises: what was packed is what is read, and no damaged or hostile file gets further than one clear
//! sentence.

mod format1;
mod hostile;
mod limits;
mod manifests;
mod summary;

use ckaad_bundle::*;
use std::io::Write;
use tar::{EntryType, Header};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nnot decoded here";

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        name: "washer".into(),
        version: "1.2.3".parse().unwrap(),
        methods: vec!["ckaad-patch".into(), "bank".into()],
        backbone: "efficientnet-lite0".into(),
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        input: Input { width: 224, height: 192, fit: ResizeMode::Letterbox, filter: Filter::Bilinear },
        views: 1,
        view_names: vec![],
        output_stride: 8,
        terms: vec![MapTerm { name: "error".into(), weight: 1.5 }, MapTerm { name: "distance".into(), weight: 0.25 }],
        score: Score { sigma_px: 4.0, rule: ScoreRule::TopK { top_k: 100 }, image: None },
        calibration: Calibration {
            images: 50,
            quantiles: (0..21).map(|i| i as f32 * 0.05).collect(),
            threshold: 1.1,
            pixel_threshold: 0.8,
            false_alarm_budget: 0.02,
            rank: Some(1),
            tail: Tail { start: 0.9, share: 0.1, scale: 0.05, shape: 0.0 },
            expected_rate: 0.0196,
            interval: [0.001, 0.0582],
        },
        gpu_calibration: None,
        precision: Precision::Int8,
        engine: ">=0.1".parse().unwrap(),
        training_data: TrainingData {
            sha256: "ab".repeat(32),
            normal_images: 90,
            anomalous_images: 10,
            appearance: Some(Appearance {
                brightness: Moments { mean: 118.0, deviation: 3.5 },
                sharpness: Moments { mean: 210.0, deviation: 40.0 },
            }),
        },
        licences: vec!["EfficientNet-lite0 weights: Apache-2.0".into()],
        members: Vec::new(),
    }
}

fn answer(score: f32) -> GoldenAnswer {
    GoldenAnswer { score, grid: vec![0.25; 64], image_score: None }
}

fn draft() -> Draft {
    let golden = |score| Golden { png: PNG.to_vec(), expected: answer(score) };
    Draft {
        manifest: manifest(),
        model: vec![7; 1000],
        golden: vec![golden(0.5), golden(1.5)],
        forest: None,
        segments: None,
        gpu: None,
        report: Some(serde_json::json!({"image_auroc": 0.99})),
    }
}

/// As [`draft`], with all that a bundle may have: a forest, an image branch, and a network for a GPU.
fn full() -> Draft {
    let mut draft = draft();
    draft.manifest.score.rule = ScoreRule::Forest { segments: 3, tie_break: 0.001 };
    draft.manifest.score.image = Some(ImageBranch {
        map: Standard { centre: 0.5, spread: 0.25 },
        image: Standard { centre: -2.0, spread: 1.5 },
        weight: 0.3,
        fusion: Fusion::Sum,
    });
    draft.golden.iter_mut().for_each(|g| g.expected.image_score = Some(g.expected.score - 2.0));
    draft.forest = Some(b"{\"features\": 13}".to_vec());
    draft.segments = Some(PNG.to_vec());
    let golden = draft.golden.iter().map(|g| GoldenAnswer { score: g.expected.score + 0.01, ..g.expected.clone() });
    draft.manifest.gpu_calibration = Some(Calibration { threshold: 1.2, ..draft.manifest.calibration.clone() });
    draft.gpu = Some(GpuModel { model: vec![9; 700], golden: golden.collect() });
    draft
}

/// A bundle taken apart, to be put together wrongly.
struct Parts(Vec<(String, Vec<u8>, EntryType)>);

impl Parts {
    fn good() -> Parts {
        Parts::of(&draft().pack().unwrap())
    }

    /// With every member that there may be.
    fn full() -> Parts {
        Parts::of(&full().pack().unwrap())
    }

    fn of(bytes: &[u8]) -> Parts {
        let mut archive = tar::Archive::new(bytes);
        Parts(
            archive
                .entries()
                .unwrap()
                .map(|entry| {
                    let mut entry = entry.unwrap();
                    let path = entry.path().unwrap().to_str().unwrap().to_owned();
                    let mut content = Vec::new();
                    std::io::copy(&mut entry, &mut content).unwrap();
                    (path, content, EntryType::Regular)
                })
                .collect(),
        )
    }

    fn at(&self, path: &str) -> usize {
        self.0.iter().position(|part| part.0 == path).unwrap()
    }

    /// Changes the manifest's JSON.
    fn manifest(mut self, change: impl FnOnce(&mut serde_json::Value)) -> Parts {
        let mut value = serde_json::from_slice(&self.0[0].1).unwrap();
        change(&mut value);
        self.0[0].1 = serde_json::to_vec(&value).unwrap();
        self
    }

    /// Replaces a member and lists it with its new size and digest.
    fn replace(mut self, path: &str, content: &[u8]) -> Parts {
        let at = self.at(path);
        self.0[at].1 = content.to_vec();
        self.relist()
    }

    /// Writes the listing anew from the members that are there.
    fn relist(self) -> Parts {
        use sha2::Digest;
        let listing: Vec<_> = self.0[1..]
            .iter()
            .map(|(path, content, _)| {
                let sha256 = hex::encode(sha2::Sha256::digest(content));
                serde_json::json!({"path": path, "size": content.len(), "sha256": sha256})
            })
            .collect();
        self.manifest(|m| m["members"] = listing.into())
    }

    fn pack(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, content, kind) in self.0 {
            block(&mut out, &path, &content, kind, content.len() as u64);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn refused(self) -> String {
        refused(&self.pack())
    }
}

/// One tar member, its header as hostile as asked for: the `tar` crate's builder would refuse.
fn block(out: &mut Vec<u8>, path: &str, content: &[u8], kind: EntryType, declared: u64) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(declared);
    header.set_cksum();
    out.write_all(header.as_bytes()).unwrap();
    out.write_all(content).unwrap();
    out.resize(out.len().next_multiple_of(512), 0);
}

fn refused(bytes: &[u8]) -> String {
    Bundle::from_bytes(bytes).expect_err("the bundle should have been refused").to_string()
}

#[track_caller]
fn says(sentence: String, expected: &str) {
    assert!(sentence.contains(expected), "the error says {sentence:?}; expected in it: {expected:?}");
}

/// As [`says`], and nothing behind it.
fn ends(sentence: String, expected: &str) {
    assert!(sentence.ends_with(expected), "the error says {sentence:?}; expected at its end: {expected:?}");
}

#[test]
fn a_written_bundle_reads_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("washer.ckaad");
    let digest = draft().write(&path).unwrap();
    let bundle = Bundle::read(&path).unwrap();
    assert_eq!(bundle.digest, digest);
    assert_eq!(bundle.model, draft().model);
    assert_eq!(bundle.report, draft().report);
    assert_eq!(bundle.golden.len(), 2);
    assert_eq!(bundle.golden[1].expected, draft().golden[1].expected);
    assert_eq!(bundle.golden[1].png, PNG);
    assert_eq!(Manifest { members: Vec::new(), ..bundle.manifest.clone() }, manifest());
    let paths: Vec<_> = bundle.manifest.members.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(
        paths,
        ["model.onnx", "golden/00.png", "golden/00.json", "golden/01.png", "golden/01.json", "report.json"]
    );
}

#[test]
fn all_that_a_bundle_may_have_reads_back_too() {
    let bundle = Bundle::from_bytes(&full().pack().unwrap()).unwrap();
    assert_eq!(Manifest { members: Vec::new(), ..bundle.manifest.clone() }, full().manifest);
    assert_eq!((bundle.forest, bundle.segments), (full().forest, full().segments));
    let (read, packed) = (bundle.gpu.unwrap(), full().gpu.unwrap());
    assert_eq!((read.model, read.golden), (packed.model, packed.golden));
    assert_eq!(bundle.model, full().model);
    assert_eq!(bundle.golden.iter().map(|g| g.expected.image_score).collect::<Vec<_>>(), [Some(-1.5), Some(-0.5)]);
    let paths: Vec<_> = bundle.manifest.members.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "model.onnx",
            "model-gpu.onnx",
            "score/forest.json",
            "score/segments.png",
            "golden/00.png",
            "golden/00.json",
            "golden/01.png",
            "golden/01.json",
            "golden-gpu/00.json",
            "golden-gpu/01.json",
            "report.json"
        ]
    );
}

#[test]
fn the_smallest_bundle_is_a_manifest_and_a_model() {
    let small = Draft { golden: Vec::new(), report: None, ..draft() };
    let bundle = Bundle::from_bytes(&small.pack().unwrap()).unwrap();
    assert_eq!(bundle.manifest.members.len(), 1);
}

#[test]
fn packing_is_deterministic() {
    assert_eq!(full().pack().unwrap(), full().pack().unwrap());
    assert_eq!(Parts::good().pack().len(), draft().pack().unwrap().len());
    assert!(Bundle::from_bytes(&Parts::good().relist().pack()).is_ok(), "the fixtures' own packer must be sound");
}

#[test]
fn nothing_is_written_that_could_not_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.ckaad");
    let mut bad = draft();
    bad.manifest.calibration.threshold = f32::NAN;
    let error = bad.write(&path).unwrap_err().to_string();
    assert!(error.contains("bad.ckaad") && error.contains("calibration.threshold in manifest.json is NaN"), "{error}");
    let many = Draft { golden: vec![draft().golden[0].clone(); MAX_GOLDEN + 1], ..draft() };
    says(many.write(&path).unwrap_err().to_string(), "lists 17 golden samples; at most 16");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a refused draft leaves nothing behind");
}

#[test]
fn a_failed_write_keeps_the_older_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("washer.ckaad");
    let digest = draft().write(&path).unwrap();
    assert!(Draft { model: Vec::new(), ..draft() }.write(&path).is_err());
    assert_eq!(Bundle::read(&path).unwrap().digest, digest);
    let nowhere = draft().write(&dir.path().join("no/such/folder.ckaad")).unwrap_err();
    says(nowhere.to_string(), "it cannot be written");
}

#[test]
fn every_cut_of_a_bundle_is_refused() {
    let bytes = full().pack().unwrap();
    for length in (0..bytes.len()).step_by(97).chain(bytes.len() - 1100..bytes.len()) {
        assert!(Bundle::from_bytes(&bytes[..length]).is_err(), "a bundle cut to {length} bytes was accepted");
    }
}

#[test]
fn every_flipped_bit_that_matters_is_refused() {
    let bytes = full().pack().unwrap();
    let whole = Bundle::from_bytes(&bytes).unwrap();
    for at in (0..bytes.len()).step_by(13) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        if let Ok(read) = Bundle::from_bytes(&bad) {
            // Within the manifest another value may be as good as the first; everywhere else only padding is free.
            assert!(read.manifest != whole.manifest || at % 512 != 0, "byte {at}");
            assert_eq!((read.model, read.report), (whole.model.clone(), whole.report.clone()));
            assert_eq!((read.forest, read.segments), (whole.forest.clone(), whole.segments.clone()));
        }
    }
}
