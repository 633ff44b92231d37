//! The root of the tree. It owns the listening socket and the gate, and turns [`Shutdown`] into the broadcast [`Stop`]. It
//! takes in the backlog, collects the Workers' acknowledgements, keeps the deadline and makes the report.
//!
//! A stop goes in this order:
//! 1. The gate closes and the kernel refuses new clients. From now on the clients are a fixed set.
//! 2. The connections drain and the Acceptors end.
//! 3. Meanwhile the Supervisor alone takes in the backlog, again and again as long as handshakes are under way. It hands
//!    these clients to the Workers, which drain them too. Then it closes the socket.
//! 4. Every Worker acknowledges when its connections have. At the deadline the rest is aborted.
//!
//! Where the kernel cannot refuse new clients, the drain comes last: clients that are sent away would come back at once.

use crate::{
    decisions::{
        accept_error::AcceptError,
        ids::WorkerId,
        placement,
        stop::{HANDSHAKES, SETTLING, Stop, StopReason},
        supervisor::{Event, Step, SupervisorState, Timer, Verdict},
    },
    error::Error,
    server::{
        descriptors::Caps,
        gate::Gate,
        handshakes::Handshakes,
        listener::Listener,
        messages::{AcceptorExit, Look, Ping, ReadSettings, Reconfigure, Reload, TakeIn, WorkerExit},
        report::Report,
        watch::{Watchable, tree::Phase},
    },
    settings::{Settings, reload::Changes},
    stop::{Shutdown, Stopped},
};
use actix::prelude::*;
use slog::Logger;
use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// Memory that is kept for a stop: its timers, messages and records. Less than what the allocator would ask the kernel for alone.
const RESERVE: usize = 64 * 1024;
/// How often the Workers look for clients that have vanished. A client that vanishes while bytes are owed to it is let go
/// within 30 s: 20 s of silence, seen at two looks. If it had stopped reading for long, its silence begins only with the
/// next window probe, which may take two minutes.
const CLIENT_LOOK: Duration = Duration::from_secs(5);
/// How often the Supervisor looks for clients that no Acceptor takes in.
const BUSY_LOOK: Duration = Duration::from_millis(250);
/// During a stop, the time between two looks into the backlog. While the backlog is full, no handshake ends.
const LOOK: Duration = Duration::from_millis(25);
/// How long after an abort the Supervisor waits for a Worker before it counts as stuck.
const WORKER_PATIENCE: Duration = Duration::from_millis(500);

/// How the Supervisor speaks to a Worker.
pub(crate) struct WorkerHandle {
    pub stop: Recipient<Stop>,
    pub take_in: Recipient<TakeIn>,
    pub look: Recipient<Look>,
    pub reconfigure: Recipient<Reconfigure>,
}

/// The actor at the root.
pub(crate) struct Supervisor {
    pub gate: Arc<Gate>,
    /// `None` once closed.
    pub listener: Option<Listener>,
    pub settings: Settings,
    pub caps: Caps,
    pub watched: Watchable,
    pub log: Logger,
    state: SupervisorState<WorkerHandle>,
    /// `None` where the kernel does not report handshakes.
    handshakes: Option<Handshakes>,
    started: Instant,
    stopping_since: Instant,
    /// The number of clients taken in from the backlog.
    taken: usize,
    /// How many clients had come in at the last look for those that no Acceptor takes in.
    entered: u64,
    report_to: Option<oneshot::Sender<Report>>,
    /// A descriptor in reserve. The Supervisor gives it up when none is left, so that every client in the backlog is still
    /// found.
    spare: Option<File>,
    /// Memory to give up when a stop begins, so that it has some where no more is to be had.
    reserve: Vec<u8>,
}

impl Supervisor {
    /// A Supervisor over `workers`, which have just been started. Its report goes to `report_to`.
    pub fn new(
        listener: Listener,
        settings: Settings,
        caps: Caps,
        workers: impl IntoIterator<Item = (WorkerId, WorkerHandle)>,
        report_to: oneshot::Sender<Report>,
        watched: Watchable,
        log: Logger,
    ) -> Self {
        let handshakes = listener.address().and_then(Handshakes::of).ok();
        Self {
            gate: watched.gate.clone(),
            listener: Some(listener),
            settings,
            caps,
            watched,
            log,
            state: SupervisorState::new(workers),
            handshakes,
            started: Instant::now(),
            stopping_since: Instant::now(),
            taken: 0,
            entered: 0,
            report_to: Some(report_to),
            spare: File::open("/dev/null").ok(),
            reserve: Vec::with_capacity(RESERVE),
        }
    }

    /// Accepts the clients that wait though there is room for them, if no client has come in since the last look: services may block
    /// all threads that accept.
    fn accept_for_busy_threads(&mut self) {
        let entered = self.gate.admission().entered();
        if std::mem::replace(&mut self.entered, entered) != entered {
            return;
        }
        // If there is no descriptor or no watch of epoll for a client, it is left where it is.
        let Some(listener) = self.listener.as_ref().filter(|listener| listener.acceptor().is_ok()) else { return };
        let mut cx = task::Context::from_waker(task::Waker::noop());
        for _ in 0..listener.backlog() {
            match self.gate.poll_accept(&mut cx, None, |_| Poll::Ready(listener.take())) {
                Poll::Ready(Ok(((stream, peer), permit, place))) => {
                    let lives = permit.worker();
                    if let Some((_, worker)) = self.state.takers().find(|(worker, _)| *worker == lives) {
                        worker.take_in.do_send(TakeIn { stream, peer, permit, place: Some(place) });
                    }
                }
                // There is no room, or no client. What else fails is for the Acceptors to judge.
                Poll::Pending | Poll::Ready(Err(_)) => break,
            }
        }
        self.entered = self.gate.admission().entered();
    }

    fn on(&mut self, event: Event, ctx: &mut Context<Self>) {
        for step in self.state.on(event) {
            match step {
                Step::Announce(reason) => self.announce(reason, ctx),
                Step::Begin(reason) => {
                    let refusing = self.begin(reason);
                    self.on(Event::Begun { refusing }, ctx);
                }
                Step::Start(timer) => self.start_timer(timer, ctx),
                Step::Tell(stop) => {
                    self.watched.step(stop);
                    self.state.workers().for_each(|worker| worker.stop.do_send(stop));
                }
                Step::Sweep { ask } => {
                    // The kernel is asked first: a handshake that ends after the answer is in the backlog that is taken in
                    // next.
                    let under_way =
                        ask && self.handshakes.as_mut().is_some_and(|asked| asked.under_way().is_ok_and(|n| n > 0));
                    let empty = self.take_in_backlog();
                    self.watched.taken(self.taken);
                    self.on(Event::Swept { empty, under_way }, ctx);
                }
                Step::CloseListener => self.close_listener(),
                Step::GiveUpOn(worker) => {
                    self.watched.stuck(worker);
                    let connections = self.gate.alive(worker);
                    slog::error!(self.log, "worker stuck"; "worker" => worker.0, "connections" => connections);
                }
                Step::Report(verdict) => self.report(verdict, ctx),
            }
        }
    }

    /// Reads the settings and takes them over, both in this one turn. So no stop can begin in between.
    fn reload(&mut self, read: ReadSettings) {
        let settings = if self.watched.phase() >= Phase::Stopping {
            Err("the server stops".into())
        } else {
            catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("reading them panicked".into()))
        };
        let settings = match settings {
            Ok(settings) if settings.supervisor.max_connections == 0 => Err(Error::NoConnections.to_string()),
            other => other,
        };
        match settings {
            Ok(settings) => self.take_over(settings),
            Err(reason) => slog::error!(self.log, "settings not reloaded"; "reason" => reason),
        }
    }

    fn take_over(&mut self, settings: Settings) {
        let Changes { in_force, at_restart } = self.settings.reload(settings);
        let asked = &self.settings.supervisor;
        self.caps = self.caps.fit(asked.max_connections, asked.max_pending);
        self.caps.warn(asked, &self.log);
        self.gate.resize(self.caps.max_connections, self.caps.max_pending);
        for worker in self.state.workers() {
            worker.reconfigure.do_send(Reconfigure(self.settings.clone()));
        }
        slog::info!(self.log, "settings reloaded"; "changed" => in_force.join(", "));
        if !at_restart.is_empty() {
            slog::warn!(self.log, "restart needed"; "keys" => at_restart.join(", "));
        }
        warn_of(&self.settings, &self.log);
        self.watched.reload(&in_force);
    }

    fn announce(&mut self, reason: StopReason, ctx: &mut Context<Self>) {
        let time = self.settings.supervisor.lame_duck;
        if time.is_zero() {
            return self.on(Event::Elapsed(Timer::LameDuck), ctx);
        }
        slog::info!(self.log, "lame duck"; "reason" => reason.as_str(), "for_ms" => time.as_millis() as u64);
        self.watched.announce(reason);
        self.start_timer(Timer::LameDuck, ctx);
    }

    /// True if the kernel refuses new clients from now on.
    fn begin(&mut self, reason: StopReason) -> bool {
        self.reserve = Vec::new();
        let timeout = self.settings.supervisor.shutdown_timeout;
        let census = self.gate.close();
        let refused = self.listener.as_ref().map_or(Ok(()), Listener::refuse);
        if let Err(error) = &refused {
            // Then a client that comes between the sweep and the close is reset. All other promises hold.
            slog::warn!(self.log, "cannot refuse new connections"; "reason" => %error);
        }
        slog::info!(self.log, "stopping"; "reason" => reason.as_str(), "connections" => census.connections,
            "pending" => census.pending, "timeout_ms" => timeout.as_millis() as u64);
        self.stopping_since = Instant::now();
        self.watched.begin(reason, census, timeout, refused.is_ok());
        refused.is_ok()
    }

    fn start_timer(&self, timer: Timer, ctx: &mut Context<Self>) {
        let time = match timer {
            Timer::LameDuck => self.settings.supervisor.lame_duck,
            Timer::Settling => SETTLING,
            Timer::Look => LOOK,
            Timer::Handshakes => HANDSHAKES,
            Timer::Deadline => self.settings.supervisor.shutdown_timeout,
            Timer::Patience => WORKER_PATIENCE,
        };
        ctx.run_later(time, move |supervisor, ctx| supervisor.on(Event::Elapsed(timer), ctx));
    }

    /// Hands the clients in the backlog to the Workers, but no more than it can hold at once. Otherwise this would never
    /// end where the kernel lets new clients in. False if there was no descriptor for the next client.
    fn take_in_backlog(&mut self) -> bool {
        let Some(listener) = &self.listener else { return true };
        let mut takers = self.state.takers().cycle();
        for _ in 0..listener.backlog() {
            match listener.take() {
                Ok((stream, peer)) => {
                    self.taken += 1;
                    match takers.next() {
                        Some((worker, handle)) => {
                            let permit = self.gate.take_in(worker);
                            handle.take_in.do_send(TakeIn { stream, peer, permit, place: None });
                        }
                        // No Worker takes a client any more. This one is reset.
                        None => self.gate.turn_away(),
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(error) => match AcceptError::of(&error) {
                    AcceptError::Client => {}
                    AcceptError::Exhausted => return false,
                    AcceptError::Listener => return true,
                },
            }
        }
        true
    }

    fn close_listener(&mut self) {
        // After an abort some clients may still be in the backlog, and no Worker takes them in.
        self.spare = None;
        self.take_in_backlog();
        let Some(listener) = self.listener.take() else { return };
        let address = listener.address();
        listener.close();
        slog::info!(self.log, "listener closed"; "address" => address.map_or_else(|error| error.to_string(), |a| a.to_string()),
            "taken" => self.taken);
        self.watched.taken(self.taken);
        self.watched.listener_closed();
    }

    fn report(&mut self, verdict: Verdict, ctx: &mut Context<Self>) {
        let tally = self.gate.tally();
        let report = Report::new(tally, self.watched.total_bytes(), verdict, self.stopping_since.elapsed());
        if let Some(report_to) = self.report_to.take() {
            // This fails if the program has stopped waiting for `run`. Then no one wants the report.
            let _ = report_to.send(report);
        }
        ctx.stop();
    }
}

/// Warns of settings that are allowed but hardly meant.
pub(crate) fn warn_of(settings: &Settings, log: &Logger) {
    for problem in settings.warnings() {
        slog::warn!(log, "questionable settings"; "problem" => problem);
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Where all threads accept, the first one that is free takes its clients itself.
        if self.state.takers().any(|(worker, _)| !placement::accepts(worker)) {
            ctx.run_interval(BUSY_LOOK, |supervisor, _| supervisor.accept_for_busy_threads());
        }
        ctx.run_interval(CLIENT_LOOK, |supervisor, _| {
            supervisor.state.workers().for_each(|worker| worker.look.do_send(Look));
        });
    }
}

impl StreamHandler<Shutdown> for Supervisor {
    fn handle(&mut self, shutdown: Shutdown, ctx: &mut Self::Context) {
        let event = match shutdown {
            Shutdown::Stop(reason) => Event::Shutdown { reason, now: self.started.elapsed() },
            Shutdown::Abort => Event::Abort,
        };
        self.on(event, ctx);
    }

    /// All handles are gone. That stops nothing.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Ping> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Handler<Reload> for Supervisor {
    type Result = ();

    fn handle(&mut self, Reload(read): Reload, _: &mut Self::Context) {
        self.reload(read);
    }
}

impl Handler<Stopped<AcceptorExit>> for Supervisor {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<AcceptorExit>, ctx: &mut Self::Context) {
        self.on(Event::AcceptorStopped(exit.worker), ctx);
    }
}

impl Handler<Stopped<WorkerExit>> for Supervisor {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<WorkerExit>, ctx: &mut Self::Context) {
        let WorkerExit { worker, orphans } = exit;
        if let Some(orphans) = orphans {
            slog::error!(self.log, "worker crashed"; "worker" => worker.0, "connections" => orphans);
        }
        self.on(Event::WorkerStopped { worker, crashed: orphans.is_some() }, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decisions::connection::CloseReason,
        server::{gate::Permit, testing::listener},
        testing::{self, logged, probe},
    };
    use std::net::SocketAddr;
    use tokio::{
        net::TcpStream,
        sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    };

    /// A Worker that does nothing by itself. The test hears what it is told and answers for it.
    struct Mute {
        id: WorkerId,
        told: UnboundedReceiver<Stop>,
        taken_in: UnboundedReceiver<TakeIn>,
        reconfigured: UnboundedReceiver<Reconfigure>,
    }

    struct Tree {
        supervisor: Addr<Supervisor>,
        gate: Arc<Gate>,
        address: SocketAddr,
        shutdown: UnboundedSender<Shutdown>,
        report: oneshot::Receiver<Report>,
        workers: Vec<Mute>,
        log: UnboundedReceiver<String>,
    }

    const CAPS: Caps = Caps { limit: 1_000, reserved: 10, max_connections: 4, max_pending: 4 };
    const LONG: Duration = Duration::from_secs(3600);

    fn settings(shutdown_timeout: Duration) -> Settings {
        let mut settings = Settings::default();
        settings.supervisor.shutdown_timeout = shutdown_timeout;
        settings
    }

    fn watched(gate: &Arc<Gate>) -> Watchable {
        Watchable::new(([127, 0, 0, 1], 1).into(), 0, gate.clone())
    }

    fn tree(workers: usize, shutdown_timeout: Duration) -> Tree {
        tree_of(workers, settings(shutdown_timeout))
    }

    fn tree_of(workers: usize, settings: Settings) -> Tree {
        let (gate, (listener, address), (logger, log)) = (Gate::new(4, 4, workers), listener(), testing::log());
        let (report_to, report) = oneshot::channel();
        let (shutdown, mut received) = mpsc::unbounded_channel();
        let (handles, workers): (Vec<_>, Vec<_>) = (1..=workers)
            .map(|id| {
                let ((stop, told), (take_in, taken_in)) = (probe(), probe());
                let ((look, _), (reconfigure, reconfigured)) = (probe(), probe());
                (
                    (WorkerId(id), WorkerHandle { stop, take_in, look, reconfigure }),
                    Mute { id: WorkerId(id), told, taken_in, reconfigured },
                )
            })
            .unzip();
        let supervisor = Supervisor::create(|ctx| {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| received.poll_recv(cx)));
            Supervisor::new(listener, settings, CAPS, handles, report_to, watched(&gate), logger)
        });
        Tree { supervisor, gate, address, shutdown, report, workers, log }
    }

    impl Tree {
        fn stop(&self, reason: StopReason) {
            self.shutdown.send(Shutdown::Stop(reason)).expect("the Supervisor listens");
        }

        /// Answers for the Acceptor of each Worker.
        fn acceptors_stopped(&self) {
            for Mute { id, .. } in &self.workers {
                self.supervisor.do_send(Stopped(AcceptorExit { worker: *id, crash: None }));
            }
        }

        /// Answers for a Worker.
        fn stopped(&self, worker: usize) {
            self.supervisor.do_send(Stopped(WorkerExit { worker: WorkerId(worker), orphans: None }));
        }

        /// A client of a Worker.
        fn client(&self, worker: usize) -> Permit {
            let mut cx = task::Context::from_waker(task::Waker::noop());
            match self.gate.poll_accept(&mut cx, Some(WorkerId(worker)), |_| Poll::Ready(Ok(()))) {
                Poll::Ready(Ok(((), permit, _))) => permit,
                _ => panic!("there is room"),
            }
        }

        /// Waits until a Worker is told `stop`; gives what it was told before.
        async fn told(&mut self, worker: usize, stop: Stop) -> Vec<Stop> {
            let mut before = Vec::new();
            loop {
                match self.workers[worker - 1].told.recv().await.expect("the Supervisor lives") {
                    told if told == stop => return before,
                    told => before.push(told),
                }
            }
        }
    }

    #[actix::test]
    async fn a_stop_goes_through_its_steps_and_the_report_comes_when_all_have_acknowledged() {
        let mut tree = tree(2, LONG);
        let mut clients = [tree.client(1), tree.client(2)];
        tree.stop(StopReason::Sigterm);
        assert_eq!(tree.told(1, Stop::Drain).await, []);
        tree.acceptors_stopped();
        assert_eq!(tree.told(1, Stop::Finish).await, []);
        assert_eq!(tree.told(2, Stop::Finish).await, [Stop::Drain]);
        clients.iter_mut().for_each(|client| assert!(client.give_back(CloseReason::Stopped, 0)));
        tree.stopped(1);
        tree.stopped(1);
        tree.supervisor.send(Stopped(AcceptorExit { worker: WorkerId(1), crash: None })).await.unwrap();
        assert!(tree.report.try_recv().is_err(), "one Worker owes its acknowledgement");
        tree.stopped(2);
        let report = tree.report.await.unwrap();
        assert_eq!((report.reason, report.acknowledged, report.forced), (StopReason::Sigterm, 2, 0));
        assert_eq!(report.exit_code(), 0);
    }

    #[actix::test]
    async fn a_reload_resizes_the_gate_tells_the_workers_and_names_what_needs_a_restart() {
        let mut tree = tree(1, LONG);
        let supervisor = tree.supervisor.clone();
        let reload = |settings: &Settings| {
            let settings = settings.clone();
            supervisor.send(Reload(Box::new(|| Ok(settings))))
        };
        let clients = [(); 6].map(|()| tree.client(1));
        let mut settings = settings(LONG);
        settings.supervisor.max_connections = 6;
        settings.supervisor.max_pending = 0;
        settings.listen.backlog = 7;
        reload(&settings).await.unwrap();
        logged(&mut tree.log, "settings reloaded").await;
        logged(&mut tree.log, "restart needed").await;
        for client in &clients {
            client.served().await;
        }
        let Reconfigure(told) = tree.workers[0].reconfigured.recv().await.unwrap();
        assert_eq!((told.supervisor.max_connections, told.listen.backlog), (6, 4096));

        settings.supervisor.max_connections = 0;
        reload(&settings).await.unwrap();
        logged(&mut tree.log, "settings not reloaded").await;
        // What does not fit into the limit of descriptors is lowered.
        settings.supervisor.max_connections = 5_000;
        reload(&settings).await.unwrap();
        logged(&mut tree.log, "caps lowered to fit the descriptor limit").await;
        assert_eq!(tree.gate.admission().caps(), (990, 0));

        // A defect in reading them is none of the server's.
        supervisor.send(Reload(Box::new(|| panic!("told to")))).await.unwrap();
        logged(&mut tree.log, "settings not reloaded").await;

        tree.stop(StopReason::Handle);
        tree.told(1, Stop::Drain).await;
        let (read, was_read) = oneshot::channel();
        let read = move || {
            let _ = read.send(());
            Ok(settings)
        };
        supervisor.send(Reload(Box::new(read))).await.unwrap();
        logged(&mut tree.log, "settings not reloaded").await;
        assert!(was_read.await.is_err(), "a stop reads nothing");
    }

    #[actix::test]
    async fn a_lame_duck_stops_when_its_time_is_over_or_at_the_next_signal() {
        for signal in [false, true] {
            tokio::time::pause();
            let mut settings = settings(LONG);
            settings.supervisor.lame_duck = LONG;
            let mut tree = tree_of(1, settings);
            let begin = Instant::now();
            tree.stop(StopReason::Sigterm);
            tree.stop(StopReason::Handle);
            logged(&mut tree.log, "lame duck").await;
            assert!(tree.workers[0].told.try_recv().is_err());
            drop(tree.client(1));
            if signal {
                tokio::time::advance(Duration::from_millis(250)).await;
                tree.stop(StopReason::Sigterm);
            }
            assert_eq!(tree.told(1, Stop::Drain).await, []);
            assert_eq!(begin.elapsed() >= LONG, !signal);
            tokio::time::advance(Duration::from_millis(250)).await;
            tree.stop(StopReason::Sigterm);
            tree.told(1, Stop::Abort).await;
            tokio::time::resume();
        }
    }

    #[actix::test]
    async fn the_backlog_is_taken_in_while_the_connections_drain_and_then_the_socket_is_closed() {
        let mut tree = tree(2, LONG);
        let clients =
            [TcpStream::connect(tree.address).await.unwrap(), TcpStream::connect(tree.address).await.unwrap()];
        tree.stop(StopReason::Handle);
        tree.told(1, Stop::Drain).await;
        tree.acceptors_stopped();
        for (worker, client) in tree.workers.iter_mut().zip(clients) {
            assert_eq!(worker.taken_in.recv().await.unwrap().peer, client.local_addr().unwrap());
        }
        assert_eq!(tree.told(1, Stop::Finish).await, []);
        logged(&mut tree.log, "listener closed").await;
        assert!(TcpStream::connect(tree.address).await.is_err());
    }

    #[actix::test]
    async fn one_sweep_takes_no_more_clients_than_can_be_in_the_backlog() {
        let (listener, address) = listener();
        // It was told of 128 and holds more, as if new ones came while the first are taken.
        listener.hold(1_000);
        let (gate, (logger, _)) = (Gate::new(4, 4, 1), testing::log());
        let ((stop, _), (take_in, _), (look, _), (reconfigure, _)) = (probe(), probe(), probe(), probe());
        let (report_to, _report) = oneshot::channel();
        gate.close();
        let watched = watched(&gate);
        let workers = [(WorkerId(1), WorkerHandle { stop, take_in, look, reconfigure })];
        let mut supervisor = Supervisor::new(listener, settings(LONG), CAPS, workers, report_to, watched, logger);
        let mut clients = Vec::new();
        for _ in 0..130 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(supervisor.take_in_backlog());
        assert_eq!(supervisor.taken, 129);
    }

    /// Lets the Supervisor look for clients that no Acceptor takes in.
    async fn look(tree: &Tree) {
        tokio::time::advance(BUSY_LOOK + Duration::from_millis(1)).await;
        tree.supervisor.send(Ping).await.unwrap();
    }

    #[actix::test]
    async fn the_supervisor_accepts_once_no_acceptor_has_for_a_whole_look_and_some_worker_only_serves() {
        for workers in [2, 3] {
            tokio::time::pause();
            let mut tree = tree(workers, LONG);
            tree.supervisor.send(Ping).await.unwrap(); // it has begun to look
            let _accepted = tree.client(1);
            let client = TcpStream::connect(tree.address).await.unwrap();
            look(&tree).await;
            assert_eq!(tree.gate.occupancy(), (1, 0), "an Acceptor was at work");
            look(&tree).await;
            if workers == 2 {
                assert_eq!(tree.gate.occupancy(), (1, 0), "whichever thread is free first accepts it");
            } else {
                let taken_in = tree.workers[2].taken_in.recv().await.unwrap();
                assert_eq!(taken_in.peer, client.local_addr().unwrap());
            }
            tokio::time::resume();
        }
    }

    #[actix::test]
    async fn an_acceptor_that_does_not_answer_keeps_the_workers_and_not_the_socket() {
        let mut tree = tree(2, LONG);
        tree.stop(StopReason::Handle);
        tree.told(1, Stop::Drain).await;
        tree.supervisor.do_send(Stopped(AcceptorExit { worker: WorkerId(2), crash: None }));
        logged(&mut tree.log, "listener closed").await;
        // A client may be on its way from the first Worker's thread to the second one.
        assert!(tree.workers[1].told.try_recv().is_ok_and(|told| told == Stop::Drain));
        assert!(tree.workers[1].told.try_recv().is_err());
        tree.acceptors_stopped();
        assert_eq!(tree.told(2, Stop::Finish).await, []);
    }

    #[actix::test]
    async fn at_the_deadline_the_workers_are_told_to_abort() {
        let mut tree = tree(1, Duration::from_millis(1));
        let mut client = tree.client(1);
        tree.stop(StopReason::Sigterm);
        tree.told(1, Stop::Abort).await;
        client.give_back(CloseReason::Forced, 0);
        tree.stopped(1);
        let report = tree.report.await.unwrap();
        assert_eq!((report.acknowledged, report.forced, report.exit_code()), (0, 1, 3));
    }

    #[actix::test]
    async fn who_is_still_in_the_backlog_after_an_abort_is_counted_as_forced() {
        let mut tree = tree(1, Duration::ZERO);
        let _client = TcpStream::connect(tree.address).await.unwrap();
        tree.stop(StopReason::Sigterm);
        tree.told(1, Stop::Abort).await;
        tree.stopped(1);
        let report = tree.report.await.unwrap();
        assert_eq!((report.acknowledged, report.forced, report.exit_code()), (0, 1, 3));
        logged(&mut tree.log, "listener closed").await;
    }

    #[actix::test]
    async fn a_second_signal_aborts_and_a_second_call_of_the_handle_or_an_echo_does_not() {
        tokio::time::pause();
        let mut tree = tree(1, LONG);
        tree.stop(StopReason::Handle);
        tree.stop(StopReason::Handle);
        tree.stop(StopReason::Sigint);
        tree.stop(StopReason::Sigterm);
        assert_eq!(tree.told(1, Stop::Drain).await, []);
        tree.acceptors_stopped();
        assert_eq!(tree.told(1, Stop::Finish).await, []);
        tokio::time::advance(Duration::from_millis(250)).await;
        tree.stop(StopReason::Sigterm);
        assert_eq!(tree.told(1, Stop::Abort).await, []);
        tree.stopped(1);
        assert_eq!(tree.report.await.unwrap().reason, StopReason::Handle);
    }

    #[actix::test]
    async fn an_abort_is_the_first_order_of_the_workers_if_no_stop_is_under_way_and_is_given_once() {
        let mut tree = tree(1, LONG);
        let (mut client, _in_backlog) = (tree.client(1), TcpStream::connect(tree.address).await.unwrap());
        tree.shutdown.send(Shutdown::Abort).unwrap();
        tree.shutdown.send(Shutdown::Abort).unwrap();
        tree.stop(StopReason::Sigterm);
        assert_eq!(tree.told(1, Stop::Abort).await, []);
        client.give_back(CloseReason::Forced, 0);
        tree.acceptors_stopped();
        tree.stopped(1);
        let report = tree.report.await.unwrap();
        assert_eq!((report.reason, report.acknowledged, report.forced), (StopReason::Handle, 0, 2));
        assert_eq!(report.exit_code(), 3);
        assert!(tree.workers[0].told.try_recv().is_err(), "nothing more is told");
    }

    #[actix::test]
    async fn an_abort_ends_a_graceful_stop_by_force() {
        let mut tree = tree(1, LONG);
        tree.stop(StopReason::Sigterm);
        assert_eq!(tree.told(1, Stop::Drain).await, []);
        tree.shutdown.send(Shutdown::Abort).unwrap();
        assert_eq!(tree.told(1, Stop::Abort).await, []);
        tree.stopped(1);
        assert_eq!(tree.report.await.unwrap().reason, StopReason::Sigterm);
    }

    #[actix::test]
    async fn a_silent_worker_is_named_with_its_connections_and_left_behind() {
        let mut tree = tree(2, Duration::from_millis(1));
        let [mut done, _silent, mut other] = [1, 1, 2].map(|worker| tree.client(worker));
        tree.stop(StopReason::Sigterm);
        tree.told(2, Stop::Abort).await;
        done.give_back(CloseReason::Stopped, 0);
        other.give_back(CloseReason::Forced, 0);
        tree.stopped(2);
        let report = tree.report.await.unwrap();
        logged(&mut tree.log, "worker stuck").await;
        assert_eq!((report.acknowledged, report.forced, report.stuck), (1, 2, vec![WorkerId(1)]));
    }

    #[actix::test]
    async fn an_acceptor_given_up_stops_the_server_with_exit_1_also_if_force_was_needed() {
        let mut tree = tree(2, LONG);
        let mut client = tree.client(1);
        tree.supervisor.do_send(Stopped(AcceptorExit { worker: WorkerId(1), crash: Some("broken".into()) }));
        tree.told(2, Stop::Drain).await;
        tree.acceptors_stopped();
        client.give_back(CloseReason::Forced, 0);
        tree.stopped(1);
        tree.stopped(2);
        let report = tree.report.await.unwrap();
        assert_eq!(report.forced, 1);
        assert_eq!((report.reason, report.exit_code()), (StopReason::Restarts, 1));
    }

    #[actix::test]
    async fn a_worker_that_panics_stops_the_server_and_is_not_waited_for_again() {
        let mut tree = tree(2, LONG);
        let (_orphan, mut client) = (tree.client(1), tree.client(2));
        tree.supervisor.do_send(Stopped(WorkerExit { worker: WorkerId(1), orphans: Some(1) }));
        tree.told(2, Stop::Drain).await;
        tree.supervisor.do_send(Stopped(AcceptorExit { worker: WorkerId(2), crash: None }));
        tree.told(2, Stop::Finish).await;
        client.give_back(CloseReason::Stopped, 0);
        tree.stopped(2);
        let report = tree.report.await.unwrap();
        assert_eq!((report.reason, report.acknowledged, report.forced), (StopReason::Restarts, 1, 1));
        assert_eq!(report.exit_code(), 1);
    }
}
