//! The record of one connection of the client. It logs events, and counts the outcome of each message.
//!
//! Its `Drop` is the one place that tells the supervisor of the connection's end.

use crate::{
    client::{report::Tally, verify::Difference},
    stop::Stopped,
};
use actix::Recipient;
use slog::{Logger, o};
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

/// Why an echo never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The echo, or a part of it, did not come within `timeout`.
    Timeout,
    /// The server ended the connection first.
    Closed,
    /// The connection failed.
    Reset,
}

impl Lost {
    fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }
}

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
    /// There was no connection within `limit`, which is `connect_timeout` or the rest of `duration`. The messages that it
    /// did not send do not count as attempted.
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

/// The record of one ConnectionActor.
pub(crate) struct Record {
    connection: usize,
    /// Names the client and the connection.
    pub log: Logger,
    tally: Rc<RefCell<Tally>>,
    /// `None` until the data plane has come to an end.
    end: Cell<Option<End>>,
    parent: Recipient<Stopped<ConnectionExit>>,
}

impl Record {
    pub fn new(
        connection: usize,
        log: &Logger,
        tally: Rc<RefCell<Tally>>,
        parent: Recipient<Stopped<ConnectionExit>>,
    ) -> Self {
        Self { connection, log: log.new(o!("connection" => connection)), tally, end: Cell::new(None), parent }
    }

    pub fn reconnecting(&self) {
        slog::warn!(self.log, "reconnecting");
    }

    pub fn connected(&self, server: SocketAddr) {
        slog::info!(self.log, "connected"; "server" => %server);
    }

    pub fn verified(&self, n: u64, elapsed: Duration) {
        slog::info!(self.log, "echo verified"; "n" => n, "elapsed_us" => elapsed.as_micros() as u64);
        self.tally.borrow_mut().verified(elapsed);
    }

    pub fn wrong(&self, n: u64, difference: &Difference) {
        self.log_wrong(n, difference);
        self.tally.borrow_mut().wrong += 1;
    }

    /// Bytes have come behind an echo that was already verified. The echo is wrong after all, and no longer counts as
    /// verified.
    pub fn wrong_after_all(&self, n: u64, difference: &Difference) {
        self.log_wrong(n, difference);
        self.tally.borrow_mut().take_back();
    }

    fn log_wrong(&self, n: u64, Difference { offset, expected, got }: &Difference) {
        slog::error!(self.log, "echo wrong"; "n" => n, "offset" => offset, "expected" => expected, "got" => got);
    }

    pub fn lost(&self, n: u64, reason: Lost) {
        slog::warn!(self.log, "echo lost"; "n" => n, "reason" => reason.as_str());
        self.tally.borrow_mut().lost += 1;
    }

    pub fn given_up(&self, n: u64) {
        slog::info!(self.log, "echo given up"; "n" => n);
        self.tally.borrow_mut().given_up += 1;
    }

    pub fn closed(&self, reason: Closed) {
        slog::info!(self.log, "connection closed"; "reason" => reason.as_str());
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
        let end = self.end.take().unwrap_or(End::Crashed);
        if end == End::Crashed {
            slog::error!(self.log, "connection crashed");
        }
        self.parent.do_send(Stopped(ConnectionExit { connection: self.connection, end }));
    }
}
