//! Faults on purpose: what the settings `[fault]` make of the echo, as a client and the server's log see it. A reload of them is
//! tested with the other reloads.

mod common;

use common::*;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

const ASK: (&str, &str) = ("fault.ask", "true");
const DEBUG: (&str, &str) = ("log.level", "debug");

/// Says a line, and gives the line that comes back.
fn answer(client: &mut TcpStream, line: &str) -> String {
    client.write_all(line.as_bytes()).unwrap();
    let mut answer = vec![0; line.len()];
    client.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Stops a server in which connections have crashed. Gives what the panics wrote to standard error, too.
fn stop_after_crashes(mut server: Server) -> (Ended, String) {
    let mut stderr = server.process.stderr();
    let ended = server.stop();
    let mut panics = String::new();
    stderr.read_to_string(&mut panics).unwrap();
    (ended, panics)
}

#[test]
fn a_client_counts_the_share_of_each_fault_as_wrong_or_lost() {
    for (key, share, [wrong, lost], reason) in [
        ("fault.wrong", "0.25", [10, 0], ""),
        ("fault.close", "0.1", [0, 4], "closed"),
        ("fault.crash", "0.05", [0, 2], "reset"),
    ] {
        let server = Server::start(&[(key, share), LONG_LINGER, LONG_TIMEOUT]);
        let run = Client::run(server.address, &["--connections", "4", "--messages", "10"]);
        assert_eq!(run.outcome(), (1, [40, 40 - wrong - lost, wrong, lost]), "{key}: {:?}", run.log);
        assert!(run.lost().iter().all(|(_, why)| *why == reason), "{:?}", run.lost());
        let (ended, _) = stop_after_crashes(server);
        let crashed = if key == "fault.crash" { lost } else { 0 };
        assert_eq!((ended.code, number(ended.log.one("stopped"), "crashed")), (Some(0), crashed));
    }
}

#[test]
fn all_faults_together_each_have_their_share() {
    let server = Server::start(&[("fault.wrong", "0.25"), ("fault.close", "0.25"), ("fault.crash", "0.25")]);
    // The fourth message is the first that meets a fault, and two more are due.
    let run = Client::run(server.address, &["--messages", "18"]);
    assert_eq!(run.outcome(), (1, [18, 6, 4, 8]), "{:?}", run.log);
    let (ended, _) = stop_after_crashes(server);
    assert_eq!(number(ended.log.one("stopped"), "crashed"), 4);
}

#[test]
fn a_delay_holds_back_each_echo_and_spoils_none() {
    let server = Server::start(&[("fault.delay", "20ms")]);
    let run = Client::run(server.address, &["--messages", "5"]);
    assert_eq!(run.outcome(), (0, [5, 5, 0, 0]));
    assert!(number(&run.report, "min_us") >= 20_000, "{:?}", run.report);
    server.stop();
}

#[test]
fn a_crash_that_a_client_asks_for_is_its_own_alone_and_frees_its_slot() {
    let cap = [("supervisor.workers", "1"), ("supervisor.max_connections", "2")];
    let mut server = Server::start(&[&cap[..], &[ASK, DEBUG, LONG_LINGER, LONG_TIMEOUT]].concat());
    let (mut crashes, mut other) = (server.connect_served(), server.connect_served());
    let mut waits = server.connect();
    server.log.wait_of("connection waiting", &waits);
    crashes.write_all(b"fault: crash\n").unwrap();
    assert_eq!(crashes.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.log.wait_of("fault", &crashes)["kind"], "crash");
    let close = server.log.wait_of("connection closed", &crashes);
    assert_eq!((close["reason"].as_str(), close["level"].as_str()), (Some("crashed"), Some("error")));
    round_trip(&mut other);
    round_trip(&mut waits);
    drop((other, waits));
    let (ended, panics) = stop_after_crashes(server);
    assert_eq!((ended.code, number(ended.log.one("stopped"), "crashed")), (Some(0), 1));
    assert!(panics.contains("a crash on purpose, as the settings [fault] allow\n"), "{panics}");
    assert_eq!(panics.matches("panicked").count(), 1, "{panics}");
}

#[test]
fn the_line_that_asks_for_a_fault_gets_it_and_only_where_that_is_allowed() {
    let mut server = Server::start(&[ASK, DEBUG]);
    let mut client = server.connect();
    assert_eq!(answer(&mut client, "fault: wrong\n"), "Fault: wrong\n");
    assert_eq!(answer(&mut client, "fault: delay 1ms\nfault: wrong!\n"), "fault: delay 1ms\nfault: wrong!\n");
    // What comes behind the line is not echoed either.
    client.write_all(b"fault: close\nmore\n").unwrap();
    assert!(read_to_eof(&mut client).is_empty());
    let kinds = [(); 3].map(|()| server.log.wait_of("fault", &client)["kind"].clone());
    assert_eq!(kinds, ["wrong", "delay", "close"]);
    drop(client);
    server.stop();

    let server = Server::start(&[("fault.delay", "1ms")]);
    let lines = "fault: crash\nfault: close\nfault: wrong\nfault: delay 60s\n";
    assert_eq!(answer(&mut server.connect(), lines), lines);
    server.stop();
}

#[test]
fn a_stop_that_comes_during_a_delay_waits_for_the_echo_or_forces_it_at_the_deadline() {
    for (delay, timeout, forced) in [("2s", "25s", false), ("60s", "1s", true)] {
        let settings = [ASK, DEBUG, LONG_LINGER, ("supervisor.shutdown_timeout", timeout)];
        let mut server = Server::start(&settings);
        let mut client = server.connect();
        let line = format!("fault: delay {delay}\n");
        client.write_all(line.as_bytes()).unwrap();
        server.log.wait_of("fault", &client);
        client.write_all(b"has arrived\n").unwrap();
        wait_until_arrived(&client);
        server.signal(Signal::TERM);
        let name = client.local_addr().unwrap();
        if forced {
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            assert_eq!(read_to_eof(&mut client), format!("{line}has arrived\n").as_bytes());
        }
        drop(client);
        let ended = server.end();
        let reason = if forced { "forced" } else { "stopped" };
        assert_eq!(ended.log.close_of(&name)["reason"], reason);
        assert_eq!(ended.code, Some(if forced { 3 } else { 0 }));
        ended.log.assert_all_accounted_for();
    }
}

#[test]
fn a_server_that_lies_on_purpose_says_so_once() {
    let ended = Server::start(&[]).stop();
    assert!(ended.log.of("faults on purpose").is_empty());
    let ended = Server::start(&[("fault.delay", "1s 500ms"), ("fault.close", "0.5"), ASK]).stop();
    let warning = ended.log.one("faults on purpose");
    assert_eq!(warning["level"], "warn");
    assert_eq!((number(warning, "delay_ms"), &warning["ask"]), (1500, &true.into()));
    assert_eq!(["wrong", "close", "crash"].map(|share| warning[share].as_f64()), [0.0, 0.5, 0.0].map(Some));
}

/// Sends this and FIN, and expects exactly this until EOF.
fn comes_back(server: &Server, bytes: &[u8]) {
    let mut client = server.connect();
    let mut out = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            out.write_all(bytes).unwrap();
            out.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_to_eof(&mut client) == bytes, "{} bytes", bytes.len());
    });
}

#[test]
fn what_meets_no_fault_comes_back_byte_for_byte_whether_faults_are_off_or_on() {
    // The pattern is lines of 251 bytes, and its end is none.
    let long_line = vec![b'x'; 100_000];
    let lines = "\n\nåß\r\n\0\n".repeat(10_000);
    for settings in [&[][..], &[ASK], &[("fault.crash", "0.000001")]] {
        let server = Server::start(settings);
        for bytes in [b"".as_slice(), b"\n", b"no end", pattern(0, 200_000), &long_line, lines.as_bytes()] {
            comes_back(&server, bytes);
        }
        server.stop();
    }
}

#[test]
fn a_line_that_is_longer_than_the_buffer_is_echoed_as_it_comes_and_meets_one_fault() {
    let server = Server::start(&[("fault.wrong", "0.5")]);
    let mut client = server.connect();
    assert_eq!(answer(&mut client, "first\n"), "first\n");
    let long = "x".repeat(10_000);
    assert_eq!(answer(&mut client, &long), format!("X{}", &long[1..]));
    // The line goes on, and each piece comes back at once.
    for piece in ["y", "zz", "!\n"] {
        assert_eq!(answer(&mut client, piece), piece);
    }
    assert_eq!(answer(&mut client, "third\n"), "third\n");
    drop(client);
    server.stop();
}
