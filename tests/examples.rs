//! The examples, run as a reader of the README would: the tour tells its whole story, and each protocol meets a real client and
//! a SIGTERM in the midst of its work. The tests that stand in the examples run here, too.

mod common;

/// Each example as a module, for its own tests.
#[path = "../examples"]
mod own_tests {
    #![allow(dead_code, reason = "their programs are run as processes")]

    mod chat;
    mod framed;
    mod lines;
    mod proxy;
    mod tls;
}

use common::*;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    sync::Once,
};

/// An example's program, beside the binaries. Cargo builds it with the tests, but not if this file alone is asked for.
fn example(name: &str) -> Command {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let build = Command::new(env!("CARGO")).args(["build", "--quiet", "--examples", "--profile", profile]).status();
        assert!(build.unwrap().success());
    });
    let programs = Path::new(env!("CARGO_BIN_EXE_echo-server")).parent().unwrap();
    Command::new(programs.join("examples").join(name))
}

/// A running example whose clients have plenty of time to end.
fn run(example: Command) -> Server {
    Server::run(with_settings(example, &[("log.level", "debug"), LONG_LINGER, LONG_TIMEOUT]))
}

fn assert_stopped_well(server: Server, connections: u64) {
    let ended = server.end();
    let stopped = ended.log.one("stopped");
    assert_eq!((ended.code, number(stopped, "acknowledged")), (Some(0), connections), "{:?}", ended.log);
    assert_eq!((number(stopped, "failed"), number(stopped, "reset")), (0, 0), "{:?}", ended.log);
    ended.log.assert_all_accounted_for();
}

fn conversation(client: &mut TcpStream, says: &[u8]) -> String {
    client.write_all(says).unwrap();
    String::from_utf8(read_to_eof(client)).unwrap()
}

#[test]
fn the_tour_tells_its_story_to_the_end_by_itself() {
    let tour = with_settings(example("tour"), &[]).output().unwrap();
    let told = String::from_utf8(tour.stdout).unwrap();
    assert!(tour.status.success(), "{told}");
    let mut rest = &*told;
    for chapter in [
        &["1. ", "| listening"][..],
        &["2. ", "| connection opened", "Ann hears \"hello\""],
        &["3. ", "| connection waiting", "Ann leaves", "Cid hears \"anybody there?\""],
        &["4. ", "! panic", "Bob hears connection reset", "Cid hears \"still here\""],
        &[
            "5. ",
            "| stopping",
            "reason=SIGTERM",
            "| acceptor stopped",
            "| listener closed",
            "| worker stopped",
            "| stopped",
        ],
        &["6. ", "acknowledged 3, forced 0, crashed 1", "exit code 0"],
    ] {
        for &event in chapter {
            let (_, after) = rest.split_once(event).unwrap_or_else(|| panic!("no {event:?} where it belongs\n{told}"));
            rest = after;
        }
    }
    assert_eq!(told.matches("\"last words\", then a clean end").count(), 3, "{told}");
}

#[test]
fn lines_are_answered_at_a_stop_and_half_a_line_is_not_executed() {
    let mut server = run(example("lines"));
    let mut quits = server.connect();
    assert_eq!(conversation(&mut quits, b"hello\nquit\nunheard\n"), "HELLO\nBYE\n");
    let name = quits.local_addr().unwrap();
    drop(quits);
    server.log.wait_of("connection closed", &name);
    let mut client = server.connect();
    client.write_all(b"hello\nquit").unwrap();
    wait_until_arrived(&client);
    server.signal(Signal::TERM);
    assert_eq!(conversation(&mut client, b""), "HELLO\n");
    drop(client);
    assert_stopped_well(server, 1);
}

#[test]
fn a_chat_tells_the_others_of_a_reset_and_says_farewell_at_a_stop() {
    let mut server = run(example("chat"));
    let [mut ann, bob, mut cid] = [(); 3].map(|()| {
        // Each has entered before the next one comes.
        let mut client = BufReader::new(server.connect());
        client.read_line(&mut String::new()).unwrap();
        client
    });
    let [bobs, cids] = [&bob, &cid].map(|client| client.get_ref().local_addr().unwrap());
    cid.get_mut().write_all(b"hello\n").unwrap();
    cid.read_line(&mut String::new()).unwrap();
    reset(bob.into_inner());
    assert_eq!(server.log.wait_of("connection closed", &bobs)["reason"], "reset");
    let mut line = String::new();
    for heard in [format!("* {bobs} is here"), format!("* {cids} is here"), format!("{cids}: hello")] {
        line.clear();
        ann.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), heard);
    }
    line.clear();
    ann.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), format!("* {bobs} has left"));
    cid.get_mut().write_all(b"last words\n").unwrap();
    wait_until_arrived(cid.get_ref());
    server.signal(Signal::TERM);
    for client in [&mut ann, &mut cid] {
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert!(heard.contains(&format!("{cids}: last words\n")), "{heard}");
        assert!(heard.ends_with("* the server stops: farewell\n"), "{heard}");
    }
    drop((ann, cid));
    assert_stopped_well(server, 2);
}

#[test]
fn forty_framed_requests_are_answered_at_a_stop_and_half_of_another_is_not() {
    let server = run(example("framed"));
    let mut client = server.connect();
    let frame = |text: String| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let mut requests: Vec<u8> = (1..=41).flat_map(|id| frame(format!(r#"{{"id":{id},"sum":[{id},0.5]}}"#))).collect();
    requests.truncate(requests.len() - 10);
    client.write_all(&requests).unwrap();
    wait_until_arrived(&client);
    server.signal(Signal::TERM);
    let answers = read_to_eof(&mut client);
    let expected = (1..=40).flat_map(|id| frame(format!(r#"{{"result":{{"id":{id},"sum":{id}.5}}}}"#)));
    assert_eq!(String::from_utf8_lossy(&answers), String::from_utf8_lossy(&expected.collect::<Vec<_>>()));
    drop(client);
    assert_stopped_well(server, 1);
}

#[test]
fn tls_clients_get_their_echo_and_close_notify_at_a_stop_with_a_certificate_from_files() {
    let made = certificate();
    let place =
        Place::new("tls").with("certificate.pem", made.cert.pem()).with("key.pem", made.signing_key.serialize_pem());
    let mut tls = example("tls");
    tls.args(["certificate.pem", "key.pem"].map(|file| place.path().join(file)));
    let mut server = run(tls);
    let probe = server.connect_served();
    let name = probe.local_addr().unwrap();
    drop(probe);
    assert_eq!(server.log.wait_of("connection closed", &name)["reason"], "client");
    let mut clients = [(); 2].map(|()| connect_tls(server.address, made.cert.der()));
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
    let mut silent = server.connect(); // not even a handshake
    clients[0].write_all(b"last words").unwrap();
    wait_until_arrived(&clients[0].sock);
    server.signal(Signal::TERM);
    for (client, owed) in clients.iter_mut().zip(["last words", ""]) {
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap(); // an end without `close_notify` is an error
        assert_eq!(heard, owed);
    }
    assert!(read_to_eof(&mut silent).is_empty());
    drop((clients, silent));
    assert_stopped_well(server, 3);
}

#[test]
fn a_proxy_keeps_half_closes_and_passes_a_stop_on() {
    let upstream = Server::start(&[LONG_LINGER, LONG_TIMEOUT]);
    let mut proxy = example("proxy");
    proxy.arg(upstream.address.to_string());
    let mut server = run(proxy);
    let mut half_closes = server.connect();
    half_closes.write_all(pattern(0, 200_000)).unwrap();
    half_closes.shutdown(Shutdown::Write).unwrap();
    let (got, end) = read_pattern(&mut half_closes, 0, |_| {});
    assert_eq!((got, end.is_ok()), (200_000, true));
    server.log.wait_of("connection closed", &half_closes);

    let mut client = server.connect();
    round_trip(&mut client);
    client.write_all(b"last words").unwrap();
    wait_until_arrived(&client);
    server.signal(Signal::TERM);
    assert_eq!(conversation(&mut client, b""), "last words");
    drop(client);
    assert_stopped_well(server, 1);
    assert_eq!(upstream.stop().code, Some(0));
}
