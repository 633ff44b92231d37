//! The parts of a report, as its JSON has them. The names of times and lengths carry their unit, and zeros are always there.
//!
//! Plain data: what measures fills it in, what shows it reads it.

use super::times::{Hdr, Times};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The shape of the document. Another one has another name; additions keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Schema {
    /// `docs/report.schema.json`.
    #[default]
    #[serde(rename = "echo-client/1")]
    V1,
}

/// Why echoes were lost. The sum is `lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LostBy {
    /// The echo did not come within `timeout`.
    pub timeout: u64,
    /// The server ended the connection first.
    pub closed: u64,
    /// The connection failed.
    pub reset: u64,
    /// The message could not be sent within `timeout` after it was due.
    pub unsent: u64,
    /// An earlier message of the same connection failed.
    pub abandoned: u64,
}

/// Bytes of the messages that went out, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bytes {
    /// Of messages whose echo was right.
    pub verified: u64,
    /// Of messages whose echo was wrong.
    pub wrong: u64,
    /// Of messages whose echo did not come.
    pub lost: u64,
    /// Of messages that were sent once more, each time again. Their last outcome counts too.
    pub resent: u64,
    /// Of messages whose echo was still outstanding when the client was stopped.
    pub given_up: u64,
}

/// What became of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Connections {
    /// Connections that were made.
    pub made: u64,
    /// Connects that an address has refused, also if the next address of the name has taken the connection.
    pub refused: u64,
    /// Connects that an address has not answered in time, or that failed in another way.
    pub unanswered: u64,
    /// Connections that the server ended.
    pub closed_by_server: u64,
    /// Connections that failed.
    pub reset: u64,
    /// Connections that were made after the first one of their actor was gone.
    pub reconnects: u64,
    /// Connections that the client ended between two messages, because they had the age of `renew`.
    #[serde(default)]
    pub renewed: u64,
}

/// What one of the server's addresses has served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerShare {
    /// Connections that were made to it.
    pub connections: u64,
    /// Echoes that came from it and were right.
    pub verified: u64,
}

/// What the client itself took, so that its own slowness is not taken for the server's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Own {
    /// The share of one processor that the client used, 1.0 for all of it. Of many clients it is the largest.
    pub cpu: f64,
    /// For how long its container was kept from running.
    pub throttled_ms: u64,
    /// What made the client itself the bottleneck, a sentence each.
    pub notes: Vec<String>,
}

/// One rate of a run that had several.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// Messages due a second.
    pub rate: f64,
    /// Messages that were due in this step.
    pub due: u64,
    /// Those whose echo was right.
    pub verified: u64,
    /// Their response times.
    pub response: Times,
    /// What `response` is read from.
    #[serde(default)]
    pub hdr: Hdr,
}

/// What became of the messages that were due in each interval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timeline {
    /// The length of a row.
    pub interval_s: u64,
    /// In the order of time. An interval in which nothing was due may be left out.
    pub rows: Vec<Row>,
}

/// The messages that were due in one interval.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// When the interval begins, from `started` on.
    pub at_s: u64,
    /// Messages that were due.
    pub due: u64,
    /// Those whose echo was right.
    pub verified: u64,
    /// Those whose echo did not come.
    pub lost: u64,
    /// Those whose echo was wrong.
    pub wrong: u64,
    /// The most connections that were open at once. Of many clients it is the sum.
    pub connections: u64,
    /// The response time of half of them was no longer; a bucket's edge.
    pub p50_us: Option<u64>,
    /// The response time of 99 of 100 was no longer; a bucket's edge.
    pub p99_us: Option<u64>,
    /// The longest response time.
    pub max_us: Option<u64>,
    /// Response times by bucket, to one digit: the longest time of a bucket in nanoseconds, and how many there are.
    #[serde(default)]
    pub buckets_ns: Vec<(u64, u64)>,
}

/// What the logs of the servers say, over all servers that have run. Bytes are without those of the servers' own health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerSums {
    /// Servers that said `listening`.
    pub started: u64,
    /// Servers that said `stopped`. Only they tell of their bytes.
    pub stopped: u64,
    /// Bytes that they echoed.
    pub echoed: u64,
    /// Bytes that they read and did not echo.
    pub discarded: u64,
}

/// The servers' bytes beside the clients'.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Books {
    /// What the servers say. What the clients say is in [`ClientReport::bytes`](super::ClientReport::bytes).
    pub servers: ServerSums,
    /// Each difference and what it looks like, a sentence each. The books close if there is none.
    pub open: Vec<String>,
}

/// When the server could not be used.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outages {
    /// How many there were. Of many clients it is the sum.
    pub count: u64,
    /// How long the longest was.
    pub longest_ms: u64,
    /// How long they were together. Of many clients it is the sum.
    pub total_ms: u64,
    /// For how long, at most, every client that ran was out at the same time.
    #[serde(default)]
    pub all_at_once_ms: u64,
    /// Each of them, in the order in which they began.
    pub windows: Vec<Window>,
}

/// One outage: from an attempt that failed to the next one that succeeded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Window {
    /// When the first attempt that failed began, from `started` on.
    pub from_s: f64,
    /// When the first attempt that succeeded had done so, or the run ended.
    pub to_s: f64,
    /// Attempts that failed.
    pub failed: u64,
    /// The reason that most of them had.
    pub why: String,
    /// All the reasons, with how often each came.
    pub reasons: BTreeMap<String, u64>,
    /// How long before `from_s` the last message was sent whose echo had come back: the outage may have begun so much earlier.
    /// `None` if no echo had come back.
    pub since_verified_ms: Option<u64>,
    /// Whether it was not over when the run ended.
    #[serde(default)]
    pub open: bool,
}

impl Window {
    /// How long it was, in seconds.
    pub fn length_s(&self) -> f64 {
        self.to_s - self.from_s
    }

    /// What there is to say behind its reason if it was not over when the run ended.
    pub(super) fn still_out(&self) -> &'static str {
        if self.open { ", and still out" } else { "" }
    }
}

/// One limit of `fail_if`, and what it met.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Judged {
    /// The limit, in the form in which all limits are shown.
    pub limit: String,
    /// The value that it was held against, in the unit of people; `-` if there was none.
    pub value: String,
    /// Whether it is broken. A limit without a value is.
    pub broken: bool,
    /// The client whose own limit it is; `None` for a limit over the whole.
    #[serde(default)]
    pub client: Option<String>,
}

/// A figure of a run beside that of an earlier one, its baseline. Times are in microseconds, as the figure's name says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compared {
    /// `rate`, `p50_us`, `p99_us`, `max_us` or `lost`.
    pub figure: String,
    /// What the baseline had; `None` if it had no such time.
    pub before: Option<f64>,
    /// What this run has.
    pub now: Option<f64>,
    /// `now` divided by `before`; `None` without one of them, or if `before` is zero.
    pub ratio: Option<f64>,
    /// Whether both are equal, or the ranges in which they lay overlap, so that the difference may be chance.
    pub same: bool,
}

/// What follows from a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// Exit code 0.
    #[default]
    Passed,
    /// Exit code 1 or 4.
    Failed,
    /// Exit code 3.
    Forced,
}

impl Verdict {
    /// The word in the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Forced => "forced",
        }
    }
}

/// One of the clients whose reports were merged.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Part {
    /// The client's id.
    pub client: String,
    /// The run's own name, by which a report is known again.
    pub run: String,
    /// When it began, from the earliest of all on.
    #[serde(default)]
    pub from_s: f64,
    /// When it ended.
    #[serde(default)]
    pub to_s: f64,
    /// What its own report came to.
    pub verdict: Verdict,
    /// As in its report.
    pub due: u64,
    /// As in its report.
    pub verified: u64,
    /// As in its report.
    pub wrong: u64,
    /// As in its report.
    pub lost: u64,
    /// Echoes verified a second.
    pub rate: f64,
    /// As in its report.
    pub response: Times,
    /// As in its report.
    pub round_trip: Times,
    /// As in its report.
    pub late: Times,
    /// How many outages it saw.
    pub outages: u64,
    /// How long the longest was.
    pub longest_outage_ms: u64,
}

impl Part {
    /// As [`ClientReport::echo_times`](super::ClientReport::echo_times).
    pub fn echo_times(&self) -> &Times {
        if self.response.count > 0 { &self.response } else { &self.round_trip }
    }
}

/// The histograms that the times of a report are read from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Histograms {
    /// Of `response`.
    pub response: Hdr,
    /// Of `round_trip`.
    pub round_trip: Hdr,
    /// Of `late`.
    pub late: Hdr,
    /// Of `connect`.
    #[serde(default)]
    pub connect: Hdr,
}
