//! The books: `merge` compares what the clients' reports and the servers' logs say of the bytes.

mod common;

use common::*;
use serde_json::json;
use std::fs;

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
        (["a.json", "b.json", "one.log", "two.log"], "a client's report is missing"),
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
