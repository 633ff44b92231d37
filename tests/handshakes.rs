//! A stop while clients connect over a slow network: a client whose connect has succeeded is never reset.
//!
//! The server runs as a process in a network of the test's own. Clients come at moments around the signal, so that the stop meets
//! every state of a handshake. Every second client sends a line at once. The others wait until the server ends the connection. A
//! stop cannot wait for two kinds of handshakes: those that end after its bound, and those of which the kernel keeps no record,
//! because it has sent a SYN cookie. Only their clients may be reset, and a table at the end shows how many were. Where there can be
//! no such network the tests are reported as ignored.

mod common;
mod network;

use common::{PATIENCE, Server, Signal, number, program, trial};
use libtest_mimic::Arguments;
use network::{Network, Path, SERVER};
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    ops::AddAssign,
    process::ExitCode,
    sync::{LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{sleep_until, timeout},
};

/// How long a stop waits for handshakes at most (1.5 s). The time from the signal to the record `stopping`, and the time between
/// two looks, are taken off.
const BOUND: Duration = Duration::from_millis(1400);
/// The longest stop where no packet is lost: 1.5 s for handshakes, and `linger`.
const LONGEST_MS: u64 = 1_500 + 1_000;
/// How long a client waits before it goes on without an answer.
const SILENCE: Duration = Duration::from_secs(5);
/// How often each scenario is run, side by side. Each run loses other packets.
const ROUNDS: u64 = 3;
/// The first client's port. The others have the ports after it.
const FIRST_PORT: u16 = 10_000;

struct Scenario {
    name: &'static str,
    /// In milliseconds. In each direction packets may take a tenth of it longer.
    round_trip: u64,
    loss: f64,
    reordering: f64,
    clients: u16,
    /// The time from the first connect to the last.
    span: Duration,
    /// From the first connect to the signal.
    signal: Duration,
    /// Whether the kernel may use SYN cookies. It then keeps no record of a handshake for which its queue has no room: the client
    /// takes itself for connected, and the server cannot know of it.
    cookies: bool,
    settings: &'static [(&'static str, &'static str)],
}

/// 200 clients come within two round trips. When the signal comes, the SYNs of half of them have arrived.
const fn slow(name: &'static str, round_trip: u64) -> Scenario {
    let span = if round_trip < 50 { 100 } else { 2 * round_trip };
    let (span, signal) = (Duration::from_millis(span), Duration::from_millis((span + round_trip) / 2));
    let (loss, reordering, clients, cookies) = (0.0, 0.0, 200, true);
    Scenario { name, round_trip, loss, reordering, clients, span, signal, cookies, settings: &[] }
}

/// Clients come to a full backlog, which drops the last ACK of their handshakes. They take themselves for connected.
const fn full(name: &'static str, cookies: bool) -> Scenario {
    let (span, signal) = (Duration::from_millis(10), Duration::from_millis(100));
    let settings = &[("supervisor.max_connections", "1"), ("supervisor.max_pending", "0"), ("listen.backlog", "8")];
    Scenario { clients: 60, span, signal, cookies, settings, ..slow(name, 2) }
}

static SCENARIOS: [Scenario; 7] = [
    slow("a_round_trip_of_2_ms_resets_no_client", 2),
    slow("a_round_trip_of_20_ms_resets_no_client", 20),
    slow("a_round_trip_of_150_ms_resets_no_client", 150),
    slow("a_round_trip_of_300_ms_resets_no_client", 300),
    Scenario {
        loss: 0.05,
        reordering: 0.2,
        ..slow("lost_and_reordered_packets_reset_no_client_whose_handshake_ends_within_the_bound", 150)
    },
    full("a_full_backlog_resets_no_client", false),
    full("a_full_backlog_resets_no_client_but_those_with_a_cookie", true),
];

/// What happened to the clients, over all rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// Their connect failed.
    refused: usize,
    /// They read their echo, or the beginning of it, and EOF.
    clean: usize,
    /// Their connect succeeded, and then they were reset.
    reset: usize,
    /// Clients among these whose handshake ended after the bound.
    late: usize,
    /// Clients among these of which the kernel had no record when the signal came, and whose handshake ended before the bound.
    unrecorded: usize,
    /// How many SYN-ACKs had a cookie.
    cookies: usize,
    /// The longest stop of a round.
    elapsed_ms: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.refused += other.refused;
        self.clean += other.clean;
        self.reset += other.reset;
        self.late += other.late;
        self.unrecorded += other.unrecorded;
        self.cookies += other.cookies;
        self.elapsed_ms = self.elapsed_ms.max(other.elapsed_ms);
    }
}

/// What happened to one client.
#[derive(PartialEq, Eq)]
enum Fate {
    Refused,
    Clean,
    Reset,
}

/// The outcomes of the scenarios that have run.
static TABLE: Mutex<Vec<(&Scenario, Outcome)>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(network::obstacle);
    let trials = SCENARIOS.iter().map(|scenario| {
        let test = || {
            let outcome = scenario.run();
            TABLE.lock().unwrap().push((scenario, outcome));
            scenario.check(outcome);
        };
        trial(scenario.name, || OBSTACLE.clone(), test)
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    let table = TABLE.lock().unwrap();
    if !table.is_empty() {
        show(&table);
    }
    conclusion.exit_code()
}

fn show(table: &[(&Scenario, Outcome)]) {
    println!(
        "seeds 1 to {ROUNDS}\nround trip  loss  clients  refused  clean  reset  (late)  (no record)  cookies  elapsed_ms"
    );
    let rows = SCENARIOS.iter().filter_map(|scenario| table.iter().find(|(ran, _)| ran.name == scenario.name));
    for (Scenario { round_trip, loss, settings, .. }, outcome) in rows {
        let Outcome { refused, clean, reset, late, unrecorded, cookies, elapsed_ms } = *outcome;
        let (loss, clients) = (loss * 100.0, refused + clean + reset);
        let settings = settings.iter().map(|(key, value)| format!("  {key} = {value}")).collect::<String>();
        println!(
            "{round_trip:7} ms {loss:4}%  {clients:7}  {refused:7}  {clean:5}  {reset:5}  {late:6}  {unrecorded:11}  {cookies:7}  {elapsed_ms:10}{settings}"
        );
    }
}

impl Scenario {
    fn run(&self) -> Outcome {
        thread::scope(|scope| {
            let rounds: Vec<_> = (1..=ROUNDS).map(|seed| scope.spawn(move || self.round(seed))).collect();
            let outcomes = rounds.into_iter().map(|round| round.join().expect("what it says is above"));
            outcomes.fold(Outcome::default(), |mut all, outcome| {
                all += outcome;
                all
            })
        })
    }

    fn check(&self, outcome: Outcome) {
        let Outcome { refused, clean, reset, late, unrecorded, cookies, elapsed_ms } = outcome;
        assert_eq!(reset, late + unrecorded, "a client is reset though the kernel had a record of it: {outcome:?}");
        assert!(unrecorded <= cookies, "a record is missing without a cookie: {outcome:?}");
        assert_eq!(cookies > 0, self.cookies && self.fills_the_backlog(), "{outcome:?}");
        assert!(self.loss > 0.0 || elapsed_ms <= LONGEST_MS, "the stop takes too long: {outcome:?}");
        // If all of them had cookies, all may have been connected when the signal came.
        assert!(clean > 0 && refused + cookies > 0, "the signal comes in their middle: {outcome:?}");
    }

    fn fills_the_backlog(&self) -> bool {
        !self.settings.is_empty()
    }

    fn round(&self, seed: u64) -> Outcome {
        let delay = Duration::from_millis(self.round_trip) / 2;
        let path = Path { delay, jitter: delay / 5, loss: self.loss, reordering: self.reordering, seed };
        let network = Network::new(path).unwrap();
        network.server.set("tcp_syncookies", if self.cookies { "1" } else { "0" });
        let address = SocketAddr::from((SERVER, 0)).to_string();
        let settings = [&[("listen.address", &*address)], self.settings].concat();
        let server = network.server.enter(|| Server::run(program(&settings))).unwrap();
        let (address, process) = (server.address, &server.process);

        let (signalled, recorded, fates) = network
            .client
            .enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let begun = Instant::now() + Duration::from_millis(10);
                    let clients = (0..self.clients).map(|n| {
                        let start = begun + self.span.mul_f64(f64::from(n) / f64::from(self.clients));
                        tokio::spawn(client(start, FIRST_PORT + n, address))
                    });
                    let clients: Vec<_> = clients.collect();
                    sleep_until((begun + self.signal).into()).await;
                    let recorded = network.server.clients_of(address.port());
                    process.signal(Signal::TERM);
                    let signalled = Instant::now();
                    let mut fates = Vec::new();
                    for (port, client) in (FIRST_PORT..).zip(clients) {
                        fates.push((port, client.await.expect("what it says is above")));
                    }
                    (signalled, recorded, fates)
                })
            })
            .unwrap();

        let ended = server.end();
        ended.log.assert_all_accounted_for();
        let stopped = ended.log.one("stopped");
        assert_eq!((ended.code, number(stopped, "forced")), (Some(0), 0), "{:?}", ended.log);

        let cookies = network.server.counter("SyncookiesSent");
        let arrived = network.end();
        let is_late = |port| arrived.get(port).is_none_or(|arrived| *arrived > signalled + BOUND);
        let resets: Vec<_> = fates.iter().filter(|(_, fate)| *fate == Fate::Reset).map(|(port, _)| port).collect();
        let (late, in_time): (Vec<_>, Vec<_>) = resets.into_iter().partition(|port| is_late(port));
        let count = |fate: Fate| fates.iter().filter(|(_, is)| *is == fate).count();
        Outcome {
            refused: count(Fate::Refused),
            clean: count(Fate::Clean),
            reset: count(Fate::Reset),
            late: late.len(),
            unrecorded: in_time.iter().filter(|port| !recorded.contains(port)).count(),
            cookies,
            elapsed_ms: number(stopped, "elapsed_ms"),
        }
    }
}

/// Connects from this port, sends a line, at once or after some time, and reads to the end.
async fn client(start: Instant, port: u16, server: SocketAddr) -> Fate {
    let message = format!("from port {port}\n");
    sleep_until(start.into()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).unwrap();
    let mut stream = match timeout(SILENCE, socket.connect(server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Fate::Refused,
        Ok(Err(error)) => panic!("{error}"),
        Err(_) => return Fate::Refused,
    };
    let exchange = async {
        // A client that the server has forgotten hears of it only when it sends something.
        if port.is_multiple_of(2) || timeout(SILENCE, stream.readable()).await.is_err() {
            stream.write_all(message.as_bytes()).await?;
        }
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo).await?;
        io::Result::Ok(echo)
    };
    match timeout(PATIENCE, exchange).await.expect("an end") {
        Ok(echo) => {
            assert!(message.as_bytes().starts_with(&echo), "{}", echo.escape_ascii());
            Fate::Clean
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
            Fate::Reset
        }
    }
}
