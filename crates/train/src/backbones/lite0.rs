//! EfficientNet-lite0 without its head (Tan and Le 2019, arXiv 1905.11946; the "lite" variant drops squeeze-and-excite
//! and uses ReLU6). Its features are the outputs of the last block of a stage, which are linear.

use super::weights::{ConvSpec, WeightError, Weights};
use super::{Extracted, Scale};
use crate::graph::{Activation, ChannelStatistics, Graph, Id};

/// Up to stride 16, and the two stages behind.
pub const WEIGHTS: [&[u8]; 2] = [
    include_bytes!("../../../../models/backbones/efficientnet-lite0-stride16.safetensors"),
    include_bytes!("../../../../models/backbones/efficientnet-lite0-stride32.safetensors"),
];

pub const SCALES: [Scale; 4] = [
    Scale { channels: 24, stride: 4 },
    Scale { channels: 40, stride: 8 },
    Scale { channels: 112, stride: 16 },
    Scale { channels: 320, stride: 32 },
];

const EPSILON: f32 = 1e-3;
const STEM: usize = 32;

struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    channels: usize,
}

const fn stage(repeats: usize, kernel: usize, stride: usize, expansion: usize, channels: usize) -> Stage {
    Stage { repeats, kernel, stride, expansion, channels }
}

const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 1, 16),
    stage(2, 3, 2, 6, 24),
    stage(2, 5, 2, 6, 40),
    stage(3, 3, 2, 6, 80),
    stage(3, 5, 1, 6, 112),
    stage(4, 5, 2, 6, 192),
    stage(1, 3, 1, 6, 320),
];

/// The stages up to the scale of stride `deepest`.
pub fn append(
    graph: &mut Graph,
    weights: &Weights,
    statistics: Option<&[ChannelStatistics]>,
    deepest: usize,
) -> Result<Extracted, WeightError> {
    let scales: Vec<Scale> = SCALES.iter().copied().filter(|s| s.stride <= deepest).collect();
    let load = |graph: &Graph, prefix: &str, input: Id, spec: ConvSpec| {
        let [_, h, w] = graph.shape(input);
        weights.conv_bn(prefix, spec, (h, w), EPSILON)
    };
    let spec =
        |input, out, kernel, stride, groups, activation| ConvSpec { input, out, kernel, stride, groups, activation };
    let stem = load(graph, "stem", Graph::IMAGE, spec(3, STEM, 3, 2, 1, Activation::Relu6))?;
    let mut x = graph.conv("stem", Graph::IMAGE, stem);
    let mut channels = STEM;
    let mut extracted = Extracted { streams: vec![], taps: vec![], tap_streams: vec![] };
    // What `x` was standardised with.
    let mut standardised: Option<&ChannelStatistics> = None;
    for (s, stage) in STAGES.iter().enumerate() {
        if extracted.taps.len() == scales.len() {
            break;
        }
        let own = statistics.and_then(|all| all.get(s));
        for block in 0..stage.repeats {
            let name = |part: &str| format!("blocks.{s}.{block}.{part}");
            let stride = if block == 0 { stage.stride } else { 1 };
            let wide = channels * stage.expansion;
            let mut y = x;
            if stage.expansion > 1 {
                let mut expand = load(graph, &name("expand"), y, spec(channels, wide, 1, 1, 1, Activation::Relu6))?;
                if let Some(statistics) = standardised {
                    statistics.fold_into_input(&mut expand);
                }
                y = graph.conv(name("expand"), y, expand);
            }
            let depthwise = spec(wide, wide, stage.kernel, stride, wide, Activation::Relu6);
            let depthwise = load(graph, &name("depthwise"), y, depthwise)?;
            y = graph.conv(name("depthwise"), y, depthwise);
            let mut project =
                load(graph, &name("project"), y, spec(wide, stage.channels, 1, 1, 1, Activation::Linear))?;
            if let Some(statistics) = own {
                statistics.fold_into_output(&mut project, block == 0);
            }
            y = graph.conv(name("project"), y, project);
            x = if block > 0 { graph.add(name("add"), x, y, Activation::Linear) } else { y };
            channels = stage.channels;
            standardised = own;
        }
        extracted.streams.push(x);
        if scales.iter().any(|scale| scale.channels == stage.channels) {
            extracted.taps.push(x);
            extracted.tap_streams.push(s);
        }
    }
    Ok(extracted)
}
