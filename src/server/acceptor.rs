//! Accepts clients from the shared listening socket, on a Worker's thread. The first Workers have an Acceptor each.
//!
//! The gate says on which Worker a client lives. The Acceptor hands it to its own Worker, or to another one by a message.
//! A pure classifier decides what an accept error means. No accept error ends the server by itself. An Acceptor that cannot
//! go on crashes alone, and its Worker starts another on the same socket. The queued clients wait in the backlog meanwhile.

use crate::{
    decisions::{accept_error::AcceptError, admission::Place, ids::WorkerId, stop::Stop},
    server::{
        gate::{Gate, Permit},
        messages::{Accepted, AcceptorExit, TakeIn},
    },
    stop::Stopped,
};
use actix::prelude::*;
use slog::Logger;
use socket2::SockRef;
use std::{
    future::{pending, poll_fn},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until},
};

/// How long an exhausted Acceptor waits before it tries again.
const BACK_OFF: Duration = Duration::from_millis(100);
/// An episode of exhaustion is over when nothing has failed for this long. At the limit, accepting fails and works by
/// turns.
const CALM: Duration = Duration::from_secs(1);

/// Where an Acceptor's clients come from: the listening socket, or in a test one that fails as the test wants.
pub(crate) trait Listen: 'static {
    fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>>;

    /// Fails if the system has no descriptor or memory for one more client.
    fn probe(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Listen for TcpListener {
    fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        TcpListener::poll_accept(self, cx)
    }

    /// One more handle of the socket takes what a client would take: a descriptor and a watch of epoll.
    fn probe(&self) -> io::Result<()> {
        TcpListener::from_std(SockRef::from(self).try_clone()?.into()).map(drop)
    }
}

/// Opens a handle of the listening socket on the calling thread, for each new Acceptor.
pub(crate) type OpenListener = Box<dyn Fn() -> io::Result<Box<dyn Listen>> + Send>;

/// The actor that accepts on one Worker's thread.
pub(crate) struct Acceptor {
    pub gate: Arc<Gate>,
    pub exhaustions: Exhaustions,
    /// Taken by the accept loop.
    pub listener: Option<Box<dyn Listen>>,
    pub parent: Parent,
    /// Every Worker, for the clients that are to live there.
    pub workers: Arc<[Recipient<TakeIn>]>,
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
    pub fn new(
        worker: WorkerId,
        gate: Arc<Gate>,
        exhaustions: Exhaustions,
        listener: Box<dyn Listen>,
        parent: Parent,
        workers: Arc<[Recipient<TakeIn>]>,
        log: Logger,
    ) -> Self {
        // The end counts as a panic until the Acceptor notes another.
        let exit = AcceptorExit { worker, crash: Some("panic".into()) };
        Self { gate, exhaustions, listener: Some(listener), parent, workers, log, exit }
    }
}

impl Actor for Acceptor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(listener) = self.listener.take() else { return };
        let accepting = accept_all(
            self.exit.worker,
            self.gate.clone(),
            self.exhaustions.clone(),
            listener,
            Homes { own: self.parent.accepted.clone(), workers: self.workers.clone() },
            self.log.clone(),
        );
        ctx.spawn(accepting.into_actor(self).map(|error, actor, ctx| {
            actor.exit.crash = Some(error.to_string());
            ctx.stop();
        }));
    }
}

impl Handler<Stop> for Acceptor {
    type Result = ();

    /// Every step of a stop is the same to an Acceptor. The accept loop and its handle of the socket are dropped. The
    /// clients that it has accepted are ahead of the `Stopped` in the Worker's mailbox.
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

/// Where the accepted clients go.
struct Homes {
    own: Recipient<Accepted>,
    workers: Arc<[Recipient<TakeIn>]>,
}

impl Homes {
    /// Gives a client that `accepting` has accepted to the Worker on which it is to live. If that Worker has ended, the
    /// client is reset, and its permit counts it.
    fn hand_over(&self, accepting: WorkerId, (stream, peer): (TcpStream, SocketAddr), permit: Permit, place: Place) {
        let lives = permit.worker();
        if lives == accepting {
            return self.own.do_send(Accepted { stream, peer, permit, place });
        }
        // It leaves this thread's reactor. If that fails, the client is reset.
        if let (Ok(stream), Some(worker)) = (stream.into_std(), self.workers.get(lives.0 - 1)) {
            worker.do_send(TakeIn { stream, peer, permit, place: Some(place) });
        }
    }
}

/// Accepts until the listener is broken, and returns the error.
async fn accept_all(
    worker: WorkerId,
    gate: Arc<Gate>,
    exhaustions: Exhaustions,
    mut listener: Box<dyn Listen>,
    homes: Homes,
    log: Logger,
) -> io::Error {
    let mut exhaustion: Option<Exhaustion> = None;
    loop {
        let accepted = poll_fn(|cx| gate.poll_accept(cx, Some(worker), |cx| listener.poll_accept(cx)));
        let accepted = tokio::select! {
            biased;
            () = calm(&exhaustion) => {
                exhaustion = None;
                continue;
            }
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((client, permit, place)) => homes.hand_over(worker, client, permit, place),
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Client => {}
                AcceptError::Exhausted => {
                    let exhaustion = exhaustion.get_or_insert_with(|| Exhaustion::new(error, &exhaustions, &log));
                    // A client without a watch of epoll would be accepted and lost. So the next client stays in the backlog
                    // until there is a watch for it.
                    loop {
                        exhaustion.last_failure = Instant::now();
                        sleep(BACK_OFF).await;
                        if listener.probe().is_ok() {
                            break;
                        }
                    }
                }
                AcceptError::Listener => return error,
            },
        }
    }
}

/// Resolves when nothing has failed for a while, also if no client came.
async fn calm(exhaustion: &Option<Exhaustion>) {
    match exhaustion {
        Some(exhaustion) => sleep_until(exhaustion.last_failure + CALM).await,
        None => pending().await,
    }
}

/// Counts the Acceptors that are exhausted. An episode of exhaustion begins with the first of them and ends with the last.
/// It is logged once, however many Acceptors take part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exhaustions(Arc<AtomicUsize>);

impl Exhaustions {
    /// One more Acceptor is exhausted. True if it is the first.
    fn begin(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Whether any Acceptor is exhausted.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// An Acceptor is exhausted no longer. True if it was the last.
    fn end(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// One Acceptor's part in an episode of exhaustion.
pub(crate) struct Exhaustion {
    reason: io::Error,
    last_failure: Instant,
    episode: Exhaustions,
    log: Logger,
}

impl Exhaustion {
    pub fn new(reason: io::Error, episode: &Exhaustions, log: &Logger) -> Self {
        if episode.begin() {
            slog::warn!(log, "accept paused"; "reason" => %reason);
        }
        Self { reason, last_failure: Instant::now(), episode: episode.clone(), log: log.clone() }
    }
}

impl Drop for Exhaustion {
    fn drop(&mut self) {
        if self.episode.end() {
            slog::info!(self.log, "accept resumed"; "reason" => %self.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decisions::{
            accept_error::testing::{CLIENTS, EXHAUSTED, LISTENERS},
            admission::Tally,
        },
        server::testing::{WORKER, connection, listener},
        testing::{self, logged, probe, probe_of_many},
    };
    use rustix::io::Errno;
    use std::{cell::Cell, collections::VecDeque};
    use tokio::{io::AsyncReadExt, sync::mpsc::UnboundedReceiver};

    const OTHER: WorkerId = WorkerId(2);

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

    /// Accepts or fails once, when an order to stop is already in the Acceptor's mailbox. After that no client comes.
    struct Interrupted<F> {
        acceptor: Addr<Acceptor>,
        accept: Option<F>,
    }

    impl<F: FnOnce() -> io::Result<(TcpStream, SocketAddr)> + 'static> Listen for Interrupted<F> {
        fn poll_accept(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            self.accept.take().map_or(Poll::Pending, |accept| {
                self.acceptor.do_send(Stop::Accepting);
                self.acceptor.do_send(Stop::Drain);
                Poll::Ready(accept())
            })
        }
    }

    /// What an Acceptor's parent hears, in order.
    enum Told {
        Accepted(Accepted),
        Stopped(AcceptorExit),
    }

    impl From<Accepted> for Told {
        fn from(client: Accepted) -> Self {
            Self::Accepted(client)
        }
    }

    impl From<Stopped<AcceptorExit>> for Told {
        fn from(Stopped(exit): Stopped<AcceptorExit>) -> Self {
            Self::Stopped(exit)
        }
    }

    struct Heard {
        told: UnboundedReceiver<Told>,
        log: UnboundedReceiver<String>,
    }

    impl Heard {
        /// The client that it tells of next.
        async fn accepted(&mut self) -> Accepted {
            match self.told.recv().await {
                Some(Told::Accepted(client)) => client,
                _ => panic!("it has not accepted a client"),
            }
        }

        /// The end that it tells of next.
        async fn exit(&mut self) -> AcceptorExit {
            match self.told.recv().await {
                Some(Told::Stopped(exit)) => exit,
                _ => panic!("it has not acknowledged"),
            }
        }
    }

    fn start(gate: &Arc<Gate>, listener: Box<dyn Listen>) -> (Addr<Acceptor>, Heard) {
        start_with(gate, [], |_| listener)
    }

    fn start_with<const N: usize>(
        gate: &Arc<Gate>,
        workers: [Recipient<TakeIn>; N],
        listener: impl FnOnce(Addr<Acceptor>) -> Box<dyn Listen>,
    ) -> (Addr<Acceptor>, Heard) {
        let ((parent, told), (logger, log)) = (probe_of_many(), testing::log());
        let parent = Parent { accepted: parent.clone().recipient(), stopped: parent.recipient() };
        let acceptor = Acceptor::create(|ctx| {
            let listener = listener(ctx.address());
            Acceptor::new(WORKER, gate.clone(), Exhaustions::default(), listener, parent, Arc::new(workers), logger)
        });
        (acceptor, Heard { told, log })
    }

    fn interrupted(accept: impl FnOnce() -> io::Result<(TcpStream, SocketAddr)> + 'static) -> (Addr<Acceptor>, Heard) {
        start_with(&Gate::new(1, 0, 1), [], |acceptor| Box::new(Interrupted { acceptor, accept: Some(accept) }))
    }

    /// A Worker that has ended.
    struct Gone;

    impl Actor for Gone {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.stop();
        }
    }

    impl Handler<TakeIn> for Gone {
        type Result = ();

        fn handle(&mut self, _: TakeIn, _: &mut Self::Context) {}
    }

    /// An Acceptor of one of two Workers, and four clients. The last one is to live on the other Worker.
    fn with_four_clients(
        gate: &Arc<Gate>,
        other: Recipient<TakeIn>,
    ) -> (Addr<Acceptor>, Heard, [std::net::TcpStream; 4]) {
        let ((listener, address), (own, _)) = (listener(), probe());
        let (acceptor, heard) = start_with(gate, [own, other], |_| Box::new(listener.acceptor().unwrap()));
        (acceptor, heard, [(); 4].map(|()| std::net::TcpStream::connect(address).unwrap()))
    }

    async fn assert_last_is_reset([.., client]: [std::net::TcpStream; 4]) {
        client.set_nonblocking(true).unwrap();
        let error = TcpStream::from_std(client).unwrap().read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[actix::test]
    async fn it_accepts_up_to_the_cap_and_goes_on_when_a_slot_is_freed() {
        let (listener, address) = listener();
        let (_acceptor, mut heard) = start(&Gate::new(1, 0, 1), Box::new(listener.acceptor().unwrap()));
        let first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let accepted = heard.accepted().await;
        assert_eq!(accepted.peer, first.local_addr().unwrap());
        drop(accepted);
        assert_eq!(heard.accepted().await.peer, second.local_addr().unwrap());
    }

    #[actix::test]
    async fn a_stop_is_acknowledged_once_and_after_all_that_it_has_accepted() {
        let (server, client) = connection().await;
        let peer = client.local_addr().unwrap();
        let (_acceptor, mut heard) = interrupted(move || Ok((server, peer)));
        assert_eq!(heard.accepted().await.peer, peer);
        assert_eq!(heard.exit().await, AcceptorExit { worker: WORKER, crash: None });
        assert!(heard.told.recv().await.is_none());
        logged(&mut heard.log, "acceptor stopped").await;
    }

    #[actix::test]
    async fn a_client_that_is_to_live_on_another_worker_is_handed_to_it_and_counts_as_forced_if_that_one_is_stuck() {
        let (gate, (other, mut handed_over)) = (Gate::new(4, 0, 2), probe());
        let (_acceptor, mut heard, clients) = with_four_clients(&gate, other);
        let moved: TakeIn = handed_over.recv().await.unwrap();
        for client in &clients[..3] {
            assert_eq!(heard.accepted().await.peer, client.local_addr().unwrap());
        }
        assert_eq!((moved.peer, moved.place), (clients[3].local_addr().unwrap(), Some(Place::Served)));
        assert_eq!(gate.alive(OTHER), 1);
        gate.close();
        drop(moved);
        assert_last_is_reset(clients).await;
        assert_eq!((gate.alive(OTHER), gate.tally()), (0, Tally { forced: 1, ..Tally::default() }));
    }

    #[actix::test]
    async fn a_client_that_is_to_live_on_a_worker_that_has_ended_is_reset_and_gives_its_slot_back() {
        let (gate, gone) = (Gate::new(4, 0, 2), Gone.start().recipient());
        while gone.connected() {
            tokio::task::yield_now().await;
        }
        let (_acceptor, _heard, clients) = with_four_clients(&gate, gone);
        assert_last_is_reset(clients).await;
        assert_eq!((gate.alive(OTHER), gate.occupancy()), (0, (3, 0)));
    }

    #[actix::test]
    async fn what_fails_for_one_client_is_passed_over() {
        let (listener, address) = listener();
        let failures = CLIENTS.into();
        let flaky = Flaky { failures, listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0, 1), Box::new(flaky));
        let _client = TcpStream::connect(address).await.unwrap();
        heard.accepted().await;
    }

    #[actix::test]
    async fn exhaustion_is_logged_once_an_episode_and_survived() {
        let (listener, address) = listener();
        let failures = EXHAUSTED.into();
        let flaky = Flaky { failures, listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0, 1), Box::new(flaky));
        let _client = TcpStream::connect(address).await.unwrap();
        heard.accepted().await;
        assert_eq!(heard.log.recv().await.unwrap(), "accept paused");
        assert_eq!(heard.log.recv().await.unwrap(), "accept resumed");
        assert!(heard.log.try_recv().is_err());
    }

    #[test]
    fn an_episode_of_exhaustion_begins_with_the_first_acceptor_and_ends_with_the_last() {
        let (one, other) = (Exhaustions::default(), Exhaustions::default());
        let shared = one.clone();
        assert!(one.begin() && !shared.begin());
        assert!(other.begin(), "another server's");
        assert!(!one.end() && shared.end());
    }

    #[actix::test]
    async fn while_there_is_no_watch_for_a_client_none_is_accepted_and_lost() {
        /// Fails once, then is exhausted for two probes.
        struct Full {
            failed: bool,
            probes: Cell<usize>,
            listener: TcpListener,
        }
        impl Listen for Full {
            fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
                if !std::mem::replace(&mut self.failed, true) {
                    return Poll::Ready(Err(Errno::NOSPC.into()));
                }
                assert_eq!(self.probes.get(), 3, "the client would have been lost");
                self.listener.poll_accept(cx)
            }

            fn probe(&self) -> io::Result<()> {
                self.probes.set(self.probes.get() + 1);
                if self.probes.get() < 3 { Err(Errno::NOSPC.into()) } else { Ok(()) }
            }
        }
        let (listener, address) = listener();
        let client = TcpStream::connect(address).await.unwrap();
        let full = Full { failed: false, probes: Cell::new(0), listener: listener.acceptor().unwrap() };
        assert!(full.listener.probe().is_ok());
        let (_acceptor, mut heard) = start(&Gate::new(1, 0, 1), Box::new(full));
        assert_eq!(heard.accepted().await.peer, client.local_addr().unwrap());
        assert_eq!(heard.log.recv().await.unwrap(), "accept paused");
    }

    #[actix::test]
    async fn exhaustion_ends_though_no_client_comes() {
        let (listener, _) = listener();
        let flaky = Flaky { failures: [Errno::NFILE].into(), listener: listener.acceptor().unwrap() };
        let (_acceptor, mut heard) = start(&Gate::new(1, 0, 1), Box::new(flaky));
        logged(&mut heard.log, "accept resumed").await;
    }

    #[actix::test]
    async fn a_broken_listener_is_a_crash_that_tells_its_error() {
        for errno in LISTENERS {
            let (listener, _) = listener();
            let flaky = Flaky { failures: [errno].into(), listener: listener.acceptor().unwrap() };
            let (_acceptor, mut heard) = start(&Gate::new(1, 0, 1), Box::new(flaky));
            assert_eq!(heard.exit().await.crash, Some(io::Error::from(errno).to_string()));
        }
    }

    #[actix::test]
    async fn a_panic_is_a_crash_and_leaves_the_gate_usable() {
        let gate = Gate::new(1, 0, 1);
        let (_acceptor, mut heard) = start(&gate, Box::new(Panicking));
        assert_eq!(heard.exit().await.crash, Some("panic".into()));
        let (listener, address) = listener();
        let (_successor, mut heard) = start(&gate, Box::new(listener.acceptor().unwrap()));
        let _client = TcpStream::connect(address).await.unwrap();
        heard.accepted().await;
    }

    #[actix::test]
    async fn a_stop_that_meets_an_accept_error_is_acknowledged_once_and_at_once() {
        // The clock stands still. Only a wait for the end of the back-off could move it.
        tokio::time::pause();
        let begin = Instant::now();
        for errno in CLIENTS.into_iter().chain(EXHAUSTED).chain(LISTENERS) {
            let (_acceptor, mut heard) = interrupted(move || Err(errno.into()));
            let crash = LISTENERS.contains(&errno).then(|| io::Error::from(errno).to_string());
            assert_eq!(heard.exit().await.crash, crash, "{errno:?}");
            assert!(heard.told.recv().await.is_none(), "{errno:?}");
            let mut told: Vec<_> = std::iter::from_fn(|| heard.log.try_recv().ok()).collect();
            told.sort_unstable();
            // The episode ends with the Acceptor that is exhausted.
            let expected: &[&str] = match AcceptError::of(&errno.into()) {
                AcceptError::Client => &["acceptor stopped"],
                AcceptError::Exhausted => &["accept paused", "accept resumed", "acceptor stopped"],
                AcceptError::Listener => &[],
            };
            assert_eq!(told, expected, "{errno:?}");
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[actix::test]
    async fn a_panic_with_a_stop_in_the_mailbox_is_told_once() {
        let (_acceptor, mut heard) = interrupted(|| panic!("told to"));
        assert_eq!(heard.exit().await.crash, Some("panic".into()));
        assert!(heard.told.recv().await.is_none());
    }
}
