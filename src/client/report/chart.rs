//! The report with bars, for a terminal or a log: how the times are spread, and how they went.
//!
//! Plain text without colours. A bar is as long as its share of the longest.

use super::{document::ClientReport, table::readable, times::Hdr};
use std::{collections::BTreeMap, fmt::Write as _};

const WIDTH: f64 = 40.0;
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// So many characters a spark line has at most.
const SPARKS: usize = 60;

impl ClientReport {
    /// The table, and below it bars of the times and a line of each interval's p99 and echoes.
    pub fn to_chart(&self) -> String {
        let mut chart = self.to_string();
        let (name, hdr) = if self.response.count > 0 {
            ("response", &self.hdr.response)
        } else {
            ("round trip", &self.hdr.round_trip)
        };
        if hdr.count() > 0 {
            let _ = write!(chart, "\n{name}\n{}", bars(hdr));
        }
        let rows = &self.timeline.rows;
        if rows.len() > 1 {
            let interval = self.timeline.interval_s;
            let p99 = sparks(rows.iter().map(|row| row.p99_us.unwrap_or_default()).collect());
            let verified = sparks(rows.iter().map(|row| row.verified).collect());
            let _ = write!(chart, "\neach {interval} s\n  p99       {p99}\n  verified  {verified}\n");
        }
        chart
    }
}

/// A bar each time that the time doubles.
fn bars(hdr: &Hdr) -> String {
    let mut counts = BTreeMap::<u32, u64>::new();
    for (nanos, n) in hdr.buckets() {
        // The bar's place: the power of two of microseconds above which the time lies.
        *counts.entry((nanos / 1_000).max(1).ilog2()).or_default() += n;
    }
    let most = counts.values().max().copied().unwrap_or(1) as f64;
    let (first, last) = (counts.keys().next().copied().unwrap_or(0), counts.keys().last().copied().unwrap_or(0));
    let bar = |power: u32| {
        let n = counts.get(&power).copied().unwrap_or_default();
        let length = (n as f64 / most * WIDTH).ceil() as usize;
        let label = format!("< {}", readable(1 << (power + 1)));
        format!("  {label:>11}  {} {n}\n", "█".repeat(length))
    };
    (first..=last).map(bar).collect()
}

/// The numbers as heights, of which neighbours are put together where there are too many: their largest counts.
fn sparks(numbers: Vec<u64>) -> String {
    let group = numbers.len().div_ceil(SPARKS).max(1);
    let most = numbers.iter().max().copied().unwrap_or_default().max(1);
    let height = |group: &[u64]| {
        let largest = group.iter().max().copied().unwrap_or_default();
        HEIGHTS[((largest as f64 / most as f64 * 8.0).ceil() as usize).clamp(1, 8) - 1]
    };
    numbers.chunks(group).map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    #[test]
    fn below_the_table_bars_show_the_spread_and_lines_the_course() {
        let chart = sample().to_chart();
        let (table, bars) = chart.split_once("\nresponse\n").unwrap();
        assert_eq!(format!("{table}\n").trim_end(), sample().to_string().trim_end());
        assert!(bars.contains("\n    < 8.19 ms  ████████████████████████████████████████ "), "{bars}");
        let course = "\neach 1 s\n  p99       ██████████\n  verified  ██████████\n";
        assert!(bars.ends_with(course), "{bars}");
    }

    #[test]
    fn a_report_without_times_is_its_table() {
        assert_eq!(ClientReport::default().to_chart(), ClientReport::default().to_string());
    }

    #[test]
    fn a_spark_is_as_high_as_its_share_and_the_line_is_short() {
        assert_eq!(sparks(vec![0, 1, 50, 100]), "▁▁▄█");
        assert_eq!(sparks(vec![]), "");
        let mut many = vec![0; 600];
        many[599] = 7;
        let line = sparks(many);
        assert_eq!((line.chars().count(), line.chars().last()), (60, Some('█')));
    }
}
