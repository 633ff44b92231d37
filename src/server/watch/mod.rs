//! Lets others see the tree while it runs: a snapshot, a page of connections, the changes, the counters.
//!
//! A watcher is on no actor's way. Counters are read without asking; for the connections each Worker is asked by a message,
//! and one that does not answer in time is shown without them. Relies on the actors to tell what they do: Worker and
//! Supervisor where they carry out their steps, a connection where its state changes.

pub(crate) mod counters;
pub(crate) mod news;
pub(crate) mod tree;

use crate::{
    decisions::{
        admission::Census,
        ids::{ConnectionId, WorkerId},
        stop::{Stop, StopReason},
    },
    server::{
        acceptor::Exhaustions,
        gate::Gate,
        messages::{Inspect, Inspected, Ping},
        report::{Report, TotalBytes},
        watch::{
            counters::{Counters, Counts},
            news::{Events, News, WorkerNews},
            tree::{
                AcceptorPhase, AcceptorView, Answers, Change, ConnectionView, Connections, Listening, Occupancy, Order,
                Phase, ServerInfo, State, Stopping, Totals, Tree, WorkerPhase, WorkerView,
            },
        },
    },
};
use actix::Recipient;
use futures_util::future::{join, join_all, select_all};
use std::{
    iter,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, time::timeout};

/// How long a Worker may take to list its connections.
const WORKER_PATIENCE: Duration = Duration::from_millis(250);

/// What a server lets be seen. All its threads share it.
#[derive(Debug)]
pub(crate) struct Watched {
    listen: SocketAddr,
    started: SystemTime,
    pub gate: Arc<Gate>,
    pub exhaustions: Exhaustions,
    pub news: Arc<News>,
    /// In the order of the Workers' ids.
    counters: Vec<Arc<Counters>>,
    /// The Supervisor, and the Workers in the same order. Empty before the server runs.
    actors: OnceLock<(Recipient<Ping>, Vec<Recipient<Inspect>>)>,
    phase: watch::Sender<Phase>,
    stop: Mutex<Option<StopSoFar>>,
}

/// The server's own hold of [`Watched`]. The server has ended when the last one is gone: also if it has failed or never ran.
#[derive(Debug, Clone)]
pub(crate) struct Watchable(Arc<Alive>);

#[derive(Debug)]
struct Alive(Arc<Watched>);

impl Watchable {
    pub fn new(listen: SocketAddr, workers: usize, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Alive(Arc::new(Watched {
            listen,
            started: SystemTime::now(),
            gate,
            exhaustions: Exhaustions::default(),
            news: News::new(),
            counters: (0..workers).map(|_| Arc::default()).collect(),
            actors: OnceLock::new(),
            phase: watch::Sender::new(Phase::Bound),
            stop: Mutex::new(None),
        }))))
    }

    /// For those who do not keep the server alive.
    pub fn watched(&self) -> Arc<Watched> {
        self.0.0.clone()
    }
}

impl Deref for Watchable {
    type Target = Watched;

    fn deref(&self) -> &Watched {
        &self.0.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// What the Supervisor has done of a stop.
#[derive(Debug)]
struct StopSoFar {
    reason: StopReason,
    since: Instant,
    timeout: Duration,
    census: Census,
    step: Option<Order>,
    aborted: Option<tokio::time::Instant>,
    listener: Listening,
    taken: usize,
    stuck: Vec<WorkerId>,
    report: Option<Report>,
}

impl Watched {
    /// For the thread of one Worker.
    pub fn worker(&self, worker: WorkerId) -> WorkerNews {
        WorkerNews::new(worker, self.counters[worker.0 - 1].clone(), self.news.clone())
    }

    /// The Supervisor and the Workers run.
    pub fn run(&self, supervisor: Recipient<Ping>, workers: Vec<Recipient<Inspect>>) {
        // It is called once, by `Server::run`.
        let _ = self.actors.set((supervisor, workers));
        let phase = self.enter(Phase::Running);
        self.news.tell(|at_ms| Change::Phase { at_ms, phase, reason: None, owed: None, timeout_ms: None });
    }

    /// A stop is announced.
    pub fn announce(&self, reason: StopReason) {
        let phase = self.enter(Phase::LameDuck);
        self.news.tell(|at_ms| Change::Phase { at_ms, phase, reason: Some(reason), owed: None, timeout_ms: None });
    }

    /// The settings were read again, and these keys have changed.
    pub fn reload(&self, changed: &[&'static str]) {
        self.news.tell(|at_ms| Change::Reload { at_ms, changed: changed.into() });
    }

    /// A stop has begun.
    pub fn begin(&self, reason: StopReason, census: Census, timeout: Duration, refusing: bool) {
        let listener = if refusing { Listening::Refusing } else { Listening::Open };
        *self.stop() = Some(StopSoFar {
            reason,
            since: Instant::now(),
            timeout,
            census,
            step: None,
            aborted: None,
            listener,
            taken: 0,
            stuck: Vec::new(),
            report: None,
        });
        let phase = self.enter(Phase::Stopping);
        self.news.tell(|at_ms| Change::Phase {
            at_ms,
            phase,
            reason: Some(reason),
            owed: Some(census.connections + census.pending),
            timeout_ms: Some(timeout.as_millis() as u64),
        });
        self.news.tell(|at_ms| Change::Listener { at_ms, state: listener, taken: 0 });
    }

    /// The Supervisor has broadcast an order.
    pub fn step(&self, stop: Stop) {
        self.stopping(|so_far| {
            so_far.step = Some(stop.into());
            so_far.aborted = so_far.aborted.or_else(|| (stop == Stop::Abort).then(tokio::time::Instant::now));
        });
        self.news.tell(|at_ms| Change::Step { at_ms, step: stop.into() });
    }

    /// The Supervisor has taken in so many clients from the backlog.
    pub fn taken(&self, taken: usize) {
        self.stopping(|so_far| so_far.taken = taken);
    }

    /// The Supervisor has closed the listening socket.
    pub fn listener_closed(&self) {
        self.stopping(|so_far| so_far.listener = Listening::Closed);
        let taken = self.stop().as_ref().map_or(0, |so_far| so_far.taken);
        self.news.tell(|at_ms| Change::Listener { at_ms, state: Listening::Closed, taken });
    }

    /// The Supervisor waits for this Worker no longer.
    pub fn stuck(&self, worker: WorkerId) {
        self.stopping(|so_far| so_far.stuck.push(worker));
    }

    /// The server has ended; without a report if it has failed or never ran. Only the first time counts.
    pub fn end(&self, report: Option<Report>) {
        if self.phase() == Phase::Stopped {
            return;
        }
        self.stopping(|so_far| so_far.report = report);
        let phase = self.enter(Phase::Stopped);
        self.news.tell(|at_ms| Change::Phase { at_ms, phase, reason: None, owed: None, timeout_ms: None });
        self.news.end();
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The bytes of all connections so far, without those of health checks.
    pub fn total_bytes(&self) -> TotalBytes {
        let mut total = TotalBytes::default();
        for [received, echoed, discarded] in self.counters.iter().map(|counters| counters.bytes()) {
            total.received += received;
            total.echoed += echoed;
            total.discarded += discarded;
        }
        total
    }

    fn enter(&self, phase: Phase) -> Phase {
        self.phase.send_replace(phase);
        phase
    }

    fn stopping(&self, change: impl FnOnce(&mut StopSoFar)) {
        if let Some(so_far) = self.stop().as_mut() {
            change(so_far);
        }
    }

    /// A panic under the lock leaves a whole state, because each change is one assignment.
    fn stop(&self) -> MutexGuard<'_, Option<StopSoFar>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks into a server while it runs, from any thread and for as long as it is kept. [`Server::watch`](crate::Server::watch)
/// gives it.
///
/// ```
/// use supervised_echo::{Echo, Server, Settings};
///
/// # actix::System::new().block_on(async {
/// let mut settings = Settings::default();
/// settings.listen.address = ([127, 0, 0, 1], 0).into();
/// let server = Server::bind(settings, Echo)?;
/// let (watch, handle) = (server.watch(), server.handle());
/// let mut events = watch.events();
/// actix::spawn(async move {
///     println!("{} clients are served", watch.tree(10).await.admission.served);
///     handle.stop();
///     while let Some(event) = events.next().await {
///         println!("{event:?}");
///     }
///     println!("{:?}", watch.report());
/// });
/// server.run().await?;
/// # Ok::<(), supervised_echo::Error>(())
/// # })?;
/// # Ok::<(), supervised_echo::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Watch(Arc<Watched>);

impl Watch {
    pub(crate) fn new(watched: Arc<Watched>) -> Self {
        Self(watched)
    }

    /// The server and everything below it, with the `most` oldest connections of each Worker.
    ///
    /// It asks the Workers. One that does not answer within 250 ms is shown with its counters alone. It needs tokio's timer.
    pub async fn tree(&self, most: usize) -> Tree {
        // Where the server stands is seen before the Workers are: a tree of a server that has ended is its last one.
        let (phase, stop) = (self.phase(), self.stopping());
        let answers = self.inspect(None, Inspect { after: None, state: None, most }).await;
        // Before the server runs there is no Worker to ask.
        let answers = answers.into_iter().map(|(_, answer)| answer).chain(iter::repeat_with(|| None));
        let workers = (1..=self.0.counters.len()).map(WorkerId).zip(answers);
        let workers = workers.map(|(worker, answer)| self.worker(worker, answer)).collect();
        Tree {
            v: 1,
            server: ServerInfo {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                started: humantime::format_rfc3339_millis(self.0.started).to_string(),
                uptime_ms: self.0.news.uptime().as_millis() as u64,
                listen: self.0.listen,
            },
            phase,
            stop,
            admission: self.occupancy(),
            totals: self.totals(),
            workers,
        }
    }

    /// The open connections in the order of their ids, `most` of them, only those behind `after`, and only those of one
    /// Worker or in one state if that is asked for.
    pub async fn connections(
        &self,
        after: Option<ConnectionId>,
        most: usize,
        worker: Option<WorkerId>,
        state: Option<State>,
    ) -> Connections {
        // One more of each tells whether there is another page.
        let answers = self.inspect(worker, Inspect { after, state, most: most.saturating_add(1) }).await;
        let (mut connections, mut silent) = (Vec::new(), Vec::new());
        for (worker, answer) in answers {
            match answer {
                Some(Inspected { connections: listed, .. }) => {
                    connections.extend(listed.into_iter().map(|view| ConnectionView { worker: Some(worker), ..view }));
                }
                // A Worker that has ended has no connection.
                None if self.phase_of(worker) == WorkerPhase::Stopped => {}
                None => silent.push(worker),
            }
        }
        connections.sort_unstable_by_key(|view| view.connection);
        let more = connections.len() > most;
        connections.truncate(most);
        let next = connections.last().map(|view| view.connection).filter(|_| more);
        Connections { connections, next, silent }
    }

    /// Whether the main thread answers within `patience`, and whether at least one Worker does. An actor that has ended is
    /// not held up, so it counts as one that answers; and so does one that has not begun. It needs tokio's timer.
    pub async fn answers(&self, patience: Duration) -> Answers {
        let Some((supervisor, workers)) = self.0.actors.get() else { return Answers { main: true, workers: true } };
        let list = Inspect { after: None, state: None, most: 0 };
        let main = timeout(patience, supervisor.send(Ping));
        let workers = select_all(workers.iter().map(|worker| Box::pin(worker.send(list))));
        let (main, workers) = join(main, timeout(patience, workers)).await;
        Answers { main: main.is_ok(), workers: workers.is_ok() }
    }

    /// The changes from now on.
    pub fn events(&self) -> Events {
        self.0.news.watch()
    }

    /// What each Worker has counted, in the order of their ids. No Worker is asked.
    pub fn counts(&self) -> Vec<Counts> {
        self.0.counters.iter().map(|counters| counters.counts()).collect()
    }

    /// The sums over all Workers. No Worker is asked.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counts in self.counts() {
            totals.accepted += counts.accepted;
            totals.received += counts.received;
            totals.echoed += counts.echoed;
            totals.discarded += counts.discarded;
            for (reason, n) in counts.closed {
                *totals.closed.entry(reason.as_str()).or_default() += n;
            }
        }
        totals
    }

    /// The caps, and how much of them is taken.
    pub fn occupancy(&self) -> Occupancy {
        let admission = self.0.gate.admission();
        let (max_connections, max_pending) = admission.caps();
        Occupancy {
            served: admission.served(),
            max_connections,
            waiting: admission.waiting(),
            max_pending,
            out_of_descriptors: self.0.exhaustions.any(),
        }
    }

    /// Where the server stands.
    pub fn phase(&self) -> Phase {
        self.0.phase()
    }

    /// Resolves when the server has come this far, or further.
    pub async fn reached(&self, phase: Phase) {
        // The sender is kept here, so it does not fail.
        let _ = self.0.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// The stop so far; `None` while none has begun.
    pub fn stopping(&self) -> Option<Stopping> {
        let tally = self.0.gate.admission().outcomes();
        self.0.stop().as_ref().map(|so_far| Stopping {
            reason: so_far.reason,
            step: so_far.step,
            since_ms: so_far.since.elapsed().as_millis() as u64,
            timeout_ms: so_far.timeout.as_millis() as u64,
            owed: so_far.census.connections + so_far.census.pending,
            taken: so_far.taken,
            acknowledged: tally.acknowledged,
            forced: tally.forced,
            listener: so_far.listener,
        })
    }

    /// How long ago the stop was aborted, by its deadline or an order; `None` if it was not.
    pub fn aborting_for(&self) -> Option<Duration> {
        Some(self.0.stop().as_ref()?.aborted?.elapsed())
    }

    /// The report; `None` while the server has not ended.
    pub fn report(&self) -> Option<Report> {
        self.0.stop().as_ref().and_then(|so_far| so_far.report.clone())
    }

    /// How many watch the changes.
    pub fn watchers(&self) -> usize {
        self.0.news.watchers()
    }

    /// The Acceptors of all Workers, in the order of their ids.
    pub fn acceptors(&self) -> Vec<AcceptorView> {
        self.0.counters.iter().map(|counters| acceptor(counters)).collect()
    }

    /// One answer, or none, from each Worker or from the one that is meant. actix drops a question that no one waits for any more, so
    /// a Worker that was held up answers no old ones.
    async fn inspect(&self, only: Option<WorkerId>, inspect: Inspect) -> Vec<(WorkerId, Option<Inspected>)> {
        let workers = self.0.actors.get().map_or(&[][..], |(_, workers)| workers);
        let asked = (1..).map(WorkerId).zip(workers).filter(|(worker, _)| only.is_none_or(|only| only == *worker));
        let answers = asked.map(|(worker, address)| async move {
            (worker, timeout(WORKER_PATIENCE, address.send(inspect)).await.ok().and_then(Result::ok))
        });
        join_all(answers).await
    }

    fn worker(&self, worker: WorkerId, answer: Option<Inspected>) -> WorkerView {
        let counters = &self.0.counters[worker.0 - 1];
        let answered = answer.is_some();
        let Inspected { n, count, connections } = answer.unwrap_or_else(|| Inspected {
            n: counters.changes.get(),
            count: counters.count(),
            connections: Vec::new(),
        });
        let open = (count.waiting + count.serving + count.draining + count.closing) as usize;
        WorkerView {
            worker,
            n,
            answered,
            state: self.phase_of(worker),
            ordered: (counters.ordered.get() as usize).checked_sub(1).map(|order| Order::ALL[order]),
            acceptor: acceptor(counters),
            count,
            more: open.saturating_sub(connections.len()),
            connections,
        }
    }

    fn phase_of(&self, worker: WorkerId) -> WorkerPhase {
        let stuck = self.0.stop().as_ref().is_some_and(|so_far| so_far.stuck.contains(&worker));
        let phase = WorkerPhase::ALL[self.0.counters[worker.0 - 1].phase.get() as usize];
        if stuck { WorkerPhase::Stuck } else { phase }
    }
}

fn acceptor(counters: &Counters) -> AcceptorView {
    AcceptorView { state: AcceptorPhase::ALL[counters.acceptor.get() as usize], restarts: counters.restarts.get() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        server::{testing::watched, watch::tree::Open},
        testing::probe,
    };
    use actix::prelude::*;
    use std::{cell::Cell, rc::Rc};
    use tokio::sync::oneshot;

    /// A Worker that looks into its mailbox only when it may go on.
    struct HeldUp {
        go_on: Option<oneshot::Receiver<()>>,
        asked: Rc<Cell<usize>>,
    }

    impl Actor for HeldUp {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            let go_on = self.go_on.take();
            let held = async move {
                if let Some(go_on) = go_on {
                    let _ = go_on.await;
                }
            };
            ctx.wait(held.into_actor(self));
        }
    }

    impl Handler<Inspect> for HeldUp {
        type Result = Inspected;

        fn handle(&mut self, _: Inspect, _: &mut Self::Context) -> Inspected {
            self.asked.set(self.asked.get() + 1);
            Inspected { n: 0, count: Open::default(), connections: Vec::new() }
        }
    }

    #[actix::test]
    async fn a_worker_that_was_held_up_answers_no_question_that_no_one_waits_for() {
        tokio::time::pause();
        let (watched, asked, (go_on, may_go_on)) = (watched(), Rc::default(), oneshot::channel());
        let worker = HeldUp { go_on: Some(may_go_on), asked: Rc::clone(&asked) }.start();
        watched.run(probe().0, vec![worker.recipient()]);
        let watch = Watch::new(watched.watched());
        for _ in 0..3 {
            assert!(!watch.tree(1).await.workers[0].answered);
        }
        go_on.send(()).unwrap();
        assert!(watch.tree(1).await.workers[0].answered);
        assert_eq!(asked.get(), 1);
    }
}
