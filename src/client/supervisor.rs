//! The root of the client's tree.
//!
//! Relies on the same messages and roster as the server's Supervisor, and on the Record of each connection to send its
//! `Stopped`.

use crate::{
    client::{
        connect::Connect,
        connection::ConnectionActor,
        progress::Progress,
        record::{ConnectionExit, End, Record},
        report::ClientReport,
        run::Run,
        session::Plan,
        usage::Meter,
    },
    decisions::{
        roster::Roster,
        stop::{Echoes, Heard, Stop, StopReason},
    },
    stop::{Shutdown, Stopped},
};
use actix::prelude::*;
use slog::Logger;
use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};
use tokio::{sync::oneshot, time::Instant};

/// The root of the client's tree. It starts the ConnectionActors, turns `Shutdown` into a broadcast `Stop`, collects
/// `Stopped`, and makes the report.
pub(super) struct ClientSupervisor<C: Connect> {
    plan: Rc<Plan>,
    server: Rc<C>,
    connections: Roster<usize, Addr<ConnectionActor>>,
    run: Rc<Run>,
    meter: Meter,
    unreachable: u64,
    obstacle: Option<String>,
    crashed: u64,
    stopped: Option<StopReason>,
    echoes: Echoes,
    started: Instant,
    /// `started`, by the clock on the wall.
    began: SystemTime,
    report_to: Option<oneshot::Sender<ClientReport>>,
    /// Hears of the progress once a second.
    watcher: Option<Watcher>,
    log: Logger,
}

/// What is told of the progress of a run.
pub(super) type Watcher = Box<dyn FnMut(&Progress)>;

/// How often progress is told. A run that takes less than two of these needs none.
const TELLING: Duration = Duration::from_secs(1);

impl<C: Connect> ClientSupervisor<C> {
    pub fn new(plan: Plan, server: Rc<C>, run: Run, report_to: oneshot::Sender<ClientReport>, log: Logger) -> Self {
        Self {
            plan: Rc::new(plan),
            server,
            connections: Roster::default(),
            run: Rc::new(run),
            meter: Meter::start(),
            unreachable: 0,
            obstacle: None,
            crashed: 0,
            stopped: None,
            echoes: Echoes::default(),
            started: Instant::now(),
            began: SystemTime::now(),
            report_to: Some(report_to),
            watcher: None,
            log,
        }
    }

    pub fn with_watcher(self, watcher: Option<Watcher>) -> Self {
        Self { watcher, ..self }
    }

    fn tell_progress(&mut self, ctx: &mut Context<Self>) {
        let Some(mut watcher) = self.watcher.take() else { return };
        let mut last = Progress::default();
        ctx.run_interval(TELLING, move |this, _| {
            let elapsed = this.run.since(Instant::now());
            if elapsed >= 2 * TELLING {
                last = Progress::new(&this.run.tally.borrow(), elapsed, this.plan.traffic.duration, &last);
                watcher(&last);
            }
        });
    }

    fn tell_connections(&mut self, stop: Stop) {
        self.connections.order(stop).for_each(|actor| actor.do_send(stop));
    }

    /// From T0 until now, or until the end of a timetable that was not stopped.
    fn span(&self) -> Option<Duration> {
        let until_now = self.run.t0_if_begun()?.elapsed();
        let timetable = self.run.pace.as_ref().filter(|_| self.stopped.is_none()).map(|pace| &pace.timetable);
        let length = timetable.and_then(|timetable| timetable.length(self.plan.traffic.messages));
        Some(length.map_or(until_now, |length| length.max(until_now)))
    }

    fn report_if_nothing_is_owed(&mut self, ctx: &mut Context<Self>) {
        if !self.connections.is_empty() {
            return;
        }
        let Some(report_to) = self.report_to.take() else { return };
        let mut tally = self.run.tally.borrow_mut();
        let usage = self.meter.read(&tally);
        tally.finish(self.run.since(Instant::now()), usage);
        let report = ClientReport {
            unreachable: self.unreachable,
            obstacle: self.obstacle.take(),
            crashed: self.crashed,
            stopped: self.stopped,
            forced: self.connections.ordered() == Some(Stop::Abort),
            span_ms: self.span().map(|span| span.as_millis() as u64),
            server: self.plan.server.clone(),
            started: humantime::format_rfc3339_millis(self.run.began().unwrap_or(self.began)).to_string(),
            ..ClientReport::new(self.plan.id.clone(), &mut tally).with_elapsed(self.started.elapsed())
        };
        drop(tally);
        // This fails if the program has stopped waiting for `run`. Then no one wants the report.
        let _ = report_to.send(report);
        ctx.stop();
    }
}

impl<C: Connect> Actor for ClientSupervisor<C> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for connection in 1..=self.plan.traffic.connections {
            let record = Record::new(connection, &self.log, self.run.clone(), ctx.address().recipient());
            let actor = ConnectionActor::start(self.plan.clone(), self.server.clone(), record);
            // No order can have come yet, because this runs before the first message.
            self.connections.enter(connection, actor);
        }
        self.tell_progress(ctx);
        self.report_if_nothing_is_owed(ctx);
    }
}

impl<C: Connect> StreamHandler<Shutdown> for ClientSupervisor<C> {
    fn handle(&mut self, shutdown: Shutdown, _: &mut Self::Context) {
        let (reason, force) = match shutdown {
            Shutdown::Stop(reason) => {
                (reason, reason.is_signal() && self.echoes.signal(self.started.elapsed()) == Heard::Again)
            }
            Shutdown::Abort => (StopReason::Handle, true),
        };
        if self.stopped.is_none() {
            self.stopped = Some(reason);
            slog::info!(self.log, "stopping"; "reason" => reason.as_str());
        }
        self.tell_connections(if force { Stop::Abort } else { Stop::Drain });
    }

    /// All handles are gone. That stops nothing.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl<C: Connect> Handler<Stopped<ConnectionExit>> for ClientSupervisor<C> {
    type Result = ();

    fn handle(&mut self, Stopped(exit): Stopped<ConnectionExit>, ctx: &mut Self::Context) {
        if !self.connections.acknowledge(&exit.connection) {
            return;
        }
        match exit.end {
            End::Finished | End::Stopped | End::Forced => {}
            End::Crashed => self.crashed += 1,
            End::Unreachable { limit, reason } => {
                self.unreachable += 1;
                let (server, limit) = (&self.plan.server, humantime::format_duration(limit));
                self.obstacle.get_or_insert_with(|| format!("cannot connect to {server} within {limit}: {reason}"));
            }
        }
        self.report_if_nothing_is_owed(ctx);
    }
}
