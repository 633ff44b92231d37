//! A real HAProxy with the configuration of `compose/haproxy/`, three servers, and the verifying client.
//!
//! Each test has a network namespace of its own, so the ports are those of the configuration. HAProxy finds the servers as it does
//! in a container: it asks the name server at 127.0.0.11, which is a thread of the test. What a test waits for, HAProxy's own
//! statistics or a server's log tells. Where there is no HAProxy, or no namespace, the tests are reported as ignored.

mod common;
mod network;

use common::{
    Client, Lines, PATIENCE, Process, Records, Server, Signal, connect, get, number, read_to_eof, round_trip, tests,
    trial, wait_until,
};
use libtest_mimic::Arguments;
use network::Namespace;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    process::{Command, ExitCode},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// Where HAProxy listens, and where it tells its state.
const BALANCER: &str = "127.0.0.1:12345";
const STATISTICS: &str = "127.0.0.1:9999";
/// Docker's name server has this address in every container.
const NAME_SERVER: &str = "127.0.0.11:53";

fn main() -> ExitCode {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(obstacle);
    let tests = tests![
        a_server_that_is_drained_under_traffic_loses_nothing,
        a_server_that_stops_under_traffic_has_a_last_word_and_loses_nothing,
        a_full_house_takes_no_server_down_and_its_next_client_gets_the_next_server,
        a_full_balancer_is_healthy,
        a_killed_server_costs_the_messages_that_it_had_and_the_verdict_names_them,
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        // Everything in the test belongs to this namespace: what it starts, and what it connects to.
        trial(name, || OBSTACLE.clone(), || Namespace::alone().unwrap().enter(test).unwrap())
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn obstacle() -> Option<String> {
    if Command::new("haproxy").arg("-v").output().is_err() {
        return Some("there is no HAProxy".into());
    }
    Namespace::alone().err().map(|error| format!("no network namespaces: {error}"))
}

fn a_server_that_is_drained_under_traffic_loses_nothing() {
    // The lame duck serves until its last client has made a new connection, to another server. So its stop finds none.
    let first = stop_the_first(&["--renew", "1s"], || wait_until("the first is empty", || connections_of(1) == 0));
    assert_eq!(number(first.one("stopping"), "connections"), 0, "{first:?}");
}

fn a_server_that_stops_under_traffic_has_a_last_word_and_loses_nothing() {
    let first = stop_the_first(&[], || ());
    assert_eq!(number(first.one("stopped"), "acknowledged"), 2, "{first:?}");
}

/// Stops one of three servers under the traffic of a client with six connections: first it is a lame duck, and `meanwhile` ends that.
/// Asserts that nothing is lost. Gives the log of the stopped server.
fn stop_the_first(args: &[&str], meanwhile: impl FnOnce()) -> Records {
    let settings = [("supervisor.lame_duck", "300s"), ("connection.last_word", "5s")];
    let [mut first, mut second, mut third] = [1, 2, 3].map(|nth| start(nth, &settings));
    let haproxy = Haproxy::start(1024, &[1, 2, 3]);
    haproxy.wait_until("three servers are up", |haproxy| haproxy.up().len() == 3);
    let client = client(&[&["--connections", "6", "--period", "0s"], args].concat());
    for server in [&mut first, &mut second, &mut third] {
        (0..2).for_each(|_| drop(server.log.wait("connection opened")));
    }

    first.signal(Signal::TERM);
    haproxy.wait_until("the first is down", |haproxy| haproxy.up() == [address(2), address(3)]);
    meanwhile();
    let first = end(first);

    client.process.signal(Signal::TERM);
    let run = client.end();
    let (code, [sent, verified, wrong, lost]) = run.outcome();
    assert_eq!((code, sent, wrong, lost), (0, verified, 0, 0));
    let connects = |field| number(&run.report["connections"], field);
    assert_eq!((connects("refused"), connects("unanswered")), (0, 0), "{run:?}");
    [&second, &third].iter().for_each(|server| server.signal(Signal::TERM));
    let logs = [first, end(second), end(third)];
    assert_eq!(echoed(&logs), verified * (MESSAGE.len() as u64 + 1), "{logs:?}");
    haproxy.stop();
    let [first, ..] = logs;
    first
}

fn a_full_house_takes_no_server_down_and_its_next_client_gets_the_next_server() {
    let settings = [("supervisor.max_connections", "2"), ("supervisor.max_pending", "0")];
    let mut first = start(1, &settings);
    let haproxy = Haproxy::start(2, &[1]);
    haproxy.wait_until("one server is up", |haproxy| haproxy.up() == [address(1)]);
    let mut guests = [(); 2].map(|()| connect(BALANCER.parse().unwrap()));
    guests.iter_mut().for_each(round_trip);
    // HAProxy told whose connections they are.
    guests.iter().for_each(|guest| drop(first.log.wait_of("connection opened", guest)));
    assert_eq!(get(admin(1), "/readyz").status, 503, "it is full");

    let mut next = connect(BALANCER.parse().unwrap());
    next.write_all(b"I can wait\n").unwrap();
    haproxy.wait_until("the next client waits", |haproxy| haproxy.backend("qcur") == "1");
    // HAProxy looks at a server as often as it asks for names.
    haproxy.names.wait_for_questions(6);
    assert_eq!((haproxy.up(), haproxy.backend("qcur")), (vec![address(1)], "1".into()));

    let mut second = start(2, &settings);
    haproxy.names.set(&[1, 2]);
    second.log.wait("connection opened");
    next.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_eof(&mut next), b"I can wait\n");
    guests.iter_mut().for_each(round_trip);
}

fn a_full_balancer_is_healthy() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let _server = start(1, &[("supervisor.max_connections", "5000")]);
    let haproxy = Haproxy::start(5000, &[1]);
    haproxy.wait_until("one server is up", |haproxy| haproxy.up() == [address(1)]);
    let most: usize = haproxy.column(["echo", "FRONTEND"], "slim").parse().unwrap();
    let _clients: Vec<_> = (0..=most).map(|_| connect(BALANCER.parse().unwrap())).collect();
    haproxy.wait_until("it is full", |haproxy| haproxy.column(["echo", "FRONTEND"], "scur") == most.to_string());
    assert_eq!(get("127.0.0.1:8080".parse().unwrap(), "/readyz").status, 200);
}

fn a_killed_server_costs_the_messages_that_it_had_and_the_verdict_names_them() {
    let [mut first, mut second, mut third] = [1, 2, 3].map(|nth| start(nth, &[]));
    let haproxy = Haproxy::start(1024, &[1, 2, 3]);
    haproxy.wait_until("three servers are up", |haproxy| haproxy.up().len() == 3);
    let mut client = client(&["--connections", "6", "--period", "1ms", "--timeout", "60s"]);
    for server in [&mut first, &mut second, &mut third] {
        (0..2).for_each(|_| drop(server.log.wait("connection opened")));
    }

    // A server that is held keeps its connections and answers nothing. So each of its two gets one message and no echo.
    first.signal(Signal::STOP);
    haproxy.wait_until("the first is down", |haproxy| haproxy.up() == [address(2), address(3)]);
    first.signal(Signal::KILL);
    let lost = [(); 2].map(|()| client.log.wait("echo lost"));
    assert!(lost.iter().all(|lost| matches!(lost["reason"].as_str(), Some("closed" | "reset"))), "{lost:?}");
    for server in [&mut second, &mut third] {
        server.log.wait("connection opened");
    }

    client.process.signal(Signal::TERM);
    let run = client.end();
    let (code, [sent, verified, wrong, lost]) = run.outcome();
    assert_eq!((code, sent, wrong, lost), (1, verified + 2, 0, 2), "{run:?}");
    // SD: the server ended the session while bytes could still come.
    let log = haproxy.stop();
    assert_eq!(log.iter().filter(|line| line.contains(" SD ")).count(), 2, "{log:#?}");
}

// The servers.

/// A server's loopback address, where all three have the same ports as in containers.
fn address(nth: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, nth)
}

fn admin(nth: u8) -> SocketAddr {
    (address(nth), 8080).into()
}

fn start(nth: u8, settings: &[(&str, &str)]) -> Server {
    let (listen, admin) = (format!("{}:12345", address(nth)), admin(nth).to_string());
    let proxy = ("listen.proxy_protocol", "required");
    let own = [("listen.address", &*listen), proxy, ("admin.address", &*admin), ("log.level", "debug")];
    Server::start(&[&own, settings].concat())
}

/// How many connections it has.
fn connections_of(nth: u8) -> u64 {
    let tree = get(admin(nth), "/v1/tree").json();
    number(&tree["admission"], "served")
}

/// Ends a lame duck.
fn end(lame_duck: Server) -> Records {
    lame_duck.signal_again(Signal::TERM);
    let ended = lame_duck.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    ended.log
}

/// All bytes that were echoed, over these logs.
fn echoed(logs: &[Records]) -> u64 {
    logs.iter().flat_map(|log| log.of("connection closed")).map(|close| number(close, "echoed")).sum()
}

// The client.

/// What it sends: each message as long as the others, so that verified messages can be compared with bytes.
const MESSAGE: &str = "0123456789";

/// A client of the balancer without an end.
fn client(args: &[&str]) -> Client {
    Client::start(BALANCER, &[&["--messages", "0", "--message", MESSAGE], args].concat())
}

// HAProxy.

struct Haproxy {
    process: Process,
    log: Lines,
    names: Names,
}

impl Haproxy {
    /// Starts one for servers with this cap. It finds those with these numbers.
    fn start(max_connections: u16, servers: &[u8]) -> Self {
        let names = Names::start(servers);
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/compose/haproxy/haproxy.cfg")]);
        command.env("ADDRESS", "127.0.0.1").env("MAX_CONNECTIONS", max_connections.to_string());
        let (process, stdout) = Process::spawn(command);
        Self { process, log: Lines::of(stdout), names }
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        wait_until(what, || is_so(self));
    }

    /// The servers that get connections.
    fn up(&self) -> Vec<Ipv4Addr> {
        let Some(state) = ask("show servers state servers") else { return Vec::new() };
        let rows = state.lines().skip(2).map(|line| line.split(' ').collect::<Vec<_>>());
        let running = rows.filter(|row| row.len() > 5 && (row[5], row[6]) == ("2", "0"));
        let mut up: Vec<Ipv4Addr> = running.map(|row| row[4].parse().unwrap()).collect();
        up.sort();
        up
    }

    /// A column of its statistics, for all servers together.
    fn backend(&self, column: &str) -> String {
        self.column(["servers", "BACKEND"], column)
    }

    /// A column of a row of its statistics.
    fn column(&self, row: [&str; 2], column: &str) -> String {
        let table = ask("show stat").expect("it runs");
        let mut rows = table.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
        let column = rows.next().unwrap().iter().position(|name| *name == column).expect("it has this column");
        rows.find(|found| found[..2] == row).expect("it has this row")[column].into()
    }

    /// Tells it to stop when its connections have ended. Gives its log.
    fn stop(self) -> Vec<String> {
        self.process.signal(Signal::USR1);
        let deadline = Instant::now() + PATIENCE;
        let log = std::iter::from_fn(|| self.log.next(deadline).ok()).collect();
        let (code, errors) = self.process.exit();
        assert_eq!(code, Some(0), "{log:#?}\n{errors}");
        log
    }
}

/// Asks the statistics' socket, once HAProxy has it.
fn ask(question: &str) -> Option<String> {
    let mut socket = TcpStream::connect(STATISTICS).ok()?;
    writeln!(socket, "{question}").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A name server that has the addresses of the servers for every question.
struct Names {
    servers: Arc<Mutex<Vec<u8>>>,
    questions: Arc<AtomicUsize>,
}

impl Names {
    fn start(servers: &[u8]) -> Self {
        let socket = UdpSocket::bind(NAME_SERVER).unwrap();
        let names = Self { servers: Arc::new(Mutex::new(servers.to_vec())), questions: Arc::default() };
        let (servers, questions) = (names.servers.clone(), names.questions.clone());
        // It ends with the program. HAProxy may ask to its own end.
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let answer = answer(&question[..length], &servers.lock().unwrap());
                let _ = socket.send_to(&answer, from);
                questions.fetch_add(1, Ordering::Relaxed);
            }
        });
        names
    }

    fn set(&self, servers: &[u8]) {
        *self.servers.lock().unwrap() = servers.to_vec();
    }

    fn wait_for_questions(&self, more: usize) {
        let enough = self.questions.load(Ordering::Relaxed) + more;
        wait_until("it asks again", || self.questions.load(Ordering::Relaxed) >= enough);
    }
}

/// The answer (RFC 1035) to a question for one name: its address records.
fn answer(question: &[u8], servers: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    // Behind the name stand its end, a type and a class, of two bytes each.
    let end = HEADER + question[HEADER..].iter().position(|byte| *byte == 0).expect("a name ends") + 5;
    let mut answer =
        [&question[..2], &[0x84, 0, 0, 1, 0, servers.len() as u8, 0, 0, 0, 0], &question[HEADER..end]].concat();
    for server in servers {
        // The name of the question, type A, class IN, one second, four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address(*server).octets());
    }
    answer
}
