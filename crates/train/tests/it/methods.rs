//! A method of one's own: what the recipe in CONTRIBUTING.md says is enough.

use ckaad_bundle::Bundle;
use ckaad_inspect::imaging;
use ckaad_inspect::{InspectOptions, Inspector};
use ckaad_train::config::TrainConfig;
use ckaad_train::datasets::DataLocation;
use ckaad_train::device::DeviceChoice;
use ckaad_train::export::{Form, export_with};
use ckaad_train::features::Extractor;
use ckaad_train::fit::{FitOptions, fit_with};
use ckaad_train::graph::{Activation, Conv, Graph, Id, Term};
use ckaad_train::methods::{Losses, Method, MethodError, Model, Needs, StepBatch};
use std::path::Path;

/// Darkness: how far the mean of the feature channels is above what training has shown, times a slope that it "learns"
/// from the pixels of its batches.
struct Darkness {
    slope: f32,
}

const DARKNESS: Term = Term::map("darkness");

impl Method for Darkness {
    fn name(&self) -> String {
        "darkness".into()
    }
    fn terms(&self) -> Vec<Term> {
        vec![DARKNESS]
    }
    fn needs(&self) -> Needs {
        Needs { steps: true, images: true, ..Needs::default() }
    }
    fn step(&mut self, batch: &StepBatch, _progress: f64) -> Losses {
        let images = batch.normal.images.as_ref().expect("it asked for images");
        let mean = images.iter().map(|&v| f32::from(v)).sum::<f32>() / images.len() as f32;
        self.slope += (mean / 255.0 - self.slope) * 0.1;
        Losses::default().with("darkness", (mean / 255.0 - self.slope).abs())
    }
    fn append(&self, graph: &mut Graph, extractor: &Extractor, _: &dyn Fn(Term) -> bool) -> Vec<(Term, Id)> {
        let tap = extractor.taps[0];
        let weight = vec![self.slope / 10.0; graph.shape(tap)[0]];
        let (bias, pads, activation) = (vec![0.5], [0; 4], Activation::Relu);
        let conv = Conv { weight, bias, out: 1, kernel: 1, stride: 1, pads, groups: 1, activation };
        vec![(DARKNESS, graph.conv("darkness", tap, conv))]
    }
    fn save(&self, folder: &Path) -> Result<(), MethodError> {
        let failed = |e: std::io::Error| MethodError::checkpoint(folder, e);
        std::fs::write(folder.join("slope"), self.slope.to_le_bytes()).map_err(failed)
    }
    fn load(&mut self, folder: &Path) -> Result<(), MethodError> {
        let bytes = std::fs::read(folder.join("slope")).unwrap();
        self.slope = f32::from_le_bytes(bytes.try_into().unwrap());
        Ok(())
    }
}

#[test]
fn a_method_of_ones_own_trains_exports_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = at("config.toml");
    std::fs::write(
        &config,
        "false_alarm_budget = 0.05\n[input]\nwidth = 64\nheight = 64\n[train]\nepochs = 2\nleast_steps = 0\n[validation]\nfolds = 2\n",
    )
    .unwrap();
    crate::trainer::synth(&at("data").to_string_lossy());
    let build = |_: &TrainConfig, _: &Extractor, _: &burn::prelude::Device| Model {
        methods: vec![Box::new(Darkness { slope: 0.0 })],
    };
    let options = FitOptions {
        method: None,
        config: TrainConfig::load(&config).unwrap(),
        data: vec![DataLocation::new(at("data"))],
        out: at("run"),
        device: DeviceChoice::Cpu,
        resume: false,
    };
    let fitted = fit_with(&options, &build).unwrap();
    assert_eq!((fitted.models, fitted.folds), (3, 2));
    let done = export_with(&at("run"), &at("own.ckaad"), Form::Int8, &build).unwrap();
    assert!(done.evidence.image_auroc.is_some());
    let bundle = Bundle::read(&at("own.ckaad")).unwrap();
    assert_eq!(
        (bundle.manifest.methods.as_slice(), bundle.manifest.terms[0].name.as_str()),
        (&["darkness".to_owned()][..], "darkness")
    );
    let inspector = Inspector::new(&bundle, &InspectOptions::default()).unwrap();
    assert!(inspector.check_golden(&bundle).unwrap().iter().all(|golden| golden.passed));
    // What steps taught it is in the map: it is not flat, and not that of an untrained one.
    let image = imaging::decode(&bundle.golden[0].png, Path::new("golden")).unwrap();
    let map = inspector.inspect(&image).unwrap().map;
    let (low, high) = map.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    assert!(high - low > 1e-3, "{low} to {high}");
}
