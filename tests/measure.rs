//! What the built client measures, against what the server itself has recorded: servers that freeze, drip, lie, close, reset,
//! are silent and are away.

mod common;

use common::*;
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// What a server did, as it saw it itself.
#[derive(Default)]
struct Truth {
    accepted: AtomicU64,
    /// Messages that it has read.
    received: AtomicU64,
    /// Messages that it has not answered as it should.
    spoiled: AtomicU64,
    bytes: AtomicU64,
}

impl Truth {
    fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    fn received(&self) -> u64 {
        self.received.load(SeqCst)
    }

    fn spoiled(&self) -> u64 {
        self.spoiled.load(SeqCst)
    }

    /// The next message, unless the client has ended the connection.
    fn read(&self, stream: &mut TcpStream) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        while message.last() != Some(&b'\n') {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return None;
            }
            message.push(byte[0]);
        }
        self.received.fetch_add(1, SeqCst);
        Some(message)
    }
}

/// Serves every connection on a thread of its own, as long as the test runs.
fn serve(each: impl Fn(TcpStream, &Truth) + Send + Sync + 'static) -> (SocketAddr, Arc<Truth>) {
    let (listener, truth, each) =
        (TcpListener::bind(free_address()).unwrap(), Arc::new(Truth::default()), Arc::new(each));
    let address = listener.local_addr().unwrap();
    let kept = truth.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            stream.set_nodelay(true).unwrap();
            truth.accepted.fetch_add(1, SeqCst);
            let (each, truth) = (each.clone(), truth.clone());
            thread::spawn(move || each(stream, &truth));
        }
    });
    (address, kept)
}

/// Answers messages, the `n`th of the connection with what `answer` makes of it, until that is `None` or the client ends.
fn answer(mut stream: TcpStream, truth: &Truth, answer: impl Fn(u64, Vec<u8>) -> Option<Vec<u8>>) -> TcpStream {
    let mut n = 0;
    while let Some(message) = truth.read(&mut stream) {
        n += 1;
        let Some(echo) = answer(n, message) else {
            truth.spoiled.fetch_add(1, SeqCst);
            break;
        };
        if stream.write_all(&echo).is_err() {
            break;
        }
    }
    stream
}

/// Runs a client whose run has no end by count.
fn run(server: SocketAddr, flags: &str) -> Run {
    let flags = ["--messages 0", flags].join(" ");
    let run = Client::run(server, &flags.split(' ').collect::<Vec<_>>());
    assert!(run.report["due"].is_u64(), "{run:?}");
    check(&run.report);
    run
}

/// What holds for every report.
fn check(report: &Value) {
    let count = |key: &str| report[key].as_u64().unwrap();
    let sum = |object: &str| report[object].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!(count("due"), count("verified") + count("wrong") + count("lost"), "{report}");
    assert_eq!(sum("lost_by"), count("lost"), "{report}");
    for key in ["due", "verified", "wrong", "lost"] {
        let rows = report["timeline"]["rows"].as_array().unwrap().iter();
        assert_eq!(rows.map(|row| row[key].as_u64().unwrap()).sum::<u64>(), count(key), "{key}: {report}");
    }
    let servers = report["servers"].as_object().unwrap().values();
    assert_eq!(servers.map(|server| server["verified"].as_u64().unwrap()).sum::<u64>(), count("verified"), "{report}");
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {report}"))
}

#[test]
fn every_message_of_a_timetable_is_due_and_verified_and_steps_have_their_share() {
    let (server, truth) = serve(|stream, truth| drop(answer(stream, truth, |_, message| Some(message))));
    let run = run(server, "--rate 100/s,300/s --duration 2s --connections 5 --pipeline 4");
    let report = &run.report;
    assert_eq!((run.code, number(report, "/due"), number(report, "/verified")), (0, 400, 400));
    assert_eq!((truth.received(), truth.accepted()), (400, number(report, "/connections/made")));
    for (step, rate, due) in [(0, 100.0, 100), (1, 300.0, 300)] {
        let step = &report["steps"][step];
        assert_eq!((step["rate"].as_f64().unwrap(), number(step, "/due"), number(step, "/verified")), (rate, due, due));
        assert_eq!(number(step, "/response/count"), due);
    }
    for times in ["response", "round_trip", "late"] {
        assert_eq!(number(report, &format!("/{times}/count")), 400, "{times}");
    }
    assert_eq!(number(report, "/connect/count"), 5);
    assert_eq!(number(report, "/outages/count"), 0);
}

#[test]
fn a_warm_up_is_verified_and_counted_but_not_timed() {
    let (server, _) = serve(|stream, truth| drop(answer(stream, truth, |_, message| Some(message))));
    let run = run(server, "--rate 100/s --duration 1s --warmup 400ms");
    assert_eq!((run.code, number(&run.report, "/verified")), (0, 100));
    for times in ["response", "round_trip", "late"] {
        assert_eq!(number(&run.report, &format!("/{times}/count")), 60, "{times}");
    }
}

#[test]
fn a_server_that_answers_after_a_while_has_this_while_as_response_and_as_round_trip() {
    const WHILE: Duration = Duration::from_millis(100);
    let (server, truth) = serve(|stream, truth| {
        let late = |_, message| {
            thread::sleep(WHILE);
            Some(message)
        };
        drop(answer(stream, truth, late));
    });
    // Each connection has a message every 400 ms.
    let run = run(server, "--rate 10/s --duration 2s --connections 4");
    assert_eq!((run.code, number(&run.report, "/verified"), truth.received()), (0, 20, 20));
    let took = WHILE.as_micros() as u64;
    for times in ["response", "round_trip"] {
        let [min, p50] = ["min_us", "p50_us"].map(|figure| number(&run.report, &format!("/{times}/{figure}")));
        assert!(min >= took && p50 < 3 * took, "{times}: min {min} µs, p50 {p50} µs of {took}");
    }
}

#[test]
fn a_server_that_freezes_is_seen_in_the_response_of_every_message_that_was_due_meanwhile() {
    const FREEZE: Duration = Duration::from_millis(800);
    let (frozen, lasted) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Duration::ZERO)));
    let (gate, times) = (frozen.clone(), lasted.clone());
    let (server, _) = serve(move |stream, truth| {
        let truthful = |_, message| {
            if truth.received() == 200 {
                let (_frozen, begun) = (gate.lock().unwrap(), Instant::now());
                thread::sleep(FREEZE);
                *times.lock().unwrap() = begun.elapsed();
            }
            drop(gate.lock().unwrap());
            Some(message)
        };
        drop(answer(stream, truth, truthful));
    });
    let run = run(server, "--rate 200/s --duration 3s --connections 8");
    assert_eq!((run.code, number(&run.report, "/due"), number(&run.report, "/verified")), (0, 600, 600));
    // A message was due every 5 ms. One in a hundred of 600 are the first six of the freeze.
    let lasted = lasted.lock().unwrap().as_micros() as u64;
    let (p99, max) = (number(&run.report, "/response/p99_us"), number(&run.report, "/response/max_us"));
    assert!(max + 10_000 >= lasted, "max {max} µs of {lasted}");
    assert!(p99 + 50_000 >= lasted, "p99 {p99} µs of {lasted}");
    // Three of four messages were due before the freeze or after it.
    let p50 = number(&run.report, "/response/p50_us");
    assert!(max < 3 * lasted && p50 < lasted / 2, "p50 {p50} µs, max {max} µs of {lasted}");
    let rows = run.report["timeline"]["rows"].as_array().unwrap().iter();
    assert_eq!(rows.filter_map(|row| row["max_us"].as_u64()).max(), Some(max));
}

#[test]
fn a_lie_is_found_and_what_stood_behind_it_on_its_connection_is_abandoned() {
    // On each connection it answers four messages, and takes four more before it answers the first of them wrongly.
    let (server, truth) = serve(|stream, truth| {
        let behind = stream.try_clone().unwrap();
        let lie = |n, mut message: Vec<u8>| {
            if n == 5 {
                truth.spoiled.fetch_add(1, SeqCst);
                (0..3).for_each(|_| drop(truth.read(&mut behind.try_clone().unwrap())));
                message[0] ^= 1;
            }
            Some(message)
        };
        drop(answer(stream, truth, lie));
    });
    let run = Client::run(server, &["--messages", "16", "--pipeline", "4", "--connections", "2"]);
    check(&run.report);
    assert_eq!(run.outcome(), (1, [32, 16, 4, 12]));
    assert_eq!((truth.received(), truth.spoiled(), truth.accepted()), (32, 4, 4));
    assert_eq!(number(&run.report, "/lost_by/abandoned"), 12);
    assert_eq!(number(&run.report, "/connections/reconnects"), 2);
}

#[test]
fn messages_that_a_server_closes_on_are_lost_and_with_resend_they_are_sent_again_and_none_is_lost() {
    let closing = || serve(|stream, truth| drop(answer(stream, truth, |n, message| (n < 4).then_some(message))));
    let (server, truth) = closing();
    let run = Client::run(server, &["--messages", "9"]);
    check(&run.report);
    assert_eq!((run.code, number(&run.report, "/lost"), truth.spoiled()), (1, 2, 2));
    assert_eq!(number(&run.report, "/lost_by/closed"), 2);
    assert_eq!(number(&run.report, "/connections/closed_by_server"), truth.spoiled());
    assert_eq!(number(&run.report, "/connections/reconnects"), truth.accepted() - 1);

    let (server, truth) = closing();
    let run = Client::run(server, &["--messages", "9", "--resend", "1"]);
    check(&run.report);
    assert_eq!((run.code, number(&run.report, "/verified"), number(&run.report, "/lost")), (0, 9, 0));
    assert_eq!((number(&run.report, "/resent"), truth.received()), (truth.spoiled(), 9 + truth.spoiled()));
    assert_eq!(number(&run.report, "/outages/count"), 0);
}

#[test]
fn a_message_is_sent_again_only_as_often_as_it_may_be() {
    let (server, truth) = serve(|stream, truth| drop(answer(stream, truth, |_, _| None)));
    let run = Client::run(server, &["--messages", "2", "--resend", "2"]);
    check(&run.report);
    assert_eq!((run.code, number(&run.report, "/lost_by/closed"), number(&run.report, "/resent")), (1, 2, 4));
    assert_eq!(truth.received(), 6);
}

#[test]
fn resets_are_counted_as_resets() {
    let (server, truth) = serve(|stream, truth| reset(answer(stream, truth, |n, message| (n < 3).then_some(message))));
    let run = Client::run(server, &["--messages", "6", "--resend", "5"]);
    check(&run.report);
    assert_eq!((run.code, number(&run.report, "/lost_by/reset")), (1, truth.spoiled()));
    assert_eq!(number(&run.report, "/connections/reset"), truth.spoiled());
    assert_eq!((number(&run.report, "/resent"), truth.received()), (0, 6));
}

#[test]
fn echoes_that_drip_in_any_pieces_are_told_apart_in_a_pipeline() {
    let (server, truth) = serve(|mut stream, truth| {
        let mut buffer = [0; 7];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            truth.bytes.fetch_add(count as u64, SeqCst);
            let (left, right) = buffer[..count].split_at(count / 2);
            if stream.write_all(left).and_then(|()| stream.write_all(right)).is_err() {
                break;
            }
        }
    });
    let run = Client::run(server, &["--messages", "300", "--pipeline", "16", "--size", "37", "--connections", "3"]);
    check(&run.report);
    assert_eq!((run.code, number(&run.report, "/verified")), (0, 900));
    assert_eq!(truth.bytes.load(SeqCst), 900 * 37);
}

#[test]
fn a_silent_server_has_what_was_sent_time_out_and_what_had_no_room_was_never_sent() {
    let (server, truth) = serve(|mut stream, truth| while truth.read(&mut stream).is_some() {});
    let run = run(server, "--rate 100/s --duration 1s --timeout 150ms");
    assert_eq!((run.code, number(&run.report, "/lost")), (1, 100));
    assert_eq!(number(&run.report, "/lost_by/timeout"), truth.received());
    assert_eq!(number(&run.report, "/lost_by/unsent"), 100 - truth.received());
    assert_eq!(number(&run.report, "/outages/count"), 1);
    assert_eq!(run.report["outages"]["windows"][0]["why"], "timeout");
    assert_eq!(number(&run.report, "/outages/windows/0/failed"), 100);
    assert!(number(&run.report, "/outages/longest_ms") <= number(&run.report, "/elapsed_ms"), "{}", run.report);
}

#[test]
fn a_server_that_is_away_is_one_outage_from_its_end_to_its_return() {
    let address = closed_port();
    let away = Arc::new(Mutex::new(None));
    let seen = away.clone();
    thread::spawn(move || {
        let serve = |until: usize| {
            let listener = TcpListener::bind(address).unwrap();
            let mut stream = listener.accept().unwrap().0;
            stream.set_nodelay(true).unwrap();
            let truth = Truth::default();
            while truth.received() < until as u64
                && let Some(message) = truth.read(&mut stream)
            {
                stream.write_all(&message).unwrap();
            }
            reset(stream);
        };
        serve(100);
        let left = Instant::now();
        thread::sleep(Duration::from_millis(700));
        *seen.lock().unwrap() = Some(left.elapsed());
        serve(usize::MAX);
    });
    let run = run(address, "--rate 100/s --duration 4s --timeout 3s");
    let away = away.lock().unwrap().expect("it came back").as_millis() as u64;
    assert_eq!(number(&run.report, "/outages/count"), 1, "{}", run.report);
    let longest = number(&run.report, "/outages/longest_ms");
    // The client knows of it by a message that it sends, which is due every 10 ms, and looks again at least every 100 ms.
    assert!(longest > away / 2 && longest < 3 * away, "{longest} of {away} ms");
    let window = &run.report["outages"]["windows"][0];
    assert!(number(&run.report, "/connections/refused") > 0 && number(window, "/reasons/refused") > 0, "{window}");
    assert!(number(window, "/since_verified_ms") < away, "{window}");
    assert_eq!((number(&run.report, "/connections/made"), number(&run.report, "/connections/reconnects")), (2, 1));
    // What was due while it was away was sent when it was back.
    assert_eq!(number(&run.report, "/due"), 400);
}

#[test]
fn the_death_of_a_server_of_many_connections_is_one_outage_that_their_messages_outlast() {
    assert_eq!(killed_and_back("60s"), 0);
}

#[test]
fn the_death_of_a_server_of_many_connections_is_one_outage_that_is_longer_than_their_timeout() {
    let unsent = killed_and_back("1s");
    assert!(unsent > 0, "{unsent}");
}

/// Kills a server under the traffic of a client of 64 connections, and starts another one in its place, later. Gives how many
/// messages could not be sent within `timeout`.
fn killed_and_back(timeout: &str) -> u64 {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let flags = "--messages 0 --rate 2000/s --duration 60s --connections 64 --pipeline 4 --timeout";
    let mut client = Client::start(&address, &[flags, timeout].join(" ").split(' ').collect::<Vec<_>>());
    // All of them are made, and it is used.
    let talks = |client: &mut Client| {
        (0..64).for_each(|_| drop(client.log.wait("connected")));
        (0..640).for_each(|_| drop(client.log.wait_next("echo verified")));
    };
    talks(&mut client);
    let left = Instant::now();
    server.signal(Signal::KILL);
    assert_eq!(server.end().code, None);
    thread::sleep(Duration::from_secs(2));
    let away = left.elapsed().as_millis() as u64;
    let _server = Server::start(&[("listen.address", &address)]);
    let back = left.elapsed().as_millis() as u64;
    talks(&mut client);
    client.process.signal(Signal::TERM);
    let run = client.end();
    check(&run.report);
    assert_eq!(number(&run.report, "/outages/count"), 1, "{}", run.report["outages"]);
    let longest = number(&run.report, "/outages/longest_ms");
    // It is known from a message on, and looked for every 100 ms.
    assert!(longest > away / 2 && longest < 3 * back, "{longest} of {away} to {back} ms");
    assert!(number(&run.report, "/connections/made") >= 128, "{}", run.report["connections"]);
    number(&run.report, "/lost_by/unsent")
}

#[test]
fn connections_are_renewed_between_messages_and_nothing_is_lost() {
    let (server, truth) = serve(|stream, truth| drop(answer(stream, truth, |_, message| Some(message))));
    let run = run(server, "--rate 200/s --duration 2s --connections 2 --renew 200ms --pipeline 3");
    assert_eq!((run.code, number(&run.report, "/verified")), (0, 400));
    let made = number(&run.report, "/connections/made");
    assert_eq!((made, number(&run.report, "/connections/reconnects")), (truth.accepted(), 0));
    // Each connection lasts for 150 ms at least and 200 ms at most, and for as long as a message is out.
    let most = 2 + 2 * number(&run.report, "/elapsed_ms") / 150;
    assert!((6..=most).contains(&made), "{made} of {most}");
    assert_eq!(number(&run.report, "/connections/renewed"), made - 2);
    assert!(run.log.of("connection closed").iter().all(|closed| closed["reason"] == "done"));
}

#[test]
fn a_rate_whose_echoes_are_all_logged_is_warned_of_once() {
    let (server, _) = serve(|stream, truth| drop(answer(stream, truth, |_, message| Some(message))));
    let run = run(server, "--rate 100/s --duration 100ms --connections 3");
    assert_eq!(run.log.one("every echo is logged")["level"], "warn");
    assert_eq!(run.log.of("echo verified").len(), 10);
}
