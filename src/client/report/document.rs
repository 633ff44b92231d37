//! The document that a client leaves at its end, and the exit code that follows from it.
//!
//! Plain data: the other files of this folder fill it in, show it, or make one out of many.

use super::{
    parts::{
        Books, Bytes, Compared, Connections, Histograms, Judged, LostBy, Outages, Own, Part, Schema, ServerShare, Step,
        Timeline, Verdict,
    },
    times::Times,
};
use crate::{decisions::stop::StopReason, text::one_line};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// What a client has done, or many clients together: the document that `docs/report.schema.json` describes, field by field.
/// Displayed, it is a table for people.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientReport {
    /// The shape of the document.
    pub schema: Schema,
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
    /// Connections that could not be made, or made again, within `connect_timeout` or the rest of `duration`. With a rate whose
    /// timetable has an end: not before that end.
    pub unreachable: u64,
    /// Connections that panicked: a defect of this library.
    pub crashed: u64,
    /// The shortest of `round_trip`, as are the next three its figures.
    pub min_us: Option<u64>,
    /// Half of the round trips took no longer.
    pub median_us: Option<u64>,
    /// 99 of 100 round trips took no longer.
    pub p99_us: Option<u64>,
    /// The longest round trip.
    pub max_us: Option<u64>,
    /// What stopped the client first; `None` if it came to its own end.
    pub stopped: Option<StopReason>,
    /// Whether a second signal or an abort stopped it at once.
    pub forced: bool,
    /// From the start to the last acknowledgement.
    pub elapsed_ms: u64,

    /// The run's own name, by which its report is known again.
    pub run: String,
    /// The version of this library.
    pub version: String,
    /// When the first message was due, in UTC. The timeline and the outages count from here.
    pub started: String,
    /// As `elapsed_ms`, in seconds.
    pub elapsed_s: f64,
    /// The server, as it was named.
    pub server: String,
    /// The settings in force, by section. Empty where no program has put them in.
    pub settings: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// Messages that were due: `verified` + `wrong` + `lost`.
    pub due: u64,
    /// Messages that were sent once more, because no byte of their echo had come when the server ended the connection.
    pub resent: u64,
    /// Why echoes were lost.
    pub lost_by: LostBy,
    /// From the time at which a message was due to the last byte of its echo. Only with a rate there is one.
    pub response: Times,
    /// From the first byte sent to the last one back, over all echoes that were right when they came.
    pub round_trip: Times,
    /// How much later than it could a message was sent: the client's own fault.
    pub late: Times,
    /// How long connects took.
    pub connect: Times,
    /// What became of the connections.
    pub connections: Connections,
    /// What each address of the server has served.
    pub servers: BTreeMap<String, ServerShare>,
    /// What the client itself took.
    #[serde(rename = "self")]
    pub own: Own,
    /// The rates, one after another; empty without a rate.
    pub steps: Vec<Step>,
    /// What became of the messages over time.
    pub timeline: Timeline,
    /// When the server could not be used.
    pub outages: Outages,
    /// The limits, and what they met.
    pub limits: Vec<Judged>,
    /// What follows.
    pub verdict: Verdict,
    /// The clients whose reports this one was merged from; empty for the report of one client.
    pub clients: Vec<Part>,
    /// The histograms that the times are read from.
    pub hdr: Histograms,

    /// Bytes of the messages that went out; `None` if a report of an earlier version does not tell.
    #[serde(default)]
    pub bytes: Option<Bytes>,
    /// The servers' bytes beside them; `None` if a merge has found no log of a server.
    #[serde(default)]
    pub books: Option<Books>,
    /// From when the first message was due to the end of the run, or of its timetable if that is later: the time that
    /// `rate` is taken over. `None` if a report of an earlier version does not tell, or nothing was due.
    #[serde(default)]
    pub span_ms: Option<u64>,
    /// Reports that a merge expected and did not find.
    #[serde(default)]
    pub missing: u64,
    /// What a reader must know before comparing the merged clients, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why the first unreachable connection could not be made, with the address.
    #[serde(default)]
    pub obstacle: Option<String>,
    /// The figures beside those of an earlier run; empty without one.
    #[serde(default)]
    pub baseline: Vec<Compared>,
}

impl ClientReport {
    /// Sets the round trips, and the figures of them that stand at the front.
    pub(crate) fn with_round_trip(self, round_trip: Times) -> Self {
        let Times { min_us, p50_us: median_us, p99_us, max_us, .. } = round_trip;
        Self { round_trip, min_us, median_us, p99_us, max_us, ..self }
    }

    pub(crate) fn with_elapsed(self, elapsed: Duration) -> Self {
        let elapsed_ms = elapsed.as_millis() as u64;
        Self { elapsed_ms, elapsed_s: elapsed_ms as f64 / 1e3, ..self }
    }

    /// Puts in the settings in force, by section and key.
    #[must_use]
    pub fn with_settings(self, settings: BTreeMap<String, BTreeMap<String, serde_json::Value>>) -> Self {
        Self { settings, ..self }
    }

    /// The exit code for a program. 0: every echo was verified. 1: an echo was wrong or lost, a connection could not be
    /// made, no message was sent although the client was not stopped, a merge has found too few reports, or its books
    /// are open. 3: a second signal or an abort stopped it at once. 4: every echo was verified, but a limit is broken.
    pub fn exit_code(&self) -> u8 {
        let is_open = self.books.as_ref().is_some_and(|books| !books.open.is_empty());
        let failed = self.wrong > 0 || self.lost > 0 || self.missing > 0 || is_open || self.problem().is_some();
        let broken = self.limits.iter().any(|limit| limit.broken);
        match (failed, self.forced, broken) {
            (true, ..) => 1,
            (_, true, _) => 3,
            (_, _, true) => 4,
            _ => 0,
        }
    }

    /// Echoes verified a second; `None` if the run took no time. The last interval of a timetable counts, though nothing is
    /// due at its end.
    pub fn rate(&self) -> Option<f64> {
        let span_ms = self.span_ms.unwrap_or(self.elapsed_ms);
        (span_ms > 0).then(|| self.verified as f64 * 1e3 / span_ms as f64)
    }

    /// The times of the echoes as they are first looked at: the response if there is a rate, else the round trip.
    pub fn echo_times(&self) -> &Times {
        if self.response.count > 0 { &self.response } else { &self.round_trip }
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

    /// One JSON object on one line. The names of times carry their unit. Times are `null` if there was none.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it has only strings for keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{
        report::testing::report,
        tally::{Moments, Tally},
    };

    #[test]
    fn the_exit_code_follows_the_table() {
        let clean = report(5, 0, 0);
        let nothing = report(0, 0, 0);
        let stopped = Some(StopReason::Sigterm);
        let limits = vec![Judged { broken: true, ..Judged::default() }];
        for (expected, report) in [
            (0, clean.clone()),
            (0, ClientReport { stopped, ..clean.clone() }),
            (0, ClientReport { stopped, ..nothing.clone() }),
            (0, ClientReport { stopped, given_up: 1, ..nothing.clone() }),
            (0, ClientReport { limits: vec![Judged::default()], ..clean.clone() }),
            (1, nothing.clone()),
            (1, report(5, 1, 0)),
            (1, report(5, 0, 1)),
            (1, ClientReport { stopped, ..report(5, 0, 1) }),
            (1, ClientReport { stopped, forced: true, ..report(5, 1, 0) }),
            (1, ClientReport { obstacle: Some("cannot connect".into()), ..clean.clone() }),
            (1, ClientReport { crashed: 1, ..clean.clone() }),
            (1, ClientReport { missing: 1, ..clean.clone() }),
            (0, ClientReport { books: Some(Books::default()), ..clean.clone() }),
            (1, ClientReport { books: Some(Books { open: vec![String::new()], ..Books::default() }), ..clean.clone() }),
            (1, ClientReport { limits: limits.clone(), ..report(5, 0, 1) }),
            (3, ClientReport { stopped, forced: true, ..clean.clone() }),
            (3, ClientReport { stopped, forced: true, ..nothing.clone() }),
            (3, ClientReport { stopped, forced: true, limits: limits.clone(), ..clean.clone() }),
            (4, ClientReport { limits: limits.clone(), ..clean }),
            (4, ClientReport { stopped, limits, ..nothing }),
        ] {
            assert_eq!(report.exit_code(), expected, "{report:?}");
        }
    }

    #[test]
    fn the_json_begins_with_the_flat_keys_that_other_programs_read_first() {
        let expected = r#"{"schema":"echo-client/1","client":"c-1","sent":0,"verified":0,"wrong":0,"lost":0,"given_up":0,"unreachable":0,"crashed":0,"min_us":null,"median_us":null,"p99_us":null,"max_us":null,"stopped":null,"forced":false,"elapsed_ms":0,"#;
        let json = report(0, 0, 0).to_json();
        assert!(json.starts_with(expected), "{json}");
    }

    #[test]
    fn the_json_has_every_count_also_if_it_is_zero() {
        let json: serde_json::Value = serde_json::from_str(&report(0, 0, 0).to_json()).unwrap();
        for counts in ["lost_by", "connections"] {
            assert!(json[counts].as_object().unwrap().values().all(|count| *count == 0), "{json}");
        }
        for times in ["response", "round_trip", "late", "connect"] {
            assert_eq!((&json[times]["count"], &json[times]["p99_999_us"]), (&0.into(), &serde_json::Value::Null));
        }
        assert_eq!([&json["due"], &json["resent"], &json["outages"]["count"], &json["missing"]], [0; 4]);
        assert_eq!((&json["bytes"]["given_up"], &json["books"]), (&0.into(), &serde_json::Value::Null));
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
    fn a_report_is_read_as_it_was_written_and_what_a_later_version_adds_is_skipped() {
        use StopReason::*;
        for reason in [Sigterm, Sigint, Sigquit, Sighup, Handle, Restarts] {
            let written = ClientReport { stopped: Some(reason), ..report(99, 1, 2) };
            let json = written.to_json();
            assert!(json.contains(&format!("\"stopped\":\"{}\"", reason.as_str())), "{json}");
            let json = json.replacen('{', r#"{"news":[1],"#, 1);
            assert_eq!(serde_json::from_str::<ClientReport>(&json).unwrap(), written);
        }
    }

    #[test]
    fn a_report_of_another_schema_is_refused() {
        let json = report(1, 0, 0).to_json().replacen("echo-client/1", "echo-client/2", 1);
        let error = serde_json::from_str::<ClientReport>(&json).unwrap_err().to_string();
        assert!(error.contains("unknown variant `echo-client/2`, expected `echo-client/1`"), "{error}");
    }

    #[test]
    fn an_echo_that_is_taken_back_is_wrong_instead() {
        let mut tally = Tally::default();
        tally.verified(&Moments::default(), Duration::from_micros(7));
        tally.take_back(Duration::ZERO);
        let report = ClientReport::new(String::new(), &mut tally);
        assert_eq!((report.sent, report.verified, report.wrong), (1, 0, 1));
    }
}
