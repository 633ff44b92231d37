//! The report as a table for people.

use super::{ClientReport, Times};
use crate::text::one_line;
use std::fmt;

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
        match self.stopped {
            Some(reason) => writeln!(f, "stopped     {reason}{}", if self.forced { ", at once" } else { "" }),
            None => Ok(()),
        }
    }
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
        client::tally::{Moments, Tally},
        decisions::stop::StopReason,
    };
    use std::time::Duration;

    fn report(verified: u64, wrong: u64, lost: u64) -> ClientReport {
        let mut tally = Tally { wrong, lost, ..Tally::default() };
        (1..=verified).for_each(|n| tally.verified(&Moments::default(), Duration::from_micros(n), Duration::ZERO));
        ClientReport::new("c-1".into(), &tally)
    }

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
    fn times_are_read_in_the_unit_that_suits_them() {
        for (micros, expected) in
            [(0, "0 µs"), (999, "999 µs"), (1_000, "1.00 ms"), (12_345, "12.35 ms"), (5_000_000, "5.00 s")]
        {
            assert_eq!(readable(micros), expected);
        }
    }
}
