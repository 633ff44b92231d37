//! The log of a running program or server: records to wait for.

use super::{Lines, Named, PATIENCE, Records};
use serde_json::{Value, json};
use std::{io::Read, sync::mpsc::RecvTimeoutError, time::Instant};

/// A log as it is written.
pub struct Log {
    lines: Lines,
    read: fn(&str) -> Value,
    heard: Records,
    /// For each record heard, whether a test has waited for it.
    claimed: Vec<bool>,
}

impl Log {
    /// The log that is all of this stream.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        Self::with(stream, Records::read)
    }

    /// The log of a stream that also carries lines for people. Such a line becomes the record `{"said": line}`.
    pub fn among_lines_for_people(stream: impl Read + Send + 'static) -> Self {
        Self::with(stream, |line| serde_json::from_str(line).unwrap_or_else(|_| json!({ "said": line })))
    }

    fn with(stream: impl Read + Send + 'static, read: fn(&str) -> Value) -> Self {
        Self { lines: Lines::of(stream), read, heard: Records(Vec::new()), claimed: Vec::new() }
    }

    /// The first record with this `msg` that no test has waited for yet.
    pub fn wait(&mut self, msg: &str) -> Value {
        self.wait_where(0, msg, |_| true)
    }

    /// As `wait`, for a record of this client's connection.
    pub fn wait_of(&mut self, msg: &str, client: &impl Named) -> Value {
        let peer = client.name();
        self.wait_where(0, msg, |record| record["peer"] == *peer)
    }

    /// As `wait`, for a record that comes after all those that were waited for before. So it asserts the order of records.
    pub fn wait_next(&mut self, msg: &str) -> Value {
        let behind = self.claimed.iter().rposition(|claimed| *claimed).map_or(0, |last| last + 1);
        self.wait_where(behind, msg, |_| true)
    }

    fn wait_where(&mut self, mut next: usize, msg: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while next == self.heard.0.len() {
                match self.lines.next(deadline) {
                    Ok(line) => self.heard.0.push((self.read)(&line)),
                    Err(error) => panic!("no `{msg}`: {error}\n{:#?}", self.heard),
                }
                self.claimed.push(false);
            }
            let record = &self.heard.0[next];
            if !self.claimed[next] && record["msg"] == msg && wanted(record) {
                self.claimed[next] = true;
                return record.clone();
            }
            next += 1;
        }
    }

    /// All records, once the log has ended.
    pub fn all(mut self) -> Records {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.next(deadline) {
                Ok(line) => self.heard.0.push((self.read)(&line)),
                Err(RecvTimeoutError::Disconnected) => return self.heard,
                Err(RecvTimeoutError::Timeout) => panic!("the log does not end\n{:#?}", self.heard),
            }
        }
    }

    /// The records that have come while a test waited.
    pub fn heard(self) -> Records {
        self.heard
    }
}
