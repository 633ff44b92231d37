//! Accepts clients from the shared listening socket, one Acceptor on each Worker's thread.
//!
//! What an accept error means is decided by a pure classifier. None of them ends the server by itself: an Acceptor that
//! cannot go on crashes alone, and its Worker starts another on the same socket, where the queued clients wait meanwhile.

use crate::{
    gate::Gate,
    messages::{Accepted, AcceptorExit, Stop, Stopped},
    worker::WorkerId,
};
use actix::prelude::*;
use rustix::io::Errno;
use slog::Logger;
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

/// How long to leave a listener alone that has no descriptor or memory for another client.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What an accept error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// One client or the network failed: on to the next.
    Client,
    /// The system has no more to give for now: a real pause, or retrying would starve the very actors that can free some.
    Starved,
    /// The listener itself is broken.
    Listener,
}

impl AcceptError {
    /// Linux hands pending network errors of the new connection to `accept` (see accept(2)); they say nothing of the listener.
    pub fn of(error: &io::Error) -> Self {
        use Errno as E;
        match E::from_io_error(error) {
            Some(
                E::CONNABORTED
                | E::INTR
                | E::PERM
                | E::PROTO
                | E::NOPROTOOPT
                | E::OPNOTSUPP
                | E::NETDOWN
                | E::NETUNREACH
                | E::HOSTDOWN
                | E::HOSTUNREACH
                | E::NONET,
            ) => Self::Client,
            Some(E::MFILE | E::NFILE | E::NOBUFS | E::NOMEM) => Self::Starved,
            _ => Self::Listener,
        }
    }
}

/// Where an Acceptor's clients come from: the socket, or in a test whatever can go wrong with one.
pub(crate) trait Listen: 'static {
    fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>;
}

impl Listen for TcpListener {
    fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        TcpListener::poll_accept(self, cx)
    }
}

/// Opens a handle of the listening socket on the calling thread, for each new Acceptor.
pub(crate) type OpenListener = Box<dyn Fn() -> io::Result<Box<dyn Listen>> + Send>;

/// The actor that accepts on one Worker's thread.
pub(crate) struct Acceptor {
    pub gate: Arc<Gate>,
    /// Taken by the accept loop.
    pub listener: Option<Box<dyn Listen>>,
    pub parent: Parent,
    pub log: Logger,
    exit: AcceptorExit,
}

/// Whom an Acceptor reports to.
#[derive(Clone)]
pub(crate) struct Parent {
    pub accepted: Recipient<Accepted>,
    pub stopped: Recipient<Stopped<AcceptorExit>>,
}

impl Acceptor {
    pub fn new(worker: WorkerId, gate: Arc<Gate>, listener: Box<dyn Listen>, parent: Parent, log: Logger) -> Self {
        // Unless it ends otherwise it has panicked.
        let exit = AcceptorExit { worker, crash: Some("panic".into()) };
        Self { gate, listener: Some(listener), parent, log, exit }
    }
}

impl Actor for Acceptor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(listener) = self.listener.take() else { return };
        let accepting =
            accept_all(self.exit.worker, self.gate.clone(), listener, self.parent.accepted.clone(), self.log.clone());
        ctx.spawn(accepting.into_actor(self).map(|error, actor, ctx| {
            actor.exit.crash = Some(error.to_string());
            ctx.stop();
        }));
    }
}

impl Handler<Stop> for Acceptor {
    type Result = ();

    /// Whatever step of the stop it is: the accept loop is dropped with its handle of the socket, and all that it has
    /// accepted is ahead of the `Stopped` in the Worker's mailbox.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.exit.crash = None;
        ctx.stop();
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if self.exit.crash.is_none() {
            slog::info!(self.log, "acceptor stopped"; "worker" => self.exit.worker.0);
        }
        self.parent.stopped.do_send(Stopped(self.exit.clone()));
    }
}

/// Accepts until the listener is broken, and says of what.
async fn accept_all(
    worker: WorkerId,
    gate: Arc<Gate>,
    mut listener: Box<dyn Listen>,
    parent: Recipient<Accepted>,
    log: Logger,
) -> io::Error {
    // What this Acceptor has starved of, until its listener answers again, be it that nobody is there.
    let mut starving: Option<io::Error> = None;
    loop {
        let accepted = poll_fn(|cx| {
            gate.poll_accept(cx, worker, |cx| {
                let accepted = listener.poll_accept(cx);
                if !matches!(accepted, Poll::Ready(Err(_)))
                    && let Some(reason) = starving.take()
                    && gate.starved(false)
                {
                    slog::info!(log, "accept resumed"; "reason" => %reason);
                }
                accepted
            })
        });
        match accepted.await {
            Ok(((stream, peer), permit, place)) => parent.do_send(Accepted { stream, peer, permit, place }),
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Client => {}
                AcceptError::Starved => {
                    if gate.starved(true) {
                        slog::warn!(log, "accept paused"; "reason" => %error);
                    }
                    starving = Some(error);
                    tokio::time::sleep(BACK_OFF).await;
                }
                AcceptError::Listener => return error,
            },
        }
    }
}
