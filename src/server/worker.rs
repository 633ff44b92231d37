//! Supervises what runs on one thread: its Acceptor and its ConnectionActors.
//!
//! A connection starts, runs and ends here, and the Supervisor hears only a number at the end. The Worker replaces an
//! Acceptor that crashes. If it crashes too often, the Worker does not replace it and tells the Supervisor.

use crate::{
    decisions::{
        accept_error::AcceptError,
        admission::Place,
        ids::{ConnectionId, WorkerId},
        restart_limit::RestartLimit,
        stop::Stop,
        worker::{Event, Step, WorkerState},
    },
    server::{
        acceptor::{Acceptor, Exhaustion, Exhaustions, OpenListener, Parent},
        connection::{
            Connection, ConnectionActor,
            record::{ConnectionContext, Record},
        },
        gate::{Gate, Permit},
        messages::{
            Accept, Accepted, AcceptorExit, ConnectionExit, Inspect, Inspected, Look, Reconfigure, TakeIn, WorkerExit,
        },
        service::Service,
        watch::{
            news::WorkerNews,
            tree::{AcceptorPhase, WorkerPhase},
        },
    },
    settings::{ConnectionSettings, ListenSettings, SupervisorSettings},
    stop::Stopped,
};
use actix::prelude::*;
use slog::Logger;
use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};

/// How long a crashed Acceptor's successor waits. It is long enough not to spin, and short enough that the backlog holds
/// the clients.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// Whom a Worker reports to.
#[derive(Clone)]
pub(crate) struct Superior {
    pub acceptor_stopped: Recipient<Stopped<AcceptorExit>>,
    pub worker_stopped: Recipient<Stopped<WorkerExit>>,
}

/// All that it takes to start a Worker on its own thread.
pub(crate) struct WorkerSeed<S> {
    pub worker: WorkerId,
    pub service: Arc<S>,
    pub open_listener: OpenListener,
    pub gate: Arc<Gate>,
    pub exhaustions: Exhaustions,
    pub supervisor: SupervisorSettings,
    pub listen: ListenSettings,
    pub connection: ConnectionSettings,
    pub superior: Superior,
    pub news: WorkerNews,
    pub log: Logger,
}

/// The actor that supervises one thread.
pub(crate) struct Worker<S: Service> {
    worker: WorkerId,
    service: Arc<S>,
    context: Rc<ConnectionContext>,
    state: WorkerState<ConnectionId, Connection>,
    acceptor: Option<Addr<Acceptor>>,
    /// The reason of the last Acceptor's crash.
    crash: Option<String>,
    /// Dropped when accepting is over, so that the listening socket is the Supervisor's alone.
    open_listener: Option<OpenListener>,
    /// Where its Acceptor hands clients to.
    workers: Arc<[Recipient<TakeIn>]>,
    gate: Arc<Gate>,
    exhaustions: Exhaustions,
    /// Set while the listener cannot be opened.
    exhaustion: Option<Exhaustion>,
    started: Instant,
    superior: Superior,
    log: Logger,
}

impl<S: Service> Worker<S> {
    pub fn new(seed: WorkerSeed<S>, ctx: &mut Context<Self>) -> Self {
        let context = ConnectionContext {
            news: seed.news,
            listen: seed.listen,
            settings: seed.connection,
            log: seed.log.clone(),
            parent: ctx.address().recipient(),
            orphaned: Rc::default(),
        };
        Self {
            worker: seed.worker,
            service: seed.service,
            context: Rc::new(context),
            state: WorkerState::new(RestartLimit::new(seed.supervisor.max_restarts, seed.supervisor.restart_window)),
            acceptor: None,
            crash: None,
            open_listener: Some(seed.open_listener),
            workers: Arc::new([]),
            gate: seed.gate,
            exhaustions: seed.exhaustions,
            exhaustion: None,
            started: Instant::now(),
            superior: seed.superior,
            log: seed.log,
        }
    }

    fn news(&self) -> &WorkerNews {
        &self.context.news
    }

    fn on(&mut self, event: Event<ConnectionId>, ctx: &mut Context<Self>) {
        for step in self.state.on(event) {
            match step {
                Step::StartAcceptor { restarts } => self.start_acceptor(restarts, ctx),
                Step::WaitForAcceptor => {
                    // The first one may wait for a descriptor: that is no restart.
                    if self.crash.is_some() {
                        self.news().acceptor(AcceptorPhase::Restarting);
                    }
                    ctx.run_later(RESTART_DELAY, |worker, ctx| worker.on(Event::AcceptorDue, ctx));
                }
                Step::TellAcceptor(stop) => self.acceptor.iter().for_each(|acceptor| acceptor.do_send(stop)),
                Step::TellConnections(stop) => self.tell_connections(stop),
                Step::AcceptingIsOver { given_up } => self.accepting_is_over(given_up),
                Step::Finish => {
                    self.news().worker(WorkerPhase::Stopped);
                    ctx.stop();
                }
            }
        }
    }

    fn start_acceptor(&mut self, restarts: Option<usize>, ctx: &mut Context<Self>) {
        if let (Some(restarts), Some(reason)) = (restarts, &self.crash) {
            self.news().counters.restarts.add(1);
            slog::warn!(self.log, "acceptor restarted"; "worker" => self.worker.0, "reason" => reason, "restarts" => restarts);
        }
        let Some(open_listener) = &self.open_listener else { return };
        let parent = Parent { accepted: ctx.address().recipient(), stopped: ctx.address().recipient() };
        match open_listener() {
            Ok(listener) => {
                self.exhaustion = None;
                let (gate, exhaustions) = (self.gate.clone(), self.exhaustions.clone());
                let (workers, log) = (self.workers.clone(), self.log.clone());
                let acceptor = Acceptor::new(self.worker, gate, exhaustions, listener, parent, workers, log);
                self.acceptor = Some(acceptor.start());
                self.news().acceptor(AcceptorPhase::Accepting);
            }
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Client | AcceptError::Exhausted => {
                    self.exhaustion.get_or_insert_with(|| Exhaustion::new(error, &self.exhaustions, &self.log));
                    self.on(Event::AcceptorExhausted, ctx);
                }
                AcceptError::Listener => self.acceptor_stopped(Some(error.to_string()), ctx),
            },
        }
    }

    fn acceptor_stopped(&mut self, crash: Option<String>, ctx: &mut Context<Self>) {
        let crashed = crash.is_some();
        (self.acceptor, self.crash) = (None, crash);
        self.on(Event::AcceptorStopped { crashed, now: self.started.elapsed() }, ctx);
    }

    fn accepting_is_over(&mut self, given_up: bool) {
        if self.news().has_acceptor() {
            self.news().acceptor(if given_up { AcceptorPhase::GivenUp } else { AcceptorPhase::Stopped });
        }
        self.open_listener = None;
        self.workers = Arc::new([]);
        self.exhaustion = None;
        let crash = self.crash.take();
        if given_up {
            slog::error!(self.log, "acceptor given up"; "worker" => self.worker.0, "reason" => &crash);
        }
        self.superior.acceptor_stopped.do_send(Stopped(AcceptorExit { worker: self.worker, crash }));
    }

    fn adopt(&mut self, stream: TcpStream, peer: SocketAddr, permit: Permit, place: Option<Place>) {
        let connection = permit.connection();
        let record = Record::new(permit, peer, self.context.clone());
        let child = ConnectionActor::start(stream, record, self.service.clone(), place);
        if let Some(missed) = self.state.enter(connection, child.clone()) {
            child.tell(missed);
        }
    }

    fn tell_connections(&self, stop: Stop) {
        self.state.connections().for_each(|child| child.tell(stop));
    }
}

impl<S: Service> Actor for Worker<S> {
    type Context = Context<Self>;
}

impl<S: Service> Handler<Accept> for Worker<S> {
    type Result = ();

    fn handle(&mut self, Accept { workers }: Accept, ctx: &mut Self::Context) {
        self.workers = workers;
        self.on(Event::AcceptorDue, ctx);
    }
}

impl<S: Service> Handler<Accepted> for Worker<S> {
    type Result = ();

    fn handle(&mut self, client: Accepted, _: &mut Self::Context) {
        self.adopt(client.stream, client.peer, client.permit, Some(client.place));
    }
}

impl<S: Service> Handler<TakeIn> for Worker<S> {
    type Result = ();

    fn handle(&mut self, mut client: TakeIn, _: &mut Self::Context) {
        client.permit.arrived();
        match TcpStream::from_std(client.stream) {
            Ok(stream) => self.adopt(stream, client.peer, client.permit, client.place),
            // The reactor has no room for this client. The client sees a reset, and the report counts it.
            Err(error) => {
                slog::warn!(self.log, "connection lost"; "peer" => %client.peer, "reason" => %error);
            }
        }
    }
}

impl<S: Service> Handler<Stopped<ConnectionExit>> for Worker<S> {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<ConnectionExit>, ctx: &mut Self::Context) {
        self.on(Event::ConnectionStopped(exit.connection), ctx);
    }
}

impl<S: Service> Handler<Stopped<AcceptorExit>> for Worker<S> {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<AcceptorExit>, ctx: &mut Self::Context) {
        self.acceptor_stopped(exit.crash, ctx);
    }
}

impl<S: Service> Handler<Stop> for Worker<S> {
    type Result = ();

    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) {
        self.news().ordered(stop);
        self.on(Event::Stop(stop), ctx);
    }
}

impl<S: Service> Handler<Look> for Worker<S> {
    type Result = ();

    fn handle(&mut self, _: Look, _: &mut Self::Context) {
        self.state.connections().for_each(Connection::look);
    }
}

impl<S: Service> Handler<Reconfigure> for Worker<S> {
    type Result = ();

    fn handle(&mut self, Reconfigure(settings): Reconfigure, _: &mut Self::Context) {
        let supervisor = settings.supervisor;
        self.state.limit_restarts(supervisor.max_restarts, supervisor.restart_window);
        // The connections that there are keep theirs.
        let (listen, settings) = (settings.listen, settings.connection);
        self.context = Rc::new(ConnectionContext { listen, settings, ..(*self.context).clone() });
    }
}

impl<S: Service> Handler<Inspect> for Worker<S> {
    type Result = Inspected;

    fn handle(&mut self, Inspect { after, state, most }: Inspect, _: &mut Self::Context) -> Inspected {
        // It looks at no more of them than it must: what else is on this thread waits meanwhile.
        let views = self.state.connections_after(after).filter_map(Connection::view);
        let connections = views.filter(|view| state.is_none_or(|state| view.state == state)).take(most).collect();
        let counters = &self.news().counters;
        Inspected { n: counters.changes.get(), count: counters.count(), connections }
    }
}

impl<S: Service> Drop for Worker<S> {
    fn drop(&mut self) {
        let orphans = if self.state.is_finished() {
            slog::info!(self.log, "worker stopped"; "worker" => self.worker.0);
            None
        } else {
            // The children have no parent to report to any more. The gate closes at once, so that no client comes to a
            // thread without a Worker. All connections are forced. They run on this thread, so none can leave in between.
            self.gate.close();
            self.news().worker(WorkerPhase::Crashed);
            if self.acceptor.take().is_some() {
                self.news().acceptor(AcceptorPhase::Stopped);
            }
            self.context.orphaned.set(true);
            self.tell_connections(Stop::Abort);
            Some(self.gate.alive(self.worker))
        };
        self.superior.worker_stopped.do_send(Stopped(WorkerExit { worker: self.worker, orphans }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decisions::admission::Tally,
        server::{
            acceptor::Listen,
            echo::Echo,
            listener::Listener,
            testing::{WORKER, listener},
            watch::{
                news::{Event as Told, Events, News},
                tree::Change,
            },
        },
        testing::{self, logged, probe},
    };
    use futures_util::FutureExt;
    use std::{
        io,
        sync::{
            OnceLock,
            atomic::{AtomicUsize, Ordering},
        },
        task::{self, Poll},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc::UnboundedReceiver,
    };

    struct Heard {
        acceptor: UnboundedReceiver<Stopped<AcceptorExit>>,
        worker: UnboundedReceiver<Stopped<WorkerExit>>,
        log: UnboundedReceiver<String>,
        changes: Events,
    }

    impl Heard {
        /// The states of the Acceptor that watchers were told of.
        fn acceptor_phases(&mut self) -> Vec<AcceptorPhase> {
            let changes = std::iter::from_fn(|| self.changes.next().now_or_never().flatten());
            changes
                .filter_map(|event| match event {
                    Told::Change(Change::Acceptor { state, .. }) => Some(state),
                    _ => None,
                })
                .collect()
        }
    }

    /// Makes the Worker itself panic.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for Worker<Echo> {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("told to");
        }
    }

    /// A listener that panics when it is asked.
    struct Broken;

    impl Listen for Broken {
        fn poll_accept(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            panic!("told to");
        }
    }

    /// Lets one client in, then panics when an order to stop is already in the Worker's mailbox.
    struct Interrupted {
        worker: Arc<OnceLock<Addr<Worker<Echo>>>>,
        listener: Option<TcpListener>,
    }

    impl Listen for Interrupted {
        fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            if let Some(listener) = &mut self.listener {
                let client = task::ready!(listener.poll_accept(cx));
                self.listener = None;
                return Poll::Ready(client);
            }
            self.worker.get().expect("it has been started").do_send(Stop::Finish);
            panic!("told to");
        }
    }

    /// Opens `failures` listeners that panic, then the real one.
    fn failing_first(failures: usize, listener: Listener) -> OpenListener {
        let opened = AtomicUsize::new(0);
        Box::new(move || match opened.fetch_add(1, Ordering::Relaxed) {
            n if n < failures => Ok(Box::new(Broken)),
            _ => Ok(Box::new(listener.acceptor()?)),
        })
    }

    fn start(gate: &Arc<Gate>, max_restarts: usize, open_listener: OpenListener) -> (Addr<Worker<Echo>>, Heard) {
        let (worker, heard) = start_without_acceptor(gate, max_restarts, open_listener);
        worker.do_send(Accept { workers: Arc::new([]) });
        (worker, heard)
    }

    fn start_without_acceptor(
        gate: &Arc<Gate>,
        max_restarts: usize,
        open_listener: OpenListener,
    ) -> (Addr<Worker<Echo>>, Heard) {
        let ((acceptor_stopped, acceptor), (worker_stopped, worker)) = (probe(), probe());
        let ((logger, log), news) = (testing::log(), News::new());
        let changes = news.watch();
        let settings = crate::Settings::default();
        let seed = WorkerSeed {
            worker: WORKER,
            service: Arc::new(Echo),
            open_listener,
            gate: gate.clone(),
            exhaustions: Exhaustions::default(),
            supervisor: SupervisorSettings { max_restarts, ..settings.supervisor },
            listen: settings.listen,
            connection: settings.connection,
            superior: Superior { acceptor_stopped, worker_stopped },
            news: WorkerNews::new(WORKER, Arc::default(), news),
            log: logger,
        };
        let address = Worker::create(|ctx| Worker::new(seed, ctx));
        (address, Heard { acceptor, worker, log, changes })
    }

    async fn client(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("it listens")
    }

    async fn echoed(client: &mut TcpStream) {
        client.write_all(b"?").await.expect("it is open");
        assert_eq!(client.read_u8().await.expect("it is served"), b'?');
    }

    async fn exit(heard: &mut Heard) -> WorkerExit {
        let Stopped(exit) = heard.worker.recv().await.expect("every Worker acknowledges");
        exit
    }

    #[actix::test]
    async fn a_stop_is_acknowledged_once_when_every_child_has() {
        let (gate, (listener, address)) = (Gate::new(2, 0, 1), listener());
        let (worker, mut heard) = start(&gate, 0, failing_first(0, listener));
        let mut clients = [client(address).await, client(address).await];
        for client in &mut clients {
            echoed(client).await;
        }
        gate.close();
        worker.do_send(Stop::Finish);
        worker.do_send(Stop::Finish);
        logged(&mut heard.log, "acceptor stopped").await;
        assert!(heard.worker.try_recv().is_err(), "two clients have not closed yet");
        drop(clients);
        assert_eq!(exit(&mut heard).await, WorkerExit { worker: WORKER, orphans: None });
        assert_eq!(gate.tally(), Tally { acknowledged: 2, ..Tally::default() });
        assert_eq!(heard.acceptor.recv().await, Some(Stopped(AcceptorExit { worker: WORKER, crash: None })));
        assert!(heard.worker.recv().await.is_none());
    }

    #[actix::test]
    async fn a_drain_alone_leaves_the_worker_waiting_for_those_to_be_taken_in() {
        let (gate, (listener, address)) = (Gate::new(1, 0, 1), listener());
        let (worker, mut heard) = start(&gate, 0, failing_first(0, listener.clone()));
        gate.close();
        worker.send(Stop::Drain).await.unwrap();
        heard.acceptor.recv().await.unwrap();
        let mut late = client(address).await;
        late.write_all(b"owed").await.unwrap();
        let (stream, peer) = listener.take().unwrap();
        worker.do_send(TakeIn { stream, peer, permit: gate.take_in(WORKER), place: None });
        worker.do_send(Stop::Finish);
        let mut bytes = String::new();
        late.read_to_string(&mut bytes).await.unwrap();
        assert_eq!(bytes, "owed");
        drop(late);
        exit(&mut heard).await;
        assert_eq!(gate.tally(), Tally { acknowledged: 1, ..Tally::default() });
    }

    #[actix::test]
    async fn an_abort_forces_what_is_left_and_is_acknowledged() {
        let (gate, (listener, address)) = (Gate::new(1, 0, 1), listener());
        let (worker, mut heard) = start(&gate, 0, failing_first(0, listener));
        let mut client = client(address).await;
        echoed(&mut client).await;
        gate.close();
        worker.do_send(Stop::Abort);
        exit(&mut heard).await;
        assert_eq!(gate.tally(), Tally { forced: 1, ..Tally::default() });
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[actix::test]
    async fn a_worker_that_only_serves_tells_of_no_acceptor_at_a_stop() {
        let open: OpenListener = Box::new(|| unreachable!("it only serves"));
        let (worker, mut heard) = start_without_acceptor(&Gate::new(1, 0, 1), 0, open);
        worker.do_send(Stop::Finish);
        assert!(heard.acceptor.recv().await.is_some());
        assert_eq!(heard.acceptor_phases(), []);
    }

    #[actix::test]
    async fn a_listener_that_cannot_be_opened_for_want_of_anything_is_told_of_once_and_opened_later() {
        let (listener, address) = listener();
        let mut queued = client(address).await;
        let opened = AtomicUsize::new(0);
        let open: OpenListener = Box::new(move || match opened.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(rustix::io::Errno::NOSPC.into()),
            _ => Ok(Box::new(listener.acceptor()?)),
        });
        let (_worker, mut heard) = start(&Gate::new(1, 0, 1), 0, open);
        echoed(&mut queued).await;
        assert_eq!(heard.log.recv().await.unwrap(), "accept paused");
        assert_eq!(heard.log.recv().await.unwrap(), "accept resumed");
        assert_eq!(heard.acceptor_phases(), [AcceptorPhase::Accepting], "it has never crashed");
        assert!(heard.acceptor.try_recv().is_err());
    }

    #[actix::test]
    async fn a_crashed_acceptor_is_replaced_and_no_queued_client_is_lost() {
        let (listener, address) = listener();
        let mut queued = client(address).await;
        let (_worker, mut heard) = start(&Gate::new(1, 0, 1), 2, failing_first(2, listener));
        echoed(&mut queued).await;
        logged(&mut heard.log, "acceptor restarted").await;
        logged(&mut heard.log, "acceptor restarted").await;
        assert!(heard.acceptor.try_recv().is_err());
    }

    #[actix::test]
    async fn what_a_reload_changes_holds_for_the_next_crash_and_the_next_connection() {
        let (listener, address) = listener();
        let (worker, mut heard) = start(&Gate::new(1, 0, 1), 0, failing_first(1, listener));
        let mut settings = crate::Settings::default();
        settings.supervisor.max_restarts = 1;
        settings.connection.idle_timeout = Duration::from_millis(1);
        worker.do_send(Reconfigure(settings));
        assert_eq!(heard.log.recv().await.unwrap(), "acceptor restarted");
        let mut idle = client(address).await;
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    }

    #[actix::test]
    async fn one_crash_too_many_is_passed_on() {
        let (listener, _) = listener();
        let (_worker, mut heard) = start(&Gate::new(1, 0, 1), 1, failing_first(2, listener));
        assert_eq!(heard.acceptor.recv().await.unwrap().0.crash, Some("panic".into()));
        logged(&mut heard.log, "acceptor restarted").await;
        logged(&mut heard.log, "acceptor given up").await;
    }

    #[actix::test]
    async fn a_handle_that_cannot_be_opened_counts_as_a_crash() {
        let broken = io::Error::from(rustix::io::Errno::BADF).to_string();
        let none = || io::Result::<Box<dyn Listen>>::Err(rustix::io::Errno::BADF.into());
        let (_worker, mut heard) = start(&Gate::new(1, 0, 1), 0, Box::new(none));
        assert_eq!(heard.acceptor.recv().await.unwrap().0.crash, Some(broken));
    }

    #[actix::test]
    async fn a_stop_finds_no_acceptor_while_one_is_due_and_answers_for_it() {
        let (listener, _) = listener();
        let gate = Gate::new(1, 0, 1);
        let open_listener = failing_first(usize::MAX, listener);
        let (worker, mut heard) = start(&gate, usize::MAX, open_listener);
        logged(&mut heard.log, "acceptor restarted").await;
        gate.close();
        worker.do_send(Stop::Finish);
        assert_eq!(heard.acceptor.recv().await.unwrap().0.worker, WORKER);
        assert_eq!(exit(&mut heard).await.orphans, None);
    }

    #[actix::test]
    async fn a_worker_that_panics_says_so_and_its_connections_are_forced() {
        let (gate, (listener, address)) = (Gate::new(2, 0, 1), listener());
        let (worker, mut heard) = start(&gate, 0, failing_first(0, listener));
        let mut client = client(address).await;
        echoed(&mut client).await;
        assert!(worker.send(Panic).await.is_err());
        assert_eq!(exit(&mut heard).await, WorkerExit { worker: WORKER, orphans: Some(1) });
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        logged(&mut heard.log, "connection closed").await;
        assert_eq!(gate.tally(), Tally { forced: 1, ..Tally::default() });
        assert_eq!(heard.acceptor_phases(), [AcceptorPhase::Accepting, AcceptorPhase::Stopped]);
    }

    #[actix::test]
    async fn an_acceptor_that_panics_while_it_is_being_stopped_has_stopped_all_the_same() {
        let (listener, address) = listener();
        let mut client = client(address).await;
        client.write_all(b"owed").await.unwrap();
        let started = Arc::new(OnceLock::new());
        let worker = started.clone();
        let open_listener = move || {
            Ok(Box::new(Interrupted { worker: worker.clone(), listener: Some(listener.acceptor()?) })
                as Box<dyn Listen>)
        };
        let (worker, mut heard) = start(&Gate::new(2, 0, 1), 0, Box::new(open_listener));
        started.set(worker).unwrap();
        assert_eq!(heard.acceptor.recv().await.unwrap().0.crash, Some("panic".into()));
        let mut bytes = String::new();
        client.read_to_string(&mut bytes).await.unwrap();
        assert_eq!(bytes, "owed");
        assert!(heard.worker.try_recv().is_err(), "a client has not closed yet");
        drop(client);
        assert_eq!(exit(&mut heard).await.orphans, None);
        assert!(heard.acceptor.recv().await.is_none());
        assert!(std::iter::from_fn(|| heard.log.try_recv().ok()).all(|told| told != "acceptor given up"));
    }
}
