//! The library's front: a server is bound, then runs until it is stopped.
//!
//! It runs on the thread that calls it. It starts the threads, the Workers on them and the Supervisor over them. When it
//! returns, nothing of them is left, unless a Worker or its thread was stuck.

mod acceptor;
pub(crate) mod connection;
mod descriptors;
pub(crate) mod echo;
pub(crate) mod fault;
mod gate;
pub(crate) mod handle;
mod handshakes;
mod listener;
pub mod messages;
mod pipe;
pub(crate) mod report;
pub(crate) mod service;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
mod threads;
pub(crate) mod watch;
mod worker;

use crate::{
    decisions::placement,
    error::Error,
    logging::contained,
    server::{
        acceptor::OpenListener,
        descriptors::Caps,
        gate::Gate,
        handle::Handle,
        listener::Listener,
        messages::{Accept, Reload},
        report::Report,
        service::Service,
        supervisor::{Supervisor, WorkerHandle, warn_of},
        threads::Threads,
        watch::{Watch, Watchable},
        worker::{Superior, Worker, WorkerSeed},
    },
    settings::{ListenSettings, Settings},
    stop::{Shutdown, StopHandle},
};
use actix::prelude::*;
use futures_util::stream::{Stream, poll_fn};
use slog::{Discard, Logger, o};
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// A server that is bound to its address but does not accept yet. Its clients wait in the backlog.
///
/// ```
/// use supervised_echo::{Echo, Server, Settings};
///
/// #[actix::main]
/// async fn main() -> Result<(), supervised_echo::Error> {
///     let mut settings = Settings::default();
///     settings.listen.address = ([127, 0, 0, 1], 0).into();
///     let server = Server::bind(settings, Echo)?;
///     println!("listening on {}", server.address());
///     server.handle().stop(); // usually from elsewhere, later
///     let report = server.run().await?;
///     assert_eq!(report.forced, 0);
///     Ok(())
/// }
/// ```
pub struct Server<S> {
    settings: Settings,
    service: Arc<S>,
    listener: Listener,
    address: SocketAddr,
    workers: usize,
    caps: Caps,
    gate: Arc<Gate>,
    watched: Watchable,
    orders: (StopHandle, mpsc::UnboundedReceiver<Shutdown>),
    reloads: (mpsc::UnboundedSender<Reload>, mpsc::UnboundedReceiver<Reload>),
    log: Logger,
}

impl<S: Service> Server<S> {
    /// Raises the limit of file descriptors, lowers the caps if it cannot hold them, and binds the listening socket.
    ///
    /// # Errors
    /// [`Error::Bind`] if the address cannot be had; [`Error::Descriptors`] if there is none for even one connection;
    /// [`Error::NoConnections`] if `max_connections` is 0.
    pub fn bind(settings: Settings, service: S) -> Result<Self, Error> {
        Self::new(settings, service, Listener::bind)
    }

    /// Does the same with a socket that listens already, such as one that the process has inherited. `listen.address` means
    /// nothing then. The clients that already wait on the socket are served like all others.
    ///
    /// The socket is the server's from now on. It becomes nonblocking, gets the options of the server's connections, and
    /// `listen.backlog`. A stop ends this very socket: the kernel refuses new clients on it, then it listens no more. That
    /// holds for every copy of it, also in another process that shares it. A process that is to take over while this one
    /// stops needs a socket of its own, bound with `SO_REUSEPORT`. Until the close, the kernel still chooses the socket of
    /// this process for some of the new clients; these have to try again, as their kernels do after a second.
    ///
    /// ```
    /// use supervised_echo::{Echo, Server, Settings};
    ///
    /// # actix::System::new().block_on(async {
    /// let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?; // or inherited
    /// let address = listener.local_addr()?;
    /// let server = Server::from_listener(listener, Settings::default(), Echo)?;
    /// assert_eq!(server.address(), address);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::Listener`] if the socket does not listen, or is not a TCP socket; [`Error::Descriptors`] and
    /// [`Error::NoConnections`] as [`bind`](Self::bind).
    pub fn from_listener(listener: TcpListener, settings: Settings, service: S) -> Result<Self, Error> {
        Self::new(settings, service, |settings| Listener::given(listener, settings.backlog))
    }

    fn new(
        settings: Settings,
        service: S,
        listener: impl FnOnce(&ListenSettings) -> Result<Listener, Error>,
    ) -> Result<Self, Error> {
        if settings.supervisor.max_connections == 0 {
            return Err(Error::NoConnections);
        }
        let workers = match settings.supervisor.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let caps = descriptors::reserve(workers, settings.admin.address.is_some(), &settings.supervisor)?;
        let listener = listener(&settings.listen)?;
        let address = settings.listen.address;
        let address = listener.address().map_err(|source| Error::Bind { address, source })?;
        let (service, log) = (Arc::new(service), Logger::root(Discard, o!()));
        let gate = Gate::new(caps.max_connections, caps.max_pending, workers);
        let watched = Watchable::new(address, workers, gate.clone());
        let (orders, reloads) = (StopHandle::new(), mpsc::unbounded_channel());
        Ok(Self { settings, service, listener, address, workers, caps, gate, watched, orders, reloads, log })
    }

    /// Logs to `log`; without it nothing is logged.
    #[must_use]
    pub fn with_log(self, log: Logger) -> Self {
        Self { log: contained(log), ..self }
    }

    /// The address it listens on; the real one also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a handle that stops the server from any thread, also before it runs, and tells where it stands.
    pub fn handle(&self) -> Handle {
        Handle::new(self.orders.0.clone(), self.reloads.0.clone(), self.watched.watched())
    }

    /// Looks into the server from any thread: its tree, its connections, its changes and its counters.
    pub fn watch(&self) -> Watch {
        Watch::new(self.watched.watched())
    }

    /// Serves until it is stopped. It returns when every actor has acknowledged or the deadline has passed, and every
    /// thread is joined. It needs an actix [`System`], which goes on.
    ///
    /// Await it to the end. If the future is dropped before, the server goes on running, and only a [`Handle`] can stop it.
    ///
    /// # Errors
    /// [`Error::NoSystem`] where there is no actix [`System`]; [`Error::Thread`], [`Error::Memory`] or [`Error::Runtime`] if a
    /// thread could not be started; [`Error::Supervisor`] if the root of the tree itself crashed: then everything is ended by
    /// force.
    pub async fn run(mut self) -> Result<Report, Error> {
        let (_handle, mut received) = std::mem::replace(&mut self.orders, StopHandle::new());
        self.supervise(poll_fn(move |cx| received.poll_recv(cx)), open_listener).await
    }

    async fn supervise(
        self,
        orders: impl Stream<Item = Shutdown> + 'static,
        open_listener: impl Fn(Listener) -> OpenListener + 'static,
    ) -> Result<Report, Error> {
        System::try_current().ok_or(Error::NoSystem)?;
        let (log, Caps { max_connections, max_pending, .. }) = (self.log, self.caps);
        self.caps.warn(&self.settings.supervisor, &log);
        warn_of(&self.settings, &log);
        let threads = Threads::start(self.workers)?;
        slog::info!(log, "listening"; "address" => %self.address, "workers" => self.workers,
            "max_connections" => max_connections, "max_pending" => max_pending);

        let (gate, watched) = (self.gate, self.watched);
        let (report_to, report) = oneshot::channel();
        Supervisor::create(|ctx| {
            ctx.add_stream(orders);
            let mut reloads = self.reloads.1;
            ctx.add_message_stream(poll_fn(move |cx| reloads.poll_recv(cx)));
            let workers: Vec<_> = threads
                .iter()
                .map(|(worker, arbiter)| {
                    let seed = WorkerSeed {
                        worker,
                        service: self.service.clone(),
                        open_listener: open_listener(self.listener.clone()),
                        gate: gate.clone(),
                        exhaustions: watched.exhaustions.clone(),
                        supervisor: self.settings.supervisor.clone(),
                        listen: self.settings.listen.clone(),
                        connection: self.settings.connection.clone(),
                        superior: Superior {
                            acceptor_stopped: ctx.address().recipient(),
                            worker_stopped: ctx.address().recipient(),
                        },
                        news: watched.worker(worker),
                        log: log.clone(),
                    };
                    (worker, Worker::start_in_arbiter(&arbiter, move |ctx| Worker::new(seed, ctx)))
                })
                .collect();
            // Before the first client, so that a watcher never sees one at a server that does not run.
            let inspected = workers.iter().map(|(_, address)| address.clone().recipient()).collect();
            watched.run(ctx.address().recipient(), inspected);
            let all: Arc<[_]> = workers.iter().map(|(_, address)| address.clone().recipient()).collect();
            for (_, address) in workers.iter().filter(|(worker, _)| placement::accepts(*worker)) {
                address.do_send(Accept { workers: all.clone() });
            }
            let workers = workers.into_iter().map(|(worker, address)| {
                let (stop, take_in) = (address.clone().recipient(), address.clone().recipient());
                let (look, reconfigure) = (address.clone().recipient(), address.recipient());
                (worker, WorkerHandle { stop, take_in, look, reconfigure })
            });
            Supervisor::new(
                self.listener.clone(),
                self.settings.clone(),
                self.caps,
                workers.collect::<Vec<_>>(),
                report_to,
                watched.clone(),
                log.clone(),
            )
        });
        // Once the Workers' copies are gone, the Supervisor's is the last one.
        drop(self.listener);
        let Ok(mut report) = report.await else {
            // The Supervisor held the Workers' addresses. When their threads end, each of their clients is reset.
            threads.join(&[], &log).await;
            watched.end(None);
            return Err(Error::Supervisor);
        };
        report.stuck.extend(threads.join(&report.stuck, &log).await);
        slog::info!(log, "stopped"; "acknowledged" => report.acknowledged, "forced" => report.forced,
            "crashed" => report.crashed, "reset" => report.reset, "failed" => report.failed,
            "discarded" => report.discarded, "received_total" => report.total.received,
            "echoed_total" => report.total.echoed, "discarded_total" => report.total.discarded,
            "elapsed_ms" => report.elapsed.as_millis() as u64);
        watched.end(Some(report.clone()));
        Ok(report)
    }
}

/// How each new Acceptor of a Worker gets its handle of the listening socket.
fn open_listener(listener: Listener) -> OpenListener {
    Box::new(move || listener.open())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decisions::stop::StopReason,
        server::{
            acceptor::Listen,
            echo::Echo,
            watch::{news::Event, tree::Phase},
        },
        testing::{log, logged},
    };
    use futures_util::FutureExt;
    use std::{
        io::{self, ErrorKind},
        pin::Pin,
        sync::Mutex,
        task::{self, Poll, ready},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    fn server(workers: usize) -> Server<Echo> {
        let mut settings = Settings::default();
        settings.listen.address = ([127, 0, 0, 1], 0).into();
        settings.supervisor.workers = workers;
        Server::bind(settings, Echo).unwrap()
    }

    #[actix::test]
    async fn a_supervisor_that_crashes_leaves_no_thread_and_no_listener_behind() {
        let ((log, mut told), (crash, mut crashes)) = (log(), mpsc::unbounded_channel::<()>());
        let server = server(3).with_log(log);
        let address = server.address();
        let orders = poll_fn(move |cx| crashes.poll_recv(cx).map(|_| -> Option<Shutdown> { panic!("a defect") }));
        let running = actix_rt::spawn(server.supervise(orders, open_listener));
        logged(&mut told, "listening").await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"a").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'a');
        crash.send(()).unwrap();
        assert!(matches!(running.await.unwrap(), Err(Error::Supervisor)));
        let told: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        assert_eq!(told.iter().filter(|msg| *msg == "arbiter joined").count(), 3, "{told:?}");
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[actix::test]
    async fn a_given_socket_is_served_and_a_stop_ends_every_copy_of_it() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, copy) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
        let mut early = TcpStream::connect(address).await.unwrap();
        let server = Server::from_listener(listener, Settings::default(), Echo).unwrap();
        assert_eq!(server.address(), address);
        let handle = server.handle();
        let running = actix_rt::spawn(server.run());
        early.write_all(b"a").await.unwrap();
        assert_eq!(early.read_u8().await.unwrap(), b'a');
        handle.abort();
        assert_eq!(running.await.unwrap().unwrap().forced, 1);
        assert_eq!(early.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(!socket2::SockRef::from(&copy).is_listener().unwrap());
    }

    /// Accepts one client. Its Acceptor crashes when the test says so.
    struct AcceptsOne {
        listener: Option<Box<dyn Listen>>,
        crash: oneshot::Receiver<()>,
    }

    impl Listen for AcceptsOne {
        fn poll_accept(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
            if let Some(listener) = &mut self.listener {
                let client = ready!(listener.poll_accept(cx));
                self.listener = None;
                return Poll::Ready(client);
            }
            let _ = ready!(Pin::new(&mut self.crash).poll(cx));
            panic!("told to");
        }
    }

    #[actix::test]
    async fn a_worker_that_panics_stops_the_others_gracefully_with_exit_code_1() {
        let (log, mut told) = log();
        let server = server(2).with_log(log);
        let address = server.address();
        let ((crash, crashes), (_never, never)) = (oneshot::channel(), oneshot::channel());
        let listeners = Arc::new(Mutex::new(vec![crashes, never]));
        // A Worker opens a listener for its Acceptor. The third one is for the successor, and its Worker panics.
        let open = move |listener: Listener| -> OpenListener {
            let listeners = listeners.clone();
            Box::new(move || {
                let crash = listeners.lock().unwrap().pop().expect("one listener for each Worker");
                Ok(Box::new(AcceptsOne { listener: Some(listener.open()?), crash }))
            })
        };
        let running = actix_rt::spawn(server.supervise(poll_fn(|_| Poll::Pending), open));
        let mut clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        for client in &mut clients {
            client.write_all(b"a").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'a');
        }
        crash.send(()).unwrap();
        logged(&mut told, "worker crashed").await;
        let mut ends = Vec::new();
        for client in &mut clients {
            ends.push(client.read_u8().await.unwrap_err().kind());
        }
        ends.sort_unstable();
        assert_eq!(
            ends,
            [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof],
            "the other Worker's client ends cleanly"
        );
        drop(clients);
        let report = running.await.unwrap().unwrap();
        assert_eq!((report.reason, report.exit_code()), (StopReason::Restarts, 1));
        assert_eq!((report.acknowledged, report.forced, report.stuck), (1, 1, vec![]));
    }

    #[test]
    fn those_who_watch_a_server_that_cannot_run_or_never_does_hear_of_the_end() {
        for runs in [false, true] {
            let server = server(1);
            let watch = server.watch();
            let mut events = watch.events();
            if runs {
                // There is no actix System here.
                assert!(server.run().now_or_never().unwrap().is_err());
            } else {
                drop(server);
            }
            assert!(watch.reached(Phase::Running).now_or_never().is_some(), "{runs}");
            assert_eq!(watch.phase(), Phase::Stopped);
            while let Some(Event::Change(_)) = events.next().now_or_never().expect("the end has come") {}
        }
    }

    #[actix::test]
    async fn a_server_whose_future_is_dropped_runs_on_and_is_seen_to_until_its_end() {
        let server = server(1);
        let (watch, handle) = (server.watch(), server.handle());
        let running = actix_rt::spawn(server.run());
        watch.reached(Phase::Running).await;
        running.abort();
        assert!(running.await.is_err());
        assert_eq!((watch.phase(), handle.status().phase), (Phase::Running, Phase::Running));
        handle.stop();
        watch.reached(Phase::Stopped).await;
        assert_eq!(watch.events().next().await, None);
    }

    #[test]
    fn without_an_actix_system_it_says_what_to_do() {
        let current = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let several = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        for runtime in [current, several] {
            let error = runtime.block_on(async { server(1).run().await.unwrap_err() });
            assert!(error.to_string().contains("#[actix::main]"), "{error}");
        }
    }
}
