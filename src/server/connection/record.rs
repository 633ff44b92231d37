//! The record of a connection: counters while it is open, and from its `Drop` the one log record and the one message of its
//! end.
//!
//! Relies on the connection to drop it last, after the stream is closed.

use crate::{
    decisions::{
        connection::{CloseReason, ConnectionState},
        ids::ConnectionId,
    },
    server::{
        gate::Permit,
        messages::{ConnectionExit, ConnectionStopped},
        watch::{
            news::WorkerNews,
            tree::{ConnectionView, State},
        },
    },
    settings::ConnectionSettings,
    stop::Stopped,
};
use actix::prelude::*;
use slog::Logger;
use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::time::Instant;

/// What the connections of one Worker share. A reload makes another one, for the connections that come then.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub news: WorkerNews,
    pub settings: ConnectionSettings,
    pub log: Logger,
    pub parent: Recipient<ConnectionStopped>,
    /// Set when the Worker has panicked. Its connections then end by force, and not by a crash of their own.
    pub orphaned: Rc<Cell<bool>>,
}

/// The record. Its `Drop` is the one place that tells of the end.
pub(crate) struct Record {
    pub(super) permit: Permit,
    pub peer: SocketAddr,
    pub(super) since: Instant,
    /// Read by the service.
    pub received: Cell<u64>,
    /// Bytes that the service has written and the system has taken.
    pub echoed: Cell<u64>,
    /// Bytes read after the service was done. No other count holds them.
    pub discarded: Cell<u64>,
    /// `Crashed` until the data plane notes another end.
    pub(super) reason: Cell<CloseReason>,
    /// What watchers have been told of its state; `None` before they have heard of it.
    shown: Cell<Option<State>>,
    /// The error of a service that failed.
    pub(super) error: Cell<Option<io::Error>>,
    pub(super) context: Rc<ConnectionContext>,
}

/// The address, as IPv4 also where the client came through a dual-stack socket.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Record {
    pub fn new(permit: Permit, peer: SocketAddr, context: Rc<ConnectionContext>) -> Self {
        context.news.counters.accepted.add(1);
        Self {
            permit,
            peer: canonical(peer),
            since: Instant::now(),
            received: Cell::new(0),
            echoed: Cell::new(0),
            discarded: Cell::new(0),
            reason: Cell::new(CloseReason::Crashed),
            shown: Cell::new(None),
            error: Cell::new(None),
            context,
        }
    }

    pub fn connection(&self) -> ConnectionId {
        self.permit.connection()
    }

    pub fn linger(&self) -> Duration {
        self.context.settings.linger
    }

    /// The service has read so many bytes.
    pub fn count_received(&self, n: u64) {
        self.received.set(self.received.get() + n);
        self.context.news.counters.received.add(n);
    }

    /// The service has written so many bytes, and the system has taken them.
    pub fn count_echoed(&self, n: u64) {
        self.echoed.set(self.echoed.get() + n);
        self.context.news.counters.echoed.add(n);
    }

    /// So many bytes were read after the service was done.
    pub fn count_discarded(&self, n: u64) {
        self.discarded.set(self.discarded.get() + n);
        self.context.news.counters.discarded.add(n);
    }

    /// Tells watchers that the connection is in this state.
    pub fn show(&self, state: ConnectionState) {
        let (news, connection, state) = (&self.context.news, self.connection(), state.into());
        match self.shown.replace(Some(state)) {
            None => news.opened(connection, self.peer, state),
            Some(from) if from != state => {
                if state == State::Serving {
                    news.counters.waited(self.since.elapsed());
                }
                news.moved(connection, from, state);
            }
            Some(_) => {}
        }
    }

    /// What a listing says of it; `None` before watchers have heard of it.
    pub fn view(&self) -> Option<ConnectionView> {
        Some(ConnectionView {
            connection: self.connection(),
            worker: None,
            peer: self.peer,
            state: self.shown.get()?,
            since_ms: self.since.elapsed().as_millis() as u64,
            received: self.received.get(),
            echoed: self.echoed.get(),
            discarded: self.discarded.get(),
        })
    }

    pub fn log_opened(&self) {
        slog::debug!(self.context.log, "connection opened"; "connection" => self.connection().get(),
            "peer" => %self.peer, "worker" => self.context.news.worker.0);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let reason = match self.reason.get() {
            CloseReason::Crashed if self.context.orphaned.get() => CloseReason::Forced,
            reason => reason,
        };
        let connection = self.connection();
        let bytes = [&self.received, &self.echoed, &self.discarded].map(Cell::get);
        self.context.news.closed(connection, self.shown.get(), reason, bytes);
        let in_stop = self.permit.give_back(reason, self.discarded.get());
        macro_rules! closed {
            ($level:ident $(, $key:literal => $value:expr)?) => {
                slog::$level!(
                    self.context.log, "connection closed";
                    "connection" => connection.get(), "peer" => %self.peer, "reason" => reason.as_str(),
                    "received" => self.received.get(), "echoed" => self.echoed.get(),
                    "discarded" => self.discarded.get(), $($key => $value,)?
                    "elapsed_ms" => self.since.elapsed().as_millis() as u64,
                )
            };
        }
        match (reason, self.error.take()) {
            (CloseReason::Crashed, _) => closed!(error),
            // A failed service's connection may be forced before all is delivered.
            (CloseReason::Forced | CloseReason::Failed, Some(error)) => closed!(warn, "error" => error.to_string()),
            (CloseReason::Forced | CloseReason::Failed, None) => closed!(warn),
            _ if in_stop => closed!(info),
            _ => closed!(debug),
        }
        self.context.parent.do_send(Stopped(ConnectionExit { connection, reason }));
    }
}
