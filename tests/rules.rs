//! The rules that the server keeps, one after the other, as its clients and its log see them. Rule 3, how it stops, has a
//! file of its own, `stop.rs`; so has what signals have to do with rule 4.

mod common;

use common::*;
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};
use supervised_echo::{Service, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn peers(log: &Records, msg: &str) -> Vec<String> {
    log.of(msg).iter().map(|record| record["peer"].as_str().unwrap().to_owned()).collect()
}

/// Waits until every Acceptor has its handle of the listening socket, beside the Supervisor's own. Gives another one, and
/// what the socket is called.
fn listener_of_all(server: &Server, workers: usize) -> (socket2::Socket, String) {
    let (listener, name) = server.listener();
    wait_until("every Acceptor has its handle", || server.process.handles(&name) == 1 + workers);
    (listener, name)
}

// Rule 1: the cap is exact.

#[test]
fn clients_beyond_the_cap_wait_in_order_of_arrival_and_those_beyond_max_pending_in_the_backlog() {
    let mut server = Server::start(&[
        ("supervisor.workers", "1"),
        ("supervisor.max_connections", "2"),
        ("supervisor.max_pending", "3"),
        ("log.level", "debug"),
    ]);
    let mut served: VecDeque<_> = (0..2).map(|_| server.connect_served()).collect();
    let mut waiting = VecDeque::new();
    for pending in 1..=3 {
        let client = server.connect();
        let record = server.log.wait_of("connection waiting", &client);
        assert_eq!(number(&record, "pending"), pending);
        waiting.push_back(client);
    }
    let mut backlog: VecDeque<_> = (0..2).map(|_| server.connect()).collect();
    let arrivals: Vec<_> = served.iter().chain(&waiting).chain(&backlog).map(Named::name).collect();
    // The only Worker has heard of the last two before it hears of these.
    served.iter_mut().for_each(round_trip);
    assert_eq!(server.backlog(), 2);

    while let Some(mut next) = waiting.pop_front() {
        drop(served.pop_front());
        server.log.wait_of("connection opened", &next);
        round_trip(&mut next);
        served.push_back(next);
        if let Some(moves_up) = backlog.pop_front() {
            server.log.wait_of("connection waiting", &moves_up);
            waiting.push_back(moves_up);
            assert_eq!(server.backlog(), backlog.len() as u64);
        }
    }
    drop(served);
    let log = server.stop().log;
    assert_eq!(peers(&log, "connection opened"), arrivals);
    assert_eq!(peers(&log, "connection waiting"), arrivals[2..]);
}

#[test]
fn a_freed_slot_goes_to_the_oldest_waiter_whichever_thread_it_is_on() {
    let mut server = Server::start(&[
        ("supervisor.workers", "4"),
        ("supervisor.max_connections", "1"),
        ("supervisor.max_pending", "40"),
        ("log.level", "debug"),
    ]);
    let mut clients = VecDeque::from([server.connect_served()]);
    for _ in 0..40 {
        let client = server.connect();
        server.log.wait_of("connection waiting", &client);
        clients.push_back(client);
    }
    let arrivals: Vec<_> = clients.iter().map(Named::name).collect();
    while let Some(mut client) = clients.pop_front() {
        round_trip(&mut client);
    }
    assert_eq!(peers(&server.stop().log, "connection opened"), arrivals);
}

/// Echoes, and knows how many it has served at once.
struct Counting {
    now: AtomicUsize,
    most: Sender<usize>,
}

impl Service for Counting {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = self.most.send(now);
        let (mut from, mut to) = tokio::io::split(socket);
        let copied = tokio::io::copy(&mut from, &mut to).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        copied.map(drop)
    }
}

#[test]
fn the_cap_is_exact_over_all_threads() {
    const CAP: usize = 8;
    let (most, served) = channel();
    let mut settings = settings();
    settings.supervisor.workers = 4;
    settings.supervisor.max_connections = CAP;
    settings.supervisor.max_pending = 16;
    let server = InProcess::start(settings, Counting { now: AtomicUsize::new(0), most });
    // The house is full before the crowd comes, and every one of the crowd is served at last.
    let mut first: Vec<_> = (0..CAP).map(|_| connect(server.address)).collect();
    first.iter_mut().for_each(round_trip);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..10 {
                    round_trip(&mut connect(server.address));
                }
            });
        }
        drop(first);
    });
    server.handle.stop();
    server.end();
    let served: Vec<_> = served.try_iter().collect();
    assert_eq!((served.len(), served.iter().max()), (CAP + 200, Some(&CAP)));
}

#[test]
fn a_waiter_that_goes_gives_its_place_back_and_one_that_has_sent_and_half_closed_keeps_it() {
    let mut server =
        Server::start(&[("supervisor.max_connections", "1"), ("supervisor.max_pending", "1"), ("log.level", "debug")]);
    let served = server.connect_served();
    let (resets, ends, mut half_closes) = (server.connect(), server.connect(), server.connect());
    half_closes.write_all(b"owed").unwrap();
    half_closes.shutdown(Shutdown::Write).unwrap();

    let (resetter, ender) = (resets.local_addr().unwrap(), ends.local_addr().unwrap());
    server.log.wait_of("connection waiting", &resetter);
    reset(resets);
    assert_eq!(server.log.wait_of("connection closed", &resetter)["reason"], "reset");
    server.log.wait_of("connection waiting", &ender);
    drop(ends);
    assert_eq!(server.log.wait_of("connection closed", &ender)["reason"], "client");
    server.log.wait_of("connection waiting", &half_closes);
    drop(served);
    assert_eq!(read_to_eof(&mut half_closes), b"owed");
    assert_eq!(server.log.wait_of("connection closed", &half_closes)["reason"], "client");
    let log = server.stop().log;
    assert_eq!(peers(&log, "connection opened").len(), 2);
    log.assert_all_accounted_for();
}

// Rule 2: a crash stays where it is.

/// Echoes byte for byte, and panics on `!`.
struct Panicky;

impl Service for Panicky {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut byte = [0];
        while socket.read(&mut byte).await? > 0 {
            assert_ne!(byte, *b"!");
            socket.write_all(&byte).await?;
        }
        Ok(())
    }
}

#[test]
fn a_connection_that_panics_is_reset_alone_and_frees_its_slot() {
    let mut settings = settings();
    settings.supervisor.workers = 1;
    settings.supervisor.max_connections = 2;
    let mut server = InProcess::start(settings, Panicky);
    let (mut panics, mut other) = (connect(server.address), connect(server.address));
    round_trip(&mut panics);
    round_trip(&mut other);
    let mut waits = connect(server.address);
    panics.write_all(b"!").unwrap();
    assert_eq!(panics.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    round_trip(&mut waits);
    round_trip(&mut other);
    let close = server.log.wait_of("connection closed", &panics);
    assert_eq!((close["reason"].as_str(), close["level"].as_str()), (Some("crashed"), Some("ERRO")));

    drop((waits, other));
    server.handle.stop();
    let (report, log) = server.end();
    assert_eq!((report.crashed, report.forced, report.exit_code()), (1, 0, 0));
    assert_eq!(number(log.one("stopped"), "crashed"), 1);
}

#[test]
fn an_acceptor_that_crashes_is_replaced_and_no_queued_client_is_lost() {
    let mut server =
        Server::start(&[("supervisor.workers", "2"), ("supervisor.max_restarts", "1000000"), ("log.level", "debug")]);
    let mut client = server.connect_served();
    let (listener, name) = listener_of_all(&server, 2);
    listener.shutdown(Shutdown::Both).unwrap();
    wait_until("both have crashed", || server.process.handles(&name) == 1);
    listener.listen(16).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap(); // the shutdown has cost it its port
    let mut queued: Vec<_> = (0..10).map(|_| connect(address)).collect();
    queued.iter_mut().for_each(round_trip);
    round_trip(&mut client);

    let restarts = [server.log.wait("acceptor restarted"), server.log.wait("acceptor restarted")];
    for restart in &restarts {
        assert_eq!(restart["level"], "warn");
        assert!(restart["reason"].as_str().unwrap().starts_with("Invalid argument"), "{restart}");
    }
    drop((client, queued));
    let ended = server.stop();
    assert_eq!((ended.code, ended.log.one("stopping")["reason"].as_str()), (Some(0), Some("SIGTERM")));
    ended.log.assert_all_accounted_for();
}

#[test]
fn a_worker_that_panics_takes_its_connections_along_and_the_rest_stops_gracefully() {
    /// The log is where a Worker's own code can be made to panic.
    fn panic_at_the_first_restart(record: &slog::Record<'_>) {
        static DONE: AtomicBool = AtomicBool::new(false);
        let restart = record.msg().to_string() == "acceptor restarted";
        assert!(!restart || DONE.swap(true, Ordering::Relaxed), "told to");
    }
    let (blocked, blocks) = channel();
    let (go_on, may_go_on) = channel();
    let mut settings = settings();
    settings.supervisor.workers = 2;
    settings.supervisor.max_restarts = 1_000_000;
    let service = Blocking { blocked, go_on: Mutex::new(may_go_on) };
    let mut server = InProcess::start_with(settings, service, panic_at_the_first_restart);
    // While its thread is blocked the first one's Worker accepts nobody, so the second one goes to the other.
    let mut clients = vec![connect(server.address)];
    clients[0].write_all(b"#").unwrap();
    blocks.recv_timeout(PATIENCE).unwrap();
    clients.push(connect(server.address));
    round_trip(&mut clients[1]);
    go_on.send(()).unwrap();
    round_trip(&mut clients[0]);
    let workers = [0, 1].map(|at: usize| number(&server.log.wait_of("connection opened", &clients[at]), "worker"));

    server.listener().shutdown(Shutdown::Both).unwrap();
    let crashed = number(&server.log.wait("worker crashed"), "worker");
    for (mut client, worker) in clients.into_iter().zip(workers) {
        let (got, end) = read_pattern(&mut client, 0, |_| {});
        let expected = if worker == crashed { Err(io::ErrorKind::ConnectionReset) } else { Ok(()) };
        assert_eq!((got, end.map_err(|error| error.kind())), (0, expected));
    }
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.gave_up, report.exit_code()), (1, 1, true, 1));
    assert_eq!(log.one("stopping")["reason"], "restarts");
    assert_eq!(number(log.one("worker stopped"), "worker"), 3 - crashed);
    assert_eq!(log.of("arbiter joined").len(), 2);
}

#[test]
fn too_many_restarts_stop_the_server_gracefully() {
    let mut server = Server::start(&[
        ("supervisor.workers", "2"),
        ("supervisor.max_restarts", "2"),
        ("connection.linger", "20s"),
        ("log.level", "debug"),
    ]);
    let mut client = server.connect_served();
    server.listener().0.shutdown(Shutdown::Both).unwrap();
    let given_up = server.log.wait("acceptor given up");
    client.write_all(b"owed").unwrap();
    assert!(b"owed".starts_with(&read_to_eof(&mut client)));
    drop(client);
    let ended = server.end();
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.log.one("stopping")["reason"], "restarts");
    let restarted = ended.log.of("acceptor restarted").into_iter();
    let restarts = restarted.filter(|record| record["worker"] == given_up["worker"]);
    assert_eq!(restarts.map(|record| number(record, "restarts")).collect::<Vec<_>>(), [1, 2]);
    ended.log.assert_all_accounted_for();
}

// Rule 4: the deadline holds.

/// Echoes, but on `#` blocks its thread, and says so, until it is allowed to go on.
struct Blocking {
    blocked: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Service for Blocking {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            match socket.read(&mut bytes).await? {
                0 => return Ok(()),
                n if bytes[..n].contains(&b'#') => {
                    let _ = self.blocked.send(());
                    let _ = self.go_on.lock().unwrap().recv();
                }
                n => socket.write_all(&bytes[..n]).await?,
            }
        }
    }
}

#[test]
fn a_worker_that_is_stuck_is_named_with_its_connections_and_left_behind() {
    let (blocked, blocks) = channel();
    let (_go_on, may_go_on) = channel();
    let mut settings = settings();
    settings.supervisor.workers = 2;
    settings.supervisor.shutdown_timeout = Duration::from_millis(300);
    let mut server = InProcess::start(settings, Blocking { blocked, go_on: Mutex::new(may_go_on) });
    let mut stuck = connect(server.address);
    let worker = number(&server.log.wait_of("connection opened", &stuck), "worker") as usize;
    stuck.write_all(b"#").unwrap();
    blocks.recv_timeout(PATIENCE).unwrap();
    let mut other = connect(server.address); // for the other thread to accept
    round_trip(&mut other);

    server.handle.stop();
    assert!(read_to_eof(&mut other).is_empty());
    drop(other);
    let (report, log) = server.end();
    assert_eq!(report.stuck.iter().map(|worker| worker.0).collect::<Vec<_>>(), [worker]);
    assert_eq!((report.acknowledged, report.forced, report.exit_code()), (1, 1, 3));
    let named = log.one("worker stuck");
    assert_eq!((number(named, "worker") as usize, number(named, "connections")), (worker, 1));
    for end in ["worker stopped", "arbiter joined"] {
        assert_eq!(number(log.one(end), "worker") as usize, 3 - worker);
    }
}

/// Echoes; a `#` leaves something behind on its thread that does not end before it is allowed to.
struct Leaving {
    left: Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl Service for Leaving {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            match socket.read(&mut bytes).await? {
                0 => return Ok(()),
                n if bytes[..n].contains(&b'#') => {
                    let (left, go_on) = (self.left.clone(), self.go_on.clone());
                    tokio::task::spawn_blocking(move || {
                        let _ = left.send(());
                        let _ = go_on.lock().map(|go_on| go_on.recv());
                    });
                }
                n => socket.write_all(&bytes[..n]).await?,
            }
        }
    }
}

#[test]
fn a_thread_that_does_not_end_is_named_and_left_behind_though_its_worker_has_acknowledged() {
    let (left, lefts) = channel();
    let (_go_on, may_go_on) = channel();
    let mut server = InProcess::start(settings(), Leaving { left, go_on: Arc::new(Mutex::new(may_go_on)) });
    let mut client = connect(server.address);
    let worker = number(&server.log.wait_of("connection opened", &client), "worker") as usize;
    client.write_all(b"#").unwrap();
    lefts.recv_timeout(PATIENCE).unwrap();
    server.handle.stop();
    assert!(read_to_eof(&mut client).is_empty());
    drop(client);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.exit_code()), (1, 0, 0));
    assert_eq!(report.stuck.iter().map(|worker| worker.0).collect::<Vec<_>>(), [worker]);
    assert_eq!(number(log.one("arbiter stuck"), "worker") as usize, worker);
}

// Rule 5: memory is bounded.

#[test]
fn clients_that_send_and_never_read_cost_no_more_than_a_buffer_each() {
    const CLIENTS: usize = 4;
    const BUFFER: u64 = 64 * 1024;
    const MOST: u64 = 16 * 1024 * 1024;
    // What the allocator and the kernel round up to, and pages that the server touches for the first time.
    const SLACK: u64 = 6 * 1024 * 1024;
    let server = Server::start(&[("supervisor.workers", "1")]);
    let mut other = server.connect();
    round_trip(&mut other);
    let before = server.process.memory();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect_narrow(server.address)).collect();
    let sent: Vec<_> = clients.iter_mut().map(|client| stuff(client, &mut other, MOST)).collect();
    let grown = server.process.memory().saturating_sub(before);
    assert!(grown < CLIENTS as u64 * BUFFER + SLACK, "{grown} bytes for {sent:?}");

    // The back-pressure has cost them no byte.
    for (client, sent) in clients.iter_mut().zip(sent) {
        assert!(sent < MOST);
        client.shutdown(Shutdown::Write).unwrap();
        let (got, end) = read_pattern(client, 0, |_| {});
        assert_eq!((got, end.is_ok()), (sent, true));
    }
    assert_eq!(server.stop().code, Some(0));
}

// Rule 6: accept errors do not end the server.

#[test]
fn without_descriptors_accepting_pauses_once_and_resumes_and_nobody_is_lost() {
    // A client that says nothing is the clock: it is shown out after several attempts to accept.
    let mut server = Server::start(&[
        ("supervisor.workers", "2"),
        ("connection.idle_timeout", "500ms"),
        ("connection.linger", "0s"),
        ("log.level", "debug"),
    ]);
    let mut clock = server.connect_served();
    listener_of_all(&server, 2);
    let limit = server.process.limit_descriptors(3);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"queued").unwrap());
    let paused = server.log.wait("accept paused");
    assert_eq!(paused["level"], "warn");
    assert!(paused["reason"].as_str().unwrap().starts_with("Too many open files"), "{paused}");
    assert!(read_to_eof(&mut clock).is_empty());
    assert_eq!(server.backlog(), 20);

    server.process.limit_descriptors(limit);
    assert_eq!(server.log.wait("accept resumed")["level"], "info");
    for client in &mut clients {
        let mut echo = [0; 6];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"queued");
    }
    drop(clients);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    ended.log.one("accept paused");
    ended.log.one("accept resumed");
    assert!(ended.log.of("acceptor restarted").is_empty());
}

// Rule 7: half-close is kept.

#[test]
fn a_client_that_half_closes_gets_all_that_it_has_sent_then_eof() {
    let mut server = Server::start(&[("log.level", "debug")]);
    for length in [0_u64, 1, 64 * 1024, 3_000_000] {
        let mut client = server.connect();
        let mut out = client.try_clone().unwrap();
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while sent < length {
                let piece = (length - sent).min(10_000) as usize;
                out.write_all(pattern(sent, piece)).unwrap();
                sent += piece as u64;
            }
            out.shutdown(Shutdown::Write).unwrap();
        });
        let (got, end) = read_pattern(&mut client, 0, |_| {});
        sender.join().unwrap();
        assert_eq!((got, end.is_ok()), (length, true));
        let close = server.log.wait_of("connection closed", &client);
        assert_eq!(close["reason"], "client");
        assert_eq!((number(&close, "received"), number(&close, "echoed")), (length, length));
    }
    assert_eq!(server.stop().code, Some(0));
}

// Rule 8: one message for the end.

#[test]
fn connections_that_end_while_the_server_stops_are_told_and_counted_once() {
    for _ in 0..10 {
        let mut server = Server::start(&[
            ("supervisor.max_connections", "10"),
            ("supervisor.max_pending", "20"),
            ("log.level", "debug"),
        ]);
        let clients: Vec<TcpStream> = (0..30).map(|_| server.connect()).collect();
        let names: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        for client in &clients[..10] {
            server.log.wait_of("connection opened", client);
        }
        for client in &clients[10..] {
            server.log.wait_of("connection waiting", client);
        }
        // Their ends cross the order to stop.
        let process = &server.process;
        thread::scope(|scope| {
            scope.spawn(move || drop(clients));
            scope.spawn(|| process.signal(Signal::TERM));
        });
        let ended = server.end();
        assert_eq!(ended.code, Some(0));
        for name in &names {
            ended.log.close_of(name);
        }
        assert_eq!(ended.log.of("connection closed").len(), 30);
        ended.log.assert_all_accounted_for();
    }
}
