//! Pictures as SVG: a frame with two axes, and lines, bars, bands and cells in it.
//!
//! Colours are classes, so that one style sheet makes them light, dark or for print. A picture draws only what it is given:
//! numbers, and labels that are escaped.

use crate::text::one_line;
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 844.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 186.0;

/// A text that stands in HTML as it is, in an attribute too.
pub(super) fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".into(),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '"' => "&quot;".into(),
        '\'' => "&#39;".into(),
        c => c.to_string(),
    };
    one_line(text).chars().map(escape).collect()
}

/// An axis: which values it shows, and whether equal ratios are equally far apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// From zero to a round number that is not below `high`.
    pub fn linear(high: f64) -> Self {
        let high = high.max(1.0);
        let step = step(high);
        Self { low: 0.0, high: (high / step).ceil() * step, logarithmic: false }
    }

    /// Exactly from `low` to `high`.
    pub fn between(low: f64, high: f64) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, logarithmic: false }
    }

    /// Whole powers of ten around the values. Zero is shown as the least of them.
    pub fn powers(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .map(|value| value.max(1.0))
            .fold((f64::MAX, 1.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let low = 10_f64.powf(low.min(high).log10().floor());
        let high = 10_f64.powf(high.log10().ceil());
        Self { low, high: high.max(10.0 * low), logarithmic: true }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// The values that have a label.
    pub fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (self.high / self.low).log10().round() as i32;
            (0..=powers).map(|power| self.low * 10_f64.powi(power)).collect()
        } else {
            let step = step(self.high - self.low);
            let first = (self.low / step).ceil() as i64;
            let last = (self.high / step).floor() as i64;
            (first..=last).map(|n| n as f64 * step).collect()
        }
    }
}

/// A round step of which five or fewer make up `length`: 1, 2 or 5 times a power of ten.
fn step(length: f64) -> f64 {
    let power = 10_f64.powf((length / 5.0).log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| round * power * 5.0 >= length * 0.999_999);
    round.unwrap_or(10.0) * power
}

/// A picture under construction.
pub(super) struct Picture {
    svg: String,
    x: Scale,
    y: Scale,
}

impl Picture {
    /// An empty frame. `label` tells a reader who cannot see it what it shows.
    pub fn new(label: &str, x: Scale, y: Scale) -> Self {
        let svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{label}\">\n");
        Self { svg, x, y }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (LEFT + self.x.share(x) * (RIGHT - LEFT), BOTTOM - self.y.share(y) * (BOTTOM - TOP))
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.svg, "{element}");
    }

    /// A line across at each tick of the upward axis, with its label.
    pub fn across(mut self, label: impl Fn(f64) -> String) -> Self {
        for tick in self.y.ticks() {
            let (_, y) = self.at(self.x.low, tick);
            self.put(format_args!("<path class=grid d=\"M{LEFT} {y:.1}H{RIGHT}\"/>"));
            self.put(format_args!("<text x={} y={:.1} class=end>{}</text>", LEFT - 8.0, y + 4.0, label(tick)));
        }
        self
    }

    /// A label below each of these places.
    pub fn below(mut self, ticks: &[f64], label: impl Fn(f64) -> String) -> Self {
        for &tick in ticks {
            let (x, _) = self.at(tick, self.y.low);
            self.put(format_args!("<text x={x:.1} y={} class=middle>{}</text>", BOTTOM + 18.0, label(tick)));
        }
        self
    }

    /// A band from top to bottom, with a text that is shown when it is pointed at.
    pub fn band(mut self, from: f64, to: f64, title: &str) -> Self {
        let ((left, _), (right, _)) = (self.at(from, self.y.low), self.at(to, self.y.low));
        let (width, height) = ((right - left).max(1.0), BOTTOM - TOP);
        self.put(format_args!(
            "<rect class=out x={left:.1} y={TOP} width={width:.1} height={height}><title>{title}</title></rect>"
        ));
        self
    }

    /// A line through points. Where there is `None` it is interrupted.
    pub fn line(mut self, class: &str, points: impl Iterator<Item = (f64, Option<f64>)>) -> Self {
        let mut path = String::new();
        let mut command = 'M';
        for (x, y) in points {
            let Some(y) = y else {
                command = 'M';
                continue;
            };
            let (x, y) = self.at(x, y);
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            command = 'L';
        }
        self.put(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
        self
    }

    /// A filled rectangle, as dense as `share` of the full colour.
    pub fn cell(mut self, x: (f64, f64), y: (f64, f64), share: f64) -> Self {
        let ((left, bottom), (right, top)) = (self.at(x.0, y.0), self.at(x.1, y.1));
        let (width, height) = ((right - left - 0.5).max(0.5), (bottom - top).max(0.5));
        let opacity = if share < 1.0 { format!(" fill-opacity={share:.2}") } else { String::new() };
        self.put(format_args!(
            "<rect class=cell x={left:.1} y={top:.1} width={width:.1} height={height:.1}{opacity} />"
        ));
        self
    }

    pub fn finish(self) -> String {
        self.svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_linear_scale_ends_at_a_round_number() {
        for (high, expected, ticks) in
            [(979.6, 1_000.0, 6), (1_000.0, 1_000.0, 6), (0.0, 1.0, 6), (14_200.0, 15_000.0, 4), (3.0, 3.0, 4)]
        {
            let scale = Scale::linear(high);
            assert_eq!((scale.high, scale.ticks().len()), (expected, ticks), "{high}");
        }
    }

    #[test]
    fn a_scale_of_powers_has_a_tick_for_each() {
        assert_eq!(Scale::powers([40.0, 900_000.0].into_iter()).ticks(), [1e1, 1e2, 1e3, 1e4, 1e5, 1e6]);
        assert_eq!(Scale::powers([100.0].into_iter()).ticks(), [100.0, 1_000.0]);
        assert_eq!(Scale::powers([].into_iter()).ticks(), [1.0, 10.0]);
    }

    proptest! {
        #[test]
        fn every_value_lies_within_the_frame(
            values in prop::collection::vec(0.0..1e12_f64, 1..20), other in prop::num::f64::NORMAL,
        ) {
            for scale in [Scale::powers(values.iter().copied()), Scale::linear(values[0]), Scale::between(0.0, values[0])] {
                let inside = |value| (0.0..=1.0).contains(&scale.share(value));
                prop_assert!(values.iter().copied().all(inside) && inside(other), "{scale:?}");
                prop_assert!((1..=20).contains(&scale.ticks().len()), "{scale:?}");
            }
        }
    }
}
