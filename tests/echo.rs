//! What the server is for: whatever is sent, in whatever pieces, comes back whole.

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
    thread,
};

/// A piece of any bytes; now and then one that is larger than the server's buffer.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => (any::<u8>(), 0..150_000_usize).prop_map(|(first, length)| {
        (0..length).map(|at| first.wrapping_add((at % 251) as u8)).collect()
    })]
}

/// Runs a property against one server, with a failure told as `proptest` would.
fn check<S: Strategy>(strategy: S, property: impl Fn(&Server, S::Value)) {
    let server = Server::start(&[]);
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&strategy, |value| {
        property(&server, value);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(server.stop().code, Some(0));
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
