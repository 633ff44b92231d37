//! The built client against servers that are wrong in every way, against the built server, and as a user meets it: flags,
//! signals, report and exit code.
use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use socket2::SockRef;
use supervised_echo::settings::ClientSettings;

/// How long an event may take before a test is given up; no test waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ECHO_")) {
        command.env_remove(name);
    }
    command
}

/// A running program that logs JSON, and the log's lines as they come.
struct Program {
    child: Child,
    log: Receiver<Value>,
}

impl Program {
    fn new(child: Child, log: impl Read + Send + 'static) -> Self {
        let (line, lines) = channel();
        thread::spawn(move || {
            for text in BufReader::new(log).lines().map_while(Result::ok) {
                // What is no log line was said to people.
                let _ = line.send(serde_json::from_str(&text).unwrap_or(json!({ "said": text })));
            }
        });
        Self { child, log: lines }
    }

    /// Waits for the next line with this `msg`.
    fn event(&self, msg: &str) -> Value {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{msg} is logged"));
            if line["msg"] == msg {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for its end. All lines that have not been waited for, and the exit code.
    fn end(mut self) -> (Vec<Value>, i32) {
        let log = self.log.iter().collect();
        (log, self.child.wait().unwrap().code().expect("it was not killed"))
    }
}

/// A client of a test's own; it is killed with the test.
struct Client {
    program: Program,
    out: ChildStdout,
}

/// What a client has left behind.
#[derive(Debug)]
struct Run {
    code: i32,
    report: Value,
    log: Vec<Value>,
}

impl Client {
    /// With one connection, no pause, two messages and a JSON report, unless `args` say otherwise.
    fn start(server: &str, args: &[&str]) -> Self {
        Self::spawn(
            command(env!("CARGO_BIN_EXE_echo-client"))
                .args(["--server", server, "--report", "json", "--log-format", "json"])
                .env("ECHO_CLIENT_CLIENT__ID", "c-1")
                .env("ECHO_CLIENT_TRAFFIC__MESSAGES", "2")
                .env("ECHO_CLIENT_TRAFFIC__PERIOD", "0s")
                .args(args),
        )
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { program: Program::new(child, log), out }
    }

    fn end(mut self) -> Run {
        let mut report = String::new();
        self.out.read_to_string(&mut report).unwrap();
        let (log, code) = self.program.end();
        let report = serde_json::from_str(&report).unwrap_or(Value::String(report));
        let run = Run { code, report, log };
        run.check();
        run
    }
}

fn run(server: &str, args: &[&str]) -> Run {
    Client::start(server, args).end()
}

impl Run {
    /// What holds for every client, whatever its server does.
    fn check(&self) {
        let report = &self.report;
        if let Some(sent) = report["sent"].as_u64() {
            let [verified, wrong, lost] = ["verified", "wrong", "lost"].map(|count| report[count].as_u64().unwrap());
            assert_eq!(sent, verified + wrong + lost, "{self:?}");
            let finished = self.events("finished");
            for count in ["sent", "verified", "wrong", "lost"] {
                assert_eq!(finished.last().map(|event| &event[count]), Some(&report[count]), "{self:?}");
            }
            assert!(self.log.iter().all(|event| event["client"] == report["client"] || !event["said"].is_null()));
        }
    }

    fn events(&self, msg: &str) -> Vec<&Value> {
        self.log.iter().filter(|event| event["msg"] == msg).collect()
    }

    /// What was said to people, outside of the log.
    fn said(&self) -> Vec<&str> {
        self.log.iter().filter_map(|line| line["said"].as_str()).collect()
    }

    /// The exit code, then `sent`, `verified`, `wrong` and `lost`.
    fn outcome(&self) -> (i32, [u64; 4]) {
        (self.code, ["sent", "verified", "wrong", "lost"].map(|count| self.report[count].as_u64().unwrap()))
    }

    /// `offset`, `expected` and `got` of the only wrong echo.
    fn difference(&self) -> (u64, &str, &str) {
        let [wrong] = self.events("echo wrong")[..] else { panic!("{self:?}") };
        (wrong["offset"].as_u64().unwrap(), wrong["expected"].as_str().unwrap(), wrong["got"].as_str().unwrap())
    }

    /// `n` and `reason` of every lost echo.
    fn lost(&self) -> Vec<(u64, &str)> {
        let lost = self.events("echo lost");
        lost.iter().map(|event| (event["n"].as_u64().unwrap(), event["reason"].as_str().unwrap())).collect()
    }
}

/// What a server does with one connection.
type Serve = Box<dyn FnOnce(TcpStream) + Send>;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port that nobody listens on.
fn closed_port() -> SocketAddr {
    listener().1
}

/// A server of a test's own, and whether it is done.
struct Fake(Receiver<()>);

impl Fake {
    /// Waits until it has served its last connection, and nothing was amiss.
    fn join(self) {
        self.0.recv_timeout(PATIENCE).expect("the server has served every connection");
    }
}

/// Serves one connection after the other, each in its own way, and is gone after the last.
fn serve(listener: TcpListener, connections: Vec<Serve>) -> Fake {
    let (done, fake) = channel();
    thread::spawn(move || {
        for connection in connections {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            connection(stream);
        }
        drop(listener);
        done.send(()).unwrap();
    });
    Fake(fake)
}

/// Runs a client of two messages: the first is served by `first`, the other, on a connection of its own, as it should be.
fn run_with_first(args: &[&str], first: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    let (listener, address) = listener();
    let server = serve(listener, vec![Box::new(first), Box::new(echo_until_end)]);
    let run = run(&address.to_string(), args);
    server.join();
    run
}

/// The next message, with its newline.
fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = Vec::new();
    while message.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        message.push(byte[0]);
    }
    message
}

fn echo(stream: &mut TcpStream) -> Vec<u8> {
    let message = receive(stream);
    stream.write_all(&message).unwrap();
    message
}

/// Waits until the client has hung up, in whatever way.
fn await_end(mut stream: TcpStream) {
    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
}

fn echo_until_end(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => stream.write_all(&buffer[..count]).unwrap(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

const FIRST: &str = "[CLIENT c-1] Message N°1\n";

#[test]
fn a_prefix_is_wrong_from_the_first_byte_and_the_next_message_has_a_new_connection() {
    let run = run_with_first(&[], |mut stream| {
        let message = receive(&mut stream);
        stream.write_all(&[b"echo: ", &message[..]].concat()).unwrap();
        await_end(stream);
    });
    assert_eq!(run.outcome(), (1, [2, 1, 1, 0]));
    assert_eq!(run.difference(), (0, "[CLIENT c-1] Mes", "echo: [CLIENT c-"));
    let order: Vec<_> = run.log.iter().map(|event| event["msg"].as_str().unwrap()).collect();
    let first = ["connected", "echo wrong", "connection closed"];
    let second = ["reconnecting", "connected", "echo verified", "connection closed", "finished"];
    assert_eq!(order, [&first[..], &second].concat());
    assert_eq!(run.events("reconnecting")[0]["level"], "warn");
    assert_eq!(run.events("echo wrong")[0]["level"], "error");
}

#[test]
fn a_flipped_byte_is_found_where_it_is() {
    let run = run_with_first(&[], |mut stream| {
        let mut message = receive(&mut stream);
        message[22] ^= 0x20;
        let (left, right) = message.split_at(10);
        stream.write_all(left).unwrap();
        stream.write_all(right).unwrap();
        await_end(stream);
    });
    assert_eq!(run.outcome(), (1, [2, 1, 1, 0]));
    assert_eq!(run.difference(), (22, r"\xc2\xb01\n", r"\xe2\xb01\n"));
}

#[test]
fn a_byte_behind_the_echo_is_wrong() {
    let run = run_with_first(&[], |mut stream| {
        let message = receive(&mut stream);
        stream.write_all(&[&message[..], b"\0"].concat()).unwrap();
        await_end(stream);
    });
    assert_eq!(run.outcome(), (1, [2, 1, 1, 0]));
    assert_eq!(run.difference(), (FIRST.len() as u64, "", r"\x00"));
}

#[test]
fn a_byte_that_comes_during_the_pause_is_found_before_the_next_message() {
    let (listener, address) = listener();
    let (verified, wait) = channel::<()>();
    let late = move |mut stream: TcpStream| {
        echo(&mut stream);
        wait.recv().unwrap();
        stream.write_all(b"!").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "no message follows");
    };
    let server = serve(listener, vec![Box::new(late), Box::new(echo_until_end)]);
    let client = Client::start(&address.to_string(), &["--period", "1s"]);
    client.program.event("echo verified");
    verified.send(()).unwrap();
    assert_eq!(client.program.event("echo wrong")["n"], 1);
    assert_eq!(client.end().outcome(), (1, [2, 1, 1, 0]));
    server.join();
}

#[test]
fn an_echo_that_is_cut_off_is_lost() {
    let run = run_with_first(&[], |mut stream| {
        let message = receive(&mut stream);
        stream.write_all(&message[..message.len() - 1]).unwrap();
    });
    assert_eq!(run.outcome(), (1, [2, 1, 0, 1]));
    assert_eq!(run.lost(), [(1, "closed")]);
    assert_eq!(run.events("reconnecting").len(), 1);
}

#[test]
fn an_echo_that_is_late_is_lost_and_does_not_count_for_the_next_message() {
    let (listener, address) = listener();
    let (last_byte_out, second_connected) = (channel::<TcpStream>(), channel::<()>());
    let (hand_over, first) = last_byte_out;
    let (connected, wait) = second_connected;
    let hold = move |mut stream: TcpStream| {
        receive(&mut stream);
        hand_over.send(stream).unwrap();
    };
    let late = thread::spawn(move || {
        let mut stream: TcpStream = first.recv().unwrap();
        wait.recv().unwrap();
        // The client has hung up, and may have reset.
        let _ = stream.write_all(FIRST.as_bytes());
    });
    let good = move |stream: TcpStream| {
        connected.send(()).unwrap();
        echo_until_end(stream);
    };
    let server = serve(listener, vec![Box::new(hold), Box::new(good)]);
    let run = run(&address.to_string(), &["--timeout", "100ms"]);
    server.join();
    late.join().unwrap();
    assert_eq!(run.outcome(), (1, [2, 1, 0, 1]));
    assert_eq!(run.lost(), [(1, "timeout")]);
}

#[test]
fn a_silent_server_loses_every_echo() {
    let (listener, address) = listener();
    let server = serve(listener, vec![Box::new(await_end), Box::new(await_end)]);
    let run = run(&address.to_string(), &["--timeout", "50ms"]);
    server.join();
    assert_eq!(run.outcome(), (1, [2, 0, 0, 2]));
    assert_eq!(run.lost(), [(1, "timeout"), (2, "timeout")]);
    assert_eq!(run.report["p99_us"], Value::Null);
}

#[test]
fn an_early_close_loses_the_echo() {
    let run = run_with_first(&[], |mut stream| {
        receive(&mut stream);
        stream.shutdown(Shutdown::Write).unwrap();
        await_end(stream);
    });
    assert_eq!(run.outcome(), (1, [2, 1, 0, 1]));
    assert_eq!(run.lost(), [(1, "closed")]);
}

#[test]
fn a_reset_loses_the_echo() {
    let run = run_with_first(&[], |mut stream| {
        receive(&mut stream);
        reset(stream);
    });
    assert_eq!(run.outcome(), (1, [2, 1, 0, 1]));
    assert_eq!(run.lost(), [(1, "reset")]);
}

#[test]
fn an_echo_that_trickles_byte_by_byte_is_verified() {
    let run = run_with_first(&["--reconnect"], |mut stream| {
        for byte in receive(&mut stream) {
            stream.write_all(&[byte]).unwrap();
        }
        await_end(stream);
    });
    assert_eq!(run.outcome(), (0, [2, 2, 0, 0]));
    assert!(run.events("reconnecting").is_empty());
}

#[test]
fn a_message_larger_than_every_buffer_is_verified() {
    let (listener, address) = listener();
    let server = serve(listener, vec![Box::new(echo_until_end)]);
    // In this process: no file of settings may be as large.
    let mut settings = ClientSettings::default();
    settings.server.address = address.to_string();
    (settings.traffic.message, settings.traffic.messages) = ("x".repeat(16 << 20), 1);
    let report = actix::System::new().block_on(supervised_echo::Client::new(settings).run()).unwrap();
    assert_eq!((report.exit_code(), report.sent, report.verified), (0, 1, 1));
    server.join();
}

#[test]
fn a_server_that_dies_and_comes_back_costs_the_outstanding_message_only() {
    let (listener, address) = listener();
    let dies = |mut stream: TcpStream| {
        echo(&mut stream);
        receive(&mut stream);
        reset(stream);
    };
    let server = serve(listener, vec![Box::new(dies)]);
    let client = Client::start(&address.to_string(), &["--messages", "4", "--period", "10ms", "--log-level", "debug"]);
    server.join();
    client.program.event("connect failed");
    let server = serve(TcpListener::bind(address).unwrap(), vec![Box::new(echo_until_end)]);
    let run = client.end();
    server.join();
    assert_eq!(run.outcome(), (1, [4, 3, 0, 1]));
}

#[test]
fn a_server_that_comes_up_later_is_waited_for() {
    let address = closed_port();
    let client = Client::start(&address.to_string(), &["--log-level", "debug"]);
    client.program.event("connect failed");
    client.program.event("connect failed");
    let server = serve(TcpListener::bind(address).unwrap(), vec![Box::new(echo_until_end)]);
    assert_eq!(client.end().outcome(), (0, [2, 2, 0, 0]));
    server.join();
}

#[test]
fn a_server_that_is_never_there_is_named_in_one_line() {
    let address = closed_port();
    let run = run(&address.to_string(), &["--connect-timeout", "100ms", "--connections", "3"]);
    assert_eq!(run.outcome(), (1, [0; 4]));
    assert_eq!(run.report["unreachable"], 3);
    let expected = format!("echo-client: cannot connect to {address} within 100ms: Connection refused (os error 111)");
    assert_eq!(run.said(), [expected]);
}

#[test]
fn a_server_that_is_never_there_is_warned_of_once_and_told_as_an_error_in_the_log() {
    let run = run(&closed_port().to_string(), &["--connect-timeout", "500ms"]);
    let reason = json!("Connection refused (os error 111)");
    for (event, level) in [("connect failed", "warn"), ("unreachable", "error")] {
        let [told] = run.events(event)[..] else { panic!("{event}: {run:?}") };
        assert_eq!((&told["level"], &told["reason"], &told["connection"]), (&json!(level), &reason, &json!(1)));
    }
}

#[test]
fn the_table_tells_of_a_server_out_of_reach_and_of_the_signal_that_ended_the_run() {
    let address = closed_port().to_string();
    let (code, out, _) = said(&["--server", &address, "--connect-timeout", "100ms", "--connections", "2"]);
    assert!(code == 1 && out.contains("\nunreachable 2\n"), "{out}");

    let client =
        Client::spawn(command(env!("CARGO_BIN_EXE_echo-client")).args(["--server", &address, "--log-format", "json"]));
    client.program.event("connect failed");
    client.program.signal("TERM");
    let run = client.end();
    assert!(run.code == 0 && run.report.as_str().unwrap().contains("\nstopped     SIGTERM\n"), "{run:?}");
}

#[test]
fn a_name_that_nobody_knows_is_named_in_one_line() {
    let run = run("no-such-name.invalid:1", &["--connect-timeout", "100ms"]);
    assert_eq!(run.outcome(), (1, [0; 4]));
    let [line] = run.said()[..] else { panic!("{run:?}") };
    assert!(line.starts_with("echo-client: cannot connect to no-such-name.invalid:1 within 100ms: "), "{line}");
}

#[test]
fn what_cannot_be_sent_for_want_of_a_server_is_not_attempted() {
    let (listener, address) = listener();
    let server = serve(listener, vec![Box::new(|mut stream| drop(echo(&mut stream)))]);
    let run = run(&address.to_string(), &["--messages", "9", "--period", "50ms", "--connect-timeout", "100ms"]);
    server.join();
    assert_eq!(run.outcome(), (1, [1, 1, 0, 0]));
    assert_eq!(run.said().len(), 1);
}

#[test]
fn a_server_is_found_by_its_name() {
    let (listener, address) = listener();
    let server = serve(listener, vec![Box::new(echo_until_end)]);
    assert_eq!(run(&format!("localhost:{}", address.port()), &[]).outcome(), (0, [2, 2, 0, 0]));
    server.join();
}

#[test]
fn a_second_signal_gives_the_outstanding_echo_up_at_once() {
    let (listener, address) = listener();
    let (arrived, message) = channel();
    let silent = move |mut stream: TcpStream| {
        arrived.send(receive(&mut stream)).unwrap();
        await_end(stream);
    };
    let server = serve(listener, vec![Box::new(silent)]);
    let client = Client::start(&address.to_string(), &[]);
    assert_eq!(message.recv_timeout(PATIENCE).unwrap(), FIRST.as_bytes());
    client.program.signal("TERM");
    assert_eq!(client.program.event("stopping")["reason"], "SIGTERM");
    // One that comes sooner is the first one's echo; a second later the client ends by itself.
    thread::sleep(Duration::from_millis(300));
    client.program.signal("INT");
    let run = client.end();
    server.join();
    assert_eq!(run.outcome(), (3, [0; 4]));
    assert_eq!((&run.report["given_up"], &run.report["forced"]), (&json!(1), &json!(true)));
    assert_eq!(run.events("connection closed")[0]["reason"], "forced");
}

#[test]
fn an_echo_that_is_given_up_at_a_signal_counts_nowhere() {
    let (listener, address) = listener();
    let (arrived, message) = channel();
    let silent = move |mut stream: TcpStream| {
        arrived.send(receive(&mut stream)).unwrap();
        await_end(stream);
    };
    let server = serve(listener, vec![Box::new(silent)]);
    let client = Client::start(&address.to_string(), &[]);
    message.recv_timeout(PATIENCE).unwrap();
    client.program.signal("INT");
    let run = client.end();
    server.join();
    assert_eq!(run.outcome(), (0, [0; 4]));
    assert_eq!((&run.report["given_up"], &run.report["stopped"]), (&json!(1), &json!("SIGINT")));
    assert_eq!(run.events("connection closed")[0]["reason"], "stopped");
}

#[test]
fn a_signal_while_it_waits_for_the_server_is_no_failure() {
    let client = Client::start(&closed_port().to_string(), &["--log-level", "debug"]);
    client.program.event("connect failed");
    client.program.signal("TERM");
    let run = client.end();
    assert_eq!(run.outcome(), (0, [0; 4]));
    assert!(run.said().is_empty());
}

/// The built server, on a port of its own or a given one.
struct Server {
    program: Program,
    address: String,
}

impl Server {
    fn start(listen: &str, args: &[&str]) -> Self {
        let mut child = command(env!("CARGO_BIN_EXE_echo-server"))
            .args(["--listen", listen, "--log-format", "json"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = child.stdout.take().unwrap();
        let program = Program::new(child, log);
        let address = program.event("listening")["address"].as_str().unwrap().to_owned();
        Self { program, address }
    }

    /// Stops it gracefully; no connection may have to be forced.
    fn stop(self) -> Vec<Value> {
        self.program.signal("TERM");
        let (log, code) = self.program.end();
        assert_eq!(code, 0, "{log:?}");
        log
    }
}

#[test]
fn every_echo_of_the_real_server_is_verified() {
    let server = Server::start("127.0.0.1:0", &[]);
    let run = run(&server.address, &["--messages", "100"]);
    assert_eq!(run.outcome(), (0, [100, 100, 0, 0]));
    let times = ["min_us", "median_us", "p99_us", "max_us"].map(|time| run.report[time].as_u64().unwrap());
    assert!(times.is_sorted() && times[0] > 0, "{times:?}");
    assert!(run.events("echo verified")[0]["elapsed_us"].is_u64());
    server.stop();
}

#[test]
fn with_reconnect_the_real_server_sees_a_connection_per_message_that_the_client_ends() {
    let server = Server::start("127.0.0.1:0", &["--log-level", "debug"]);
    let run = run(&server.address, &["--messages", "10", "--reconnect"]);
    assert_eq!(run.outcome(), (0, [10, 10, 0, 0]));
    assert_eq!((run.events("connected").len(), run.events("connection closed").len()), (10, 10));
    let log = server.stop();
    let closed: Vec<_> = log.iter().filter(|event| event["msg"] == "connection closed").collect();
    assert_eq!(closed.len(), 10);
    assert!(closed.iter().all(|event| event["reason"] == "client" && event["received"] == event["echoed"]), "{log:?}");
}

#[test]
fn many_connections_are_verified_beside_each_other() {
    let server = Server::start("127.0.0.1:0", &[]);
    let run = run(&server.address, &["--messages", "5", "--connections", "200"]);
    assert_eq!(run.outcome(), (0, [1000, 1000, 0, 0]));
    assert_eq!((run.events("connected").len(), run.events("connection closed").len()), (200, 200));
    server.stop();
}

#[test]
fn a_graceful_restart_of_the_real_server_in_a_pause_loses_nothing() {
    let server = Server::start("127.0.0.1:0", &[]);
    let address = server.address.clone();
    let client = Client::start(&address, &["--messages", "3", "--period", "1s"]);
    client.program.event("echo verified");
    server.stop();
    assert_eq!(client.program.event("connection closed")["reason"], "closed");
    let server = Server::start(&address, &[]);
    client.program.event("reconnecting");
    assert_eq!(client.end().outcome(), (0, [3, 3, 0, 0]));
    server.stop();
}

#[test]
fn a_signal_in_the_middle_of_a_run_ends_it_cleanly() {
    let server = Server::start("127.0.0.1:0", &["--log-level", "debug"]);
    for args in [&["--messages", "0", "--connections", "10"][..], &["--messages", "0", "--period", "1h"]] {
        let client = Client::start(&server.address, args);
        client.program.event("echo verified");
        client.program.signal("TERM");
        let run = client.end();
        let (code, [sent, verified, wrong, lost]) = run.outcome();
        assert_eq!((code, sent, wrong, lost), (0, verified, 0, 0), "{:?}", run.report);
        let closed = run.events("connection closed");
        assert!(!closed.is_empty() && closed.iter().all(|event| event["reason"] == "stopped"), "{closed:?}");
        assert_eq!((&run.report["stopped"], &run.report["forced"]), (&json!("SIGTERM"), &json!(false)));
    }
    let log = server.stop();
    let unclean = log.iter().find(|event| event["msg"] == "connection closed" && event["reason"] != "client");
    assert_eq!(unclean, None);
}

#[test]
fn it_stops_by_itself_when_its_time_is_over() {
    let server = Server::start("127.0.0.1:0", &[]);
    let run = run(&server.address, &["--messages", "0", "--duration", "50ms"]);
    let (code, [sent, verified, ..]) = run.outcome();
    assert!(code == 0 && sent == verified && sent > 0, "{:?}", run.report);
    server.stop();
}

/// The path of a settings file of one test's own.
fn settings_file(test: &str, content: &str) -> String {
    let path = format!("{}/client-{test}-{}.toml", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn settings_come_from_the_file_the_environment_and_the_flags() {
    let server = Server::start("127.0.0.1:0", &[]);
    let file = format!(
        "[server]\naddress = \"{}\"\n[client]\nid = \"file\"\n[traffic]\nmessages = 7\nconnections = 2\nperiod = \"0s\"\n",
        server.address
    );
    let client = Client::spawn(
        command(env!("CARGO_BIN_EXE_echo-client"))
            .args(["--report", "json", "--log-format", "json", "--connections", "3", "--message", "-{n}-{id}"])
            .env("ECHO_CLIENT_SETTINGS", settings_file("layers", &file))
            .env("ECHO_CLIENT_CLIENT__ID", "environment")
            .env("ECHO_CLIENT_TRAFFIC__CONNECTIONS", "9"),
    );
    let run = client.end();
    assert_eq!(run.outcome(), (0, [21, 21, 0, 0]));
    assert_eq!(run.report["client"], "environment");
    server.stop();
}

#[test]
fn without_an_id_it_is_called_as_its_host() {
    let (listener, address) = listener();
    let (arrived, message) = channel();
    let good = move |mut stream: TcpStream| {
        arrived.send(String::from_utf8(echo(&mut stream)).unwrap()).unwrap();
        await_end(stream);
    };
    let server = serve(listener, vec![Box::new(good)]);
    let run = run(&address.to_string(), &["--id", "", "--messages", "1"]);
    server.join();
    let host = Command::new("uname").arg("-n").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap().trim_end().to_owned();
    assert_eq!(message.recv().unwrap(), format!("[CLIENT {host}] Message N°1\n"));
    assert_eq!(run.report["client"], host);
}

/// Runs it to its end, in a place where no server is.
fn said(args: &[&str]) -> (i32, String, String) {
    let output = command(env!("CARGO_BIN_EXE_echo-client")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_table_is_on_standard_output_and_all_else_on_standard_error() {
    let server = Server::start("127.0.0.1:0", &[]);
    let (code, out, err) = said(&["--server", &server.address, "--messages", "1", "--id", "c-1"]);
    assert_eq!(code, 0);
    let lines: Vec<_> = out.lines().collect();
    let counts = ["client      c-1", "sent        1", "verified    1", "wrong       0", "lost        0"];
    assert_eq!(lines[..5], counts);
    assert!(lines[5].starts_with("round trip  min ") && lines.len() == 6, "{out}");
    assert!(err.contains(" INFO finished, client: c-1, sent: 1, verified: 1, wrong: 0, lost: 0\n"), "{err}");
    server.stop();
}

#[test]
fn a_report_that_nobody_reads_harms_nobody() {
    let server = Server::start("127.0.0.1:0", &[]);
    let Client { program, out } = Client::start(&server.address, &[]);
    drop(out);
    assert_eq!(program.end().1, 0);
    server.stop();
}

#[test]
fn what_cannot_be_written_is_a_failure_that_is_told_in_one_line() {
    let server = Server::start("127.0.0.1:0", &[]);
    let report = ["--server", &server.address, "--messages", "1", "--log-level", "error"];
    for (program, name, args) in [
        (env!("CARGO_BIN_EXE_echo-client"), "echo-client", &report[..]),
        (env!("CARGO_BIN_EXE_echo-client"), "echo-client", &["--print-settings"]),
        (env!("CARGO_BIN_EXE_echo-server"), "echo-server", &["--print-settings"]),
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(program).args(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("{name}: cannot write to standard output: No space left on device (os error 28)\n");
        assert_eq!((output.status.code(), said), (Some(1), expected), "{name} {args:?}");
    }
    server.stop();
}

#[test]
fn good_settings_are_checked_in_silence_and_printed_with_their_origin() {
    assert_eq!(said(&["--check-settings", "--server", "host:1"]), (0, String::new(), String::new()));
    let flags = [
        ("--server", "host:1", "address = \"host:1\""),
        ("--id", "x", "id = \"x\""),
        ("--connections", "3", "connections = 3"),
        ("--messages", "0", "messages = 0"),
        ("--duration", "1m", "duration = \"1m\""),
        ("--period", "2s", "period = \"2s\""),
        ("--message", "-", "message = \"-\""),
        ("--timeout", "3s", "timeout = \"3s\""),
        ("--connect-timeout", "4s", "connect_timeout = \"4s\""),
        ("--log-level", "warn", "level = \"warn\""),
        ("--log-format", "json", "format = \"json\""),
    ];
    let args: Vec<_> = flags.iter().flat_map(|(flag, value, _)| [*flag, *value]).collect();
    let (code, out, err) = said(&[&["--print-settings", "--reconnect"], &args[..]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    for (flag, _, line) in flags.iter().chain(&[("--reconnect", "", "reconnect = true")]) {
        assert!(out.contains(&format!("{line} # {flag}\n")), "{line} # {flag} in {out}");
    }
}

#[test]
fn bad_settings_are_refused_in_one_line_with_an_exit_code_of_their_own() {
    for (args, expected) in [
        (&["--connections", "0"][..], "--connections: traffic.connections: invalid value: "),
        (&["--messages", "-1"], "--messages: traffic.messages: invalid value: "),
        (&["--timeout", "0s"], "--timeout: traffic.timeout: invalid value: "),
        (&["--server", "nowhere"], "--server: server.address: invalid value: "),
        (&["--settings", "/no/such.toml"], "/no/such.toml: No such file or directory"),
    ] {
        let (code, out, err) = said(args);
        assert_eq!((code, out.as_str(), err.lines().count()), (78, "", 1), "{err}");
        assert!(err.starts_with(&format!("echo-client: {expected}")), "{err}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_and_version_with_0() {
    for args in [&["--port", "1"][..], &["send"], &["--report", "xml"], &["--reconnect=maybe"]] {
        assert_eq!(said(args).0, 2, "{args:?}");
    }
    let (code, help, _) = said(&["--help"]);
    assert!(code == 0 && help.contains("--report <F>"), "{help}");
    let message = help.lines().skip_while(|line| !line.contains("--message <TEXT>")).nth(1).unwrap();
    assert!(message.ends_with("filled in"), "clap breaks a line where it reads a placeholder of its own: {help}");
    assert_eq!(said(&["--version"]).1, concat!("echo-client ", env!("CARGO_PKG_VERSION"), "\n"));
}
