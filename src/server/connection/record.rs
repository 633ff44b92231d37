//! The record of a connection: counters while it is open, and from its `Drop` the one log record and the one message of its
//! end.
//!
//! Relies on the connection to drop it last, after the stream is closed.

use crate::{
    decisions::{
        connection::{CloseReason, ConnectionState},
        health_check,
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
    settings::{ConnectionSettings, ListenSettings},
    stop::Stopped,
};
use actix::prelude::*;
use slog::{KV, Logger, Serializer};
use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::time::Instant;

/// What the connections of one Worker share. A reload makes another one, for the connections that come then.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub news: WorkerNews,
    pub listen: ListenSettings,
    pub settings: ConnectionSettings,
    pub log: Logger,
    pub parent: Recipient<ConnectionStopped>,
    /// Set when the Worker has panicked. Its connections then end by force, and not by a crash of their own.
    pub orphaned: Rc<Cell<bool>>,
}

/// The record. Its `Drop` is the one place that tells of the end.
pub(crate) struct Record {
    pub(super) permit: Permit,
    /// The client, or the balancer that has not told of it yet.
    pub(super) peer: Cell<SocketAddr>,
    pub(super) since: Instant,
    /// Read by the service.
    pub received: Cell<u64>,
    /// Bytes that the service has written and the system has taken.
    pub echoed: Cell<u64>,
    /// Bytes read after the service was done. No other count holds them.
    pub discarded: Cell<u64>,
    /// How many bytes came first, if they were the message of a health check; otherwise 0.
    check: Cell<u8>,
    /// `Crashed` until the data plane notes another end.
    pub(super) reason: Cell<CloseReason>,
    /// What watchers have been told of its state; `None` before they have heard of it.
    shown: Cell<Option<State>>,
    /// The error of a service that failed, or of a PROXY header.
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
            peer: Cell::new(canonical(peer)),
            since: Instant::now(),
            received: Cell::new(0),
            echoed: Cell::new(0),
            discarded: Cell::new(0),
            check: Cell::new(0),
            reason: Cell::new(CloseReason::Crashed),
            shown: Cell::new(None),
            error: Cell::new(None),
            context,
        }
    }

    pub fn connection(&self) -> ConnectionId {
        self.permit.connection()
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer.get()
    }

    pub fn linger(&self) -> Duration {
        self.context.settings.linger
    }

    /// Looks whether the first bytes of all are the message of a health check.
    fn look_at_first(&self, bytes: &[u8]) {
        if self.received.get() + self.discarded.get() == 0 && health_check::is_message(bytes) {
            self.check.set(u8::try_from(bytes.len()).unwrap_or(0));
        }
    }

    /// Whether the client was a health check: it has sent its message and nothing else.
    fn is_health_check(&self) -> bool {
        let check = u64::from(self.check.get());
        check > 0 && self.received.get() + self.discarded.get() == check
    }

    /// The service has read these bytes.
    pub fn count_received(&self, bytes: &[u8]) {
        self.look_at_first(bytes);
        self.count_more(bytes.len() as u64);
    }

    /// The service has received so many bytes more, behind its first ones.
    pub fn count_more(&self, n: u64) {
        self.received.set(self.received.get() + n);
        self.context.news.counters.received.add(n);
    }

    /// The service has written so many bytes, and the system has taken them.
    pub fn count_echoed(&self, n: u64) {
        self.echoed.set(self.echoed.get() + n);
        self.context.news.counters.echoed.add(n);
    }

    /// These bytes were read after the service was done.
    pub fn count_discarded(&self, bytes: &[u8]) {
        self.look_at_first(bytes);
        let n = bytes.len() as u64;
        self.discarded.set(self.discarded.get() + n);
        self.context.news.counters.discarded.add(n);
    }

    /// Tells watchers that the connection is in this state.
    pub fn show(&self, state: ConnectionState) {
        let (news, connection, state) = (&self.context.news, self.connection(), state.into());
        match self.shown.replace(Some(state)) {
            None => news.opened(connection, self.peer(), state),
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
            peer: self.peer(),
            state: self.shown.get()?,
            since_ms: self.since.elapsed().as_millis() as u64,
            received: self.received.get(),
            echoed: self.echoed.get(),
            discarded: self.discarded.get(),
        })
    }

    /// The connection waits for a slot, and so many do with it.
    pub fn wait(&self, pending: usize) {
        slog::debug!(self.context.log, "connection waiting"; "connection" => self.connection().get(),
            "peer" => %self.peer(), "pending" => pending);
        self.show(ConnectionState::Waiting);
    }

    pub fn log_opened(&self) {
        slog::debug!(self.context.log, "connection opened"; "connection" => self.connection().get(),
            "peer" => %self.peer(), "worker" => self.context.news.worker.0);
    }
}

/// What the record of the end tells of some connections only.
struct Extra {
    /// Of a service that has failed, whose connection may be forced before all is delivered; or of a PROXY header.
    error: Option<io::Error>,
    is_health_check: bool,
}

impl KV for Extra {
    fn serialize(&self, _: &slog::Record<'_>, serializer: &mut dyn Serializer) -> slog::Result {
        if let Some(error) = &self.error {
            serializer.emit_arguments("error", &format_args!("{error}"))?;
        }
        if self.is_health_check { serializer.emit_bool("healthcheck", true) } else { Ok(()) }
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
        if self.is_health_check() {
            self.context.news.counters.leave_out(bytes);
        }
        self.context.news.closed(connection, self.shown.get(), reason, bytes);
        let in_stop = self.permit.give_back(reason, self.discarded.get());
        let extra = Extra { error: self.error.take(), is_health_check: self.is_health_check() };
        macro_rules! closed {
            ($level:ident) => {
                slog::$level!(
                    self.context.log, "connection closed";
                    "connection" => connection.get(), "peer" => %self.peer(), "reason" => reason.as_str(),
                    "received" => self.received.get(), "echoed" => self.echoed.get(),
                    "discarded" => self.discarded.get(), extra,
                    "elapsed_ms" => self.since.elapsed().as_millis() as u64,
                )
            };
        }
        match reason {
            CloseReason::Crashed => closed!(error),
            CloseReason::Forced | CloseReason::Failed | CloseReason::Header => closed!(warn),
            _ if in_stop => closed!(info),
            _ => closed!(debug),
        }
        self.context.parent.do_send(Stopped(ConnectionExit { connection, reason }));
    }
}
