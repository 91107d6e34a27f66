//! The network for a GPU: of exact features, with golden answers and a threshold of its own.

use super::folds::{held, over};
use super::inspector::{golden_answers, inspector};
use super::{Context, ExportError};
use crate::config::{Build, TrainConfig};
use crate::graph::{Graph, TermWeights};
use crate::onnx;
use crate::run::{RunFolder, Unit};
use ckaad_bundle::{Calibration, Draft, Golden, GpuModel};
use ckaad_inspect::Verdict;
use ckaad_inspect::imaging::{self, RgbImage};
use std::path::Path;

/// The networks of a run in exact numbers. What learned from features in int8 would be off behind exact ones, by more than a threshold allows.
pub struct Exact {
    /// Of the model of all images.
    whole: Graph,
    /// Of the model of each fold.
    folds: Vec<Graph>,
}

impl Exact {
    /// Opens the run once more and learns again, from exact features, what is learned in passes.
    pub fn of(
        run: &RunFolder,
        config: &TrainConfig,
        build: Build,
        weights: &TermWeights,
    ) -> Result<Exact, ExportError> {
        Context::with(run, config, false, build, |exact| {
            let graph = |unit: Unit| Ok(exact.unit(unit)?.model.graph(exact.extractor, weights));
            let folds = (0..exact.info.folds).map(|fold| graph(Unit::Without(fold)));
            Ok(Exact { folds: folds.collect::<Result<_, ExportError>>()?, whole: graph(Unit::Whole)? })
        })
    }

    /// The network in f16. Its golden answers are the exact one's: this machine may have no GPU, and f16 is to come out as that does within the
    /// tolerance of golden samples.
    pub fn model(&self, draft: &Draft, golden: &[Golden]) -> Result<GpuModel, ExportError> {
        let exact = judging(&self.whole, draft)?;
        let answers = |part: &[Golden]| {
            let images = part.iter().map(|golden| imaging::decode(&golden.png, Path::new("golden sample")));
            golden_answers(&exact, &images.collect::<Result<Vec<_>, _>>()?)
        };
        let golden = golden.chunks(self.whole.views()).map(answers).collect::<Result<Vec<_>, ExportError>>()?.concat();
        Ok(GpuModel { model: onnx::emit_half(&self.whole), golden })
    }

    /// Its threshold, by rule and weights of the network in int8, from every normal image as the exact model judges it that never saw it.
    pub fn calibration(&self, draft: &Draft, context: &Context) -> Result<Calibration, ExportError> {
        let input = &draft.manifest.input;
        let (mut scores, mut peaks) = (vec![], vec![]);
        for (fold, graph) in self.folds.iter().enumerate() {
            let inspector = judging(graph, draft)?;
            let normal = held(context, |image| image.fold == fold && image.sample.defect.is_none());
            let judged = over(context, graph.views(), &normal, "judging in exact numbers", |pixels| {
                let views = pixels.chunks_exact((3 * input.width * input.height) as usize);
                let image = |pixels: &[u8]| RgbImage::from_raw(input.width, input.height, pixels.to_vec());
                let images: Vec<RgbImage> = views.filter_map(image).collect();
                let verdicts = inspector.inspect_part(&images.iter().collect::<Vec<_>>(), inspector.limits())?;
                let judged = |v: Verdict| (v.score, ckaad_inspect::top_k_mean(v.map.view(), 1));
                Ok(verdicts.into_iter().map(judged).collect())
            })?;
            scores.extend(judged.iter().map(|(score, _)| *score));
            peaks.extend(judged.iter().map(|(_, peak)| *peak));
        }
        Ok(ckaad_inspect::calibrate(&scores, &peaks, context.config.false_alarm_budget)?)
    }
}

fn judging(graph: &Graph, draft: &Draft) -> Result<ckaad_inspect::Inspector, ExportError> {
    inspector(Draft { model: onnx::emit_f32(graph, None), ..draft.clone() })
}
