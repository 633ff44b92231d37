//! Two runs side by side.
//!
//! A figure that differs may differ by chance. So beside each ratio stands whether the ranges of the two overlap. The range of a
//! percentile is that over the clients of a merge, or else over the middle half of the timeline's rows. The rate is a sum over
//! the clients, as each row is, so its range is always that over the rows. A maximum, a number of losses and a run of several
//! rates have none.

use super::{
    document::ClientReport,
    parts::{Compared, Part, Row},
    table::readable,
};

/// The range in which a figure lay, from its parts.
type Range = Option<(f64, f64)>;

struct Figure {
    name: &'static str,
    whole: fn(&ClientReport) -> Option<f64>,
    of_part: fn(&Part) -> Option<f64>,
    of_row: fn(&Row, f64) -> Option<f64>,
}

fn micros(value: Option<u64>) -> Option<f64> {
    value.map(|micros| micros as f64)
}

const FIGURES: [Figure; 5] = [
    Figure {
        name: "rate",
        whole: ClientReport::rate,
        of_part: |_| None,
        of_row: |row, interval_s| Some(row.verified as f64 / interval_s),
    },
    Figure {
        name: "p50_us",
        whole: |report| micros(report.echo_times().p50_us),
        of_part: |part| micros(part.echo_times().p50_us),
        of_row: |row, _| micros(row.p50_us),
    },
    Figure {
        name: "p99_us",
        whole: |report| micros(report.echo_times().p99_us),
        of_part: |part| micros(part.echo_times().p99_us),
        of_row: |row, _| micros(row.p99_us),
    },
    // A single echo makes the maximum, so no range says how far chance moves it.
    Figure {
        name: "max_us",
        whole: |report| micros(report.echo_times().max_us),
        of_part: |_| None,
        of_row: |_, _| None,
    },
    // Most clients and most rows lose nothing, so no range over them says how many may be lost by chance.
    Figure { name: "lost", whole: |report| Some(report.lost as f64), of_part: |_| None, of_row: |_, _| None },
];

impl Figure {
    fn range(&self, report: &ClientReport) -> Range {
        let of_clients: Vec<f64> = report.clients.iter().filter_map(self.of_part).collect();
        let mut values = if of_clients.len() > 1 {
            of_clients
        } else if report.steps.len() > 1 {
            // Rows of different rates differ by more than chance.
            Vec::new()
        } else {
            self.middle_of_rows(report)
        };
        values.sort_by(f64::total_cmp);
        // One value is no range.
        (values.len() > 1).then(|| (values[0], values[values.len() - 1]))
    }

    /// The middle half of what the rows of the timeline have.
    fn middle_of_rows(&self, report: &ClientReport) -> Vec<f64> {
        let interval_s = report.timeline.interval_s.max(1) as f64;
        // The first and the last interval are rarely whole.
        let rows = report.timeline.rows.get(1..report.timeline.rows.len().saturating_sub(1)).unwrap_or_default();
        let mut values: Vec<f64> = rows.iter().filter_map(|row| (self.of_row)(row, interval_s)).collect();
        values.sort_by(f64::total_cmp);
        let quarter = values.len() / 4;
        values.drain(..quarter);
        values.truncate(values.len() - quarter.min(values.len()));
        values
    }
}

impl ClientReport {
    /// The figures of this report beside those of an earlier one.
    pub(super) fn beside(&self, baseline: &Self) -> Vec<Compared> {
        let compare = |figure: Figure| {
            let (before, now) = ((figure.whole)(baseline), (figure.whole)(self));
            let ratio = before.zip(now).filter(|(before, _)| *before > 0.0).map(|(before, now)| now / before);
            let overlap = figure.range(baseline).zip(figure.range(self)).is_some_and(|(a, b)| a.0 <= b.1 && b.0 <= a.1);
            Compared { figure: figure.name.into(), before, now, ratio, same: before == now || overlap }
        };
        FIGURES.map(compare).into()
    }
}

impl Compared {
    /// For people: its name, what it was, what it is, the ratio, and `same` if it is the same.
    pub(super) fn told(&self) -> [String; 5] {
        let name = self.figure.trim_end_matches("_us");
        let shown = |value: Option<f64>| match (name, value) {
            (_, None) => "-".into(),
            ("rate", Some(rate)) => format!("{rate:.1}/s"),
            ("lost", Some(count)) => count.to_string(),
            (_, Some(micros)) => readable(micros as u64),
        };
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}x")).unwrap_or_default();
        let same = if self.same { "same" } else { "" };
        [name.into(), shown(self.before), shown(self.now), ratio, same.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{merge::merge, parts::Step, testing::sample};
    use super::*;

    /// The lines for people.
    fn beside(now: &ClientReport, baseline: &ClientReport) -> String {
        let table = now.clone().judged(&Default::default(), Some(baseline)).to_string();
        table.split_once("\n\n").expect("an empty line comes before them").1.into()
    }

    /// The merge of so many clients, which are alike.
    fn clients(count: usize) -> ClientReport {
        let client = |n: usize| ClientReport { run: n.to_string(), ..sample() };
        merge((0..count).map(client), 0)
    }

    #[test]
    fn a_run_beside_itself_is_the_same_in_every_figure() {
        let expected = "                baseline          now
rate             979.6/s      979.6/s  1.00x  same
p50              5.00 ms      5.00 ms  1.00x  same
p99              9.90 ms      9.90 ms  1.00x  same
max             10.00 ms     10.00 ms  1.00x  same
lost                 204          204  1.00x  same
";
        assert_eq!(beside(&sample(), &sample()), expected);
    }

    #[test]
    fn figures_whose_ranges_lie_apart_are_not_the_same() {
        let mut slow = sample();
        slow.response.p99_us = Some(19_800);
        slow.response.p50_us = Some(5_005);
        slow.timeline.rows.iter_mut().for_each(|row| row.p99_us = row.p99_us.map(|micros| 2 * micros));
        slow.lost = 0;
        let beside = beside(&slow, &sample());
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
        let told = beside(&other, &sample());
        assert!(told.contains("10.00 ms     20.00 ms  2.00x\n"), "{told}");
        assert!(told.contains("5.00 ms      6.00 ms  1.20x  same\n"), "{told}");
        other.steps = vec![Step::default(), Step::default()];
        for told in [beside(&other, &sample()), beside(&sample(), &other)] {
            assert!(!told.contains("1.20x  same") && !told.contains("0.83x  same"), "{told}");
        }
    }

    #[test]
    fn a_figure_that_one_of_them_lacks_has_no_ratio() {
        let beside = beside(&sample(), &ClientReport::default());
        assert!(beside.contains("\np50                    -      5.00 ms\n"), "{beside}");
    }

    #[test]
    fn the_sums_of_more_clients_are_not_the_same_though_each_client_is() {
        for (now, baseline, ratio) in [(10, 5, "2.00x"), (5, 10, "0.50x"), (2, 1, "2.00x"), (3, 1, "3.00x")] {
            let told = beside(&clients(now), &clients(baseline));
            for figure in ["rate", "lost"] {
                let line = told.lines().find(|line| line.starts_with(figure)).unwrap();
                assert!(line.ends_with(ratio), "{told}");
            }
            assert!(told.contains("5.00 ms      5.00 ms  1.00x  same\n"), "{told}");
        }
    }

    #[test]
    fn the_rate_of_a_merge_is_the_same_as_that_of_a_single_run_if_the_sums_overlap() {
        let mut merged = clients(2);
        let less = |count: u64| count * 21 / 40;
        merged.timeline.rows.iter_mut().for_each(|row| row.verified = less(row.verified));
        merged.verified = less(merged.verified);
        for (now, baseline, ratio) in [(merged.clone(), sample(), "1.05x"), (sample(), merged, "0.95x")] {
            let told = beside(&now, &baseline);
            assert!(told.lines().any(|line| line.ends_with(&format!("/s  {ratio}  same"))), "{told}");
        }
    }

    #[test]
    fn losses_that_one_client_alone_has_are_not_the_same_as_none() {
        let mut before = clients(2);
        before.lost = 0;
        before.clients.iter_mut().for_each(|part| part.lost = 0);
        let mut now = before.clone();
        (now.lost, now.clients[0].lost) = (1_000, 1_000);
        let told = beside(&now, &before);
        assert!(told.ends_with("\nlost                   0         1000\n"), "{told}");
    }
}
