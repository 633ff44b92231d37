//! What goes wrong: panics, threads that hang, descriptors that run out, and clients that behave badly. A stop comes in the middle
//! of each. Panics in each state of an actor, and each accept error, have their tests beside the actors.

mod common;

use common::*;
use std::{
    env,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    panic,
    process::{self, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};
use supervised_echo::{
    Echo, Phase, Service, Settings, Signals, Socket,
    logging::{Stream, logger},
    settings::layers::load,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ONE_WORKER: (&str, &str) = ("supervisor.workers", "1");
const DEBUG: (&str, &str) = ("log.level", "debug");

/// Waits until every Acceptor has its own handle of the listening socket, as the Supervisor has. Gives one more handle, and the
/// socket's name among the descriptors.
fn listener_of_all(server: &Server, workers: usize) -> (socket2::Socket, String) {
    let (listener, name) = server.listener();
    wait_until("every Acceptor has its handle", || server.process.handles(&name) == 1 + workers);
    (listener, name)
}

/// All slots can be taken, and one more client must wait. Then the server is stopped.
fn assert_every_slot_is_free(server: Server, cap: usize) -> Ended {
    let mut clients: Vec<_> = (0..cap).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(round_trip);
    clients.push(server.connect());
    wait_until("one more has been accepted", || server.backlog() == 0);
    server.signal(Signal::TERM);
    clients.iter_mut().for_each(|client| assert!(read_to_eof(client).is_empty()));
    drop(clients);
    let ended = server.end();
    assert_eq!(ended.code, Some(0));
    let stopping = ended.log.one("stopping");
    assert_eq!((number(stopping, "connections"), number(stopping, "pending")), (cap as u64, 1));
    ended.log.assert_totals_add_up();
    ended
}

// Panics.

/// Echoes, but panics if the first byte is a `!`.
struct Panicky;

impl Service for Panicky {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut first = [0];
        let n = socket.read(&mut first).await?;
        assert_ne!(first, *b"!");
        socket.write_all(&first[..n]).await?;
        Echo.serve(socket).await
    }
}

#[test]
fn a_connection_that_panics_is_reset_alone_and_frees_its_slot() {
    let mut settings = settings();
    settings.supervisor.workers = 1;
    settings.supervisor.max_connections = 2;
    let mut server = InProcess::start(settings, Panicky);
    let (mut panics, mut other) = (connect(server.address), connect(server.address));
    server.log.wait_of("connection opened", &panics);
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
    let address = listener.local_addr().unwrap().as_socket().unwrap(); // a shutdown gives the port back, and `listen` takes another
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

#[test]
fn connections_that_crash_at_a_stop_harm_no_other_and_every_crash_is_counted() {
    const EACH: usize = 20;
    let mut settings = settings();
    settings.connection.linger = Duration::from_secs(20);
    settings.supervisor.shutdown_timeout = Duration::from_secs(25);
    let mut server = InProcess::start(settings, Panicky);
    let [mut panic, mut others] = [(); 2].map(|()| (0..EACH).map(|_| connect(server.address)).collect::<Vec<_>>());
    for client in &mut others {
        client.write_all(b"owed").unwrap();
        wait_until_arrived(client);
    }
    panic.iter().for_each(|client| drop(server.log.wait_of("connection opened", client)));
    // The crashes and the order to stop come at the same time.
    thread::scope(|scope| {
        scope.spawn(|| panic.iter_mut().for_each(|client| client.write_all(b"!").unwrap()));
        server.handle.stop();
    });
    others.iter_mut().for_each(|client| assert_eq!(read_to_eof(client), b"owed"));
    // A `!` that comes after the order does not reach the service. So its connection does not crash, and ends cleanly.
    let reset = panic.iter_mut().map(|client| client.read(&mut [0])).filter(io::Result::is_err).count();
    drop((panic, others));
    let (report, log) = server.end();
    assert_eq!((report.crashed, report.forced, report.exit_code()), (reset, 0, 0));
    assert_eq!(log.of("connection closed").len(), 2 * EACH);
    log.assert_totals_add_up();
}

#[test]
fn a_stop_that_finds_no_acceptor_still_echoes_to_the_clients_in_the_backlog() {
    let mut server =
        Server::start(&[ONE_WORKER, ("supervisor.max_restarts", "1000000"), DEBUG, LONG_LINGER, LONG_TIMEOUT]);
    let mut clients = vec![server.connect_served()];
    let (listener, name) = listener_of_all(&server, 1);
    listener.shutdown(Shutdown::Both).unwrap();
    wait_until("it has crashed", || server.process.handles(&name) == 1);
    let limit = server.process.limit_descriptors(3); // so that no successor can open its handle before the stop
    listener.listen(16).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap(); // a shutdown gives the port back, and `listen` takes another
    clients.extend((0..10).map(|_| connect(address)));
    for client in &mut clients {
        client.write_all(b"owed").unwrap();
        wait_until_arrived(client);
    }
    server.signal(Signal::TERM);
    server.log.wait("stopping");
    server.process.limit_descriptors(limit);
    clients.iter_mut().for_each(|client| assert_eq!(read_to_eof(client), b"owed"));
    drop(clients);
    let ended = server.end();
    assert_eq!((ended.code, ended.log.one("stopping")["reason"].as_str()), (Some(0), Some("SIGTERM")));
    assert_eq!(number(ended.log.one("stopped"), "acknowledged"), 11);
    assert!(ended.log.of("acceptor stopped").is_empty());
    ended.log.one("worker stopped"); // it is not taken for stuck
    ended.log.assert_all_accounted_for();
}

// Threads that hang.

#[test]
fn a_worker_that_is_stuck_is_named_with_its_connections_and_left_behind() {
    let (service, blocks) = blocking();
    let mut settings = settings();
    settings.supervisor.workers = 2;
    settings.supervisor.shutdown_timeout = Duration::from_millis(300);
    let mut server = InProcess::start(settings, service);
    let mut stuck = connect(server.address);
    let worker = number(&server.log.wait_of("connection opened", &stuck), "worker") as usize;
    stuck.write_all(b"#").unwrap();
    let _blocked = blocks.recv_timeout(PATIENCE).unwrap();
    let mut other = connect(server.address); // the other thread accepts it
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

#[test]
fn clients_on_their_way_to_a_worker_that_is_stuck_are_counted_with_it_and_reset() {
    const WORKER: u64 = 3; // it has no Acceptor
    let (service, blocks) = blocking();
    let mut settings = settings();
    settings.supervisor.workers = WORKER as usize;
    settings.supervisor.shutdown_timeout = Duration::from_secs(1);
    let mut server = InProcess::start(settings, service);
    let mut clients = Vec::new();
    let mut worker = 0;
    while worker != WORKER {
        let client = connect(server.address);
        worker = number(&server.log.wait_of("connection opened", &client), "worker");
        clients.push(client);
    }
    clients.last_mut().unwrap().write_all(b"#").unwrap();
    let blocked = blocks.recv_timeout(PATIENCE).unwrap();
    // The other two Workers have three connections more than this one, at most.
    clients.extend((0..12).map(|_| connect(server.address)));
    wait_until("all are accepted", || server.handle.status().served == clients.len());

    let all = clients.len();
    server.handle.stop();
    let ends = clients.into_iter().map(|mut client| thread::spawn(move || client.read(&mut [0])));
    let ends: Vec<_> = ends.collect();
    let (report, log) = server.end();
    drop(blocked);
    let reset = ends.into_iter().map(|end| end.join().unwrap()).filter(io::Result::is_err).count();
    let on_their_way = all - log.of("connection opened").len();
    assert!(on_their_way > 0);
    assert_eq!(number(log.one("worker stuck"), "connections") as usize, 1 + on_their_way);
    assert_eq!((report.forced, reset), (1 + on_their_way, 1 + on_their_way));
    assert_eq!(report.acknowledged, all - report.forced);
}

#[test]
fn a_handle_tells_of_a_server_whose_worker_is_stuck_and_an_abort_leaves_that_one_behind() {
    let (service, blocks) = blocking();
    let mut settings = settings();
    settings.supervisor.workers = 1;
    settings.supervisor.shutdown_timeout = Duration::from_secs(3600);
    let server = InProcess::start(settings, service);
    let handle = server.handle.clone();
    let standing = || {
        let status = handle.status();
        (status.phase, status.served, status.waiting)
    };
    let mut client = connect(server.address);
    client.write_all(b"#").unwrap();
    let _blocked = blocks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(standing(), (Phase::Running, 1, 0));
    handle.abort();
    let report = server.report();
    assert_eq!((report.stuck.len(), report.forced, report.exit_code()), (1, 1, 3));
    assert_eq!(standing(), (Phase::Stopped, 1, 0), "its thread still holds the connection");
}

/// Echoes. On a `#` it leaves work behind that keeps the runtime of its thread from ending, until it may go on.
struct LeavesWorkBehind {
    left: Sender<()>,
    go_on: Arc<Mutex<Receiver<()>>>,
}

impl Service for LeavesWorkBehind {
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
    let mut server = InProcess::start(settings(), LeavesWorkBehind { left, go_on: Arc::new(Mutex::new(may_go_on)) });
    let mut client = connect(server.address);
    let worker = number(&server.log.wait_of("connection opened", &client), "worker") as usize;
    client.write_all(b"#").unwrap();
    lefts.recv_timeout(PATIENCE).unwrap();
    server.handle.stop();
    assert!(read_to_eof(&mut client).is_empty());
    drop(client);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.exit_code()), (1, 0, 3));
    assert_eq!(report.stuck.iter().map(|worker| worker.0).collect::<Vec<_>>(), [worker]);
    assert_eq!(number(log.one("arbiter stuck"), "worker") as usize, worker);
}

#[test]
fn a_thread_that_hangs_for_a_while_holds_up_its_own_clients_only_and_none_is_forced() {
    let (service, blocks) = blocking();
    let mut settings = settings();
    settings.supervisor.workers = 2;
    settings.supervisor.max_connections = 2;
    settings.supervisor.max_pending = 0;
    settings.supervisor.shutdown_timeout = Duration::from_secs(25);
    let mut server = InProcess::start(settings, service);
    let mut hangs = connect(server.address);
    hangs.write_all(b"#").unwrap();
    let blocked = blocks.recv_timeout(PATIENCE).unwrap();
    let mut other = connect(server.address);
    round_trip(&mut other);
    // All slots are taken, so these are in the backlog. There are two, so that the turn of the thread that hangs comes too.
    let mut queued = [(); 2].map(|()| connect(server.address));
    for client in &mut queued {
        client.write_all(b"owed").unwrap();
        wait_until_arrived(client);
    }

    server.handle.stop();
    queued.iter_mut().for_each(|client| assert_eq!(read_to_eof(client), b"owed"));
    assert!(read_to_eof(&mut other).is_empty());
    for client in queued.into_iter().chain([other]) {
        let name = client.local_addr().unwrap();
        drop(client);
        assert_eq!(server.log.wait_of("connection closed", &name)["reason"], "stopped");
    }
    drop(blocked);
    assert!(read_to_eof(&mut hangs).is_empty());
    drop(hangs);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.exit_code()), (4, 0, 0));
    assert!(report.stuck.is_empty());
    log.assert_all_accounted_for();
}

// Descriptors that run out.

#[test]
fn without_descriptors_accepting_pauses_once_without_spinning_and_resumes_and_no_client_is_lost() {
    // A tenth of the time that the clock below takes. A server that spins uses most of that time, and one that pauses uses some
    // milliseconds.
    const CPU: Duration = Duration::from_millis(200);
    // A client that says nothing is the clock. Its idle timeout ends it after several attempts to accept.
    let mut server = Server::start(&[
        ("supervisor.workers", "2"),
        ("connection.idle_timeout", "2s"),
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
    let before = server.process.cpu();
    assert!(read_to_eof(&mut clock).is_empty());
    let spent = server.process.cpu() - before;
    assert!(spent < CPU, "{spent:?}");
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

/// Leaves the server no descriptor for another client, and waits until it pauses. Gives that many clients in the backlog, each of
/// which has sent something.
fn exhaust_descriptors(server: &mut Server, clients: usize) -> Vec<TcpStream> {
    let open = server.process.descriptors();
    let free = (0..).find(|number| !open.contains(number)).unwrap();
    server.process.limit_descriptors(free as u64);
    let mut queued: Vec<_> = (0..clients).map(|_| server.connect()).collect();
    for client in &mut queued {
        client.write_all(b"owed").unwrap();
        wait_until_arrived(client);
    }
    server.log.wait("accept paused");
    assert_eq!(server.backlog(), clients as u64);
    queued
}

#[test]
fn a_stop_without_descriptors_takes_in_every_client_as_descriptors_come_back() {
    let mut server = Server::start(&[ONE_WORKER, DEBUG, LONG_LINGER, LONG_TIMEOUT]);
    let mut served: Vec<_> = (0..5).map(|_| server.connect_served()).collect();
    let queued = exhaust_descriptors(&mut server, 20);
    server.signal(Signal::TERM);
    served.iter_mut().for_each(|client| assert!(read_to_eof(client).is_empty()));
    drop(served);
    for mut client in queued {
        assert_eq!(read_to_eof(&mut client), b"owed");
    }
    let ended = server.end();
    assert_eq!((ended.code, number(ended.log.one("stopped"), "acknowledged")), (Some(0), 25));
    ended.log.one("accept paused");
    ended.log.one("accept resumed");
    ended.log.assert_all_accounted_for();
}

#[test]
fn a_stop_that_is_forced_before_there_are_descriptors_counts_the_clients_in_the_backlog() {
    let mut server = Server::start(&[ONE_WORKER, DEBUG, LONG_LINGER, LONG_TIMEOUT]);
    let served: Vec<_> = (0..5).map(|_| server.connect_served()).collect();
    let mut queued = exhaust_descriptors(&mut server, 20);
    server.signal(Signal::TERM);
    server.log.wait("acceptor stopped");
    // No client ends, so no descriptor comes back.
    server.signal_again(Signal::TERM);
    let ended = server.end();
    assert_eq!((ended.code, number(ended.log.one("stopped"), "forced")), (Some(3), 25));
    ended.log.assert_totals_add_up();
    for client in &mut queued {
        // The Acceptor has given its descriptor back. So one of them is taken in, drained, and forced while its close lingers.
        let mut echo = Vec::new();
        let ended = client.read_to_end(&mut echo);
        assert!(ended.is_err() || echo == b"owed", "an end by force is no clean end");
    }
    drop(served);
}

// Clients.

#[test]
fn clients_that_send_and_never_read_cost_no_more_than_a_buffer_each() {
    const CLIENTS: usize = 4;
    const BUFFER: u64 = 64 * 1024;
    const MOST: u64 = 16 * 1024 * 1024;
    // The allocator and the kernel round up, and the server touches some pages for the first time.
    const SLACK: u64 = 6 * 1024 * 1024;
    let server = Server::start(&[("supervisor.workers", "1")]);
    let mut other = server.connect();
    round_trip(&mut other);
    let before = server.process.memory();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect_with_small_buffer(server.address)).collect();
    let sent: Vec<_> = clients.iter_mut().map(|client| fill_buffers(client, &mut other, MOST)).collect();
    let grown = server.process.memory().saturating_sub(before);
    assert!(grown < CLIENTS as u64 * BUFFER + SLACK, "{grown} bytes for {sent:?}");

    // The back-pressure loses no byte.
    for (client, sent) in clients.iter_mut().zip(sent) {
        assert!(sent < MOST);
        client.shutdown(Shutdown::Write).unwrap();
        let (got, end) = read_pattern(client, 0, |_| {});
        assert_eq!((got, end.is_ok()), (sent, true));
    }
    assert_eq!(server.stop().code, Some(0));
}

/// Sends the pattern byte by byte, and reads the echo byte by byte. It ends after `most` bytes, or when the server ends it.
fn exchange_byte_by_byte(mut client: TcpStream, most: u64, flowing: Sender<()>) -> Streamed {
    client.set_nodelay(true).unwrap();
    let mut out = client.try_clone().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = (0..most).take_while(|_| !done.load(Ordering::Relaxed));
            // The reading side sees an error, too, and reports it.
            let _ = bytes.try_for_each(|at| out.write_all(pattern(at, 1)));
            let _ = out.shutdown(Shutdown::Write);
        });
        let (mut got, mut byte) = (0, [0]);
        let end = loop {
            match client.read(&mut byte) {
                Ok(0) => break Ok(()),
                Ok(_) => assert_eq!(byte, pattern(got, 1)),
                Err(error) => break Err(error),
            }
            got += 1;
            if got == 100 {
                flowing.send(()).unwrap();
            }
        };
        done.store(true, Ordering::Relaxed);
        Streamed { peer: client.local_addr().unwrap(), got, end }
    })
}

#[test]
fn a_client_that_sends_and_reads_byte_by_byte_gets_each_byte_back_also_at_a_stop() {
    for (most, stops, reason) in [(3000, false, "client"), (u64::MAX, true, "stopped")] {
        let mut server = Server::start(&[ONE_WORKER, DEBUG, LONG_LINGER, LONG_TIMEOUT]);
        let client = server.connect_served();
        let (flows, flowing) = channel();
        let exchanging = thread::spawn(move || exchange_byte_by_byte(client, most, flows));
        flowing.recv_timeout(PATIENCE).unwrap();
        if stops {
            server.signal(Signal::TERM);
        }
        let client = exchanging.join().unwrap();
        let close = server.log.wait_of("connection closed", &client.peer);
        assert!(client.end.is_ok(), "{client:?}");
        assert_eq!((close["reason"].as_str(), number(&close, "echoed")), (Some(reason), client.got));
        assert_eq!(number(&close, "received"), client.got);
        assert!(stops || client.got == most);
        let ended = if stops { server.end() } else { server.stop() };
        assert_eq!(ended.code, Some(0));
        ended.log.assert_all_accounted_for();
    }
}

/// Where a client is when it resets its connection.
#[derive(Debug, Clone, Copy)]
enum Point {
    BeforeAnyByte,
    EchoUnread,
    MidStream,
    Queue,
    Backlog,
}

/// Brings a client to this point. The server has two slots, of which `other` has one, and one place to wait. Gives the client,
/// and those that hold the slot and the place before it.
fn bring_client_to(point: Point, server: &mut Server, other: &mut TcpStream) -> (TcpStream, Vec<TcpStream>) {
    let mut before = Vec::new();
    if let Point::Queue | Point::Backlog = point {
        before.push(server.connect_served());
    }
    if let Point::Backlog = point {
        before.push(server.connect());
        server.log.wait_of("connection waiting", &before[1]);
    }
    let mut client = connect_with_small_buffer(server.address);
    match point {
        Point::Queue => drop(server.log.wait_of("connection waiting", &client)),
        Point::Backlog => assert_eq!(server.backlog(), 1),
        Point::BeforeAnyByte | Point::EchoUnread | Point::MidStream => {
            server.log.wait_of("connection opened", &client);
        }
    }
    match point {
        Point::BeforeAnyByte => {}
        Point::MidStream => drop(fill_buffers(&mut client, other, 64 * 1024 * 1024)),
        Point::EchoUnread => {
            client.write_all(b"unread").unwrap();
            client.peek(&mut [0]).unwrap();
        }
        Point::Queue | Point::Backlog => client.write_all(b"unread").unwrap(),
    }
    (client, before)
}

#[test]
fn a_client_that_resets_at_any_point_ends_only_its_own_connection_also_before_and_during_a_stop() {
    enum Stop {
        Never,
        Next,
        Before,
    }
    for point in [Point::BeforeAnyByte, Point::EchoUnread, Point::MidStream, Point::Queue, Point::Backlog] {
        for stop in [Stop::Never, Stop::Next, Stop::Before] {
            let mut server = Server::start(&[
                ONE_WORKER,
                ("supervisor.max_connections", "2"),
                ("supervisor.max_pending", "1"),
                DEBUG,
                LONG_LINGER,
                LONG_TIMEOUT,
            ]);
            // Connections inherit the small buffers, which are soon full.
            let (listener, _) = server.listener();
            listener.set_send_buffer_size(16 * 1024).unwrap();
            listener.set_recv_buffer_size(16 * 1024).unwrap();
            let mut other = server.connect_served();
            let (client, before) = bring_client_to(point, &mut server, &mut other);
            let name = client.local_addr().unwrap();
            match stop {
                Stop::Never => {
                    reset(client);
                    drop(before);
                    server.log.wait_of("connection closed", &name);
                    round_trip(&mut other);
                    round_trip(&mut server.connect_served()); // it gets the slot that came back
                    server.signal(Signal::TERM);
                }
                Stop::Next => {
                    reset(client);
                    server.signal(Signal::TERM);
                    drop(before);
                }
                Stop::Before => {
                    server.signal(Signal::TERM);
                    server.log.wait("listener closed");
                    reset(client);
                    drop(before);
                }
            }
            assert!(read_to_eof(&mut other).is_empty());
            drop(other);
            let ended = server.end();
            assert_eq!(ended.code, Some(0), "{point:?}");
            assert_eq!(ended.log.close_of(&name)["reason"], "reset", "{point:?} {:?}", ended.log);
            ended.log.assert_all_accounted_for();
        }
    }
}

#[test]
fn at_a_stop_a_vanished_client_is_waited_for_while_it_is_owed_bytes_and_ended_cleanly_if_not() {
    let mut server = Server::start(&[ONE_WORKER, ("connection.linger", "50ms"), DEBUG, LONG_TIMEOUT]);
    let [mut other, quiet, mut owed, mut comes_back] = [(); 4].map(|()| server.connect_served());
    [&quiet, &owed, &comes_back].into_iter().for_each(vanish);
    [&mut owed, &mut comes_back].into_iter().for_each(|client| client.write_all(b"owed").unwrap());
    round_trip(&mut other); // the others are served as before
    server.signal(Signal::TERM);
    assert!(read_to_eof(&mut other).is_empty());
    assert_eq!(server.log.wait_of("connection closed", &quiet)["reason"], "stopped");

    come_back(&comes_back);
    assert_eq!(read_to_eof(&mut comes_back), b"owed");
    let close = server.log.wait_of("connection closed", &comes_back);
    assert_eq!((close["reason"].as_str(), number(&close, "echoed")), (Some("stopped"), 4));
    server.signal_again(Signal::TERM); // `owed` stays away: without this the stop would wait for it until the deadline
    let ended = server.end();
    assert_eq!((ended.code, number(ended.log.one("stopped"), "forced")), (Some(3), 1));
    assert_eq!(ended.log.close_of(&owed)["reason"], "forced");
    ended.log.assert_all_accounted_for();
}

#[test]
fn vanished_clients_give_their_slots_back_after_idle_timeout_whether_they_are_owed_bytes_or_not() {
    let mut server = Server::start(&[
        ("supervisor.max_connections", "2"),
        ("connection.idle_timeout", "300ms"),
        ("connection.linger", "0s"),
        DEBUG,
    ]);
    let [quiet, mut owed] = [(); 2].map(|()| server.connect_served());
    [&quiet, &owed].into_iter().for_each(vanish);
    owed.write_all(b"owed").unwrap();
    let mut next = [(); 2].map(|()| server.connect());
    next.iter_mut().for_each(round_trip);
    for client in [quiet, owed] {
        assert_eq!(server.log.wait_of("connection closed", &client)["reason"], "idle");
    }
    drop(next);
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    ended.log.assert_all_accounted_for();
}

const PROBERS: usize = 4;

/// Connects and closes without a word, every second time by a reset. It does so `probes` times, or until a connect fails.
fn probe(address: SocketAddr, probes: usize) -> io::Result<()> {
    for at in 0..probes {
        let client = TcpStream::connect_timeout(&address, PATIENCE)?;
        if at % 2 == 0 {
            reset(client);
        }
    }
    Ok(())
}

#[test]
fn ten_thousand_connects_and_closes_leave_nothing_behind() {
    const CAP: usize = 20;
    const ROUNDS: usize = 50;
    const PROBES: usize = 10_000 / PROBERS / ROUNDS;
    // For each probe less than a third of the memory of an idle connection may stay. The rest is for pages that are touched for
    // the first time.
    const SLACK: u64 = 4 * 1024 * 1024;
    let server = Server::start(&[
        ("supervisor.workers", "2"),
        ("supervisor.max_connections", "20"),
        ("supervisor.max_pending", "5"),
    ]);
    listener_of_all(&server, 2);
    let (address, descriptors) = (server.address, server.process.descriptors().len());
    let probe_all = |rounds| {
        thread::scope(|scope| {
            for _ in 0..PROBERS {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        probe(address, PROBES).unwrap();
                        // This client is served after the probes before it. So the backlog does not overflow.
                        round_trip(&mut connect(address));
                    }
                });
            }
        });
        wait_until("every descriptor is back", || server.process.descriptors().len() == descriptors);
    };
    probe_all(5);
    let before = server.process.memory();
    probe_all(ROUNDS);
    let grown = server.process.memory().saturating_sub(before);
    assert!(grown < SLACK, "{grown} bytes");
    assert_every_slot_is_free(server, CAP);
}

#[test]
fn a_stop_in_the_midst_of_probes_accounts_for_each_of_them() {
    for _ in 0..5 {
        let mut server = Server::start(&[
            ("supervisor.max_connections", "10"),
            ("supervisor.max_pending", "10"),
            DEBUG,
            LONG_LINGER,
            LONG_TIMEOUT,
        ]);
        let (mut client, address) = (server.connect_served(), server.address);
        thread::scope(|scope| {
            for _ in 0..PROBERS {
                scope.spawn(move || probe(address, usize::MAX).unwrap_err());
            }
            // By now probes have been accepted and have gone.
            (0..100).for_each(|_| drop(server.log.wait("connection closed")));
            client.write_all(b"owed").unwrap();
            wait_until_arrived(&client);
            server.process.signal(Signal::TERM);
            assert_eq!(read_to_eof(&mut client), b"owed");
        });
        drop(client);
        let ended = server.end();
        assert_eq!((ended.code, number(ended.log.one("stopped"), "forced")), (Some(0), 0));
        ended.log.assert_all_accounted_for();
    }
}

// All of it at once, for a long time.

/// This is no test, but a server for one: this program is started again as a process of its own, with a service that can crash.
#[test]
#[ignore = "it is started by the soak"]
fn the_server_of_another_test() {
    if env::var_os("ECHO_SERVER_LISTEN__ADDRESS").is_none() {
        return;
    }
    panic::set_hook(Box::new(|_| {})); // the log has a record of each panic
    let settings = load::<Settings>(None, env::vars_os(), []).unwrap().settings;
    let (log, written_to_the_end) = logger(&settings.log, Stream::Stderr).unwrap();
    let code = actix::System::new().block_on(async {
        let signals = Signals::register().unwrap();
        let server = supervised_echo::Server::bind(settings, Panicky).unwrap().with_log(log);
        signals.forward_to(server.handle());
        server.run().await.unwrap().exit_code()
    });
    drop(written_to_the_end);
    process::exit(code.into());
}

/// Standard output belongs to the test harness, so the log goes to standard error. Here the two change places.
fn panicky_server(settings: &[(&str, &str)]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" --ignored --exact the_server_of_another_test 2>&1 >/dev/null"]);
    shell.arg(env::current_exe().unwrap());
    with_settings(shell, settings)
}

/// Sends this many bytes and FIN, and reads in pieces of this size. Every byte comes back, and then EOF.
fn exchange(mut client: TcpStream, length: u64, piece: usize) {
    let mut out = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for at in (0..length).step_by(10_000) {
                out.write_all(pattern(at, (length - at).min(10_000) as usize)).unwrap();
            }
            out.shutdown(Shutdown::Write).unwrap();
        });
        let (mut got, mut bytes) = (0, vec![0; piece]);
        loop {
            let n = client.read(&mut bytes).unwrap();
            assert!(bytes[..n] == *pattern(got, n), "wrong echo after {got} bytes");
            got += n as u64;
            if n == 0 {
                break;
            }
        }
        assert_eq!(got, length);
    });
}

#[test]
#[ignore = "takes ten minutes, or SOAK_SECONDS"]
fn a_soak_leaves_memory_descriptors_and_permits_as_they_were() {
    const CAP: usize = 8;
    const KINDS: usize = 6;
    // An allocator may keep what "Bounded memory" allows at the busiest moment. The rest is for pages that are touched for the
    // first time.
    const SLACK: u64 = CAP as u64 * 64 * 1024 + 4 * 1024 * 1024;
    let seconds = env::var("SOAK_SECONDS").map_or(600, |seconds| seconds.parse().expect("a number of seconds"));
    let length = Duration::from_secs(seconds);
    let server = Server::run(panicky_server(&[
        ("supervisor.workers", "2"),
        // There are more clients than slots and places, so some always wait, and others are in the backlog.
        ("supervisor.max_connections", "8"),
        ("supervisor.max_pending", "2"),
        LONG_TIMEOUT,
    ]));
    listener_of_all(&server, 2);
    // Each Worker's thread keeps the pipe that it makes for its first stream in bulk.
    let descriptors = || server.process.descriptors().len() - server.process.pipe_ends();
    let (at_rest, pipe_ends) = (descriptors(), server.process.pipe_ends());
    let (address, crashes, exchanges) = (server.address, AtomicUsize::new(0), AtomicUsize::new(0));
    let load = |length: Duration| {
        let end = Instant::now() + length;
        let client = &|kind: usize| {
            for turn in 0_u64.. {
                match kind {
                    0 => exchange(connect(address), turn % 5000, 4096),
                    1 => exchange(connect(address), 32 << 20, 64 * 1024),
                    2 => exchange(connect_with_small_buffer(address), 100_000, 16),
                    3 => {
                        let mut client = connect(address);
                        client.write_all(pattern(0, (turn % 5000) as usize)).unwrap();
                        reset(client);
                    }
                    4 => probe(address, 10).unwrap(),
                    _ => {
                        let mut client = connect(address);
                        client.write_all(b"!").unwrap();
                        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
                        crashes.fetch_add(1, Ordering::Relaxed);
                        // The test keeps each crash's record. Few crashes keep its own memory small.
                        (0..20).for_each(|_| exchange(connect(address), 1000, 4096));
                    }
                }
                exchanges.fetch_add(1, Ordering::Relaxed);
                if Instant::now() > end {
                    break;
                }
            }
        };
        thread::scope(|scope| (0..2 * KINDS).for_each(|at| drop(scope.spawn(move || client(at % KINDS)))));
        wait_until("every descriptor is back", || descriptors() == at_rest);
        assert!(server.process.pipe_ends() <= pipe_ends + 2 * 2);
    };
    // A tenth of the time is enough for all that is done only once.
    load(length / 10);
    let before = server.process.memory();
    load(length);
    let after = server.process.memory();
    eprintln!("{exchanges:?} turns, {crashes:?} crashes; memory {before}, then {after} bytes");
    assert!(after < before + SLACK, "{before}, then {after} bytes");
    let ended = assert_every_slot_is_free(server, CAP);
    assert_eq!(number(ended.log.one("stopped"), "crashed"), crashes.into_inner() as u64);
}
