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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, WORKER, listener, logged, probe};
    use std::collections::VecDeque;
    use tokio::sync::mpsc::UnboundedReceiver;

    #[test]
    fn every_accept_error_has_its_meaning() {
        let of = |errno: Errno| AcceptError::of(&errno.into());
        for errno in [
            Errno::CONNABORTED,
            Errno::INTR,
            Errno::PERM,
            Errno::PROTO,
            Errno::NOPROTOOPT,
            Errno::OPNOTSUPP,
            Errno::NETDOWN,
            Errno::NETUNREACH,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NONET,
        ] {
            assert_eq!(of(errno), AcceptError::Client, "{errno:?}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), AcceptError::Starved, "{errno:?}");
        }
        for errno in [Errno::INVAL, Errno::BADF, Errno::NOTSOCK] {
            assert_eq!(of(errno), AcceptError::Listener, "{errno:?}");
        }
        assert_eq!(AcceptError::of(&io::Error::other("not the system's")), AcceptError::Listener);
    }

    /// Fails in the given ways first, then asks the real listener.
    struct Flaky {
        failures: VecDeque<Errno>,
        listener: TcpListener,
    }

    impl Listen for Flaky {
        fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            match self.failures.pop_front() {
                Some(errno) => Poll::Ready(Err(errno.into())),
                None => self.listener.poll_accept(cx).map_ok(|(stream, peer)| (stream, peer)),
            }
        }
    }

    struct Panicking;

    impl Listen for Panicking {
        fn poll_accept(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            panic!("told to");
        }
    }

    struct Heard {
        accepted: UnboundedReceiver<Accepted>,
        stopped: UnboundedReceiver<Stopped<AcceptorExit>>,
        log: UnboundedReceiver<String>,
    }

    fn start(gate: &Arc<Gate>, listener: Box<dyn Listen>) -> (Addr<Acceptor>, Heard) {
        let ((accepted, heard_accepted), (stopped, heard_stopped)) = (probe(), probe());
        let (logger, log) = testing::log();
        let parent = Parent { accepted, stopped };
        let acceptor = Acceptor::new(WORKER, gate.clone(), listener, parent, logger).start();
        (acceptor, Heard { accepted: heard_accepted, stopped: heard_stopped, log })
    }

    async fn exit(heard: &mut Heard) -> AcceptorExit {
        let Stopped(exit) = heard.stopped.recv().await.expect("every Acceptor acknowledges");
        exit
    }

    #[actix::test]
    async fn it_accepts_up_to_the_cap_and_goes_on_when_a_slot_is_freed() {
        let (listener, address) = listener();
        let (_acceptor, mut heard) = start(&Gate::new(1, 0), Box::new(listener.acceptor().unwrap()));
        let first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let accepted = heard.accepted.recv().await.unwrap();
        assert_eq!(accepted.peer, first.local_addr().unwrap());
        drop(accepted);
        assert_eq!(heard.accepted.recv().await.unwrap().peer, second.local_addr().unwrap());
    }

    #[actix::test]
    async fn a_stop_is_acknowledged_once_and_after_all_that_it_has_accepted() {
        let (listener, address) = listener();
        let (acceptor, mut heard) = start(&Gate::new(1, 0), Box::new(listener.acceptor().unwrap()));
        let _client = TcpStream::connect(address).await.unwrap();
        let accepted = heard.accepted.recv().await;
        acceptor.do_send(Stop::Accepting);
        acceptor.do_send(Stop::Drain);
        assert_eq!(exit(&mut heard).await, AcceptorExit { worker: WORKER, crash: None });
        logged(&mut heard.log, "acceptor stopped").await;
        assert!(accepted.is_some());
        heard.stopped.close();
        assert!(heard.stopped.recv().await.is_none());
    }

    #[actix::test]
    async fn what_fails_for_one_client_is_passed_over() {
        let (listener, address) = listener();
        let failures = [Errno::CONNABORTED, Errno::NETUNREACH].into();
        let flaky = Flaky { failures, listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0), Box::new(flaky));
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(heard.accepted.recv().await.is_some());
    }

    #[actix::test]
    async fn starving_is_logged_once_an_episode_and_survived() {
        let (listener, address) = listener();
        let failures = [Errno::MFILE, Errno::MFILE, Errno::NOMEM].into();
        let flaky = Flaky { failures, listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0), Box::new(flaky));
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(heard.accepted.recv().await.is_some());
        assert_eq!(heard.log.recv().await.unwrap(), "accept paused");
        assert_eq!(heard.log.recv().await.unwrap(), "accept resumed");
        assert!(heard.log.try_recv().is_err());
    }

    #[actix::test]
    async fn starving_ends_when_the_listener_answers_though_nobody_is_there() {
        let (listener, _) = listener();
        let flaky = Flaky { failures: [Errno::NFILE].into(), listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0), Box::new(flaky));
        logged(&mut heard.log, "accept resumed").await;
    }

    #[actix::test]
    async fn a_broken_listener_is_a_crash_that_tells_its_error() {
        let (listener, _) = listener();
        let flaky = Flaky { failures: [Errno::INVAL].into(), listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0), Box::new(flaky));
        assert_eq!(exit(&mut heard).await.crash, Some(io::Error::from(Errno::INVAL).to_string()));
    }

    #[actix::test]
    async fn a_panic_is_a_crash_and_leaves_the_gate_usable() {
        let gate = Gate::new(1, 0);
        let (_acceptor, mut heard) = start(&gate, Box::new(Panicking));
        assert_eq!(exit(&mut heard).await.crash, Some("panic".into()));
        let (listener, address) = listener();
        let (_successor, mut heard) = start(&gate, Box::new(listener.acceptor().unwrap()));
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(heard.accepted.recv().await.is_some());
    }
}
