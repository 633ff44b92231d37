//! The built server, running: its log, its clients and its end.

use super::{Log, Process, Records, SERVER, connect, free_address, kernel, without_settings};
use rustix::process::Signal;
use serde_json::Value;
use socket2::Socket;
use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
};

/// For tests whose clients end after the server. On a busy machine they may take longer than the default `linger` of a second.
pub const LONG_LINGER: (&str, &str) = ("connection.linger", "20s");
pub const LONG_TIMEOUT: (&str, &str) = ("supervisor.shutdown_timeout", "25s");

/// The built server with these settings, and no other `ECHO_` variable. Each is named as in the settings file.
pub fn program(settings: &[(&str, &str)]) -> Command {
    with_settings(Command::new(SERVER), settings)
}

pub fn with_settings(command: Command, settings: &[(&str, &str)]) -> Command {
    let mut command = without_settings(command);
    let address = free_address().to_string();
    for (key, value) in [("listen.address", &*address), ("log.format", "json")].iter().chain(settings) {
        command.env(format!("ECHO_SERVER_{}", key.to_uppercase().replace('.', "__")), value);
    }
    command
}

/// A running server.
pub struct Server {
    pub process: Process,
    pub log: Log,
    pub listening: Value,
    pub address: SocketAddr,
}

/// A server that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub log: Records,
}

impl Server {
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::run(program(settings))
    }

    pub fn run(command: Command) -> Self {
        let (process, stdout) = Process::spawn(command);
        let mut log = Log::of(stdout);
        let listening = log.wait("listening");
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        Self { process, log, listening, address }
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// A client that has its slot.
    pub fn connect_served(&mut self) -> TcpStream {
        let client = self.connect();
        self.log.wait_of("connection opened", &client);
        client
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn signal_again(&self, signal: Signal) {
        self.process.signal_again(signal);
    }

    /// Waits for its end.
    pub fn end(self) -> Ended {
        let log = self.log.all();
        let (code, errors) = self.process.exit();
        assert_eq!(errors, "", "{log:?}");
        Ended { code, log }
    }

    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.end()
    }

    /// A handle of its listening socket, and the socket's name among the descriptors.
    pub fn listener(&self) -> (Socket, String) {
        kernel::listener_of(self.process.pid(), self.address)
    }

    /// How many clients are in the backlog.
    pub fn backlog(&self) -> u64 {
        kernel::receive_queue(self.address.port(), 0).expect("it listens")
    }
}
