//! The library's front: a server is bound, then run until somebody stops it.
//!
//! Lives on the thread that calls it; starts the threads, the Workers on them and the Supervisor over them, and leaves
//! nothing behind when it returns.

use crate::{
    Error,
    acceptor::{Listen, OpenListener},
    descriptors::{self, Caps},
    gate::Gate,
    listener::Listener,
    messages::Shutdown,
    service::Service,
    settings::Settings,
    supervisor::{Report, StopReason, Supervisor, WorkerHandle},
    worker::{Superior, Worker, WorkerId, WorkerSeed},
};
use actix::prelude::*;
use slog::{Discard, Logger, o};
use std::{net::SocketAddr, sync::Arc, thread, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How long a thread whose Worker has acknowledged may take to end.
const JOIN_PATIENCE: Duration = Duration::from_millis(250);

/// A server that is bound to its address, but does not accept yet: clients wait in the backlog.
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
    orders: (Handle, mpsc::UnboundedReceiver<Shutdown>),
    log: Logger,
}

impl<S: Service> Server<S> {
    /// Binds the listening socket and raises the limit of file descriptors; lowers the caps if it cannot hold them.
    ///
    /// # Errors
    /// [`Error::Bind`] if the address cannot be had; [`Error::Descriptors`] if there is none for even one connection.
    pub fn bind(settings: Settings, service: S) -> Result<Self, Error> {
        let listener = Listener::bind(&settings.listen)?;
        let address = settings.listen.address;
        let address = listener.address().map_err(|source| Error::Bind { address, source })?;
        let workers = match settings.supervisor.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let caps = descriptors::reserve(workers, settings.supervisor.max_connections, settings.supervisor.max_pending)?;
        let (service, log) = (Arc::new(service), Logger::root(Discard, o!()));
        Ok(Self { settings, service, listener, address, workers, caps, orders: Handle::new(), log })
    }

    /// Logs to `log`; without it nothing is logged.
    #[must_use]
    pub fn with_log(self, log: Logger) -> Self {
        Self { log, ..self }
    }

    /// The address it listens on; the real one also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it, from any thread, also before it runs.
    pub fn handle(&self) -> Handle {
        self.orders.0.clone()
    }

    /// Serves until it is stopped; returns when every actor has acknowledged, or the deadline has passed, and every
    /// thread is joined. Needs an actix [`System`], which goes on.
    ///
    /// # Errors
    /// [`Error::Thread`] if a thread could not be started; [`Error::Supervisor`] if the root of the tree itself crashed.
    pub async fn run(self) -> Result<Report, Error> {
        let Caps { limit, reserved, max_connections, max_pending } = self.caps;
        let (log, asked) = (self.log, &self.settings.supervisor);
        if (max_connections, max_pending) != (asked.max_connections, asked.max_pending) {
            slog::warn!(log, "caps lowered to fit the descriptor limit"; "limit" => limit, "reserved" => reserved,
                "max_connections_asked" => asked.max_connections, "max_connections" => max_connections,
                "max_pending_asked" => asked.max_pending, "max_pending" => max_pending);
        }
        let arbiters = (1..=self.workers)
            .map(|id| Arbiter::try_new().map(|arbiter| (WorkerId(id), arbiter)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::Thread)?;
        slog::info!(log, "listening"; "address" => %self.address, "workers" => self.workers,
            "max_connections" => max_connections, "max_pending" => max_pending);

        let gate = Gate::new(max_connections, max_pending);
        let (report_to, report) = oneshot::channel();
        let (handle, mut received) = self.orders;
        Supervisor::create(|ctx| {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| received.poll_recv(cx)));
            let workers = arbiters.iter().map(|(worker, arbiter)| {
                let listener = self.listener.clone();
                let seed = WorkerSeed {
                    worker: *worker,
                    service: self.service.clone(),
                    open_listener: Box::new(move || Ok(Box::new(listener.acceptor()?) as Box<dyn Listen>))
                        as OpenListener,
                    gate: gate.clone(),
                    supervisor: self.settings.supervisor.clone(),
                    connection: self.settings.connection.clone(),
                    superior: Superior {
                        acceptor_stopped: ctx.address().recipient(),
                        worker_stopped: ctx.address().recipient(),
                    },
                    log: log.clone(),
                };
                let address = Worker::start_in_arbiter(&arbiter.handle(), move |ctx| Worker::new(seed, ctx));
                (*worker, WorkerHandle { stop: address.clone().recipient(), take_in: address.recipient() })
            });
            let timeout = self.settings.supervisor.shutdown_timeout;
            Supervisor::new(
                gate.clone(),
                self.listener.clone(),
                timeout,
                workers.collect::<Vec<_>>(),
                report_to,
                log.clone(),
            )
        });
        // The Supervisor's copy is the last one once the Workers' are gone.
        drop(self.listener);
        let report = report.await.map_err(|_| Error::Supervisor);
        drop(handle);

        let stuck = report.as_ref().map_or(&[][..], |report| &report.stuck);
        for (worker, arbiter) in arbiters.into_iter().filter(|(worker, _)| !stuck.contains(worker)) {
            if join(arbiter).await {
                slog::info!(log, "arbiter joined"; "worker" => worker.0);
            } else {
                slog::error!(log, "arbiter stuck"; "worker" => worker.0);
            }
        }
        let report = report?;
        slog::info!(log, "stopped"; "acknowledged" => report.acknowledged, "forced" => report.forced,
            "crashed" => report.crashed, "elapsed_ms" => report.elapsed.as_millis() as u64);
        Ok(report)
    }
}

/// Ends a thread and waits for it. False if it does not end: what a service left running there may block it.
async fn join(arbiter: Arbiter) -> bool {
    arbiter.stop();
    let (ended, end) = oneshot::channel();
    // Not a blocking task of the runtime: the end of that would be waited for as well.
    thread::spawn(move || {
        let _ = arbiter.join();
        let _ = ended.send(());
    });
    tokio::time::timeout(JOIN_PATIENCE, end).await.is_ok()
}

/// Stops a [`Server`] or a [`Client`](crate::Client); can be cloned and sent to any thread.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::UnboundedSender<Shutdown>);

impl Handle {
    /// A handle, and where its orders come out.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Shutdown>) {
        let (orders, received) = mpsc::unbounded_channel();
        (Self(orders), received)
    }

    /// Begins the graceful stop, with what the server's `shutdown_timeout` allows. Repeating it changes nothing.
    ///
    /// [`Server::run`] returns when it is done.
    pub fn stop(&self) {
        self.shutdown(StopReason::Handle);
    }

    pub(crate) fn shutdown(&self, reason: StopReason) {
        // One that is gone has stopped.
        let _ = self.0.send(Shutdown(reason));
    }
}
