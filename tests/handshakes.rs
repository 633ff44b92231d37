//! A stop while clients connect over a slow network: one whose connect has succeeded is never reset.
//!
//! The server runs as a process in a network of the test's own. Clients come spread around the signal, so that every state of a
//! handshake is met. Where there can be no such network the tests are reported as ignored. At the end a table shows what came of the clients.

mod common;
mod network;

use common::{PATIENCE, Server, Signal, number, program};
use libtest_mimic::{Arguments, Completion, Trial};
use network::{Network, Path, SERVER};
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    ops::AddAssign,
    process::ExitCode,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{sleep_until, timeout},
};

/// How long a stop waits for handshakes at most, less the time from the signal to the `stopping` and between two looks.
const BOUND: Duration = Duration::from_millis(1400);
/// How long a client waits for an answer to its SYN. It was refused, if none comes.
const UNANSWERED: Duration = Duration::from_secs(5);
/// How often each scenario is run, side by side; each time with other packets lost.
const ROUNDS: u64 = 3;
/// The first client's port; the others have those behind it.
const FIRST_PORT: u16 = 10_000;

struct Scenario {
    name: &'static str,
    /// In milliseconds. A tenth of it is jitter in each direction.
    round_trip: u64,
    loss: f64,
    reordering: f64,
    clients: u16,
    /// The time from the first connect to the last.
    span: Duration,
    /// From the first connect to the signal.
    signal: Duration,
    settings: &'static [(&'static str, &'static str)],
}

/// 200 clients come within two round trips. When the signal comes, the SYNs of half of them have arrived, and no later ones do.
const fn slow(name: &'static str, round_trip: u64) -> Scenario {
    let span = if round_trip < 50 { 100 } else { 2 * round_trip };
    let (span, signal) = (Duration::from_millis(span), Duration::from_millis((span + round_trip) / 2));
    Scenario { name, round_trip, loss: 0.0, reordering: 0.0, clients: 200, span, signal, settings: &[] }
}

const SCENARIOS: [Scenario; 6] = [
    slow("a_round_trip_of_2_ms_resets_no_client", 2),
    slow("a_round_trip_of_20_ms_resets_no_client", 20),
    slow("a_round_trip_of_150_ms_resets_no_client", 150),
    slow("a_round_trip_of_300_ms_resets_no_client", 300),
    // A client's last ACK, or the server's answer, may need a retransmission or two.
    Scenario {
        loss: 0.05,
        reordering: 0.2,
        ..slow("lost_and_reordered_packets_reset_no_client_whose_handshake_ends_within_the_bound", 150)
    },
    // A full backlog drops the last ACK of clients, which take themselves for connected. They come faster than it fills.
    Scenario {
        clients: 60,
        span: Duration::from_millis(10),
        signal: Duration::from_millis(100),
        settings: &[("supervisor.max_connections", "1"), ("supervisor.max_pending", "0"), ("listen.backlog", "8")],
        ..slow("a_full_backlog_resets_no_client", 2)
    },
];

/// What came of the clients, over all rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// Their connect failed.
    refused: usize,
    /// They read their echo, or the beginning of it, and EOF.
    clean: usize,
    /// Their connect succeeded, and then they were reset.
    reset: usize,
    /// Of the last, those whose handshake ended beyond the bound.
    late: usize,
    /// The longest stop of a round.
    elapsed_ms: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.refused += other.refused;
        self.clean += other.clean;
        self.reset += other.reset;
        self.late += other.late;
        self.elapsed_ms = self.elapsed_ms.max(other.elapsed_ms);
    }
}

/// What came of one client.
#[derive(PartialEq, Eq)]
enum Fate {
    Refused,
    Clean,
    Reset,
}

fn main() -> ExitCode {
    let obstacle = Arc::new(network::obstacle());
    let table = Arc::new(Mutex::new(Vec::new()));
    let trials = SCENARIOS.iter().map(|scenario| {
        let (obstacle, table) = (obstacle.clone(), table.clone());
        Trial::ignorable_test(scenario.name, move || match &*obstacle {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                let outcome = scenario.run();
                table.lock().unwrap().push((scenario, outcome));
                // Where nothing is lost no handshake takes that long.
                let excused = if scenario.loss > 0.0 { outcome.late } else { 0 };
                assert_eq!(outcome.reset, excused, "{outcome:?}");
                Ok(Completion::Completed)
            }
        })
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    show(&mut table.lock().unwrap());
    conclusion.exit_code()
}

fn show(table: &mut [(&Scenario, Outcome)]) {
    table.sort_by_key(|(scenario, _)| SCENARIOS.iter().position(|other| other.name == scenario.name));
    println!("round trip  loss  clients  refused  clean  reset  (late)  elapsed_ms");
    for (scenario, outcome) in &*table {
        let Outcome { refused, clean, reset, late, elapsed_ms } = *outcome;
        let (loss, clients) = (scenario.loss * 100.0, refused + clean + reset);
        let round_trip = scenario.round_trip;
        let note = scenario.settings.iter().map(|(key, value)| format!("  {key} = {value}")).collect::<String>();
        println!(
            "{round_trip:7} ms {loss:4}%  {clients:7}  {refused:7}  {clean:5}  {reset:5}  {late:6}  {elapsed_ms:10}{note}"
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

    fn round(&self, seed: u64) -> Outcome {
        let delay = Duration::from_millis(self.round_trip) / 2;
        let path = Path { delay, jitter: delay / 5, loss: self.loss, reordering: self.reordering, seed };
        let network = Network::new(path).unwrap();
        let address = SocketAddr::from((SERVER, 0)).to_string();
        let settings = [&[("listen.address", &*address)], self.settings].concat();
        let server = network.server.enter(|| Server::run(program(&settings))).unwrap();
        let (address, process) = (server.address, &server.process);

        let (signalled, fates) = network
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
                    process.signal(Signal::TERM);
                    let signalled = Instant::now();
                    let mut fates = Vec::new();
                    for (port, client) in (FIRST_PORT..).zip(clients) {
                        fates.push((port, client.await.expect("what it says is above")));
                    }
                    (signalled, fates)
                })
            })
            .unwrap();

        let ended = server.end();
        ended.log.assert_all_accounted_for();
        let stopped = ended.log.one("stopped");
        assert_eq!((ended.code, number(stopped, "forced")), (Some(0), 0), "{:?}", ended.log);

        let arrived = network.end();
        let is_late = |port| arrived.get(port).is_none_or(|arrived| *arrived > signalled + BOUND);
        let count = |fate: Fate| fates.iter().filter(|(_, is)| *is == fate).count();
        Outcome {
            refused: count(Fate::Refused),
            clean: count(Fate::Clean),
            reset: count(Fate::Reset),
            late: fates.iter().filter(|(port, fate)| *fate == Fate::Reset && is_late(port)).count(),
            elapsed_ms: number(stopped, "elapsed_ms"),
        }
    }
}

/// Connects from this port, sends a line at once, and reads to the end.
async fn client(start: Instant, port: u16, server: SocketAddr) -> Fate {
    let message = format!("from port {port}\n");
    sleep_until(start.into()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).unwrap();
    let mut stream = match timeout(UNANSWERED, socket.connect(server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return Fate::Refused,
        Ok(Err(error)) => panic!("{error}"),
        Err(_) => return Fate::Refused,
    };
    let exchange = async {
        stream.write_all(message.as_bytes()).await?;
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
