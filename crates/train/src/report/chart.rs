//! Line and bar charts as inline SVG; colours come from the page's style, so that they follow light and dark.

use super::escape;
use std::fmt::Write;

const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 46.0;

/// What a mark stands for; the names are classes of `style.css`.
#[derive(Clone, Copy)]
pub enum Ink {
    Normal,
    Anomalous,
}

impl Ink {
    fn class(self) -> &'static str {
        match self {
            Ink::Normal => "normal",
            Ink::Anomalous => "anomalous",
        }
    }
}

/// One axis: its label with the unit, and the values at its two ends.
pub struct Axis<'a> {
    pub label: &'a str,
    pub low: f64,
    pub high: f64,
}

impl Axis<'_> {
    /// 0 at the low end, 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        let t = (value - self.low) / (self.high - self.low);
        if t.is_finite() { t.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Round values inside the axis, about `wanted` of them, and the decimals that tell them apart.
    fn ticks(&self, wanted: f64) -> (Vec<f64>, usize) {
        let rough = (self.high - self.low) / wanted;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(rough);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        ((first..=last).map(|i| i as f64 * step).collect(), decimals)
    }
}

/// A chart that is being drawn. Values outside the axes are drawn at the edge.
pub struct Chart<'a> {
    x: Axis<'a>,
    y: Axis<'a>,
    size: (f64, f64),
    marks: String,
}

impl<'a> Chart<'a> {
    /// `size` is the whole chart's, in CSS pixels.
    pub fn new(x: Axis<'a>, y: Axis<'a>, size: (f64, f64)) -> Chart<'a> {
        Chart { x: widened(x), y: widened(y), size, marks: String::new() }
    }

    fn at_x(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (self.size.0 - LEFT - RIGHT)
    }

    fn at_y(&self, y: f64) -> f64 {
        self.size.1 - BOTTOM - self.y.place(y) * (self.size.1 - TOP - BOTTOM)
    }

    pub fn line(&mut self, points: &[(f64, f64)], ink: Ink) {
        let points: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.at_x(*x), self.at_y(*y))).collect();
        // `fill` of the ink is for dots and bars only.
        let _ = write!(
            self.marks,
            "<polyline class=\"line {}\" style=\"fill:none\" points=\"{}\"/>",
            ink.class(),
            points.join(" ")
        );
    }

    pub fn bar(&mut self, from: f64, to: f64, y: f64, ink: Ink) {
        let (left, top) = (self.at_x(from), self.at_y(y));
        let (width, height) = ((self.at_x(to) - left - 1.0).max(0.5), self.size.1 - BOTTOM - top);
        let _ = write!(
            self.marks,
            "<rect class=\"bar {}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
            ink.class()
        );
    }

    pub fn dot(&mut self, x: f64, y: f64, ink: Ink) {
        let _ = write!(
            self.marks,
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
            ink.class(),
            self.at_x(x),
            self.at_y(y)
        );
    }

    /// A dashed line between two points.
    pub fn guide(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.marks,
            "<line class=\"guide\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            self.at_x(from.0),
            self.at_y(from.1),
            self.at_x(to.0),
            self.at_y(to.1)
        );
    }

    /// A dashed line over the whole height with a word beside it.
    pub fn upright(&mut self, x: f64, text: &str) {
        self.guide((x, self.y.low), (x, self.y.high));
        let at = self.at_x(x);
        let (at, anchor) = if at > self.size.0 * 0.75 { (at - 5.0, "end") } else { (at + 5.0, "start") };
        let _ = write!(
            self.marks,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            TOP + 13.0,
            escape(text)
        );
    }

    /// The finished figure; `caption` is HTML.
    pub fn figure(self, caption: &str) -> String {
        let (width, height) = self.size;
        format!(
            "<figure class=\"chart\"><svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{y} against {x}\">{frame}{marks}</svg><figcaption>{caption}</figcaption></figure>",
            x = escape(self.x.label),
            y = escape(self.y.label),
            frame = self.frame(),
            marks = self.marks
        )
    }

    fn frame(&self) -> String {
        let (width, height) = self.size;
        let (right, bottom) = (width - RIGHT, height - BOTTOM);
        let mut out = String::new();
        let (ticks, decimals) = self.x.ticks((width / 90.0).max(2.0));
        for tick in ticks {
            let at = self.at_x(tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick:.decimals$}</text>",
                bottom + 16.0
            );
        }
        let (ticks, decimals) = self.y.ticks((height / 55.0).max(2.0));
        for tick in ticks {
            let at = self.at_y(tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick:.decimals$}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let _ = write!(
            out,
            "<rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(13 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            right - LEFT,
            bottom - TOP,
            (LEFT + right) / 2.0,
            height - 10.0,
            escape(self.x.label),
            (TOP + bottom) / 2.0,
            escape(self.y.label)
        );
        out
    }
}

/// An axis of no length would divide by zero.
fn widened(axis: Axis) -> Axis {
    let usable = axis.low.is_finite() && axis.high.is_finite();
    let (low, high) = if usable { (axis.low, axis.high) } else { (0.0, 1.0) };
    let least = 1e-6 * low.abs().max(1e-6);
    if high - low >= least { Axis { low, high, ..axis } } else { Axis { low: low - 0.5, high: low + 0.5, ..axis } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low, high| Axis { label: "", low, high }.ticks(5.0);
        assert_eq!(ticks(0.0, 1.0), (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1));
        assert_eq!(ticks(3.0, 47.0), (vec![10.0, 20.0, 30.0, 40.0], 0));
        let (values, decimals) = ticks(-0.031, 0.012);
        assert_eq!((values.len(), decimals), (5, 2));
    }

    #[test]
    fn a_chart_of_one_value_or_of_none_is_still_drawn() {
        for (low, high) in [(2.0, 2.0), (f64::NAN, 1.0), (1e30, 1e30)] {
            let axis = || Axis { label: "n", low, high };
            let mut chart = Chart::new(axis(), axis(), (300.0, 200.0));
            chart.line(&[(low, low), (high, high)], Ink::Normal);
            chart.upright(low, "here");
            let figure = chart.figure("");
            assert!(figure.len() < 10_000 && !figure.contains("inf") && !figure.contains("NaN"), "{figure}");
        }
    }
}
