//! The examples, run as a reader of the README would: the tour tells its whole story, and another protocol drains alike.

mod common;

use common::{Server, Signal, connect, with_settings};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

/// An example's program, beside the binaries. Cargo builds it with the tests, but not if this file alone is asked for.
fn example(name: &str) -> Command {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let build =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--example", name, "--profile", profile]).status();
    assert!(build.unwrap().success());
    let programs = Path::new(env!("CARGO_BIN_EXE_echo-server")).parent().unwrap();
    Command::new(programs.join("examples").join(name))
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
fn a_service_that_speaks_in_lines_answers_what_had_arrived_at_a_stop() {
    let server = Server::run(with_settings(example("lines"), &[]));
    let mut quitter = connect(server.address);
    assert_eq!(conversation(&mut quitter, b"hello\nquit\nnobody hears this\n"), "HELLO\nBYE\n");
    drop(quitter);
    let mut client = connect(server.address);
    client.write_all(b"half a").unwrap();
    common::wait_until_arrived(&client);
    server.signal(Signal::TERM);
    assert_eq!(conversation(&mut client, b""), "HALF A");
    drop(client);
    let ended = server.end();
    assert_eq!(ended.code, Some(0));
    ended.log.assert_all_accounted_for();
}

fn conversation(client: &mut TcpStream, says: &[u8]) -> String {
    client.write_all(says).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    heard
}
