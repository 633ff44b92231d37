//! The report as a table for people.
//!
//! The first lines are always there and keep their shape. The others come only where they say something.

use super::{
    document::ClientReport,
    parts::{Compared, Judged, Part, ServerShare, Window},
    times::Times,
};
use crate::text::one_line;
use std::fmt;

/// So many outages, the longest, have a line of their own.
const SHOWN: usize = 5;

impl fmt::Display for ClientReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client      {}", one_line(&self.client))?;
        let echoes = [("sent", self.sent), ("verified", self.verified), ("wrong", self.wrong), ("lost", self.lost)];
        let rare = [("given up", self.given_up), ("unreachable", self.unreachable), ("crashed", self.crashed)];
        for (name, count) in echoes.into_iter().chain(rare.into_iter().filter(|&(_, count)| count > 0)) {
            writeln!(f, "{name:11} {count}")?;
        }
        match self.round_trip {
            Times { min_us: Some(min), p50_us: Some(median), p99_us: Some(p99), max_us: Some(max), .. } => {
                let [min, median, p99, max] = [min, median, p99, max].map(readable);
                writeln!(f, "round trip  min {min}, median {median}, p99 {p99}, max {max}")?;
            }
            _ => writeln!(f, "round trip  -")?,
        }
        if let Some(reason) = self.stopped {
            writeln!(f, "stopped     {reason}{}", if self.forced { ", at once" } else { "" })?;
        }
        let more =
            [self.pace(), self.trouble(), self.spread(), self.of_clients(), self.balance(), self.doubts()].concat();
        more.iter().try_for_each(|(name, text)| writeln!(f, "{name:11} {}", one_line(text)))?;
        if !self.baseline.is_empty() {
            writeln!(f, "\n{:11} {:>12} {:>12}", "", "baseline", "now")?;
        }
        self.baseline.iter().map(Compared::told).try_for_each(|[name, before, now, ratio, same]| {
            let line = format!("{name:11} {before:>12} {now:>12}  {ratio:5}  {same}");
            writeln!(f, "{}", line.trim_end())
        })
    }
}

/// A line of the table: its name and its text.
type Line = (&'static str, String);

impl ClientReport {
    /// How the run kept its rate.
    fn pace(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.response.count > 0 {
            lines.push(("response", figures(&self.response)));
            lines.extend((self.late.count > 0).then(|| ("late", figures(&self.late))));
            lines.extend(self.rate().map(|rate| ("rate", format!("{rate:.1}/s"))));
        }
        if self.steps.len() > 1 {
            let step = |step: &super::parts::Step| {
                (
                    "step",
                    format!("{}/s: {} of {} verified, {}", step.rate, step.verified, step.due, figures(&step.response)),
                )
            };
            lines.extend(self.steps.iter().map(step));
        }
        lines
    }

    /// What went wrong, and when.
    fn trouble(&self) -> Vec<Line> {
        let by = self.lost_by;
        let reasons = [
            ("timeout", by.timeout),
            ("closed", by.closed),
            ("reset", by.reset),
            ("unsent", by.unsent),
            ("abandoned", by.abandoned),
        ];
        let mut lines: Vec<Line> = listed(&reasons).map(|reasons| ("lost by", reasons)).into_iter().collect();
        lines.extend((self.resent > 0).then(|| ("resent", self.resent.to_string())));
        lines.extend(self.told_connections().map(|told| ("connections", told)));
        lines.extend(self.longest_outages().into_iter().map(|window| ("outage", outage(window))));
        let (count, total) = (self.outages.count, self.outages.total_ms);
        if count > SHOWN as u64 {
            lines.push(("outages", format!("{count}, {} in all", readable(total * 1_000))));
        }
        lines
    }

    /// What became of the connections, if more than that they were made.
    pub(super) fn told_connections(&self) -> Option<String> {
        let of = &self.connections;
        let ends = [
            ("refused", of.refused),
            ("unanswered", of.unanswered),
            ("closed by the server", of.closed_by_server),
            ("reset", of.reset),
            ("reconnects", of.reconnects),
            ("renewed", of.renewed),
        ];
        listed(&ends).map(|ends| format!("made {}, {ends}", of.made))
    }

    /// In the order of time.
    fn longest_outages(&self) -> Vec<&Window> {
        let mut windows: Vec<_> = self.outages.windows.iter().collect();
        windows.sort_by(|one, other| other.length_s().total_cmp(&one.length_s()));
        windows.truncate(SHOWN);
        windows.sort_by(|one, other| one.from_s.total_cmp(&other.from_s));
        windows
    }

    /// Which address served what, if there is more than one.
    fn spread(&self) -> Vec<Line> {
        let line = |(address, share): (&String, &ServerShare)| {
            ("served by", format!("{address}: connections {}, verified {}", share.connections, share.verified))
        };
        if self.servers.len() > 1 { self.servers.iter().map(line).collect() } else { Vec::new() }
    }

    /// What a merge tells of its clients: the range over them beside the whole.
    fn of_clients(&self) -> Vec<Line> {
        if self.clients.is_empty() && self.missing == 0 {
            return Vec::new();
        }
        let range = |figure: fn(&Part) -> Option<u64>, shown: fn(u64) -> String| {
            let figures = self.clients.iter().filter_map(figure);
            figures.clone().min().zip(figures.max()).map(|(least, most)| format!("{} to {}", shown(least), shown(most)))
        };
        let ranges = [
            ("verified", range(|part| Some(part.verified), |count| count.to_string())),
            ("p50", range(|part| part.echo_times().p50_us, readable)),
            ("p99", range(|part| part.echo_times().p99_us, readable)),
        ];
        let ranges = ranges.into_iter().filter_map(|(name, range)| Some(format!("{name} {}", range?)));
        let mut lines = vec![("each client", ranges.collect::<Vec<_>>().join(", "))];
        if self.missing > 0 {
            let expected = self.clients.len() as u64 + self.missing;
            lines.push(("missing", format!("{} of {expected} reports", self.missing)));
        }
        if self.outages.all_at_once_ms > 0 {
            lines.push(("all out", format!("{} at once", readable(self.outages.all_at_once_ms * 1_000))));
        }
        lines
    }

    /// The books, if there are any.
    fn balance(&self) -> Vec<Line> {
        self.told_books().into_iter().map(|told| ("books", told)).collect()
    }

    /// The limits, and what a reader must know before trusting a figure.
    fn doubts(&self) -> Vec<Line> {
        let limit = |Judged { limit, value, broken, client }: &Judged| {
            let of = client.as_ref().map(|client| format!(" of {client}")).unwrap_or_default();
            ("limit", format!("{limit}{of}: {value}, {}", if *broken { "broken" } else { "kept" }))
        };
        let notes = self.own.notes.iter().chain(&self.notes).map(|note| ("note", note.clone()));
        self.limits.iter().map(limit).chain(notes).collect()
    }
}

fn figures(times: &Times) -> String {
    let Times { p50_us, p99_us, p99_9_us, max_us, .. } = *times;
    let shown = [("p50", p50_us), ("p99", p99_us), ("p99.9", p99_9_us), ("max", max_us)];
    let shown = shown.map(|(name, micros)| format!("{name} {}", micros.map_or_else(|| "-".into(), readable)));
    shown.join(", ")
}

/// The counts that are not zero, if there are any.
fn listed(counts: &[(&str, u64)]) -> Option<String> {
    let counts = counts.iter().filter(|&&(_, count)| count > 0);
    let shown: Vec<_> = counts.map(|(name, count)| format!("{name} {count}")).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

fn outage(window: &Window) -> String {
    let Window { from_s, failed, why, since_verified_ms, .. } = window;
    let since =
        since_verified_ms.map(|ms| format!(", {ms} ms after the last echoed message was sent")).unwrap_or_default();
    let length = readable((window.length_s() * 1e6).round() as u64);
    format!("{length} from {from_s:.2} s on{since}: {failed} failed, {why}{}", window.still_out())
}

/// A time in the unit that leaves one to three digits before the point.
pub(super) fn readable(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::report::{
            parts::ServerShare,
            testing::{report, sample},
        },
        decisions::stop::StopReason,
    };

    #[test]
    fn the_table_names_every_count_and_the_unit_of_every_time() {
        let expected = "\
client      c-1
sent        102
verified    99
wrong       1
lost        2
round trip  min 1 µs, median 50 µs, p99 99 µs, max 99 µs
";
        assert_eq!(report(99, 1, 2).to_string(), expected);
    }

    #[test]
    fn the_table_of_a_client_that_was_stopped_tells_what_it_gave_up() {
        let table = ClientReport { given_up: 2, client: "a\nb".into(), ..report(0, 0, 0) }.to_string();
        assert!(table.starts_with("client      a\\nb\n"), "{table}");
        assert!(table.ends_with("lost        0\ngiven up    2\nround trip  -\n"), "{table}");
        let stopped = ClientReport { stopped: Some(StopReason::Sigint), ..report(0, 0, 0) };
        assert!(stopped.to_string().ends_with("\nstopped     SIGINT\n"), "{stopped}");
        let forced = ClientReport { forced: true, ..stopped };
        assert!(forced.to_string().ends_with("\nstopped     SIGINT, at once\n"), "{forced}");
    }

    #[test]
    fn the_table_tells_of_connections_that_could_not_be_made_or_crashed() {
        let table = ClientReport { unreachable: 2, crashed: 1, ..report(0, 0, 0) }.to_string();
        assert!(table.contains("lost        0\nunreachable 2\ncrashed     1\nround trip  -\n"), "{table}");
    }

    #[test]
    fn below_stand_the_lines_that_say_something() {
        let table = sample().judged(&"p99 > 5ms, lost > 5%".parse().unwrap(), None).to_string();
        let (_, below) = table.split_once("max 1.00 ms\n").unwrap();
        let expected = "\
response    p50 5.00 ms, p99 9.90 ms, p99.9 9.99 ms, max 10.00 ms
rate        979.6/s
lost by     timeout 200, reset 4
connections made 128, refused 600, reset 4, reconnects 64, renewed 3
outage      3.02 s from 2.10 s on, 5 ms after the last echoed message was sent: 604 failed, refused
limit       p99 > 5ms: 9.90 ms, broken
limit       lost > 5%: 204 (2.04%), kept
";
        assert_eq!(below, expected);
    }

    #[test]
    fn more_than_one_address_of_the_server_have_a_line_each() {
        let mut report = sample();
        assert!(!report.to_string().contains("served by"), "{report}");
        report.servers.insert("10.0.0.4:12345".into(), ServerShare { connections: 1, verified: 0 });
        let expected = "
served by   10.0.0.3:12345: connections 128, verified 9796
served by   10.0.0.4:12345: connections 1, verified 0
";
        assert!(report.to_string().contains(expected), "{report}");
    }

    #[test]
    fn many_outages_are_summed_up() {
        let mut report = sample();
        report.outages.windows = vec![report.outages.windows[0].clone(); 9];
        report.outages.windows[8].to_s += 1.0;
        (report.outages.count, report.outages.total_ms) = (9, 27_180);
        let table = report.to_string();
        assert_eq!(table.matches("\noutage      ").count(), 5, "{table}");
        assert!(table.contains("\noutage      4.02 s from"), "{table}");
        assert!(table.ends_with("\noutages     9, 27.18 s in all\n"), "{table}");
    }

    #[test]
    fn times_are_read_in_the_unit_that_suits_them() {
        for (micros, expected) in
            [(0, "0 µs"), (999, "999 µs"), (1_000, "1.00 ms"), (12_345, "12.35 ms"), (5_000_000, "5.00 s")]
        {
            assert_eq!(readable(micros), expected);
        }
    }
}
