//! The root of the tree: owns the listening socket and the gate, turns [`Shutdown`] into the broadcast [`Stop`], takes in the
//! backlog, collects what the Workers acknowledge, keeps the deadline and makes the report.
//!
//! The order of a stop, and why it is this one:
//! 1. The gate closes and the kernel drops new SYNs, so from now on the clients are a fixed set.
//! 2. The Acceptors end, and handshakes that are under way are completed. Only then does anybody else take from the backlog:
//!    two who sweep and close reset each other's.
//! 3. The backlog is taken in and the socket closed.
//! 4. Every connection drains and acknowledges; at the deadline what is left is aborted.

use crate::{
    acceptor::AcceptError,
    gate::Gate,
    listener::Listener,
    messages::{AcceptorExit, Shutdown, Stop, Stopped, TakeIn, WorkerExit},
    roster::Roster,
    worker::{Tally, WorkerId},
};
use actix::prelude::*;
use slog::Logger;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long after the refusal the socket stays open. For the clients: one whose handshake is under way takes itself for
/// connected, its last packet is a round trip off, and a close would reset it. For the Acceptors: whoever has not answered by
/// then is on a busy thread, and must not keep the others from their drain.
const SETTLING: Duration = Duration::from_millis(100);
/// How long after an abort a Worker is waited for before it counts as stuck.
const WORKER_PATIENCE: Duration = Duration::from_millis(500);
/// How long the sweep of the backlog pauses when there is no descriptor for one more.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// Why a server stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The signal SIGTERM.
    Sigterm,
    /// The signal SIGINT, Ctrl-C.
    Sigint,
    /// [`Handle::stop`](crate::Handle::stop).
    Handle,
    /// Too many restarts, or a Worker that panicked.
    Restarts,
}

impl StopReason {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigint => "SIGINT",
            Self::Handle => "handle",
            Self::Restarts => "restarts",
        }
    }

    fn is_signal(self) -> bool {
        matches!(self, Self::Sigterm | Self::Sigint)
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a stopped server has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What stopped it first.
    pub reason: StopReason,
    /// Connections that were alive at the stop, or taken in by it, and acknowledged.
    pub acknowledged: usize,
    /// Connections that were alive at the stop, or taken in by it, and had to be ended by force.
    pub forced: usize,
    /// Connections that crashed, ever.
    pub crashed: usize,
    /// Whether supervision gave up: too many restarts, or a Worker that panicked.
    pub gave_up: bool,
    /// Workers that did not answer; their threads were left behind.
    pub stuck: Vec<WorkerId>,
    /// From the stop to the last acknowledgement.
    pub elapsed: Duration,
}

impl Report {
    /// What a program should exit with: 0, or 1 if supervision gave up, or 3 if a connection had to be forced.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self { gave_up: true, .. } => 1,
            Self { forced: 1.., .. } => 3,
            _ => 0,
        }
    }
}

/// How the Supervisor speaks to a Worker.
pub(crate) struct WorkerHandle {
    pub stop: Recipient<Stop>,
    pub take_in: Recipient<TakeIn>,
}

/// A stop under way.
struct Stopping {
    reason: StopReason,
    since: Instant,
    /// Whether a signal has been heard: the second one ends the stop by force.
    signalled: bool,
    taken: usize,
}

/// The actor at the root.
pub(crate) struct Supervisor {
    pub gate: Arc<Gate>,
    /// `None` once closed.
    pub listener: Option<Listener>,
    pub shutdown_timeout: Duration,
    pub log: Logger,
    workers: Roster<WorkerId, WorkerHandle>,
    /// Workers that still accept.
    acceptors: Roster<WorkerId, ()>,
    stopping: Option<Stopping>,
    tally: Tally,
    gave_up: bool,
    stuck: Vec<WorkerId>,
    report_to: Option<oneshot::Sender<Report>>,
}

impl Supervisor {
    /// A Supervisor over `workers`, which have just been started. Its report goes to `report_to`.
    pub fn new(
        gate: Arc<Gate>,
        listener: Listener,
        shutdown_timeout: Duration,
        workers: impl IntoIterator<Item = (WorkerId, WorkerHandle)>,
        report_to: oneshot::Sender<Report>,
        log: Logger,
    ) -> Self {
        let (mut roster, mut acceptors) = (Roster::default(), Roster::default());
        for (worker, handle) in workers {
            roster.enter(worker, handle);
            acceptors.enter(worker, ());
        }
        Self {
            gate,
            listener: Some(listener),
            shutdown_timeout,
            log,
            workers: roster,
            acceptors,
            stopping: None,
            tally: Tally::default(),
            gave_up: false,
            stuck: Vec::new(),
            report_to: Some(report_to),
        }
    }

    fn shutdown(&mut self, reason: StopReason, ctx: &mut Context<Self>) {
        if let Some(stopping) = &mut self.stopping {
            if reason.is_signal() && std::mem::replace(&mut stopping.signalled, true) {
                self.abort(ctx);
            }
            return;
        }
        let census = self.gate.close();
        if let Some(listener) = &self.listener
            && let Err(error) = listener.refuse()
        {
            // Then a client that comes between the sweep and the close is reset: all else holds.
            slog::warn!(self.log, "cannot refuse new connections"; "reason" => %error);
        }
        slog::info!(self.log, "stopping"; "reason" => reason.as_str(), "connections" => census.connections,
            "pending" => census.pending, "timeout_ms" => self.shutdown_timeout.as_millis() as u64);
        self.stopping = Some(Stopping { reason, since: Instant::now(), signalled: reason.is_signal(), taken: 0 });
        self.tell_workers(Stop::Accepting);
        ctx.run_later(SETTLING, Self::drain);
        ctx.run_later(self.shutdown_timeout, Self::abort_at_deadline);
    }

    fn tell_workers(&mut self, stop: Stop) {
        self.workers.order(stop).for_each(|worker| worker.stop.do_send(stop));
    }

    /// Takes in the backlog, closes the socket and starts the drain. The sweep calls it again until it has got through.
    fn drain(&mut self, ctx: &mut Context<Self>) {
        if self.workers.ordered() > Some(Stop::Drain) {
            return;
        }
        if self.take_in_backlog() {
            self.close_listener();
            self.tell_workers(Stop::Finish);
        } else {
            // The drain must begin, it is what frees descriptors; but the Workers must stay for those to come.
            self.tell_workers(Stop::Drain);
            ctx.run_later(SWEEP_PAUSE, Self::drain);
        }
    }

    /// Hands the clients in the backlog to the Workers. False if there was no descriptor for the next one.
    fn take_in_backlog(&mut self) -> bool {
        let (Some(listener), Some(stopping)) = (&self.listener, &mut self.stopping) else { return true };
        // Those whose Acceptor has answered have a thread that runs; any other only if there is none.
        let responsive = |id: &WorkerId| !self.acceptors.owing().any(|(owing, ())| owing == id);
        let any_responsive = self.workers.owing().any(|(id, _)| responsive(id));
        let mut workers = self.workers.owing().filter(|(id, _)| !any_responsive || responsive(id)).cycle();
        loop {
            match listener.take() {
                Ok((stream, peer)) => {
                    let Some((&id, worker)) = workers.next() else { return true };
                    stopping.taken += 1;
                    worker.take_in.do_send(TakeIn { stream, peer, permit: self.gate.take_in(id) });
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(error) => match AcceptError::of(&error) {
                    AcceptError::Client => {}
                    AcceptError::Starved => return false,
                    AcceptError::Listener => return true,
                },
            }
        }
    }

    fn close_listener(&mut self) {
        let (Some(listener), Some(stopping)) = (self.listener.take(), &self.stopping) else { return };
        let address = listener.address();
        listener.close();
        slog::info!(self.log, "listener closed"; "address" => address.map_or_else(|error| error.to_string(), |a| a.to_string()),
            "taken" => stopping.taken);
    }

    fn abort_at_deadline(&mut self, ctx: &mut Context<Self>) {
        self.abort(ctx);
    }

    fn abort(&mut self, ctx: &mut Context<Self>) {
        if self.workers.ordered() == Some(Stop::Abort) {
            return;
        }
        self.close_listener();
        self.tell_workers(Stop::Abort);
        ctx.run_later(WORKER_PATIENCE, Self::give_up_on_the_silent);
    }

    fn give_up_on_the_silent(&mut self, ctx: &mut Context<Self>) {
        let silent: Vec<WorkerId> = self.workers.owing().map(|(&id, _)| id).collect();
        for worker in silent {
            let connections = self.gate.alive(worker);
            slog::error!(self.log, "worker stuck"; "worker" => worker.0, "connections" => connections);
            self.workers.acknowledge(&worker);
            self.tally.forced += connections;
            self.stuck.push(worker);
        }
        self.report_if_nothing_is_owed(ctx);
    }

    fn report_if_nothing_is_owed(&mut self, ctx: &mut Context<Self>) {
        if !self.workers.is_empty() {
            return;
        }
        self.close_listener();
        let (Some(stopping), Some(report_to)) = (&self.stopping, self.report_to.take()) else { return };
        let report = Report {
            reason: stopping.reason,
            acknowledged: self.tally.acknowledged,
            forced: self.tally.forced,
            crashed: self.tally.crashed,
            gave_up: self.gave_up,
            stuck: std::mem::take(&mut self.stuck),
            elapsed: stopping.since.elapsed(),
        };
        // Whoever ran the server has stopped waiting; then nobody wants it.
        let _ = report_to.send(report);
        ctx.stop();
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl StreamHandler<Shutdown> for Supervisor {
    fn handle(&mut self, Shutdown(reason): Shutdown, ctx: &mut Self::Context) {
        self.shutdown(reason, ctx);
    }

    /// All handles are gone, which stops nothing.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Stopped<AcceptorExit>> for Supervisor {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<AcceptorExit>, ctx: &mut Self::Context) {
        self.acceptors.acknowledge(&exit.worker);
        if self.stopping.is_none() {
            self.gave_up = true;
            self.shutdown(StopReason::Restarts, ctx);
        }
    }
}

impl Handler<Stopped<WorkerExit>> for Supervisor {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<WorkerExit>, ctx: &mut Self::Context) {
        if !self.workers.acknowledge(&exit.worker) {
            return;
        }
        self.tally.acknowledged += exit.tally.acknowledged;
        self.tally.forced += exit.tally.forced;
        self.tally.crashed += exit.tally.crashed;
        self.acceptors.acknowledge(&exit.worker);
        if exit.crashed {
            slog::error!(self.log, "worker crashed"; "worker" => exit.worker.0, "connections" => exit.tally.forced);
            self.gave_up = true;
            self.shutdown(StopReason::Restarts, ctx);
        }
        self.report_if_nothing_is_owed(ctx);
    }
}
