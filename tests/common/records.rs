//! The records of a whole log, and what must be true of them after every stop.

use serde_json::Value;
use std::{
    fmt,
    net::{SocketAddr, TcpStream},
};

/// A whole log.
pub struct Records(pub Vec<Value>);

impl fmt::Display for Records {
    /// As the log was, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Records {
    /// Reads a line of a log.
    pub fn read(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub fn messages(&self) -> Vec<&str> {
        self.0.iter().map(|record| record["msg"].as_str().unwrap()).collect()
    }

    pub fn of(&self, msg: &str) -> Vec<&Value> {
        self.0.iter().filter(|record| record["msg"] == msg).collect()
    }

    /// The only record with this `msg`.
    pub fn one(&self, msg: &str) -> &Value {
        let [record] = self.of(msg)[..] else { panic!("not one `{msg}`\n{self:?}") };
        record
    }

    /// The close of this client's connection. The log has exactly one.
    pub fn close_of(&self, client: &impl Named) -> &Value {
        let peer = client.name();
        let closes = self.of("connection closed");
        let closes: Vec<_> = closes.into_iter().filter(|record| record["peer"] == *peer).collect();
        let [close] = closes[..] else { panic!("not one close of {peer}\n{self:?}") };
        close
    }

    /// Every connection that was alive at the stop or taken in by it was acknowledged or forced.
    pub fn assert_totals_add_up(&self) {
        let (stopping, listener, stopped) = (self.one("stopping"), self.one("listener closed"), self.one("stopped"));
        let alive = number(stopping, "connections") + number(stopping, "pending") + number(listener, "taken");
        assert_eq!(alive, number(stopped, "acknowledged") + number(stopped, "forced"), "{self:?}");
    }

    /// The totals add up, and each of those connections has one record of its close. This is for a server in which no connection
    /// crashes before the stop.
    pub fn assert_all_accounted_for(&self) {
        self.assert_totals_add_up();
        let stopped = self.one("stopped");
        // A close before the stop has the level `debug`.
        let closes = self.of("connection closed").into_iter().filter(|close| close["level"] != "debug");
        let (forced, acknowledged): (Vec<_>, Vec<_>) = closes.partition(|close| close["reason"] == "forced");
        assert_eq!(acknowledged.len() as u64, number(stopped, "acknowledged"), "{self:?}");
        assert_eq!(forced.len() as u64, number(stopped, "forced"), "{self:?}");
        assert_eq!(self.messages().last(), Some(&"stopped"), "{self:?}");
    }
}

pub fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {record}"))
}

/// A client that the log names as `peer`.
pub trait Named {
    fn name(&self) -> String;
}

impl Named for TcpStream {
    fn name(&self) -> String {
        self.local_addr().unwrap().to_string()
    }
}

impl Named for SocketAddr {
    fn name(&self) -> String {
        self.to_string()
    }
}
