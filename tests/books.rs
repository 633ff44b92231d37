//! The books: `merge` compares what the clients' reports and the servers' logs say of the bytes.

mod common;

use common::*;
use serde_json::{Value, json};
use socket2::SockRef;
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
};

/// A server whose log tells of every connection.
fn server(settings: &[(&str, &str)]) -> Server {
    Server::start(&[&[("log.level", "debug"), LONG_LINGER, LONG_TIMEOUT], settings].concat())
}

/// The log of a server that this signal has ended.
fn log_after(signal: Signal, server: Server) -> String {
    server.signal(signal);
    server.end().log.to_string()
}

/// Runs clients to their end, two against the first server and one against the second.
fn three_clients(place: &Place, servers: &[Server; 2]) {
    for (name, server) in [("a", &servers[0]), ("b", &servers[0]), ("c", &servers[1])] {
        let run = Client::run(server.address, &["--id", name, "--connections", "3"]);
        assert_eq!(run.outcome(), (0, [6, 6, 0, 0]));
        fs::write(place.path().join(format!("{name}.json")), run.report.to_string()).unwrap();
    }
}

#[test]
fn the_books_close_over_the_reports_and_the_servers_logs_and_miss_each_that_is_left_out() {
    let (place, servers) = (Place::new("report-books"), [server(&[]), server(&[])]);
    three_clients(&place, &servers);
    let check = finish(program(&[]).args(["healthcheck", &servers[0].address.to_string()]));
    assert_eq!(check.code, 0, "{check:?}");
    let [one, two] = servers.map(|server| log_after(Signal::TERM, server));
    assert!(one.contains("\"healthcheck\":true"), "{one}");
    fs::write(place.path().join("one.log"), &one).unwrap();
    fs::write(place.path().join("two.log"), &two).unwrap();

    // A file that is named twice counts once.
    let merged = merge_in(&place, &[".", "two.log", "--expect", "3"]);
    assert_eq!((merged.code, &*merged.err), (0, ""), "{}", merged.out);
    let json = merge_in(&place, &[".", "--report", "json"]);
    let json = json_of(&json.out);
    assert_schema("report.json", &json);
    let verified = number(&json["bytes"], "verified");
    assert!(verified > 0);
    let servers = json!({ "started": 2, "stopped": 2, "echoed": verified, "discarded": 0 });
    assert_eq!(json["books"], json!({ "servers": servers, "open": [] }));
    let told =
        format!("\nbooks       2 servers: echoed {verified} = verified {verified}, discarded 0 = resent 0, closed\n");
    assert!(merged.out.contains(&told), "{}", merged.out);

    for (files, looks_like) in [
        (["a.json", "b.json", "c.json", "one.log"], "a server's log is missing, or is not JSON"),
        (["a.json", "b.json", "one.log", "two.log"], "a client's report is missing, or a server's log was given twice"),
    ] {
        let merged = merge_in(&place, &[&files[..], &["--report", "json"]].concat());
        let json = json_of(&merged.out);
        assert_eq!((merged.code, &json["verdict"]), (1, &json!("failed")));
        let [difference] = &json["books"]["open"].as_array().unwrap()[..] else { panic!("{}", json["books"]) };
        assert!(difference.as_str().unwrap().ends_with(looks_like), "{difference}");
    }
    // Reports alone have no books.
    let merged = merge_in(&place, &["a.json", "b.json", "c.json"]);
    assert_eq!((merged.code, merged.out.contains("books")), (0, false), "{}", merged.out);
}

#[test]
fn a_server_that_was_killed_leaves_the_books_open() {
    let (place, servers) = (Place::new("report-books-killed"), [server(&[]), server(&[])]);
    three_clients(&place, &servers);
    let [one, two] = servers;
    let place = place.with("all.log", log_after(Signal::TERM, one) + &log_after(Signal::KILL, two));
    let merged = merge_in(&place, &[".", "--expect", "3"]);
    assert_eq!((merged.code, &*merged.err), (1, ""));
    for told in ["never said stopped: killed, or the log is cut off", "a server never said how many it echoed"] {
        assert!(merged.out.contains(told), "{}", merged.out);
    }
}

/// A balancer that the test works by hand. So the test says what has reached which server when that stops.
struct Balancer(TcpListener);

impl Balancer {
    fn start() -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        Self(listener)
    }

    /// The built client, with messages of `size` bytes.
    fn client(&self, size: usize, flags: &str) -> Client {
        let flags = format!("--size {size} --messages 9 {flags}");
        Client::start(self.0.local_addr().unwrap(), &flags.split(' ').collect::<Vec<_>>())
    }

    /// Connects the client that comes next to this server.
    fn accept(&self, server: &Server) -> Session {
        let (client, _) = self.0.accept().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        Session { client, server: server.connect() }
    }

    /// Passes on all that the client that comes next says to this server. Gives the server's log.
    fn serve_the_rest(&self, server: Server) -> String {
        let mut session = self.accept(&server);
        while session.pass_piece(PIECE) > 0 {}
        session.server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_eof(&mut session.server), b"");
        drop(session);
        log_after(Signal::TERM, server)
    }
}

/// The kernel holds this much, so the server reads it before its echo is taken.
const PIECE: usize = 16 << 10;

/// A client and a server, with the balancer between them.
struct Session {
    client: TcpStream,
    server: TcpStream,
}

impl Session {
    /// The next bytes of the client. No server has them yet.
    fn hold(&mut self, bytes: usize) -> Vec<u8> {
        let mut held = vec![0; bytes];
        self.client.read_exact(&mut held).unwrap();
        held
    }

    /// Gives these bytes to the server and takes their echo.
    fn echo(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.server.write_all(bytes).unwrap();
        let mut echo = vec![0; bytes.len()];
        self.server.read_exact(&mut echo).unwrap();
        echo
    }

    /// Passes the next bytes on, at most so many, and their echo back. Gives how many; 0 if the client has ended.
    fn pass_piece(&mut self, most: usize) -> usize {
        let mut piece = [0; PIECE];
        let n = self.client.read(&mut piece[..most.min(PIECE)]).unwrap();
        let echo = self.echo(&piece[..n]);
        self.client.write_all(&echo).unwrap();
        n
    }

    /// Passes so many bytes on, and their echo back.
    fn pass(&mut self, bytes: usize) {
        let mut passed = 0;
        while passed < bytes {
            let n = self.pass_piece(bytes - passed);
            assert_ne!(n, 0, "the client has ended after {passed} bytes");
            passed += n;
        }
    }

    /// Stops the server, and gives it these bytes when it has ended the connection. Gives its log.
    fn stop(self, server: Server, late: &[u8]) -> String {
        server.signal(Signal::TERM);
        self.end(server, late)
    }

    /// Gives the server, which ends the connection, these bytes behind its end. Then the client hears of the end.
    fn end(mut self, server: Server, late: &[u8]) -> String {
        assert_eq!(read_to_eof(&mut self.server), b"");
        self.server.write_all(late).unwrap();
        drop(self.server);
        server.end().log.to_string()
    }
}

/// What the merge of this client and these servers says, and its books.
fn merged(place: Place, run: &Run, logs: [String; 2]) -> (Finished, Value) {
    let place = place.with("client.json", run.report.to_string()).with("servers.log", logs.concat());
    let json = merge_in(&place, &[".", "--expect", "1", "--report", "json"]);
    (merge_in(&place, &[".", "--expect", "1"]), json_of(&json.out))
}

#[test]
fn what_a_stop_discards_is_sent_again_and_the_books_close() {
    for (size, pipeline) in [(100, 1), (100, 4), (1 << 20, 2)] {
        let (balancer, one, two) = (Balancer::start(), server(&[]), server(&[]));
        let client = balancer.client(size, &format!("--pipeline {pipeline} --resend 1"));
        let mut session = balancer.accept(&one);
        session.pass(size);
        let late = session.hold(size * pipeline);
        let logs = [session.stop(one, &late), balancer.serve_the_rest(two)];
        let run = client.end();
        assert_eq!((run.outcome(), number(&run.report, "resent")), ((0, [9, 9, 0, 0]), pipeline as u64));
        let (table, json) = merged(Place::new("books-resent"), &run, logs);
        let (verified, late) = (9 * size, late.len());
        let books = json!({ "started": 2, "stopped": 2, "echoed": verified, "discarded": late });
        assert_eq!(json["books"], json!({ "servers": books, "open": [] }));
        assert_eq!(
            (number(&json["bytes"], "verified"), number(&json["bytes"], "resent")),
            (verified as u64, late as u64)
        );
        let told = format!(
            "\nbooks       2 servers: echoed {verified} = verified {verified}, discarded {late} = resent {late}, closed\n"
        );
        assert!(table.code == 0 && table.out.contains(&told), "{table:?}");
    }
}

#[test]
fn what_comes_behind_a_last_word_is_sent_again_and_the_books_close() {
    const SIZE: usize = 100;
    let mut one = server(&[("connection.last_word", "1h"), ("admin.address", &free_address().to_string())]);
    let admin = one.log.wait("admin listening")["address"].as_str().unwrap().parse().unwrap();
    let (balancer, two) = (Balancer::start(), server(&[]));
    let client = balancer.client(SIZE, "--pipeline 4 --resend 1");
    let mut session = balancer.accept(&one);
    session.pass(SIZE);
    let last_word = session.hold(SIZE);
    one.signal(Signal::TERM);
    let draining = || get(admin, "/v1/connections?state=draining").json()["connections"].as_array().unwrap().len();
    wait_until("the server waits for the last word", || draining() == 1);
    let echo = session.echo(&last_word);
    session.client.write_all(&echo).unwrap();
    // Those that were out, and the one that there is room for now.
    let late = session.hold(4 * SIZE);
    let logs = [session.end(one, &late), balancer.serve_the_rest(two)];
    let run = client.end();
    assert_eq!((run.outcome(), number(&run.report, "resent")), ((0, [9, 9, 0, 0]), 4));
    let (table, _) = merged(Place::new("books-last-word"), &run, logs);
    let told = "\nbooks       2 servers: echoed 900 = verified 900, discarded 400 = resent 400, closed\n";
    assert!(table.code == 0 && table.out.contains(told), "{table:?}");
}

#[test]
fn what_a_stop_discards_and_no_client_sends_again_is_lost_and_the_books_close() {
    let (balancer, one, two) = (Balancer::start(), server(&[]), server(&[]));
    let client = balancer.client(100, "--pipeline 4");
    let mut session = balancer.accept(&one);
    session.pass(100);
    let late = session.hold(400);
    let logs = [session.stop(one, &late), balancer.serve_the_rest(two)];
    let run = client.end();
    assert_eq!(run.outcome(), (1, [9, 5, 0, 4]));
    let (table, json) = merged(Place::new("books-lost"), &run, logs);
    let told = "\nbooks       2 servers: echoed 500 = verified 500, discarded 400 = resent 0 + lost 400, closed\n";
    assert!(table.code == 1 && table.out.contains(told), "{table:?}");
    assert_eq!(json["verdict"], "failed");
}

#[test]
fn what_a_stop_discards_of_no_client_that_reports_is_named() {
    let (balancer, one, two) = (Balancer::start(), server(&[]), server(&[]));
    let client = balancer.client(100, "--pipeline 4 --resend 1");
    let mut session = balancer.accept(&one);
    session.pass(100);
    let mut late = session.hold(400);
    late.extend(b"of another");
    let logs = [session.stop(one, &late), balancer.serve_the_rest(two)];
    let run = client.end();
    assert_eq!(run.outcome(), (0, [9, 9, 0, 0]));
    let (table, json) = merged(Place::new("books-stranger"), &run, logs);
    let open = "10 discarded bytes are in no report as resent or lost: a client's report is missing, or a server's log was given twice";
    assert_eq!(json["books"]["open"], json!([open]));
    let told = format!(
        "\nbooks       2 servers: echoed 900 = verified 900, discarded 410 > resent 400\nbooks       open: {open}\n"
    );
    assert!(table.code == 1 && table.out.contains(&told), "{table:?}");
}

#[test]
fn a_message_that_a_balancer_has_executed_twice_is_named() {
    let (balancer, one, two) = (Balancer::start(), server(&[]), server(&[]));
    let client = balancer.client(100, "--resend 1");
    let mut session = balancer.accept(&one);
    session.pass(100);
    let message = session.hold(100);
    session.echo(&message);
    // The balancer keeps the echo, and ends the session as if nothing had come.
    drop(session);
    let logs = [log_after(Signal::TERM, one), balancer.serve_the_rest(two)];
    let run = client.end();
    assert_eq!((run.outcome(), number(&run.report, "resent")), ((0, [9, 9, 0, 0]), 1));
    let (table, json) = merged(Place::new("books-twice"), &run, logs);
    let open =
        "100 echoed bytes are in no report as verified: a message was executed twice, because a balancer cut a session";
    assert_eq!((table.code, &json["books"]["open"]), (1, &json!([open])));
}

#[test]
fn a_message_that_a_stop_has_cut_in_two_is_lost_and_named() {
    const SIZE: usize = 1 << 20;
    let (balancer, one, two) = (Balancer::start(), server(&[]), server(&[]));
    let client = balancer.client(SIZE, "--resend 1");
    let mut session = balancer.accept(&one);
    session.pass(SIZE + SIZE / 4);
    let late = session.hold(SIZE / 4 * 3);
    let logs = [session.stop(one, &late), balancer.serve_the_rest(two)];
    let run = client.end();
    assert_eq!((run.outcome(), number(&run.report, "resent")), ((1, [9, 8, 0, 1]), 0));
    let (table, json) = merged(Place::new("books-cut"), &run, logs);
    let cause = "an echo was lost on its way back, or a stop cut a message in two";
    let open = format!("{} echoed bytes are in no report as verified: {cause}", SIZE / 4);
    assert_eq!((table.code, &json["books"]["open"]), (1, &json!([open])));
}
