//! The bounds of every value, as one table.

use super::{BudgetConfig, ConfigError, DEEPEST, MethodKind, TrainConfig};
use crate::methods::ckaad::NetConfig;
use crate::methods::mvad::Size;
use crate::score::{Rule, SegmentsKind};
use ckaad_bundle::MAX_VIEWS;
use std::fmt::Debug;
use std::path::Path;

/// A key, whether its value is good, the value, and what is expected.
type Row = (&'static str, bool, String, &'static str);

fn row(key: &'static str, good: bool, found: impl Debug, expected: &'static str) -> Row {
    (key, good, format!("{found:?}"), expected)
}

const POOLS: &str = "strides of the backbone expected, for instance [16, 32]";
const ONE_IN: &str = "1 to 1000000 expected";
const RATE: &str = "above 0 and at most 1 expected";

fn rate(value: f64) -> bool {
    value > 0.0 && value <= 1.0
}

/// A share that may be nothing or all.
fn unit(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// With what lies in none as many segments as k-means finds at most.
const MOST_POLYGONS: usize = 15;
/// A smaller polygon may cover no pixel of the input.
const LEAST_AREA: f32 = 1e-4;

/// Of a polygon that does not cross itself.
fn area(polygon: &[[f32; 2]]) -> f32 {
    let sides = polygon.iter().zip(polygon.iter().cycle().skip(1));
    (sides.map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum::<f32>() / 2.0).abs()
}

/// The rows of an auto-encoder, whose widths, bottleneck and blocks have these keys.
fn auto_encoder(keys: [&'static str; 3], net: &NetConfig, strides: &[usize]) -> Vec<Row> {
    let [widths, bottleneck, blocks] = keys;
    vec![
        row(
            widths,
            net.widths.is_empty() || net.widths.len() == strides.len(),
            &net.widths,
            "one width a stride of features.strides expected, or none",
        ),
        row(widths, net.widths.iter().all(|w| (1..=4096).contains(w)), &net.widths, "widths from 1 to 4096 expected"),
        row(bottleneck, net.bottleneck <= 4096, net.bottleneck, "at most 4096 expected"),
        row(blocks, (1..=8).contains(&net.blocks), net.blocks, "1 to 8 expected"),
    ]
}

impl TrainConfig {
    pub(crate) fn check(&self, path: &Path) -> Result<(), ConfigError> {
        match self.rows().into_iter().find(|row| !row.1) {
            Some((key, _, found, expected)) => Err(ConfigError::Value { path: path.to_owned(), key, found, expected }),
            None => Ok(()),
        }
    }

    /// In the order of the file; what a method would read that is not there is not looked at.
    fn rows(&self) -> Vec<Row> {
        let mut rows = [self.input(), self.networks(), self.method(), self.training(), self.score()].concat();
        for kind in MethodKind::ALL {
            rows.retain(|(key, ..)| self.methods.contains(&kind) || !key.starts_with(kind.section()));
        }
        rows
    }

    fn input(&self) -> Vec<Row> {
        const SIDE: &str = "a multiple of 32 from 64 to 2048 expected";
        let side = |s: u32| (64..=2048).contains(&s) && s.is_multiple_of(32);
        let named = self.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let budget = |holds: fn(&BudgetConfig) -> bool| self.budget.is_none_or(|b| holds(&b));
        let strides = &self.features.strides;
        let offered: Vec<usize> = self.backbone.scales().iter().map(|s| s.stride).collect();
        let named_well = |(i, name): (usize, &String)| {
            (1..=64).contains(&name.chars().count())
                && !name.chars().any(char::is_control)
                && !self.views[..i].contains(name)
        };
        let views_named = self.views.iter().enumerate().all(named_well);
        let neighbours = !strides.is_empty() && offered.windows(strides.len()).any(|w| w == strides.as_slice());
        vec![
            row("name", named && (1..=64).contains(&self.name.len()), &self.name, "1 to 64 of a-z, 0-9 and - expected"),
            row("input.width", side(self.input.width), self.input.width, SIDE),
            row("input.height", side(self.input.height), self.input.height, SIDE),
            row("budget.ms", budget(|b| b.ms > 0.0 && b.ms <= 1e5), self.budget.map(|b| b.ms), "above 0 expected"),
            row(
                "budget.factor",
                budget(|b| b.factor > 0.0 && b.factor <= 1e4),
                self.budget.map(|b| b.factor),
                "above 0 expected",
            ),
            row(
                "views",
                self.views.len() >= 2 || !self.methods.contains(&MethodKind::Mvad),
                &self.views,
                "the names of 2 to 16 views expected, for the method mvad looks across them",
            ),
            row(
                "views",
                self.views.len() <= MAX_VIEWS && views_named,
                &self.views,
                "up to 16 different names of 1 to 64 characters expected",
            ),
            row(
                "features.strides",
                neighbours,
                strides,
                "neighbours among the backbone's strides expected, for instance [8, 16] or [4, 8, 16]",
            ),
        ]
    }

    fn networks(&self) -> Vec<Row> {
        let (strides, d) = (&self.features.strides, &self.ckaad.discriminator);
        let ckaad = ["ckaad.net.widths", "ckaad.net.bottleneck", "ckaad.net.blocks"];
        let sparsity = ["sparsity.net.widths", "sparsity.net.bottleneck", "sparsity.net.blocks"];
        let discriminators = vec![
            row(
                "ckaad.discriminator.stride",
                !d.joint || !d.kind.patch() || strides.contains(&d.stride),
                d.stride,
                "one of features.strides expected",
            ),
            row("ckaad.discriminator.width", d.width <= 4096, d.width, "at most 4096 expected"),
            row("ckaad.discriminator.kernel", d.kernel == 1 || d.kernel == 3, d.kernel, "1 or 3 expected"),
            row("ckaad.discriminator.places", d.places <= 65_536, d.places, "at most 65536 expected"),
            row("ckaad.discriminator.noise", (0.0..=100.0).contains(&d.noise), d.noise, "0 to 100 expected"),
            row(
                "ckaad.discriminator.noise_weight",
                (0.0..=100.0).contains(&d.noise_weight),
                d.noise_weight,
                "0 to 100 expected",
            ),
        ];
        let nets = [auto_encoder(ckaad, &self.ckaad.net, strides), auto_encoder(sparsity, &self.sparsity.net, strides)];
        [nets.concat(), discriminators].concat()
    }

    fn method(&self) -> Vec<Row> {
        let (strides, l) = (&self.features.strides, &self.ckaad.loss);
        let (a, j, b) = (&self.anomalies, &self.augment, &self.bank);
        let (h, p, m, i) = (&self.mahalanobis, &self.pooled, &self.mil, &self.invad);
        let (s, o, n, v) = (&self.sparsity, &self.tocoad, &self.devnet, &self.mvad);
        let scales = self.backbone.scales().into_iter().filter(|scale| strides.contains(&scale.stride));
        let channels: Vec<usize> = scales.map(|scale| scale.channels).collect();
        let halved = 2 * strides.last().map_or(1, |&stride| stride as u32);
        let offered: Vec<usize> = self.backbone.scales().iter().map(|s| s.stride).collect();
        let pools = |strides: &[usize]| !strides.is_empty() && strides.iter().all(|s| offered.contains(s));
        let once = self.methods.iter().all(|kind| self.methods.iter().filter(|k| *k == kind).count() == 1);
        let mut terms = self.methods.iter().flat_map(|kind| kind.map_terms());
        let maps = terms.clone().next().is_some();
        let weighed = terms.any(|term| self.score.weights.get(*term) != Some(&0.0));
        vec![
            row("methods", once, &self.methods, "each method once expected"),
            row(
                "methods",
                maps,
                &self.methods,
                "at least one that gives a map expected: ckaad, bank, mil, invad, sparsity, tocoad, devnet or mvad",
            ),
            row(
                "score.weights",
                !maps || weighed,
                &self.score.weights,
                "a weight above 0, or none, for a map of the methods expected",
            ),
            row("bank.vectors", (1..=65_536).contains(&b.vectors), b.vectors, "1 to 65536 expected"),
            row("bank.stride", strides.contains(&b.stride), b.stride, "one of features.strides expected"),
            row("mahalanobis.strides", pools(&h.strides), &h.strides, POOLS),
            row("mahalanobis.one_in", (1..=1_000_000).contains(&h.one_in), h.one_in, ONE_IN),
            row("mahalanobis.directions", h.directions <= 4096, h.directions, "at most 4096 expected"),
            row("pooled.strides", pools(&p.strides), &p.strides, POOLS),
            row("pooled.one_in", (1..=1_000_000).contains(&p.one_in), p.one_in, ONE_IN),
            row("pooled.directions", p.directions <= 4096, p.directions, "at most 4096 expected"),
            row("pooled.c", p.c > 0.0 && p.c <= 1e6, p.c, "above 0 and at most 1000000 expected"),
            row("mil.width", (1..=4096).contains(&m.width), m.width, "1 to 4096 expected"),
            row("mil.context", (1..=4096).contains(&m.context), m.context, "1 to 4096 expected"),
            row("mil.places", (1..=65_536).contains(&m.places), m.places, "1 to 65536 expected"),
            row("mil.learning_rate", rate(m.learning_rate), m.learning_rate, RATE),
            row("mil.painted", m.painted <= 100_000, m.painted, "at most 100000 expected"),
            row("mil.painted_batch", (1..=1024).contains(&m.painted_batch), m.painted_batch, "1 to 1024 expected"),
            row("invad.learning_rate", rate(i.learning_rate), i.learning_rate, RATE),
            row("invad.weight", i.weight > 0.0 && i.weight <= 1e3, i.weight, "above 0 and at most 1000 expected"),
            row("invad.clip", (0.0..=1e6).contains(&i.clip), i.clip, "0 (off) or a positive length expected"),
            row(
                "invad.net.style",
                i.net.style <= 4096 && i.net.style.is_multiple_of(4),
                i.net.style,
                "0 (by size) or a multiple of 4 up to 4096 expected",
            ),
            row("invad.net.latent", i.net.latent <= 4096, i.net.latent, "0 (by size) to 4096 expected"),
            row("invad.net.blocks", i.net.blocks <= 16, i.net.blocks, "0 (by size) to 16 expected"),
            row("sparsity.learning_rate", rate(s.learning_rate), s.learning_rate, RATE),
            row("sparsity.head_learning_rate", rate(s.head_learning_rate), s.head_learning_rate, RATE),
            row("sparsity.width", (1..=4096).contains(&s.width), s.width, "1 to 4096 expected"),
            row("sparsity.share", s.share > 0.0 && s.share <= 0.5, s.share, "above 0 and at most 0.5 expected"),
            row("sparsity.weight", s.weight > 0.0 && s.weight <= 1e3, s.weight, "above 0 and at most 1000 expected"),
            // What a generator made is no defect that these should look for.
            row(
                "anomalies.source",
                a.source.is_labelled()
                    || !self.methods.iter().any(|m| matches!(m, MethodKind::Sparsity | MethodKind::Devnet)),
                a.source,
                "auto or labelled expected, for the methods sparsity and devnet learn from labelled anomalies",
            ),
            row("tocoad.vectors", (1..=65_536).contains(&o.vectors), o.vectors, "1 to 65536 expected"),
            row("tocoad.stride", strides.contains(&o.stride), o.stride, "one of features.strides expected"),
            row("tocoad.width", (1..=4096).contains(&o.width), o.width, "1 to 4096 expected"),
            row("tocoad.learning_rate", rate(o.learning_rate), o.learning_rate, RATE),
            row("tocoad.adapter_learning_rate", rate(o.adapter_learning_rate), o.adapter_learning_rate, RATE),
            row("tocoad.painted", (1..=100_000).contains(&o.painted), o.painted, "1 to 100000 expected"),
            row("tocoad.painted_batch", (1..=1024).contains(&o.painted_batch), o.painted_batch, "1 to 1024 expected"),
            row(
                "devnet.from",
                strides.contains(&n.from) && n.from < DEEPEST,
                n.from,
                "one of features.strides below 32 expected",
            ),
            row("mvad.top", (1..=64).contains(&v.top), v.top, "1 to 64 expected"),
            row(
                "mvad.heads",
                v.heads > 0 && channels.iter().all(|c| c.is_multiple_of(v.heads)),
                v.heads,
                "a number that divides the channels of every one of features.strides expected",
            ),
            row(
                "mvad.size",
                v.size == Size::Slim
                    || [self.input.width, self.input.height].iter().all(|side| side.is_multiple_of(halved)),
                v.size,
                "slim expected, or an input whose sides are multiples of twice the deepest of features.strides",
            ),
            row("mvad.learning_rate", rate(v.learning_rate), v.learning_rate, RATE),
            row("mvad.weight", v.weight > 0.0 && v.weight <= 1e3, v.weight, "above 0 and at most 1000 expected"),
            row("mvad.dropout", (0.0..=0.9).contains(&v.dropout), v.dropout, "0 to 0.9 expected"),
            row("mvad.clip", (0.0..=1e6).contains(&v.clip), v.clip, "0 (off) or a positive length expected"),
            row("devnet.learning_rate", rate(n.learning_rate), n.learning_rate, RATE),
            row("devnet.one_in", (1..=1_000_000).contains(&n.one_in), n.one_in, ONE_IN),
            row("devnet.margin", n.margin > 0.0 && n.margin <= 1e3, n.margin, "above 0 and at most 1000 expected"),
            row(
                "augment",
                !j.is_on() || !self.methods.contains(&MethodKind::Tocoad),
                [j.rotate_deg, j.brightness, j.contrast],
                "all 0 expected, for the method tocoad compares an image with the same one in another light, place by place",
            ),
            row("ckaad.loss.gamma", rate(l.gamma), l.gamma, RATE),
            row("ckaad.loss.margin", l.margin > 0.0 && l.margin <= 1e3, l.margin, "above 0 and at most 1000 expected"),
            row("ckaad.loss.lambda", (0.0..=100.0).contains(&l.lambda), l.lambda, "0 to 100 expected"),
            row("ckaad.loss.clip", (0.0..=1e6).contains(&l.clip), l.clip, "0 (off) or a positive length expected"),
            row("anomalies.share", unit(a.share), a.share, "0 (all) to 1 expected"),
            row("anomalies.synthetic_share", rate(a.synthetic_share), a.synthetic_share, RATE),
            row("anomalies.alpha", (0.0..=10_000.0).contains(&a.alpha), a.alpha, "0 to 10000 expected"),
            row("augment.rotate_deg", (0.0..=180.0).contains(&j.rotate_deg), j.rotate_deg, "0 to 180 expected"),
            row("augment.brightness", (0.0..=1.0).contains(&j.brightness), j.brightness, "0 to 1 expected"),
            row("augment.contrast", (0.0..=1.0).contains(&j.contrast), j.contrast, "0 to 1 expected"),
        ]
    }

    fn training(&self) -> Vec<Row> {
        let (t, c) = (&self.train, &self.ckaad);
        let folds = self.validation.folds;
        vec![
            row("train.epochs", (1..=10_000).contains(&t.epochs), t.epochs, "1 to 10000 expected"),
            row("train.batch", (2..=1024).contains(&t.batch), t.batch, "2 to 1024 expected"),
            row(
                "train.anomalous_batch",
                (1..=1024).contains(&t.anomalous_batch),
                t.anomalous_batch,
                "1 to 1024 expected",
            ),
            row("train.least_steps", t.least_steps <= 1_000_000, t.least_steps, "at most 1000000 expected"),
            row("train.checkpoint_every", t.checkpoint_every > 0, t.checkpoint_every, "at least 1 expected"),
            row("ckaad.learning_rate", rate(c.learning_rate), c.learning_rate, RATE),
            row(
                "ckaad.discriminator_learning_rate",
                rate(c.discriminator_learning_rate),
                c.discriminator_learning_rate,
                RATE,
            ),
            row("validation.folds", (2..=20).contains(&folds), folds, "2 to 20 expected"),
        ]
    }

    fn score(&self) -> Vec<Row> {
        let (weights, polygons) = (&self.score.weights, &self.score.polygons);
        let q = &self.quantise;
        vec![
            row("score.sigma_px", (0.0..=64.0).contains(&self.score.sigma_px), self.score.sigma_px, "0 to 64 expected"),
            row("score.top_k", self.score.top_k > 0, self.score.top_k, "at least 1 expected"),
            row("score.weights", weights.values().all(|w| (0.0..=1e3).contains(w)), weights, "0 to 1000 each expected"),
            row(
                "score.segments",
                self.score.rule != Rule::Forest || self.score.segments != SegmentsKind::None,
                self.score.segments,
                "foreground, k-means or polygons expected with the rule forest",
            ),
            row(
                "score.polygons",
                self.score.segments != SegmentsKind::Polygons || (1..=MOST_POLYGONS).contains(&polygons.len()),
                polygons.len(),
                "1 to 15 polygons expected with the segments polygons",
            ),
            row(
                "score.segments",
                self.score.segments == SegmentsKind::Polygons || polygons.is_empty(),
                self.score.segments,
                "polygons expected, for there are score.polygons",
            ),
            row(
                "score.polygons",
                polygons.iter().all(|p| p.len() >= 3 && p.iter().flatten().all(|at| (0.0..=1.0).contains(at))),
                polygons,
                "at least three corners each expected, across and down from 0 to 1",
            ),
            row(
                "score.polygons",
                polygons.iter().all(|p| area(p) >= LEAST_AREA),
                polygons,
                "polygons of at least a ten-thousandth of the image each expected",
            ),
            row("score.clusters", (2..=16).contains(&self.score.clusters), self.score.clusters, "2 to 16 expected"),
            row("quantise.images", (1..=100_000).contains(&q.images), q.images, "1 to 100000 expected"),
            row("quantise.auroc_loss", unit(q.auroc_loss), q.auroc_loss, "0 to 1 expected"),
            row("quantise.aupro_loss", unit(q.aupro_loss), q.aupro_loss, "0 to 1 expected"),
            row(
                "quantise.max_float_layers",
                q.max_float_layers <= 10_000,
                q.max_float_layers,
                "at most 10000 expected",
            ),
            row(
                "false_alarm_budget",
                self.false_alarm_budget > 0.0 && self.false_alarm_budget < 0.2,
                self.false_alarm_budget,
                "above 0 and below 0.2 expected",
            ),
        ]
    }
}
