//! The library's front: a server is bound, then run until somebody stops it.
//!
//! Lives on the thread that calls it; starts the threads, the Workers on them and the Supervisor over them, and leaves
//! nothing behind when it returns.

mod acceptor;
pub(crate) mod connection;
pub mod descriptors;
pub(crate) mod echo;
mod gate;
#[cfg_attr(not(test), expect(dead_code, reason = "the stop does not ask yet"))]
mod handshakes;
mod listener;
pub mod messages;
pub(crate) mod report;
pub(crate) mod service;
mod supervisor;
#[cfg(test)]
pub(crate) mod testing;
mod worker;

use crate::{
    decisions::ids::WorkerId,
    error::Error,
    server::{
        acceptor::{Listen, OpenListener},
        descriptors::Caps,
        gate::Gate,
        listener::Listener,
        report::Report,
        service::Service,
        supervisor::{Supervisor, WorkerHandle},
        worker::{Superior, Worker, WorkerSeed},
    },
    settings::Settings,
    stop::{Handle, Shutdown},
};
use actix::prelude::*;
use slog::{Discard, Logger, o};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, thread, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// How long the threads whose Workers have acknowledged may take to end, all together.
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
    /// Raises the limit of file descriptors, lowers the caps if it cannot hold them, and binds the listening socket.
    ///
    /// # Errors
    /// [`Error::Bind`] if the address cannot be had; [`Error::Descriptors`] if there is none for even one connection;
    /// [`Error::NoConnections`] if `max_connections` is 0.
    pub fn bind(settings: Settings, service: S) -> Result<Self, Error> {
        if settings.supervisor.max_connections == 0 {
            return Err(Error::NoConnections);
        }
        let workers = match settings.supervisor.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let caps = descriptors::reserve(workers, settings.supervisor.max_connections, settings.supervisor.max_pending)?;
        let listener = Listener::bind(&settings.listen)?;
        let address = settings.listen.address;
        let address = listener.address().map_err(|source| Error::Bind { address, source })?;
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
    /// Await it to the end: dropped before, it leaves the server running, and a [`Handle`] as the only way to stop it.
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
        let arbiters = start_threads(self.workers)?;
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

        let mut report = report?;

        report.stuck.extend(join(arbiters, &report.stuck, &log).await);
        slog::info!(log, "stopped"; "acknowledged" => report.acknowledged, "forced" => report.forced,
            "crashed" => report.crashed, "elapsed_ms" => report.elapsed.as_millis() as u64);
        Ok(report)
    }
}

/// Starts as many threads as there are Workers; none, if one of them fails.
fn start_threads(workers: usize) -> Result<Vec<(WorkerId, Arbiter)>, Error> {
    let mut arbiters = Vec::new();
    for worker in (1..=workers).map(WorkerId) {
        match Arbiter::try_new() {
            Ok(arbiter) => arbiters.push((worker, arbiter)),
            Err(error) => {
                for (_, arbiter) in arbiters {
                    arbiter.stop();
                }
                return Err(Error::Thread(error));
            }
        }
    }
    Ok(arbiters)
}

/// Ends all threads and waits for those whose Worker has acknowledged. Gives the ones that do not end: what a service left
/// running there may hold them. They go on to their end, as those of stuck Workers do, but nobody waits for it.
async fn join(arbiters: Vec<(WorkerId, Arbiter)>, stuck: &[WorkerId], log: &Logger) -> BTreeSet<WorkerId> {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut running = BTreeSet::new();
    for (worker, arbiter) in arbiters {
        arbiter.stop();
        if !stuck.contains(&worker) {
            running.insert(worker);
            let ended = ended.clone();
            // Not a blocking task of the runtime: the end of that would be waited for as well.
            thread::spawn(move || {
                let _ = arbiter.join();
                let _ = ended.send(worker);
            });
        }
    }
    drop(ended);
    let all = async {
        while let Some(worker) = ends.recv().await {
            running.remove(&worker);
            slog::info!(log, "arbiter joined"; "worker" => worker.0);
        }
    };
    let _ = tokio::time::timeout(JOIN_PATIENCE, all).await;
    running.iter().for_each(|worker| slog::error!(log, "arbiter stuck"; "worker" => worker.0));
    running
}
