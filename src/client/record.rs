//! The record of one connection of the client. It logs events, and counts the outcome of each message.
//!
//! Its `Drop` is the one place that tells the supervisor of the connection's end.

use crate::{
    client::{
        connect::why,
        run::Run,
        tally::{Lost, Moments, NotConnected},
        verify::Difference,
    },
    stop::Stopped,
};
use actix::Recipient;
use slog::{Logger, o};
use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::time::Instant;

/// Why a stream was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It was not needed any more.
    Done,
    /// The client was told to stop.
    Stopped,
    /// Wrong bytes came over it.
    Wrong,
    /// The server ended it, it failed, or an echo timed out.
    Lost(Lost),
    /// The client was told to stop at once.
    Forced,
    /// A defect of this program.
    Crashed,
}

impl Closed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Wrong => "wrong",
            Self::Lost(lost) => lost.as_str(),
            Self::Forced => "forced",
            Self::Crashed => "crashed",
        }
    }
}

/// How a [`ConnectionActor`](crate::client::connection::ConnectionActor) ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It has sent what it was to send.
    Finished,
    /// It was told to stop.
    Stopped,
    /// It was told to stop at once.
    Forced,
    /// There was no connection within `limit`, which is `connect_timeout` or the rest of `duration` or of the timetable. The
    /// messages that it did not send do not count as attempted, unless they were due by a timetable.
    Unreachable { limit: Duration, reason: String },
    /// It panicked: a defect of this program.
    Crashed,
}

/// The end of a ConnectionActor, as its supervisor hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionExit {
    pub connection: usize,
    pub end: End,
}

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    /// Its number on its connection, counted from 1.
    pub n: u64,
    /// By the timetable; without one, when it was sent.
    pub due: Instant,
    /// When its connection had room for it.
    pub room: Instant,
    /// Its first byte, for the first time.
    pub first: Instant,
    /// Its first byte, for the last time.
    pub sent: Instant,
    /// How often it was sent again.
    pub resent: u32,
    /// In bytes.
    pub length: u64,
}

/// The record of one ConnectionActor.
pub(crate) struct Record {
    pub connection: usize,
    /// Names the client and the connection.
    pub log: Logger,
    pub run: Rc<Run>,
    /// Whether it has been connected, or has failed to be, at least once.
    arrived: Cell<bool>,
    /// Whether the last try to connect never got out of this machine.
    held_back: Cell<bool>,
    /// `None` until the data plane has come to an end.
    end: Cell<Option<End>>,
    parent: Recipient<Stopped<ConnectionExit>>,
}

impl Record {
    pub fn new(connection: usize, log: &Logger, run: Rc<Run>, parent: Recipient<Stopped<ConnectionExit>>) -> Self {
        let log = log.new(o!("connection" => connection));
        let (arrived, held_back, end) = Default::default();
        Self { connection, log, run, arrived, held_back, end, parent }
    }

    fn arrive(&self) {
        if !self.arrived.replace(true) {
            self.run.arrived();
        }
    }

    pub fn reconnecting(&self) {
        slog::warn!(self.log, "reconnecting");
    }

    /// The try that began at `begun` has made a connection, in place of a `broken` one or not.
    pub fn connected(&self, server: SocketAddr, begun: Instant, broken: bool) {
        let now = Instant::now();
        slog::info!(self.log, "connected"; "server" => %server);
        self.held_back.set(false);
        self.arrive();
        let mut tally = self.run.tally.borrow_mut();
        tally.connected(server, now - begun, self.run.since(now));
        tally.connections.reconnects += u64::from(broken);
    }

    /// A connection has the age of `renew` and is ended.
    pub fn renewed(&self) {
        self.run.tally.borrow_mut().connections.renewed += 1;
    }

    /// One address of the server has failed, and the try goes on with the next one.
    pub fn passed_over(&self, address: SocketAddr, error: &io::Error) {
        slog::debug!(self.log, "connect failed"; "server" => %address, "reason" => %error);
        self.run.tally.borrow_mut().passed_over(why(error));
    }

    /// The try that began at `begun` has failed.
    pub fn not_connected(&self, error: &io::Error, begun: Instant, is_first: bool) {
        // Warned of once, so that a reader of the log sees why the client waits. Later tries would only repeat it.
        match is_first {
            true => slog::warn!(self.log, "connect failed"; "reason" => %error),
            false => slog::debug!(self.log, "connect failed"; "reason" => %error),
        }
        let why = why(error);
        self.held_back.set(why == NotConnected::Local);
        self.run.tally.borrow_mut().not_connected(self.run.since(begun), why);
        self.arrive();
    }

    /// A message goes out for the first time. Without a rate it cannot be late.
    pub fn sent(&self, message: &Message) {
        if self.run.pace.is_some() {
            let late = message.sent.saturating_duration_since(message.due.max(message.room));
            self.run.tally.borrow_mut().sent(self.run.since(message.due), late);
        }
    }

    pub fn resent(&self, message: &Message) {
        slog::info!(self.log, "resent"; "n" => message.n);
        let mut tally = self.run.tally.borrow_mut();
        tally.resent += 1;
        tally.bytes.resent += message.length;
    }

    pub fn verified(&self, message: &Message, back: Instant) {
        let elapsed = back - message.first;
        slog::info!(self.log, "echo verified"; "n" => message.n, "elapsed_us" => elapsed.as_micros() as u64);
        let mut tally = self.run.tally.borrow_mut();
        let since = |at| self.run.since(at);
        let moments = Moments { due: since(message.due), sent: since(message.sent), back: since(back) };
        tally.verified(&moments, elapsed);
        tally.bytes.verified += message.length;
    }

    /// Of a message that never went out, `sent` bytes are 0.
    pub fn wrong(&self, n: u64, due: Instant, sent: u64, difference: &Difference) {
        self.log_wrong(n, difference);
        let mut tally = self.run.tally.borrow_mut();
        tally.wrong(self.run.since(due));
        tally.bytes.wrong += sent;
    }

    /// Bytes have come behind an echo that was already verified. The echo is wrong after all, and no longer counts as
    /// verified.
    pub fn wrong_after_all(&self, message: &Message, difference: &Difference) {
        self.log_wrong(message.n, difference);
        let mut tally = self.run.tally.borrow_mut();
        tally.take_back(self.run.since(message.due));
        tally.bytes.verified -= message.length;
        tally.bytes.wrong += message.length;
    }

    fn log_wrong(&self, n: u64, Difference { offset, expected, got }: &Difference) {
        slog::error!(self.log, "echo wrong"; "n" => n, "offset" => offset, "expected" => expected, "got" => got);
    }

    /// The attempt began at `begun`; `None` if the outages know of it.
    pub fn lost(&self, message: &Message, begun: Option<Instant>, reason: Lost) {
        slog::warn!(self.log, "echo lost"; "n" => message.n, "reason" => reason.as_str());
        let mut tally = self.run.tally.borrow_mut();
        tally.lost(self.run.since(message.due), begun.map(|begun| self.run.since(begun)), reason);
        tally.bytes.lost += message.length;
    }

    /// An attempt that began at `begun` has failed. Its message is counted later.
    pub fn away(&self, begun: Instant, reason: Lost) {
        self.run.tally.borrow_mut().outages.failed(self.run.since(begun), reason.as_str());
    }

    /// That attempt has not failed: the run has ended.
    pub fn not_away(&self, begun: Instant, reason: Lost) {
        self.run.tally.borrow_mut().outages.take_back(self.run.since(begun), reason.as_str());
    }

    /// A message was not sent in time: the attempt began when it was due. The log hears of it by `tell_unsent`.
    pub fn unsent(&self, due: Instant) {
        let due = self.run.since(due);
        let begun = (!self.held_back.get()).then_some(due);
        self.run.tally.borrow_mut().lost(due, begun, Lost::Unsent);
    }

    /// Messages that were not sent in time, told in one line: there can be thousands a second.
    pub fn tell_unsent(&self, first: u64, last: u64) {
        let reason = Lost::Unsent.as_str();
        match first == last {
            true => slog::warn!(self.log, "echo lost"; "n" => first, "reason" => reason),
            false => slog::warn!(self.log, "echo lost"; "n" => first, "to" => last, "reason" => reason),
        }
    }

    /// Of a message that never went out, `sent` bytes are 0.
    pub fn given_up(&self, n: u64, sent: u64) {
        slog::info!(self.log, "echo given up"; "n" => n);
        let mut tally = self.run.tally.borrow_mut();
        tally.given_up += 1;
        tally.bytes.given_up += sent;
    }

    /// A stream over which `verified` echoes came is closed.
    pub fn closed(&self, reason: Closed, server: SocketAddr, verified: u64) {
        slog::info!(self.log, "connection closed"; "reason" => reason.as_str());
        let mut tally = self.run.tally.borrow_mut();
        match reason {
            Closed::Lost(Lost::Closed) => tally.connections.closed_by_server += 1,
            Closed::Lost(Lost::Reset) => tally.connections.reset += 1,
            _ => {}
        }
        tally.closed(server, verified, self.run.since(Instant::now()));
    }

    pub fn end(&self, end: End) {
        if let End::Unreachable { reason, .. } = &end {
            slog::error!(self.log, "unreachable"; "reason" => reason);
        }
        self.end.set(Some(end));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.arrive();
        let end = self.end.take().unwrap_or(End::Crashed);
        if end == End::Crashed {
            slog::error!(self.log, "connection crashed");
        }
        self.parent.do_send(Stopped(ConnectionExit { connection: self.connection, end }));
    }
}
