//! The books of a merge: what the servers' logs say of the bytes, beside what the clients' reports say of them.
//!
//! Pure. A server has echoed what clients verified, and has discarded what clients sent again or lost. This relies on the logs of
//! all servers that ran and on the reports of all their clients.

use super::{
    document::ClientReport,
    parts::{Books, Bytes, ServerSums},
};
use serde::{Deserialize, de::IgnoredAny};
use std::{
    iter::{self, Sum},
    ops::Add,
};

/// The records of a server's log that the books need.
#[derive(Deserialize)]
#[serde(tag = "msg", rename_all = "lowercase")]
enum Record {
    Listening {
        /// Other programs listen too, but do not say this.
        #[serde(rename = "max_connections")]
        _max_connections: IgnoredAny,
    },
    Stopped {
        echoed_total: u64,
        discarded_total: u64,
    },
}

impl ServerSums {
    /// What a line of a log tells. It may have a prefix. A line of anything else tells nothing.
    pub(super) fn told_by(line: &str) -> Self {
        let record = line.find('{').and_then(|begin| serde_json::from_str(line[begin..].trim_end()).ok());
        match record {
            Some(Record::Listening { .. }) => Self { started: 1, ..Self::default() },
            Some(Record::Stopped { echoed_total: echoed, discarded_total: discarded }) => {
                Self { stopped: 1, echoed, discarded, ..Self::default() }
            }
            None => Self::default(),
        }
    }
}

impl Add for ServerSums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            started: self.started + other.started,
            stopped: self.stopped + other.stopped,
            echoed: self.echoed + other.echoed,
            discarded: self.discarded + other.discarded,
        }
    }
}

impl Sum for ServerSums {
    fn sum<I: Iterator<Item = Self>>(sums: I) -> Self {
        sums.fold(Self::default(), Self::add)
    }
}

impl ClientReport {
    /// Adds what servers say to `books`. Without a server there are none. Open books make the verdict fail: see
    /// [`ClientReport::judged`].
    #[must_use]
    pub fn with_servers(self, servers: ServerSums) -> Self {
        let servers = servers + self.books.map(|books| books.servers).unwrap_or_default();
        let is_any = servers != ServerSums::default();
        let books = is_any.then(|| Books { servers, open: differences(servers, self.bytes) });
        Self { books, ..self }
    }

    /// The books for people: the sums, and then each difference.
    pub(super) fn told_books(&self) -> Vec<String> {
        let Some(Books { servers, open }) = &self.books else { return Vec::new() };
        let closed = if open.is_empty() { ", closed" } else { "" };
        let sums = sums(*servers, self.bytes) + closed;
        iter::once(sums).chain(open.iter().map(|difference| format!("open: {difference}"))).collect()
    }
}

fn sums(ServerSums { started, stopped, echoed, discarded }: ServerSums, bytes: Option<Bytes>) -> String {
    let n = started.max(stopped);
    let servers = if n == 1 { "1 server".into() } else { format!("{n} servers") };
    let Some(Bytes { verified, wrong, lost, resent, given_up }) = bytes else {
        return format!("{servers}: echoed {echoed}, discarded {discarded}");
    };
    let unless_0 = |before: &str, bytes: u64| if bytes > 0 { format!("{before} {bytes}") } else { String::new() };
    let sign = |one: u64, other: u64| ["<", "=", ">"][(one.cmp(&other) as i8 + 1) as usize];
    let (echoed_is, discarded_is) = (sign(echoed, verified + wrong), sign(discarded, resent + lost));
    let (wrong, lost) = (unless_0(" + wrong", wrong), unless_0(" + lost", lost));
    let given_up = unless_0(", given up", given_up);
    format!(
        "{servers}: echoed {echoed} {echoed_is} verified {verified}{wrong}, \
         discarded {discarded} {discarded_is} resent {resent}{lost}{given_up}"
    )
}

/// What keeps the books open, and what it looks like.
fn differences(servers: ServerSums, bytes: Option<Bytes>) -> Vec<String> {
    let ServerSums { started, stopped, echoed, discarded } = servers;
    let mut open = Vec::new();
    let (running, unknown) = (started.saturating_sub(stopped), stopped.saturating_sub(started));
    if running > 0 {
        open.push(format!("{running} of {started} servers never said stopped: killed, or the log is cut off"));
    }
    if unknown > 0 {
        open.push(format!("{unknown} of {stopped} servers never said listening: the beginning of a log is missing"));
    }
    let Some(Bytes { verified, wrong, lost, resent, given_up }) = bytes else {
        open.push("the bytes of a client are unknown: its report is of an earlier version".into());
        return open;
    };
    // A wrong echo may have been cut short, because the client closes at the first wrong byte.
    let lacking = verified.saturating_sub(echoed);
    let (excess, unclaimed) = (echoed.saturating_sub(verified + wrong), discarded.saturating_sub(resent + lost));
    if lacking > 0 {
        let cause =
            if running > 0 { "by a server that never said stopped" } else { "a server's log is missing, or is not JSON" };
        open.push(format!("{lacking} bytes verified that no server says it echoed: {cause}"));
    }
    // A message that a client gave up may have been echoed, discarded or neither.
    if excess + unclaimed <= given_up {
        return open;
    }
    if excess > 0 {
        let cause = cause_of_excess(excess, [lost, resent, given_up]);
        open.push(format!("{excess} bytes echoed that no client verified: {cause}"));
    }
    if unclaimed > 0 {
        open.push(format!("{unclaimed} bytes discarded that no client sent again: a client's report is missing"));
    }
    open
}

/// An echo without a client that verified it belongs to a message of another outcome, if there are enough of them.
fn cause_of_excess(excess: u64, outcomes: [u64; 3]) -> String {
    const CAUSES: [&str; 3] = [
        "an echo was lost on its way back",
        "a message was executed twice, because a balancer cut a session",
        "an echo was given up",
    ];
    if excess > outcomes.iter().sum() {
        return "a client's report is missing".into();
    }
    let causes = CAUSES.into_iter().zip(outcomes).filter(|&(_, bytes)| bytes > 0);
    causes.map(|(cause, _)| cause).collect::<Vec<_>>().join(", or ")
}
