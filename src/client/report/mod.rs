//! What a client reports at its end: counts, round trips, and the exit code that follows from them.
//!
//! Relies on a histogram of fixed precision, so its size does not grow with the number of messages.

use crate::{decisions::stop::StopReason, text::one_line};
use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use std::{fmt, time::Duration};

/// The outcome of every message of every connection.
pub(crate) struct Tally {
    verified: u64,
    pub wrong: u64,
    pub lost: u64,
    pub given_up: u64,
    /// The shortest and the longest round trip. The histogram would give only the edges of their buckets.
    extremes: Option<(Duration, Duration)>,
    /// Microseconds, to three digits.
    round_trips: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let round_trips = Histogram::new(3).expect("three digits are within its range");
        Self { verified: 0, wrong: 0, lost: 0, given_up: 0, extremes: None, round_trips }
    }
}

impl Tally {
    pub fn verified(&mut self, elapsed: Duration) {
        self.verified += 1;
        let (min, max) = self.extremes.unwrap_or((elapsed, elapsed));
        self.extremes = Some((min.min(elapsed), max.max(elapsed)));
        // The histogram grows as needed. It fails only for a time that no memory could count.
        let _ = self.round_trips.record(elapsed.as_micros() as u64);
    }

    /// A verified echo is wrong after all. Its round trip stays, because it was one.
    pub fn take_back(&mut self) {
        self.verified -= 1;
        self.wrong += 1;
    }

    fn round_trip(&self) -> Option<RoundTrip> {
        let (min, max) = self.extremes?;
        let at = |quantile| Duration::from_micros(self.round_trips.value_at_quantile(quantile)).clamp(min, max);
        Some(RoundTrip { min, median: at(0.5), p99: at(0.99), max })
    }
}

/// How long echoes took, from the first byte sent to the last one back. The extremes are exact, and the others are right to
/// three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTrip {
    /// The shortest.
    pub min: Duration,
    /// Half of them took no longer.
    pub median: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// What a client has done. Displayed, it is a table for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClientReport {
    /// The client's id.
    pub client: String,
    /// Messages whose outcome is known: `verified` + `wrong` + `lost`.
    pub sent: u64,
    /// Echoes that were right to the last byte, with no byte behind it.
    pub verified: u64,
    /// Echoes that differed in some byte, or had more behind them.
    pub wrong: u64,
    /// Echoes that did not come in time, or not before the connection ended or failed.
    pub lost: u64,
    /// Messages whose echo was still outstanding when the client was stopped. No other count holds them.
    pub given_up: u64,
    /// Connections that could not be made, or made again, within `connect_timeout` or the rest of `duration`.
    pub unreachable: usize,
    /// Connections that panicked: a defect of this library.
    pub crashed: usize,
    /// Over all echoes that were right when they came; `None` if there was none.
    #[serde(flatten, serialize_with = "figures")]
    pub round_trip: Option<RoundTrip>,
    /// What stopped the client first; `None` if it came to its own end.
    #[serde(serialize_with = "word")]
    pub stopped: Option<StopReason>,
    /// Whether a second signal or an abort stopped it at once.
    pub forced: bool,
    /// From the start to the last acknowledgement.
    #[serde(rename = "elapsed_ms", serialize_with = "millis")]
    pub elapsed: Duration,
    /// Why the first unreachable connection could not be made, with the address.
    #[serde(skip)]
    pub(crate) obstacle: Option<String>,
}

fn figures<S: Serializer>(times: &Option<RoundTrip>, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = |figure: fn(RoundTrip) -> Duration| times.map(|times| figure(times).as_micros() as u64);
    serializer.collect_map([
        ("min_us", micros(|times| times.min)),
        ("median_us", micros(|times| times.median)),
        ("p99_us", micros(|times| times.p99)),
        ("max_us", micros(|times| times.max)),
    ])
}

fn word<S: Serializer>(reason: &Option<StopReason>, serializer: S) -> Result<S::Ok, S::Error> {
    reason.map(StopReason::as_str).serialize(serializer)
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_millis() as u64)
}

impl ClientReport {
    pub(crate) fn new(client: String, tally: &Tally) -> Self {
        let &Tally { verified, wrong, lost, given_up, .. } = tally;
        Self {
            client,
            sent: verified + wrong + lost,
            verified,
            wrong,
            lost,
            given_up,
            unreachable: 0,
            crashed: 0,
            round_trip: tally.round_trip(),
            stopped: None,
            forced: false,
            elapsed: Duration::ZERO,
            obstacle: None,
        }
    }

    /// The exit code for a program. 0: every echo was verified. 1: an echo was wrong or lost, a connection could not be
    /// made, or no message was sent although the client was not stopped. 3: a second signal or an abort stopped it
    /// at once.
    pub fn exit_code(&self) -> u8 {
        let failed = self.wrong > 0 || self.lost > 0 || self.problem().is_some();
        if failed { 1 } else { u8::from(self.forced) * 3 }
    }

    /// What went wrong beside the echoes, in one line.
    pub fn problem(&self) -> Option<String> {
        if let Some(obstacle) = &self.obstacle {
            Some(one_line(obstacle))
        } else if self.crashed > 0 {
            Some(format!("crashed connections: {}", self.crashed))
        } else if self.sent == 0 && self.stopped.is_none() {
            Some("nothing was sent".into())
        } else {
            None
        }
    }

    /// One JSON object on one line. The names of times carry their unit. Round trips are `null` if there was none.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it has only strings for keys")
    }
}

impl fmt::Display for ClientReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client      {}", one_line(&self.client))?;
        let echoes = [("sent", self.sent), ("verified", self.verified), ("wrong", self.wrong), ("lost", self.lost)];
        let (unreachable, crashed) = (self.unreachable as u64, self.crashed as u64);
        let rare = [("given up", self.given_up), ("unreachable", unreachable), ("crashed", crashed)];
        for (name, count) in echoes.into_iter().chain(rare.into_iter().filter(|&(_, count)| count > 0)) {
            writeln!(f, "{name:11} {count}")?;
        }
        match self.round_trip {
            Some(RoundTrip { min, median, p99, max }) => {
                let [min, median, p99, max] = [min, median, p99, max].map(readable);
                writeln!(f, "round trip  min {min}, median {median}, p99 {p99}, max {max}")?;
            }
            None => writeln!(f, "round trip  -")?,
        }
        match self.stopped {
            Some(reason) => writeln!(f, "stopped     {reason}{}", if self.forced { ", at once" } else { "" }),
            None => Ok(()),
        }
    }
}

/// A time in the unit that leaves one to three digits before the point.
fn readable(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(verified: u64, wrong: u64, lost: u64) -> ClientReport {
        let mut tally = Tally { wrong, lost, ..Tally::default() };
        (1..=verified).for_each(|n| tally.verified(Duration::from_micros(n)));
        ClientReport::new("c-1".into(), &tally)
    }

    #[test]
    fn the_exit_code_follows_the_table() {
        let clean = report(5, 0, 0);
        let nothing = report(0, 0, 0);
        let stopped = Some(StopReason::Sigterm);
        for (expected, report) in [
            (0, clean.clone()),
            (0, ClientReport { stopped, ..clean.clone() }),
            (0, ClientReport { stopped, ..nothing.clone() }),
            (0, ClientReport { stopped, given_up: 1, ..nothing.clone() }),
            (1, nothing.clone()),
            (1, report(5, 1, 0)),
            (1, report(5, 0, 1)),
            (1, ClientReport { stopped, ..report(5, 0, 1) }),
            (1, ClientReport { stopped, forced: true, ..report(5, 1, 0) }),
            (1, ClientReport { obstacle: Some("cannot connect".into()), ..clean.clone() }),
            (1, ClientReport { crashed: 1, ..clean.clone() }),
            (3, ClientReport { stopped, forced: true, ..clean }),
            (3, ClientReport { stopped, forced: true, ..nothing }),
        ] {
            assert_eq!(report.exit_code(), expected, "{report:?}");
        }
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
    fn the_json_has_every_count_also_if_it_is_zero() {
        let expected = r#"{"client":"c-1","sent":0,"verified":0,"wrong":0,"lost":0,"given_up":0,"unreachable":0,"crashed":0,"min_us":null,"median_us":null,"p99_us":null,"max_us":null,"stopped":null,"forced":false,"elapsed_ms":0}"#;
        assert_eq!(report(0, 0, 0).to_json(), expected);
    }

    #[test]
    fn the_json_of_a_stopped_client_tells_by_what_and_how_long_echoes_took() {
        let report = ClientReport { stopped: Some(StopReason::Sigint), client: "\"\n".into(), ..report(99, 0, 0) };
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["client"], "\"\n");
        assert_eq!(json["stopped"], "SIGINT");
        assert_eq!([&json["min_us"], &json["median_us"], &json["p99_us"], &json["max_us"]], [1, 50, 99, 99]);
    }

    #[test]
    fn an_echo_that_is_taken_back_is_wrong_instead() {
        let mut tally = Tally::default();
        tally.verified(Duration::from_micros(7));
        tally.take_back();
        let report = ClientReport::new(String::new(), &tally);
        assert_eq!((report.sent, report.verified, report.wrong), (1, 0, 1));
    }

    #[test]
    fn times_are_read_in_the_unit_that_suits_them() {
        for (micros, expected) in
            [(0, "0 µs"), (999, "999 µs"), (1_000, "1.00 ms"), (12_345, "12.35 ms"), (5_000_000, "5.00 s")]
        {
            assert_eq!(readable(Duration::from_micros(micros)), expected);
        }
    }

    proptest! {
        #[test]
        fn figures_are_in_order_and_the_extremes_are_exact(
            micros in prop::collection::vec(0..Duration::from_secs(3600).as_micros() as u64, 1..50),
        ) {
            let mut tally = Tally::default();
            micros.iter().for_each(|&micros| tally.verified(Duration::from_micros(micros)));
            let times = tally.round_trip().unwrap();
            prop_assert!(times.min <= times.median && times.median <= times.p99 && times.p99 <= times.max);
            let exact = (micros.iter().min(), micros.iter().max());
            prop_assert_eq!((times.min.as_micros() as u64, times.max.as_micros() as u64), (*exact.0.unwrap(), *exact.1.unwrap()));
        }
    }
}
