//! The built client against servers that are wrong in every way, and against the built server. It is run as a user runs it, with
//! flags, signals, a report and an exit code.

mod common;

use common::*;
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
};
use supervised_echo::settings::ClientSettings;

/// Runs a client that sends two messages. `first` serves the first message. The second one has a connection of its own and gets its
/// echo.
fn run_with_first(args: &[&str], first: impl FnOnce(TcpStream) + Send + 'static) -> Run {
    let server = Scripted::start(vec![Box::new(first), Box::new(echo_until_end)]);
    let run = Client::run(server.address, args);
    server.join();
    run
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
    let first = ["connected", "echo wrong", "connection closed"];
    let second = ["reconnecting", "connected", "echo verified", "connection closed", "finished"];
    assert_eq!(run.log.messages(), [&first[..], &second].concat());
    assert_eq!(run.log.of("reconnecting")[0]["level"], "warn");
    assert_eq!(run.log.of("echo wrong")[0]["level"], "error");
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
    let (verified, wait) = channel::<()>();
    let late = move |mut stream: TcpStream| {
        echo(&mut stream);
        wait.recv().unwrap();
        stream.write_all(b"!").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "no message follows");
    };
    let server = Scripted::start(vec![Box::new(late), Box::new(echo_until_end)]);
    let mut client = Client::start(server.address, &["--period", "1s"]);
    client.log.wait_next("echo verified");
    verified.send(()).unwrap();
    assert_eq!(client.log.wait_next("echo wrong")["n"], 1);
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
    assert_eq!(run.log.of("reconnecting").len(), 1);
}

#[test]
fn an_echo_that_is_late_is_lost_and_does_not_count_for_the_next_message() {
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
        // The client has ended the connection by now, so the write may fail.
        let _ = stream.write_all(FIRST.as_bytes());
    });
    let good = move |stream: TcpStream| {
        connected.send(()).unwrap();
        echo_until_end(stream);
    };
    let server = Scripted::start(vec![Box::new(hold), Box::new(good)]);
    let run = Client::run(server.address, &["--timeout", "100ms"]);
    server.join();
    late.join().unwrap();
    assert_eq!(run.outcome(), (1, [2, 1, 0, 1]));
    assert_eq!(run.lost(), [(1, "timeout")]);
}

#[test]
fn a_silent_server_loses_every_echo() {
    let server = Scripted::start(vec![Box::new(await_end), Box::new(await_end)]);
    let run = Client::run(server.address, &["--timeout", "50ms"]);
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
    assert!(run.log.of("reconnecting").is_empty());
}

#[test]
fn a_message_larger_than_every_buffer_is_verified() {
    let server = Scripted::start(vec![Box::new(echo_until_end)]);
    // The client runs in this process, because a settings file of this size is refused.
    let mut settings = ClientSettings::default();
    settings.server.address = server.address.to_string();
    (settings.traffic.message, settings.traffic.messages) = ("x".repeat(16 << 20), 1);
    let report = actix::System::new().block_on(supervised_echo::Client::new(settings).run()).unwrap();
    assert_eq!((report.exit_code(), report.sent, report.verified), (0, 1, 1));
    server.join();
}

#[test]
fn a_server_that_dies_and_comes_back_costs_the_outstanding_message_only() {
    let dies = |mut stream: TcpStream| {
        echo(&mut stream);
        receive(&mut stream);
        reset(stream);
    };
    let server = Scripted::start(vec![Box::new(dies)]);
    let address = server.address;
    let mut client = Client::start(address, &["--messages", "4", "--period", "10ms", "--log-level", "debug"]);
    server.join();
    client.log.wait_next("connect failed");
    let server = Scripted::on(address, vec![Box::new(echo_until_end)]);
    let run = client.end();
    server.join();
    assert_eq!(run.outcome(), (1, [4, 3, 0, 1]));
}

#[test]
fn a_server_that_comes_up_later_is_waited_for() {
    let address = closed_port();
    let mut client = Client::start(address, &["--log-level", "debug"]);
    client.log.wait_next("connect failed");
    client.log.wait_next("connect failed");
    let server = Scripted::on(address, vec![Box::new(echo_until_end)]);
    assert_eq!(client.end().outcome(), (0, [2, 2, 0, 0]));
    server.join();
}

#[test]
fn a_server_that_is_never_there_is_named_in_one_line() {
    let address = closed_port();
    let run = Client::run(address, &["--connect-timeout", "100ms", "--connections", "3"]);
    assert_eq!(run.outcome(), (1, [0; 4]));
    assert_eq!(run.report["unreachable"], 3);
    let expected = format!("echo-client: cannot connect to {address} within 100ms: Connection refused (os error 111)");
    assert_eq!(run.said(), [expected]);
}

#[test]
fn a_server_that_is_never_there_is_warned_of_once_and_told_as_an_error_in_the_log() {
    let run = Client::run(closed_port(), &["--connect-timeout", "500ms"]);
    let reason = json!("Connection refused (os error 111)");
    for (event, level) in [("connect failed", "warn"), ("unreachable", "error")] {
        let told = run.log.one(event);
        assert_eq!((&told["level"], &told["reason"], &told["connection"]), (&json!(level), &reason, &json!(1)));
    }
}

#[test]
fn the_table_tells_of_a_server_out_of_reach_and_of_the_signal_that_ended_the_run() {
    let address = closed_port().to_string();
    let said = said(&["--server", &address, "--connect-timeout", "100ms", "--connections", "2"]);
    assert!(said.code == 1 && said.out.contains("\nunreachable 2\n"), "{said:?}");

    let mut table = command(CLIENT);
    table.args(["--server", &address, "--log-format", "json"]);
    let mut client = Client::spawn(table);
    client.log.wait_next("connect failed");
    client.process.signal(Signal::TERM);
    let run = client.end();
    assert!(run.code == 0 && run.report.as_str().unwrap().contains("\nstopped     SIGTERM\n"), "{run:?}");
}

#[test]
fn an_unknown_name_is_named_in_one_line() {
    let run = Client::run("no-such-name.invalid:1", &["--connect-timeout", "100ms"]);
    assert_eq!(run.outcome(), (1, [0; 4]));
    let [line] = run.said()[..] else { panic!("{run:?}") };
    assert!(line.starts_with("echo-client: cannot connect to no-such-name.invalid:1 within 100ms: "), "{line}");
}

#[test]
fn what_cannot_be_sent_for_want_of_a_server_is_not_attempted() {
    let server = Scripted::start(vec![Box::new(|mut stream| drop(echo(&mut stream)))]);
    let run = Client::run(server.address, &["--messages", "9", "--period", "50ms", "--connect-timeout", "100ms"]);
    server.join();
    assert_eq!(run.outcome(), (1, [1, 1, 0, 0]));
    assert_eq!(run.said().len(), 1);
}

#[test]
fn a_server_is_found_by_its_name() {
    let server = Scripted::on("127.0.0.1:0", vec![Box::new(echo_until_end)]);
    assert_eq!(Client::run(format!("localhost:{}", server.address.port()), &[]).outcome(), (0, [2, 2, 0, 0]));
    server.join();
}

#[test]
fn a_second_signal_gives_the_outstanding_echo_up_at_once() {
    let (silent, message) = silent();
    let server = Scripted::start(vec![silent]);
    let mut client = Client::start(server.address, &[]);
    assert_eq!(message.recv_timeout(PATIENCE).unwrap(), FIRST.as_bytes());
    client.process.signal(Signal::TERM);
    assert_eq!(client.log.wait_next("stopping")["reason"], "SIGTERM");
    client.process.signal_again(Signal::INT);
    let run = client.end();
    server.join();
    assert_eq!(run.outcome(), (3, [0; 4]));
    assert_eq!((&run.report["given_up"], &run.report["forced"]), (&json!(1), &json!(true)));
    assert_eq!(run.log.of("connection closed")[0]["reason"], "forced");
}

#[test]
fn an_echo_that_is_given_up_at_a_signal_counts_nowhere() {
    let (silent, message) = silent();
    let server = Scripted::start(vec![silent]);
    let client = Client::start(server.address, &[]);
    message.recv_timeout(PATIENCE).unwrap();
    client.process.signal(Signal::INT);
    let run = client.end();
    server.join();
    assert_eq!(run.outcome(), (0, [0; 4]));
    assert_eq!((&run.report["given_up"], &run.report["stopped"]), (&json!(1), &json!("SIGINT")));
    assert_eq!(run.log.of("connection closed")[0]["reason"], "stopped");
}

#[test]
fn a_signal_while_it_waits_for_the_server_is_no_failure() {
    let mut client = Client::start(closed_port(), &["--log-level", "debug"]);
    client.log.wait_next("connect failed");
    client.process.signal(Signal::TERM);
    let run = client.end();
    assert_eq!(run.outcome(), (0, [0; 4]));
    assert!(run.said().is_empty());
}

#[test]
fn every_echo_of_the_real_server_is_verified() {
    let server = Server::start(&[]);
    let run = Client::run(server.address, &["--messages", "100"]);
    assert_eq!(run.outcome(), (0, [100, 100, 0, 0]));
    let times = ["min_us", "median_us", "p99_us", "max_us"].map(|time| run.report[time].as_u64().unwrap());
    assert!(times.is_sorted() && times[0] > 0, "{times:?}");
    assert!(run.log.of("echo verified")[0]["elapsed_us"].is_u64());
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn with_reconnect_the_real_server_sees_a_connection_per_message_that_the_client_ends() {
    let server = Server::start(&[("log.level", "debug")]);
    let run = Client::run(server.address, &["--messages", "10", "--reconnect"]);
    assert_eq!(run.outcome(), (0, [10, 10, 0, 0]));
    assert_eq!((run.log.of("connected").len(), run.log.of("connection closed").len()), (10, 10));
    let ended = server.stop();
    let closed = ended.log.of("connection closed");
    assert_eq!((ended.code, closed.len()), (Some(0), 10));
    assert!(
        closed.iter().all(|close| close["reason"] == "client" && close["received"] == close["echoed"]),
        "{ended:?}"
    );
}

#[test]
fn many_connections_are_verified_beside_each_other() {
    let server = Server::start(&[]);
    let run = Client::run(server.address, &["--messages", "5", "--connections", "200"]);
    assert_eq!(run.outcome(), (0, [1000, 1000, 0, 0]));
    assert_eq!((run.log.of("connected").len(), run.log.of("connection closed").len()), (200, 200));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_graceful_restart_of_the_real_server_in_a_pause_loses_nothing() {
    let server = Server::start(&[]);
    let address = server.address;
    let mut client = Client::start(address, &["--messages", "3", "--period", "1s"]);
    client.log.wait_next("echo verified");
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(client.log.wait_next("connection closed")["reason"], "closed");
    let server = Server::start(&[("listen.address", &address.to_string())]);
    client.log.wait_next("reconnecting");
    assert_eq!(client.end().outcome(), (0, [3, 3, 0, 0]));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_signal_in_the_middle_of_a_run_ends_it_cleanly() {
    let server = Server::start(&[("log.level", "debug")]);
    for args in [&["--messages", "0", "--connections", "10"][..], &["--messages", "0", "--period", "1h"]] {
        let mut client = Client::start(server.address, args);
        client.log.wait_next("echo verified");
        client.process.signal(Signal::TERM);
        let run = client.end();
        let (code, [sent, verified, wrong, lost]) = run.outcome();
        assert_eq!((code, sent, wrong, lost), (0, verified, 0, 0), "{:?}", run.report);
        let closed = run.log.of("connection closed");
        assert!(!closed.is_empty() && closed.iter().all(|event| event["reason"] == "stopped"), "{closed:?}");
        assert_eq!((&run.report["stopped"], &run.report["forced"]), (&json!("SIGTERM"), &json!(false)));
    }
    let ended = server.stop();
    assert_eq!(ended.code, Some(0));
    assert!(ended.log.of("connection closed").iter().all(|close| close["reason"] == "client"), "{ended:?}");
}

#[test]
fn it_stops_by_itself_when_its_time_is_over() {
    let server = Server::start(&[]);
    let run = Client::run(server.address, &["--messages", "0", "--duration", "50ms"]);
    let (code, [sent, verified, ..]) = run.outcome();
    assert!(code == 0 && sent == verified && sent > 0, "{:?}", run.report);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn settings_come_from_the_file_the_environment_and_the_flags() {
    let server = Server::start(&[]);
    let file = format!(
        "[server]\naddress = \"{}\"\n[client]\nid = \"file\"\n[traffic]\nmessages = 7\nconnections = 2\nperiod = \"0s\"\n",
        server.address
    );
    let place = Place::new("client-layers").with("client.toml", file);
    let mut command = client(&["--connections", "3", "--message", "-{n}-{id}"]);
    command.current_dir(place.path()).env("ECHO_CLIENT_SETTINGS", "client.toml");
    command.env("ECHO_CLIENT_CLIENT__ID", "environment").env("ECHO_CLIENT_TRAFFIC__CONNECTIONS", "9");
    let run = Client::spawn(command).end();
    assert_eq!(run.outcome(), (0, [21, 21, 0, 0]));
    assert_eq!(run.report["client"], "environment");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn without_an_id_it_is_called_as_its_host() {
    let (arrived, message) = channel();
    let good = move |mut stream: TcpStream| {
        arrived.send(String::from_utf8(echo(&mut stream)).unwrap()).unwrap();
        await_end(stream);
    };
    let server = Scripted::start(vec![Box::new(good)]);
    let run = Client::run(server.address, &["--id", "", "--messages", "1"]);
    server.join();
    let host = Command::new("uname").arg("-n").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap().trim_end().to_owned();
    assert_eq!(message.recv().unwrap(), format!("[CLIENT {host}] Message N°1\n"));
    assert_eq!(run.report["client"], host);
}

/// Runs the client to its end as a user does. The test gives the server's address.
fn said(args: &[&str]) -> Finished {
    finish(command(CLIENT).args(args))
}

#[test]
fn the_table_is_on_standard_output_and_all_else_on_standard_error() {
    let server = Server::start(&[]);
    let Finished { code, out, err } =
        said(&["--server", &server.address.to_string(), "--messages", "1", "--id", "c-1"]);
    assert_eq!(code, 0);
    let lines: Vec<_> = out.lines().collect();
    let counts = ["client      c-1", "sent        1", "verified    1", "wrong       0", "lost        0"];
    assert_eq!(lines[..5], counts);
    assert!(lines[5].starts_with("round trip  min ") && lines.len() == 6, "{out}");
    assert!(err.contains(" INFO finished, client: c-1, sent: 1, verified: 1, wrong: 0, lost: 0\n"), "{err}");
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_report_that_is_not_read_does_no_harm() {
    let server = Server::start(&[]);
    let Client { process, out, log } = Client::start(server.address, &[]);
    drop(out);
    log.all();
    assert_eq!(process.exit().0, Some(0));
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn what_cannot_be_written_is_a_failure_that_is_told_in_one_line() {
    let server = Server::start(&[]);
    let report = ["--server", &server.address.to_string(), "--messages", "1", "--log-level", "error"];
    for (program, name, args) in [
        (CLIENT, "echo-client", &report[..]),
        (CLIENT, "echo-client", &["--print-settings"]),
        (SERVER, "echo-server", &["--print-settings"]),
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(program).args(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("{name}: cannot write to standard output: No space left on device (os error 28)\n");
        assert_eq!((output.status.code(), said), (Some(1), expected), "{name} {args:?}");
    }
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn good_settings_are_checked_in_silence_and_printed_with_their_origin() {
    let checked = said(&["--check-settings", "--server", "host:1"]);
    assert_eq!((checked.code, &*checked.out, &*checked.err), (0, "", ""));
    let flags = [
        ("--server", "host:1", "address = \"host:1\""),
        ("--id", "x", "id = \"x\""),
        ("--connections", "3", "connections = 3"),
        ("--messages", "0", "messages = 0"),
        ("--duration", "1m", "duration = \"1m\""),
        ("--period", "2s", "period = \"2s\""),
        ("--message", "-", "message = \"-\""),
        ("--timeout", "3s", "timeout = \"3s\""),
        ("--rate", "500/s, 1000/s", "rate = \"500/s, 1000/s\""),
        ("--pipeline", "4", "pipeline = 4"),
        ("--warmup", "5s", "warmup = \"5s\""),
        ("--size", "64", "size = 64"),
        ("--renew", "6s", "renew = \"6s\""),
        ("--resend", "2", "resend = 2"),
        ("--connect-timeout", "4s", "connect_timeout = \"4s\""),
        ("--log-level", "warn", "level = \"warn\""),
        ("--log-format", "json", "format = \"json\""),
    ];
    let args: Vec<_> = flags.iter().flat_map(|(flag, value, _)| [*flag, *value]).collect();
    let Finished { code, out, err } = said(&[&["--print-settings", "--reconnect"], &args[..]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    for (flag, _, line) in flags.iter().chain(&[("--reconnect", "", "reconnect = true")]) {
        assert!(out.contains(&format!("{line} # {flag}\n")), "{line} # {flag} in {out}");
    }
}

#[test]
fn a_length_without_a_count_means_no_end_by_count() {
    for (args, messages) in [
        (&["--duration", "1m"][..], "messages = 0 # --duration\n"),
        (&["--duration", "1m", "--messages", "7"], "messages = 7 # --messages\n"),
        (&["--duration", "0s"], "messages = 5 # default\n"),
    ] {
        let Finished { out, .. } = said(&[&["--print-settings"], args].concat());
        assert!(out.contains(messages), "{args:?}: {out}");
    }
}

#[test]
fn bad_settings_are_refused_in_one_line_with_an_exit_code_of_their_own() {
    for (args, expected) in [
        (&["--connections", "0"][..], "--connections: traffic.connections: invalid value: "),
        (&["--messages", "-1"], "--messages: traffic.messages: invalid value: "),
        (&["--timeout", "0s"], "--timeout: traffic.timeout: invalid value: "),
        (&["--rate", "500"], "--rate: traffic.rate: invalid value: "),
        (&["--report", "xml"], "--report: report.format: invalid value: "),
        (&["--server", "nowhere"], "--server: server.address: invalid value: "),
        (&["--settings", "/no/such.toml"], "/no/such.toml: No such file or directory"),
    ] {
        let Finished { code, out, err } = said(args);
        assert_eq!((code, out.as_str(), err.lines().count()), (78, "", 1), "{err}");
        assert!(err.starts_with(&format!("echo-client: {expected}")), "{err}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_and_version_with_0() {
    for args in [&["--port", "1"][..], &["send"], &["--reconnect=maybe"]] {
        assert_eq!(said(args).code, 2, "{args:?}");
    }
    let Finished { code, out: help, .. } = said(&["--help"]);
    assert!(code == 0 && help.contains("--report <F>"), "{help}");
    let message = help.lines().skip_while(|line| !line.contains("--message <TEXT>")).nth(1).unwrap();
    assert!(message.ends_with("filled in"), "clap breaks a line where it reads a placeholder of its own: {help}");
    assert_eq!(said(&["--version"]).out, concat!("echo-client ", env!("CARGO_PKG_VERSION"), "\n"));
}
