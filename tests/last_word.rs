//! The last word: a stop answers the next bytes of a client to whom nothing is due, and the client's end comes with the answer.
//!
//! That a connection waits for its client's last word is seen over HTTP, as the state `draining`.

mod common;

use common::*;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};
use supervised_echo::{AtStop, Echo, Service, Settings, Socket};

const LONG: Duration = Duration::from_secs(3600);
const MESSAGE: &[u8] = b"one more\n";

/// A server whose stop waits this long for last words.
fn start<S: Service>(last_word: Duration, service: S, change: impl FnOnce(&mut Settings)) -> InProcess {
    let mut settings = settings();
    settings.connection.last_word = last_word;
    settings.connection.linger = PATIENCE / 3;
    settings.supervisor.shutdown_timeout = PATIENCE / 2;
    settings.admin.address = Some(free_address());
    change(&mut settings);
    InProcess::start(settings, service)
}

/// Clients that have had an echo each.
fn talking(server: &InProcess, clients: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..clients).map(|_| connect(server.address)).collect();
    clients.iter_mut().for_each(round_trip);
    clients
}

/// Waits until so many connections are in this state.
fn wait_for(server: &InProcess, connections: usize, state: &str) {
    let path = format!("/v1/connections?limit=1000&state={state}");
    let listed = || get(server.admin.unwrap(), &path).json()["connections"].as_array().unwrap().len();
    wait_until("the connections are in their state", || listed() == connections);
}

/// Stops the server, and waits until so many connections wait for their clients' last words.
fn stop(server: &InProcess, waiting: usize) {
    server.handle.stop();
    wait_for(server, waiting, "draining");
}

/// Sends a message, gets its echo, and finds the end right behind it.
fn last_exchange(client: &mut TcpStream, message: &[u8]) {
    client.write_all(message).unwrap();
    let mut echo = vec![0; message.len()];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(echo, message);
    client.set_nonblocking(true).unwrap();
    let end = client.read(&mut [0]);
    assert!(matches!(end, Ok(0)), "the end is not in the same segment: {end:?}");
}

fn is_reset(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn clients_that_send_after_the_stop_get_their_answers_and_the_end_in_one_segment() {
    const CLIENTS: usize = 100;
    let server = start(LONG, Echo, |_| {});
    let mut clients = talking(&server, CLIENTS);
    stop(&server, CLIENTS);
    clients.iter_mut().for_each(|client| last_exchange(client, MESSAGE));
    drop(clients);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.reset, report.discarded), (CLIENTS, 0, 0, 0));
    for close in log.of("connection closed") {
        let bytes = 11 + MESSAGE.len() as u64;
        assert_eq!((number(close, "received"), number(close, "echoed")), (bytes, bytes), "{close}");
        assert_eq!(close["reason"], "stopped");
    }
    log.assert_all_accounted_for();
}

#[test]
fn without_it_what_clients_send_after_the_stop_is_discarded() {
    const CLIENTS: usize = 100;
    let server = start(Duration::ZERO, Echo, |_| {});
    let mut clients = talking(&server, CLIENTS);
    server.handle.stop();
    wait_for(&server, CLIENTS, "closing");
    for client in &mut clients {
        client.write_all(MESSAGE).unwrap();
        wait_until_arrived(client);
        assert_eq!(read_to_eof(client), b"");
    }
    drop(clients);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.discarded), (CLIENTS, (CLIENTS * MESSAGE.len()) as u64));
    log.assert_all_accounted_for();
}

/// Sends a message when the last one has come back, until the end comes. It looks for the end before it sends. Gives how many
/// bytes it has sent.
fn talk_to_the_end(client: &mut TcpStream) -> u64 {
    let mut sent = 0;
    loop {
        client.set_nonblocking(true).unwrap();
        match client.read(&mut [0]) {
            Ok(0) => return sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("between two messages: {other:?}"),
        }
        client.set_nonblocking(false).unwrap();
        client.write_all(MESSAGE).unwrap();
        let mut echo = [0; MESSAGE.len()];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(echo, MESSAGE);
        sent += echo.len() as u64;
    }
}

#[test]
fn clients_that_talk_through_a_stop_lose_nothing() {
    const CLIENTS: usize = 30;
    for _ in 0..5 {
        let server = start(LONG, Echo, |_| {});
        let clients = talking(&server, CLIENTS);
        let talking = clients.into_iter().map(|mut client| thread::spawn(move || talk_to_the_end(&mut client)));
        let talking: Vec<_> = talking.collect();
        server.handle.stop();
        let sent: u64 = talking.into_iter().map(|client| client.join().unwrap()).sum();
        let (report, log) = server.end();
        assert_eq!((report.acknowledged, report.forced, report.reset, report.discarded), (CLIENTS, 0, 0, 0));
        let echoed: u64 = log.of("connection closed").into_iter().map(|close| number(close, "echoed")).sum();
        assert_eq!(echoed, sent + CLIENTS as u64 * 11);
    }
}

#[test]
fn a_client_in_the_queue_and_one_in_the_backlog_have_their_last_words_too() {
    let server = start(LONG, Echo, |settings| {
        settings.supervisor.max_connections = 1;
        settings.supervisor.max_pending = 1;
    });
    let mut clients = talking(&server, 1);
    clients.push(connect(server.address));
    wait_for(&server, 1, "waiting");
    clients.push(connect(server.address));
    stop(&server, 3);
    clients.iter_mut().for_each(|client| last_exchange(client, MESSAGE));
    drop(clients);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.discarded), (3, 0));
    log.assert_all_accounted_for();
}

#[test]
fn what_had_arrived_before_the_stop_is_answered_and_no_last_word_is_waited_for() {
    let server = start(LONG, Echo, |settings| settings.supervisor.max_connections = 1);
    let mut served = talking(&server, 1);
    let mut waits = connect(server.address);
    wait_for(&server, 1, "waiting");
    waits.write_all(MESSAGE).unwrap();
    wait_until_arrived(&waits);
    server.handle.stop();
    assert_eq!(read_to_eof(&mut waits), MESSAGE);
    drop(waits);
    // The other one lives on a thread of its own, which may hear of the stop later.
    wait_for(&server, 1, "draining");
    last_exchange(&mut served[0], MESSAGE);
    drop(served);
    assert_eq!(server.end().0.acknowledged, 2);
}

#[test]
fn a_silent_client_gets_its_end_when_the_time_for_its_last_word_is_over() {
    let server = start(Duration::from_millis(200), Echo, |_| {});
    let mut clients = talking(&server, 3);
    server.handle.stop();
    for client in &mut clients {
        assert_eq!(read_to_eof(client), b"");
        // It comes too late.
        client.write_all(MESSAGE).unwrap();
        wait_until_arrived(client);
    }
    drop(clients);
    let (report, _) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.discarded), (3, 0, 3 * MESSAGE.len() as u64));
}

#[test]
fn a_client_that_ends_its_input_while_its_last_word_is_waited_for_gets_its_end_at_once() {
    let server = start(LONG, Echo, |_| {});
    let mut clients = talking(&server, 2);
    stop(&server, 2);
    clients[0].shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_eof(&mut clients[0]), b"");
    clients[1].write_all(MESSAGE).unwrap();
    clients[1].shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_eof(&mut clients[1]), MESSAGE);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.discarded), (2, 0));
    assert!(log.of("connection closed").iter().all(|close| close["reason"] == "stopped"));
}

#[test]
fn of_messages_in_a_pipeline_those_that_come_together_are_answered_and_those_behind_the_end_discarded() {
    let server = start(LONG, Echo, |_| {});
    let mut clients = talking(&server, 2);
    stop(&server, 2);
    last_exchange(&mut clients[0], &MESSAGE.repeat(3));
    // A slow client: its message comes in two pieces, and the first one is its last word.
    last_exchange(&mut clients[1], &MESSAGE[..1]);
    clients[0].write_all(MESSAGE).unwrap();
    clients[1].write_all(&MESSAGE[1..]).unwrap();
    clients.iter().for_each(wait_until_arrived);
    drop(clients);
    let (report, log) = server.end();
    let late = 2 * MESSAGE.len() as u64 - 1;
    assert_eq!((report.acknowledged, report.discarded), (2, late));
    let received: u64 = log.of("connection closed").into_iter().map(|close| number(close, "received")).sum();
    assert_eq!(received, 2 * 11 + 3 * MESSAGE.len() as u64 + 1);
}

#[test]
fn a_last_word_that_neither_kernel_can_hold_is_answered_to_a_client_that_reads() {
    let server = start(LONG, Echo, |_| {});
    let mut clients = vec![connect_with_small_buffer(server.address)];
    round_trip(&mut clients[0]);
    stop(&server, 1);
    // What the client sends is cut by its end at some point, and everything before that point is answered.
    let mut client = clients.pop().unwrap();
    let mut writer = client.try_clone().unwrap();
    let (got, end) = thread::scope(|scope| {
        scope.spawn(move || {
            let mut sent = 0;
            while sent < 1 << 20 && writer.write_all(pattern(sent, 4096)).is_ok() {
                sent += 4096;
            }
        });
        read_pattern(&mut client, 0, |_| {})
    });
    end.unwrap();
    drop(client);
    let (report, log) = server.end();
    let close = log.one("connection closed");
    assert_eq!((number(close, "received"), number(close, "echoed")), (got + 11, got + 11));
    assert_eq!((report.acknowledged, report.forced), (1, 0));
}

#[test]
fn the_deadline_holds_while_a_last_word_is_waited_for() {
    let server = start(LONG, Echo, |settings| settings.supervisor.shutdown_timeout = Duration::from_millis(300));
    let mut clients = talking(&server, 3);
    server.handle.stop();
    clients.iter_mut().for_each(|client| assert!(is_reset(client)));
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.exit_code()), (0, 3, 3));
    log.assert_all_accounted_for();
}

#[test]
fn an_abort_ends_the_wait_for_a_last_word() {
    let server = start(LONG, Echo, |settings| settings.supervisor.shutdown_timeout = LONG);
    let mut clients = talking(&server, 3);
    stop(&server, 3);
    server.handle.abort();
    clients.iter_mut().for_each(|client| assert!(is_reset(client)));
    assert_eq!(server.end().0.forced, 3);
}

#[test]
fn a_second_signal_ends_the_wait_for_a_last_word() {
    let mut server = Server::start(&[("connection.last_word", "1h"), ("supervisor.shutdown_timeout", "1h")]);
    let mut clients = [server.connect(), server.connect()];
    clients.iter_mut().for_each(round_trip);
    server.signal(Signal::TERM);
    server.log.wait("listener closed");
    server.signal_again(Signal::TERM);
    clients.iter_mut().for_each(|client| assert!(is_reset(client)));
    let ended = server.end();
    assert_eq!((ended.code, number(ended.log.one("stopped"), "forced")), (Some(3), 2));
}

/// Echoes until it is told of the stop.
struct Notified;

impl Service for Notified {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let stopping = socket.stopping();
        tokio::select! {
            served = Echo.serve(socket) => served,
            () = stopping => Ok(()),
        }
    }
}

#[test]
fn a_notified_service_is_told_of_the_stop_at_once_and_no_last_word_is_waited_for() {
    let server = start(LONG, Notified, |_| {});
    let mut clients = talking(&server, 2);
    server.handle.stop();
    clients.iter_mut().for_each(|client| assert_eq!(read_to_eof(client), b""));
    drop(clients);
    assert_eq!(server.end().0.acknowledged, 2);
}
