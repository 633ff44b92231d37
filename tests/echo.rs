//! What the server is for: bytes of any kind, sent in pieces of any size, come back whole.

mod common;

use common::*;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
};

/// A piece of any bytes; now and then one that is larger than the server's buffer.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => (any::<u8>(), 0..150_000_usize).prop_map(|(first, length)| {
        (0..length).map(|at| first.wrapping_add((at % 251) as u8)).collect()
    })]
}

/// Runs a property against one server.
fn check<S: Strategy>(strategy: S, property: impl Fn(&Server, S::Value)) {
    let server = Server::start(&[]);
    run(100, strategy, |value| property(&server, value));
    assert_eq!(server.stop().code, Some(0));
}

/// Runs a property, with a failure told as `proptest` would.
fn run<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&strategy, |value| {
        property(value);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn any_bytes_cut_anywhere_and_half_closed_anywhere_come_back_whole() {
    check(vec(piece(), 0..12), |server, pieces| {
        let mut client = server.connect();
        client.set_nodelay(true).unwrap();
        let mut echo = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut out = &client;
                pieces.iter().for_each(|piece| out.write_all(piece).unwrap());
                client.shutdown(Shutdown::Write).unwrap();
            });
            (&client).read_to_end(&mut echo).unwrap();
        });
        assert!(echo == pieces.concat(), "{} bytes sent, {} came back", pieces.concat().len(), echo.len());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn each_piece_comes_back_while_the_client_is_still_there() {
    check(vec(piece(), 1..8), |server, pieces| {
        let client = server.connect();
        for piece in pieces {
            let mut echo = vec![0; piece.len()];
            thread::scope(|scope| {
                scope.spawn(|| (&client).write_all(&piece).unwrap());
                (&client).read_exact(&mut echo).unwrap();
            });
            assert!(echo == piece);
        }
    });
}

#[test]
fn at_a_stop_anywhere_what_had_arrived_comes_back_whole_and_then_a_clean_end() {
    // What each client has sent by the time of the stop, and what it goes on to send, over and over.
    let clients = vec((vec(piece(), 0..4), vec(piece(), 0..4)), 1..5);
    run(20, clients, |clients| {
        let settings = [("connection.linger", "20s"), ("supervisor.shutdown_timeout", "25s")];
        let server = Server::start(&settings);
        let (arrived, arrivals) = channel();
        let ended = thread::scope(|scope| {
            for (before, after) in &clients {
                let (client, arrived) = (server.connect(), arrived.clone());
                scope.spawn(move || {
                    let (mut echo, ended) = (Vec::new(), AtomicBool::new(false));
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            let mut out = &client;
                            before.iter().for_each(|piece| out.write_all(piece).unwrap());
                            wait_until_arrived(&client);
                            arrived.send(()).unwrap();
                            let on = after.iter().cycle().take_while(|_| !ended.load(Ordering::Relaxed));
                            on.for_each(|piece| out.write_all(piece).unwrap());
                            client.shutdown(Shutdown::Write).unwrap();
                        });
                        (&client).read_to_end(&mut echo).unwrap();
                        ended.store(true, Ordering::Relaxed);
                    });
                    let (before, after) = (before.concat(), after.concat());
                    let rest = echo.strip_prefix(&*before).expect("what had arrived comes back");
                    assert!(rest.chunks(after.len().max(1)).all(|turn| after.starts_with(turn)));
                });
            }
            clients.iter().for_each(|_| arrivals.recv_timeout(PATIENCE).unwrap());
            server.stop()
        });
        assert_eq!(ended.code, Some(0));
        ended.log.assert_all_accounted_for();
    });
}
