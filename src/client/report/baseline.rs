//! Two runs side by side.
//!
//! A figure that differs may differ by chance. So beside each ratio stands whether the ranges of the two overlap: the range
//! over the clients of a merge, or else over the middle half of the timeline's rows. A maximum and a run of several rates have none.

use super::{
    document::ClientReport,
    parts::{Part, Row},
    table::readable,
};
use std::fmt::Write as _;

/// The range in which a figure lay, from its parts.
type Range = Option<(f64, f64)>;

struct Figure {
    name: &'static str,
    whole: fn(&ClientReport) -> Option<f64>,
    of_part: fn(&Part) -> Option<f64>,
    of_row: fn(&Row, f64) -> Option<f64>,
    shown: fn(f64) -> String,
}

fn micros(value: Option<u64>) -> Option<f64> {
    value.map(|micros| micros as f64)
}

fn time(micros: f64) -> String {
    readable(micros as u64)
}

const FIGURES: [Figure; 5] = [
    Figure {
        name: "rate",
        whole: ClientReport::rate,
        of_part: |part| Some(part.rate),
        of_row: |row, interval_s| Some(row.verified as f64 / interval_s),
        shown: |rate| format!("{rate:.1}/s"),
    },
    Figure {
        name: "p50",
        whole: |report| micros(report.echo_times().p50_us),
        of_part: |part| micros(part.echo_times().p50_us),
        of_row: |row, _| micros(row.p50_us),
        shown: time,
    },
    Figure {
        name: "p99",
        whole: |report| micros(report.echo_times().p99_us),
        of_part: |part| micros(part.echo_times().p99_us),
        of_row: |row, _| micros(row.p99_us),
        shown: time,
    },
    Figure {
        name: "max",
        whole: |report| micros(report.echo_times().max_us),
        // A single echo makes it, so no range says how far chance moves it.
        of_part: |_| None,
        of_row: |_, _| None,
        shown: time,
    },
    Figure {
        name: "lost",
        whole: |report| Some(report.lost as f64),
        of_part: |part| Some(part.lost as f64),
        of_row: |_, _| None,
        shown: |count| count.to_string(),
    },
];

impl Figure {
    fn range(&self, report: &ClientReport) -> Range {
        let mut values: Vec<f64> = if report.clients.len() > 1 {
            report.clients.iter().filter_map(self.of_part).collect()
        } else if report.steps.len() > 1 {
            // Rows of different rates differ by more than chance.
            Vec::new()
        } else {
            let interval_s = report.timeline.interval_s.max(1) as f64;
            // The first and the last interval are rarely whole.
            let rows = report.timeline.rows.get(1..report.timeline.rows.len().saturating_sub(1)).unwrap_or_default();
            let mut values: Vec<f64> = rows.iter().filter_map(|row| (self.of_row)(row, interval_s)).collect();
            values.sort_by(f64::total_cmp);
            let quarter = values.len() / 4;
            values.drain(..quarter);
            values.truncate(values.len() - quarter.min(values.len()));
            values
        };
        values.sort_by(f64::total_cmp);
        // One value is no range.
        (values.len() > 1).then(|| (values[0], values[values.len() - 1]))
    }
}

impl ClientReport {
    /// This report beside an earlier one, as lines for people: each figure of both, their ratio, and `same` where the ranges
    /// of the two overlap.
    pub fn beside(&self, baseline: &Self) -> String {
        let mut lines = format!("{:11} {:>12} {:>12}\n", "", "baseline", "now");
        for figure in FIGURES {
            let (then, now) = ((figure.whole)(baseline), (figure.whole)(self));
            let shown = |value: Option<f64>| value.map_or_else(|| "-".into(), figure.shown);
            let ratio =
                then.zip(now).filter(|(then, _)| *then > 0.0).map(|(then, now)| format!("  {:.2}x", now / then));
            let overlap = figure.range(baseline).zip(figure.range(self)).is_some_and(|(a, b)| a.0 <= b.1 && b.0 <= a.1);
            let same = if then == now || overlap { "  same" } else { "" };
            let ratio = ratio.unwrap_or_default();
            let _ = writeln!(lines, "{:11} {:>12} {:>12}{ratio}{same}", figure.name, shown(then), shown(now));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parts::Step, testing::sample};
    use super::*;

    #[test]
    fn a_run_beside_itself_is_the_same_in_every_figure() {
        let expected = "                baseline          now
rate             979.6/s      979.6/s  1.00x  same
p50              5.00 ms      5.00 ms  1.00x  same
p99              9.90 ms      9.90 ms  1.00x  same
max             10.00 ms     10.00 ms  1.00x  same
lost                 204          204  1.00x  same
";
        assert_eq!(sample().beside(&sample()), expected);
    }

    #[test]
    fn figures_whose_ranges_lie_apart_are_not_the_same() {
        let mut slow = sample();
        slow.response.p99_us = Some(19_800);
        slow.response.p50_us = Some(5_005);
        slow.timeline.rows.iter_mut().for_each(|row| row.p99_us = row.p99_us.map(|micros| 2 * micros));
        slow.lost = 0;
        let beside = slow.beside(&sample());
        assert!(beside.contains("9.90 ms     19.80 ms  2.00x\n"), "{beside}");
        assert!(
            beside.contains("5.00 ms      5.00 ms  1.00x  same\n") || beside.contains("5.01 ms  1.00x  same\n"),
            "{beside}"
        );
        assert!(beside.ends_with("204            0  0.00x\n"), "{beside}");
    }

    #[test]
    fn a_maximum_and_the_rows_of_different_rates_have_no_range_in_which_they_are_the_same() {
        let mut other = sample();
        (other.response.max_us, other.response.p50_us) = (Some(20_000), Some(6_000));
        let beside = other.beside(&sample());
        assert!(beside.contains("10.00 ms     20.00 ms  2.00x\n"), "{beside}");
        assert!(beside.contains("5.00 ms      6.00 ms  1.20x  same\n"), "{beside}");
        other.steps = vec![Step::default(), Step::default()];
        for beside in [other.beside(&sample()), sample().beside(&other)] {
            assert!(!beside.contains("1.20x  same") && !beside.contains("0.83x  same"), "{beside}");
        }
    }

    #[test]
    fn a_figure_that_one_of_them_lacks_has_no_ratio() {
        let beside = sample().beside(&ClientReport::default());
        assert!(beside.contains("\np50                    -      5.00 ms\n"), "{beside}");
    }
}
