//! Streams in bulk: their bytes go through the pipe of their thread, and all else is as it is with any stream.

mod common;

use common::*;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
};

const LENGTH: u64 = 8 << 20;

/// A server whose connections all live on one thread.
fn server() -> Server {
    Server::start(&[("supervisor.workers", "1"), ("log.level", "debug"), LONG_LINGER, LONG_TIMEOUT])
}

/// Sends the pattern and then FIN, and gives how many bytes of it come back, if a clean end follows.
fn exchange(mut client: TcpStream) -> u64 {
    let mut out = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let mut sent = 0;
        while sent < LENGTH {
            sent += out.write(pattern(sent, 256 << 10)).unwrap() as u64;
        }
        out.shutdown(Shutdown::Write).unwrap();
        sent
    });
    let (got, end) = read_pattern(&mut client, 0, |_| {});
    assert_eq!((got, end.is_ok()), (sending.join().unwrap(), true));
    got
}

/// Checks what the record of its end says of a client that has ended its stream.
fn assert_counted(log: &mut Log, client: &impl Named, sent: u64) {
    let close = log.wait_of("connection closed", client);
    let counts = ["received", "echoed", "discarded"].map(|count| number(&close, count));
    assert_eq!((close["reason"].as_str(), counts), (Some("client"), [sent, sent, 0]));
}

#[test]
fn all_streams_of_a_thread_take_one_pipe_and_come_back_to_the_byte() {
    let mut server = server();
    let mut small = server.connect();
    round_trip(&mut small);
    let before = server.process.pipe_ends();
    let clients = [(); 3].map(|()| {
        let client = server.connect();
        (client.local_addr().unwrap(), thread::spawn(|| exchange(client)))
    });
    for (name, client) in clients {
        assert_counted(&mut server.log, &name, client.join().unwrap());
    }
    assert_eq!(server.process.pipe_ends(), before + 2);
    round_trip(&mut small);
    drop(small);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn small_messages_come_back_while_streams_flow_on_the_same_thread() {
    const STREAMS: usize = 3;
    let mut server = server();
    let mut small = server.connect_served();
    let (flows, flowing) = channel();
    let (address, came) = (server.address, [const { AtomicUsize::new(0) }; STREAMS]);
    thread::scope(|scope| {
        let streams = came.each_ref().map(|came| {
            let flows = flows.clone();
            let count = |n| _ = came.fetch_add(n, Ordering::Relaxed);
            scope.spawn(move || stream(address, flows, count))
        });
        (0..STREAMS).for_each(|_| flowing.recv_timeout(PATIENCE).unwrap());
        for _ in 0..100 {
            round_trip(&mut small);
            for came in &came {
                let before = came.load(Ordering::Relaxed);
                wait_until("the stream goes on", || came.load(Ordering::Relaxed) > before);
            }
        }
        drop(small);
        assert_eq!(server.stop().code, Some(0));
        streams.into_iter().for_each(|stream| assert!(stream.join().unwrap().end.is_ok()));
    });
}

#[test]
fn without_descriptors_for_a_pipe_a_stream_is_copied() {
    let mut server = server();
    let client = server.connect_served();
    let before = server.process.pipe_ends();
    let limit = server.process.limit_descriptors(3);
    let name = client.local_addr().unwrap();
    assert_counted(&mut server.log, &name, exchange(client));
    assert_eq!(server.process.pipe_ends(), before);
    server.process.limit_descriptors(limit);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_client_that_stops_reading_and_then_reads_slowly_gets_every_byte() {
    let mut server = server();
    let mut other = server.connect();
    let before = server.process.pipe_ends();
    let mut client = server.connect();
    // The buffers of both systems take the beginning at full speed, and so in bulk.
    let sent = fill_buffers(&mut client, &mut other, 64 << 20);
    assert_eq!(server.process.pipe_ends(), before + 2);
    client.shutdown(Shutdown::Write).unwrap();
    let (mut got, mut piece) = (0, [0; 1000]);
    while got < sent {
        let n = client.read(&mut piece).unwrap();
        assert!(n > 0 && piece[..n] == *pattern(got, n), "after {got} bytes");
        got += n as u64;
    }
    assert_eq!(client.read(&mut piece).unwrap(), 0);
    assert_counted(&mut server.log, &client, sent);
    drop(other);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn clients_that_reset_leave_no_byte_to_the_other_streams_and_a_stop_loses_none_of_those() {
    const STREAMS: usize = 2;
    const RESETS: usize = 100;
    let server = server();
    let before = server.process.pipe_ends();
    let (flows, flowing) = channel();
    let address = server.address;
    thread::scope(|scope| {
        let streams = [(); STREAMS].map(|()| {
            let flows = flows.clone();
            scope.spawn(|| stream(address, flows, |_| {}))
        });
        (0..STREAMS).for_each(|_| flowing.recv_timeout(PATIENCE).unwrap());
        for _ in 0..RESETS {
            let mut client = server.connect();
            // Bytes of another pattern, by their values and their offsets.
            let foreign = vec![255; 256 << 10];
            client.write_all(&foreign).unwrap();
            client.read_exact(&mut vec![0; 128 << 10]).unwrap();
            client.write_all(&foreign).unwrap();
            reset(client);
        }
        assert_eq!(server.process.pipe_ends(), before + 2);
        let ended = server.stop();
        assert_eq!(ended.code, Some(0));
        for stream in streams {
            let stream = stream.join().unwrap();
            assert!(stream.end.is_ok(), "{stream:?}");
            let close = ended.log.close_of(&stream.peer);
            assert_eq!(close["reason"], "stopped");
            assert_eq!((number(close, "received"), number(close, "echoed")), (stream.got, stream.got));
        }
        ended.log.assert_all_accounted_for();
    });
}
