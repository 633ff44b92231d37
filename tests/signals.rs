//! What each signal does to the built programs.

mod common;

use common::*;
use serde_json::Value;
use std::{
    io::Read,
    net::TcpListener,
    process::{ChildStdout, Command},
};
use supervised_echo::{Echo, Error, Signals};
use tokio::runtime;

const STOPS: [(Signal, &str); 4] =
    [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::QUIT, "SIGQUIT"), (Signal::HUP, "SIGHUP")];
const IGNORED: [(Signal, &str); 2] = [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")];

/// A client whose server never answers, and the records of its log.
struct Client {
    process: Process,
    report: ChildStdout,
    log: Log,
    _silent: TcpListener,
}

impl Client {
    fn start(settings: &[(&str, &str)]) -> Self {
        let silent = TcpListener::bind(free_address()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_echo-client"));
        command.args(["--report", "json", "--log-format", "json", "--log-level", "debug", "--timeout", "1h"]);
        command.args(["--server", &silent.local_addr().unwrap().to_string()]);
        for (flag, value) in settings {
            command.args([flag, value]);
        }
        let (mut process, report) = Process::spawn(command);
        let mut log = Log::of(process.stderr());
        log.wait("connected");
        Self { process, report, log, _silent: silent }
    }

    /// Its exit code, its report and its log.
    fn end(mut self) -> (Option<i32>, Value, Records) {
        let log = self.log.all();
        let mut report = String::new();
        self.report.read_to_string(&mut report).unwrap();
        (self.process.exit().0, serde_json::from_str(&report).unwrap(), log)
    }
}

#[test]
fn every_signal_that_stops_a_server_stops_it_gracefully_and_is_named() {
    for (signal, name) in STOPS {
        let mut server = Server::start(&[LONG_LINGER]);
        let mut client = server.connect();
        round_trip(&mut client);
        server.signal(signal);
        assert_eq!(server.log.wait("stopping")["reason"], name);
        assert!(read_to_eof(&mut client).is_empty());
        drop(client);
        assert_eq!(server.end().code, Some(0));
    }
}

#[test]
fn every_signal_that_stops_a_client_stops_it_gracefully_and_is_named() {
    for (signal, name) in STOPS {
        let client = Client::start(&[]);
        client.process.signal(signal);
        let (code, report, log) = client.end();
        assert_eq!((code, &report["stopped"], &report["forced"]), (Some(0), &name.into(), &false.into()));
        assert_eq!(log.one("stopping")["reason"], name);
    }
}

#[test]
fn the_echo_of_a_signal_does_not_force_a_client() {
    for (signal, name) in STOPS {
        let client = Client::start(&[]);
        client.process.signal(Signal::HUP);
        client.process.signal(signal);
        client.process.signal(Signal::TERM);
        let (code, report, _) = client.end();
        assert_eq!((code, &report["forced"]), (Some(0), &false.into()), "SIGHUP, {name}, SIGTERM");
    }
}

#[test]
fn a_server_ignores_the_signals_of_users_with_one_record_each() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    for (signal, name) in IGNORED {
        server.signal(signal);
        assert_eq!(server.log.wait("signal ignored")["signal"], name);
    }
    round_trip(&mut client);
    drop(client);
    let ended = server.stop();
    assert_eq!((ended.code, ended.log.of("signal ignored").len()), (Some(0), 2));
    assert_eq!(ended.log.one("stopping")["reason"], "SIGTERM");
}

#[test]
fn a_client_ignores_the_signals_of_users_with_one_record_each() {
    let mut client = Client::start(&[]);
    for (signal, name) in IGNORED {
        client.process.signal(signal);
        assert_eq!(client.log.wait("signal ignored")["signal"], name);
    }
    client.process.signal(Signal::TERM);
    let (code, report, log) = client.end();
    assert_eq!((code, &report["stopped"]), (Some(0), &"SIGTERM".into()));
    assert_eq!(log.of("signal ignored").len(), 2);
}

#[test]
fn a_server_that_was_started_to_ignore_a_hangup_outlives_its_terminal() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP && exec \"$0\"", env!("CARGO_BIN_EXE_echo-server")]);
    let mut server = Server::run(with_settings(shell, &[]));
    server.signal(Signal::HUP);
    // Told after the hangup, so that it would have been heard before.
    server.signal(Signal::USR1);
    server.log.wait("signal ignored");
    round_trip(&mut server.connect());
    assert_eq!(server.stop().log.one("stopping")["reason"], "SIGTERM");
}

/// Not a test, but the program of one: signals that are taken over stay so.
#[test]
#[ignore = "it is started by the next test"]
fn a_program_without_an_actix_system() {
    for runtime in [runtime::Builder::new_current_thread(), runtime::Builder::new_multi_thread()].iter_mut() {
        let ended = runtime.enable_all().build().unwrap().block_on(async {
            let server = supervised_echo::Server::bind(settings(), Echo).unwrap();
            Signals::register().unwrap().forward_to(server.handle());
            server.run().await
        });
        assert!(matches!(ended, Err(Error::NoSystem)));
    }
}

#[test]
fn signals_are_forwarded_without_an_actix_system_too_so_that_the_server_can_say_what_is_missing() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--ignored", "--exact", "a_program_without_an_actix_system"]);
    let ended = program.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}
