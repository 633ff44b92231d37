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
    cmp::Ordering,
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
    let sign = |one: u64, other| match one.cmp(&other) {
        Ordering::Less => '<',
        Ordering::Equal => '=',
        Ordering::Greater => '>',
    };
    let (echoed_is, discarded_is) = (sign(echoed, verified + wrong), sign(discarded, resent + lost));
    let (wrong, lost) = (unless_0(" + wrong", wrong), unless_0(" + lost", lost));
    let given_up = unless_0(", given up", given_up);
    format!(
        "{servers}: echoed {echoed} {echoed_is} verified {verified}{wrong}, \
         discarded {discarded} {discarded_is} resent {resent}{lost}{given_up}"
    )
}

/// What it looks like when servers say more than all clients together.
const UNCLAIMED: &str = "a client's report is missing, or a server's log was given twice";

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
        let cause = if running > 0 {
            "a server never said how many it echoed"
        } else {
            "a server's log is missing, or is not JSON"
        };
        open.push(format!("{lacking} verified bytes are in no log: {cause}"));
    }
    // A message that a client gave up may have been echoed, discarded or neither.
    if excess + unclaimed <= given_up {
        return open;
    }
    if excess > 0 {
        let cause = cause_of_excess(excess, discarded, [lost, resent, given_up]);
        open.push(format!("{excess} echoed bytes are in no report as verified: {cause}"));
    }
    if unclaimed > 0 {
        open.push(format!("{unclaimed} discarded bytes are in no report as resent or lost: {UNCLAIMED}"));
    }
    open
}

/// An echo without a client that verified it belongs to a message of another outcome, if there are enough of them.
fn cause_of_excess(excess: u64, discarded: u64, [lost, resent, given_up]: [u64; 3]) -> String {
    if excess > lost + resent + given_up {
        return UNCLAIMED.into();
    }
    let causes = [
        ("an echo was lost on its way back", lost),
        ("a stop cut a message in two", lost.min(discarded)),
        ("a message was executed twice, because a balancer cut a session", resent),
        ("an echo was given up", given_up),
    ];
    causes.into_iter().filter(|&(_, bytes)| bytes > 0).map(|(cause, _)| cause).collect::<Vec<_>>().join(", or ")
}

#[cfg(test)]
mod tests {
    use super::super::{merge::merge, parts::Verdict, testing::sample};
    use super::*;
    use proptest::prelude::*;

    const fn servers([started, stopped]: [u64; 2], echoed: u64, discarded: u64) -> ServerSums {
        ServerSums { started, stopped, echoed, discarded }
    }

    const fn bytes([verified, wrong, lost, resent, given_up]: [u64; 5]) -> Bytes {
        Bytes { verified, wrong, lost, resent, given_up }
    }

    /// A client without a fault.
    fn client(bytes: Bytes) -> ClientReport {
        ClientReport { lost: 0, bytes: Some(bytes), ..sample() }
    }

    fn told_by(log: &str) -> ServerSums {
        log.lines().map(ServerSums::told_by).sum()
    }

    #[test]
    fn the_books_close_or_tell_each_difference_and_what_it_looks_like() {
        for (servers, of_clients, told) in [
            (
                servers([3, 3], 1234, 0),
                [1234, 0, 0, 0, 0],
                &["3 servers: echoed 1234 = verified 1234, discarded 0 = resent 0, closed"][..],
            ),
            (
                servers([1, 1], 105, 60),
                [100, 5, 20, 40, 0],
                &["1 server: echoed 105 = verified 100 + wrong 5, discarded 60 = resent 40 + lost 20, closed"],
            ),
            // What did not reach a server was not discarded, and the rest of a wrong echo may not have been written.
            (
                servers([1, 1], 102, 0),
                [100, 5, 0, 40, 0],
                &["1 server: echoed 102 < verified 100 + wrong 5, discarded 0 < resent 40, closed"],
            ),
            (
                servers([1, 1], 104, 3),
                [100, 0, 0, 0, 7],
                &["1 server: echoed 104 > verified 100, discarded 3 > resent 0, given up 7, closed"],
            ),
            (
                servers([1, 1], 104, 3),
                [100, 0, 0, 0, 6],
                &[
                    "1 server: echoed 104 > verified 100, discarded 3 > resent 0, given up 6",
                    "open: 4 echoed bytes are in no report as verified: an echo was given up",
                    "open: 3 discarded bytes are in no report as resent or lost: a client's report is missing, or a server's log was given twice",
                ],
            ),
            (
                servers([2, 2], 110, 0),
                [100, 0, 0, 10, 0],
                &[
                    "2 servers: echoed 110 > verified 100, discarded 0 < resent 10",
                    "open: 10 echoed bytes are in no report as verified: a message was executed twice, because a balancer cut a session",
                ],
            ),
            (
                servers([1, 1], 110, 0),
                [100, 0, 10, 0, 0],
                &[
                    "1 server: echoed 110 > verified 100, discarded 0 < resent 0 + lost 10",
                    "open: 10 echoed bytes are in no report as verified: an echo was lost on its way back",
                ],
            ),
            (
                servers([1, 1], 130, 70),
                [100, 0, 100, 0, 0],
                &[
                    "1 server: echoed 130 > verified 100, discarded 70 < resent 0 + lost 100",
                    "open: 30 echoed bytes are in no report as verified: an echo was lost on its way back, or a stop cut a message in two",
                ],
            ),
            (
                servers([1, 1], 110, 0),
                [100, 0, 5, 5, 0],
                &[
                    "1 server: echoed 110 > verified 100, discarded 0 < resent 5 + lost 5",
                    "open: 10 echoed bytes are in no report as verified: an echo was lost on its way back, or a message was executed twice, because a balancer cut a session",
                ],
            ),
            (
                servers([1, 1], 111, 0),
                [100, 0, 5, 5, 0],
                &[
                    "1 server: echoed 111 > verified 100, discarded 0 < resent 5 + lost 5",
                    "open: 11 echoed bytes are in no report as verified: a client's report is missing, or a server's log was given twice",
                ],
            ),
            // A log twice.
            (
                servers([2, 2], 200, 0),
                [100, 0, 0, 0, 0],
                &[
                    "2 servers: echoed 200 > verified 100, discarded 0 = resent 0",
                    "open: 100 echoed bytes are in no report as verified: a client's report is missing, or a server's log was given twice",
                ],
            ),
            (
                servers([1, 1], 100, 11),
                [100, 0, 5, 5, 0],
                &[
                    "1 server: echoed 100 = verified 100, discarded 11 > resent 5 + lost 5",
                    "open: 1 discarded bytes are in no report as resent or lost: a client's report is missing, or a server's log was given twice",
                ],
            ),
            (
                servers([3, 1], 60, 0),
                [100, 0, 20, 0, 0],
                &[
                    "3 servers: echoed 60 < verified 100, discarded 0 < resent 0 + lost 20",
                    "open: 2 of 3 servers never said stopped: killed, or the log is cut off",
                    "open: 40 verified bytes are in no log: a server never said how many it echoed",
                ],
            ),
            (
                servers([1, 1], 99, 0),
                [100, 0, 0, 0, 9],
                &[
                    "1 server: echoed 99 < verified 100, discarded 0 = resent 0, given up 9",
                    "open: 1 verified bytes are in no log: a server's log is missing, or is not JSON",
                ],
            ),
            (
                servers([1, 2], 100, 0),
                [100, 0, 0, 0, 0],
                &[
                    "2 servers: echoed 100 = verified 100, discarded 0 = resent 0",
                    "open: 1 of 2 servers never said listening: the beginning of a log is missing",
                ],
            ),
        ] {
            let report = client(bytes(of_clients)).with_servers(servers).judged(&Default::default(), None);
            assert_eq!(report.told_books(), told);
            let (code, verdict) = if told.len() > 1 { (1, Verdict::Failed) } else { (0, Verdict::Passed) };
            assert_eq!((report.exit_code(), report.verdict), (code, verdict), "{told:?}");
            let (table, page) = (report.to_string(), report.to_html());
            for line in told {
                assert!(table.contains(&format!("\nbooks       {line}\n")), "{table}");
                let line = super::super::picture::escaped(&format!("Books: {line}."));
                assert!(page.contains(&format!("<p>{line}</p>")), "{page}");
            }
        }
    }

    #[test]
    fn without_a_server_there_are_no_books() {
        let report = client(bytes([7, 0, 0, 0, 0])).with_servers(told_by("{\"msg\":\"connected\"}\n\n{"));
        assert_eq!((&report.books, report.exit_code()), (&None, 0));
        assert!(!report.to_string().contains("books") && !report.to_html().contains("Books"));
    }

    #[test]
    fn the_bytes_of_a_client_of_an_earlier_version_are_unknown() {
        let json: serde_json::Value = serde_json::from_str(&client(Bytes::default()).to_json()).unwrap();
        let mut json = json.as_object().unwrap().clone();
        json.remove("bytes");
        let old: ClientReport = serde_json::from_value(json.into()).unwrap();
        let old = ClientReport { run: "old".into(), ..old };
        let merged = merge([old, client(bytes([7, 0, 0, 0, 0]))], 2).with_servers(servers([1, 1], 7, 0));
        let told = [
            "1 server: echoed 7, discarded 0",
            "open: the bytes of a client are unknown: its report is of an earlier version",
        ];
        assert_eq!(merged.told_books(), told);
    }

    #[test]
    fn servers_of_an_earlier_merge_stay_in_the_books() {
        let earlier = merge([client(bytes([7, 0, 0, 0, 0]))], 1).with_servers(servers([1, 0], 0, 0));
        let merged = merge([earlier], 1).with_servers(servers([0, 1], 7, 0));
        assert_eq!(merged.told_books(), ["1 server: echoed 7 = verified 7, discarded 0 = resent 0, closed"]);
    }

    /// What becomes of a message: its bytes at the servers, echoed and discarded, and at the clients.
    const OUTCOMES: [([u64; 2], [u64; 5]); 7] = [
        ([1, 0], [1, 0, 0, 0, 0]),
        ([1, 0], [0, 1, 0, 0, 0]),
        ([1, 1], [1, 0, 0, 1, 0]),
        ([0, 1], [0, 0, 1, 0, 0]),
        ([0, 0], [0, 0, 1, 0, 0]),
        ([1, 0], [0, 0, 0, 0, 1]),
        ([0, 1], [0, 0, 0, 0, 1]),
    ];

    proptest! {
        #[test]
        fn a_run_closes_however_it_is_split_over_servers_and_clients(
            messages in prop::collection::vec((1..1_000_u64, 0..OUTCOMES.len(), 0..4_usize, 0..3_usize), 0..50),
            more in 1..1_000_u64,
        ) {
            let (mut at_servers, mut at_clients) = ([[0; 2]; 4], [[0; 5]; 3]);
            for &(length, outcome, server, client) in &messages {
                let (of_server, of_client) = OUTCOMES[outcome];
                at_servers[server].iter_mut().zip(of_server).for_each(|(sum, times)| *sum += times * length);
                at_clients[client].iter_mut().zip(of_client).for_each(|(sum, times)| *sum += times * length);
            }
            let log = |[echoed, discarded]: [u64; 2]| format!(
                "s | {{\"msg\":\"listening\",\"max_connections\":1}}\n\
                 s | {{\"msg\":\"stopped\",\"echoed_total\":{echoed},\"discarded_total\":{discarded}}}\n"
            );
            let clients = || (0..).zip(at_clients).map(|(n, of_client)| {
                ClientReport { run: format!("run {n}"), sent: 1, bytes: Some(bytes(of_client)), ..ClientReport::default() }
            });
            let merged = |at_servers: [[u64; 2]; 4]| merge(clients(), 3).with_servers(told_by(&at_servers.map(log).concat()));
            let books = merged(at_servers).books.unwrap();
            prop_assert_eq!((books.servers.started, books.servers.stopped), (4, 4));
            prop_assert_eq!(books.open, Vec::<String>::new());
            // One byte more is one too many, unless it can be of a message that was given up.
            let given_up: u64 = at_clients.iter().map(|of_client| of_client[4]).sum();
            at_servers[0][0] += more + given_up;
            prop_assert_eq!(merged(at_servers).books.unwrap().open.is_empty(), false);
        }
    }
}
