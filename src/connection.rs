//! The control plane of one client: waiting → serving → draining → closed.
//!
//! The actor takes orders and acknowledges; the bytes move in [`converse`], ordinary async code that it spawns into its own
//! context, so that its mailbox stays open whatever the client does. Both hold the [`Link`]; when both have let go, the
//! stream is closed, the end is logged and the `Stopped` is sent, in this order, and also when either has panicked.

use crate::{
    admission::{ConnectionId, Place},
    farewell::farewell,
    gate::Permit,
    link::{Ending, Link},
    messages::{ConnectionStopped, Stop, Stopped},
    service::{Service, Socket},
    settings::ConnectionSettings,
    worker::WorkerId,
};
use actix::prelude::*;
use futures_util::FutureExt;
use slog::Logger;
use std::{
    cell::Cell,
    fmt,
    future::pending,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The conversation was over: usually the client ended it.
    Client,
    /// The server stopped, and the client has everything that was received from it.
    Stopped,
    /// Nothing moved for `idle_timeout`.
    Idle,
    /// The client reset it, or the service failed.
    Reset,
    /// The service or the actor panicked. The client sees a reset.
    Crashed,
    /// It was still open at the deadline. The client sees a reset.
    Forced,
}

impl Reason {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Stopped => "stopped",
            Self::Idle => "idle",
            Self::Reset => "reset",
            Self::Crashed => "crashed",
            Self::Forced => "forced",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionExit {
    /// Which one.
    pub connection: ConnectionId,
    /// Why.
    pub reason: Reason,
    /// Whether it was alive when the server began to stop, or was taken in later: then the report counts it.
    pub in_stop: bool,
}

/// What all connections of one Worker have in common.
pub(crate) struct ConnectionContext {
    pub worker: WorkerId,
    pub settings: ConnectionSettings,
    pub log: Logger,
    pub parent: Recipient<ConnectionStopped>,
    /// Set when the Worker has panicked: what becomes of its connections then is not their own crash.
    pub orphaned: Cell<bool>,
}

/// What is to be told of a connection, and in its `Drop` the one place from where it is told.
pub(crate) struct Life {
    permit: Permit,
    pub peer: SocketAddr,
    since: Instant,
    /// Read by the service.
    pub received: Cell<u64>,
    /// Written by the service and taken by the system.
    pub echoed: Cell<u64>,
    /// Read after its drain, in no other count.
    pub discarded: Cell<u64>,
    /// `Crashed` until the data plane has come to another end.
    reason: Cell<Reason>,
    context: Rc<ConnectionContext>,
}

impl Life {
    pub fn new(permit: Permit, peer: SocketAddr, context: Rc<ConnectionContext>) -> Self {
        Self {
            permit,
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            since: Instant::now(),
            received: Cell::new(0),
            echoed: Cell::new(0),
            discarded: Cell::new(0),
            reason: Cell::new(Reason::Crashed),
            context,
        }
    }

    pub fn connection(&self) -> ConnectionId {
        self.permit.connection()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let reason = match self.reason.get() {
            Reason::Crashed if self.context.orphaned.get() => Reason::Forced,
            reason => reason,
        };
        let connection = self.connection();
        let in_stop = self.permit.give_back();
        macro_rules! closed {
            ($level:ident) => {
                slog::$level!(
                    self.context.log, "connection closed";
                    "connection" => connection.get(), "peer" => %self.peer, "reason" => reason.as_str(),
                    "received" => self.received.get(), "echoed" => self.echoed.get(),
                    "discarded" => self.discarded.get(), "elapsed_ms" => self.since.elapsed().as_millis() as u64,
                )
            };
        }
        match reason {
            Reason::Crashed => closed!(error),
            Reason::Forced => closed!(warn),
            _ if in_stop => closed!(info),
            _ => closed!(debug),
        }
        self.context.parent.do_send(Stopped(ConnectionExit { connection, reason, in_stop }));
    }
}

/// The actor of one client.
pub(crate) struct ConnectionActor<S> {
    link: Rc<Link>,
    service: Arc<S>,
    /// `None` if it was taken in from the backlog, only to be drained.
    place: Option<Place>,
}

impl<S: Service> ConnectionActor<S> {
    pub fn new(stream: TcpStream, life: Life, service: Arc<S>, place: Option<Place>) -> Self {
        let watch_idle = !life.context.settings.idle_timeout.is_zero();
        Self { link: Rc::new(Link::new(stream, life, watch_idle)), service, place }
    }
}

impl<S: Service> Actor for ConnectionActor<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let life = converse(self.link.clone(), self.service.clone(), self.place);
        ctx.spawn(life.into_actor(self).map(|reason, actor, ctx| {
            actor.link.life.reason.set(reason);
            ctx.stop();
        }));
    }
}

impl<S: Service> Handler<Stop> for ConnectionActor<S> {
    type Result = ();

    fn handle(&mut self, stop: Stop, _: &mut Self::Context) {
        match stop {
            Stop::Accepting => {}
            Stop::Drain | Stop::Finish => self.link.end_input(Ending::Stopped),
            Stop::Abort => self.link.abort(Reason::Forced),
        }
    }
}

/// The data plane, from the first byte to the last. A panic of the service ends here.
async fn converse<S: Service>(link: Rc<Link>, service: Arc<S>, place: Option<Place>) -> Reason {
    let live = AssertUnwindSafe(live(&link, &*service, place)).catch_unwind();
    tokio::select! {
        biased;
        reason = link.aborted() => reason,
        lived = live => lived.unwrap_or(Reason::Crashed),
    }
}

async fn live<S: Service>(link: &Rc<Link>, service: &S, place: Option<Place>) -> Reason {
    if place != Some(Place::Served)
        && let Some(reason) = wait(link, place).await
    {
        return reason;
    }
    let Life { context, peer, .. } = &link.life;
    if link.ending().is_none() {
        slog::debug!(context.log, "connection opened"; "connection" => link.life.connection().get(), "peer" => %peer,
            "worker" => context.worker.0);
    }
    let conversation = async {
        if service.serve(&mut Socket(link.clone())).await.is_err() {
            return Reason::Reset;
        }
        match farewell(link, context.settings.linger).await.map(|()| link.ending()) {
            Err(_) => Reason::Reset,
            Ok(None) => Reason::Client,
            Ok(Some(Ending::Idle)) => Reason::Idle,
            Ok(Some(Ending::Stopped)) => Reason::Stopped,
        }
    };
    if context.settings.idle_timeout.is_zero() {
        return conversation.await;
    }
    tokio::select! {
        reason = conversation => reason,
        reason = watch_idle(link, context.settings.idle_timeout) => reason,
    }
}

/// Waits for a slot or for a stop, which lets it be drained. Gives the reason if the client goes first.
async fn wait(link: &Link, place: Option<Place>) -> Option<Reason> {
    if let Some(Place::Waiting(pending)) = place {
        slog::debug!(link.life.context.log, "connection waiting"; "connection" => link.life.connection().get(),
            "peer" => %link.life.peer, "pending" => pending);
    }
    tokio::select! {
        biased;
        () = link.input_ended() => None,
        () = link.life.permit.served() => None,
        reason = link.gone() => Some(reason),
    }
}

/// Ends the input of a connection on which nothing has moved for `timeout`; gives it up if after that nothing moves either.
async fn watch_idle(link: &Link, timeout: Duration) -> Reason {
    link.touch();
    loop {
        let quiet_until = link.active() + timeout;
        if Instant::now() < quiet_until {
            sleep_until(quiet_until).await;
            continue;
        }
        match link.ending() {
            None => link.end_input(Ending::Idle),
            Some(Ending::Idle) if !link.is_lingering() => return Reason::Idle,
            Some(Ending::Idle) => {}
            // From here on the deadline of the stop is what counts.
            Some(Ending::Stopped) => pending().await,
        }
        link.touch();
    }
}
