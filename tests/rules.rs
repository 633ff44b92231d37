//! The rules that the server keeps while nothing goes wrong, as its clients and its log see them.
//!
//! Other files have the rest: how it stops ("Every stop is acknowledged") is in `stop.rs`, "A slot always comes back" in
//! `states.rs`, and what goes wrong in `faults.rs`.

mod common;

use common::*;
use std::{
    collections::VecDeque,
    io::{self, Write},
    net::{Shutdown, TcpStream},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};
use supervised_echo::{Service, Socket};

fn peers(log: &Records, msg: &str) -> Vec<String> {
    log.of(msg).iter().map(|record| record["peer"].as_str().unwrap().to_owned()).collect()
}

// Exact cap.

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
    // The only Worker hears of the last two before it hears of these.
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
fn a_freed_slot_goes_to_the_oldest_waiter_on_any_thread() {
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

/// Echoes, and notes how many clients it has served at once.
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
    // All slots are taken before the crowd comes, and every client of the crowd is served in the end.
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

// Half-close is kept.

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

// One message for the end.

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
        // Their ends and the order to stop cross.
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
