//! The built client, running: its log and its report.

use super::{CLIENT, Finished, Log, Place, Process, Records, command, finish};
use serde_json::Value;
use std::{
    io::Read,
    process::{ChildStdout, Command},
};

/// A running client.
pub struct Client {
    pub process: Process,
    pub log: Log,
    pub out: ChildStdout,
}

/// What a client has left behind.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    /// The report: as JSON, or the text if it is another format.
    pub report: Value,
    pub log: Records,
}

/// The built client with these flags. Its report and its log are JSON.
pub fn client(args: &[&str]) -> Command {
    let mut command = command(CLIENT);
    command.args(["--report", "json", "--log-format", "json"]).args(args);
    command
}

impl Client {
    /// Starts one with one connection, no pause and two messages, unless `args` say otherwise.
    pub fn start(server: impl ToString, args: &[&str]) -> Self {
        let mut command = client(&["--server", &server.to_string()]);
        command.env("ECHO_CLIENT_CLIENT__ID", "c-1").env("ECHO_CLIENT_TRAFFIC__MESSAGES", "2");
        command.env("ECHO_CLIENT_TRAFFIC__PERIOD", "0s").args(args);
        Self::spawn(command)
    }

    pub fn spawn(command: Command) -> Self {
        let (mut process, out) = Process::spawn(command);
        let log = Log::among_lines_for_people(process.stderr());
        Self { process, log, out }
    }

    /// Runs one to its end, as `start` does.
    pub fn run(server: impl ToString, args: &[&str]) -> Run {
        Self::start(server, args).end()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Run {
        let log = self.log.all();
        let mut report = String::new();
        self.out.read_to_string(&mut report).unwrap();
        let code = self.process.exit().0.expect("it was not killed");
        let report = serde_json::from_str(&report).unwrap_or(Value::String(report));
        let run = Run { code, report, log };
        run.check();
        run
    }
}

impl Run {
    /// What holds for every client, with every server.
    fn check(&self) {
        let report = &self.report;
        if let Some(sent) = report["sent"].as_u64() {
            let [verified, wrong, lost] = ["verified", "wrong", "lost"].map(|count| report[count].as_u64().unwrap());
            assert_eq!(sent, verified + wrong + lost, "{self:?}");
            let finished = self.log.one("finished");
            for count in ["sent", "verified", "wrong", "lost"] {
                assert_eq!(finished[count], report[count], "{self:?}");
            }
            let of_it = |event: &Value| event["client"] == report["client"] || !event["said"].is_null();
            assert!(self.log.0.iter().all(of_it), "{self:?}");
        }
    }

    /// What it wrote for people on standard error, beside the log.
    pub fn said(&self) -> Vec<&str> {
        self.log.0.iter().filter_map(|line| line["said"].as_str()).collect()
    }

    /// The exit code, then `sent`, `verified`, `wrong` and `lost`.
    pub fn outcome(&self) -> (i32, [u64; 4]) {
        (self.code, ["sent", "verified", "wrong", "lost"].map(|count| self.report[count].as_u64().unwrap()))
    }

    /// `offset`, `expected` and `got` of the only wrong echo.
    pub fn difference(&self) -> (u64, &str, &str) {
        let wrong = self.log.one("echo wrong");
        (wrong["offset"].as_u64().unwrap(), wrong["expected"].as_str().unwrap(), wrong["got"].as_str().unwrap())
    }

    /// `n` and `reason` of every lost echo.
    pub fn lost(&self) -> Vec<(u64, &str)> {
        let lost = self.log.of("echo lost");
        lost.iter().map(|event| (event["n"].as_u64().unwrap(), event["reason"].as_str().unwrap())).collect()
    }
}

/// Merges reports and logs, which are files of `place`.
pub fn merge_in(place: &Place, args: &[&str]) -> Finished {
    finish(command(CLIENT).current_dir(place.path()).arg("merge").args(args))
}

pub fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
