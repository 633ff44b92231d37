//! The stop: a Supervisor over two Workers, an Acceptor each, and their connections; crashes, restarts, the deadline and the
//! signals at any point.

use stateright::Property;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use supervised_echo::{
    CloseReason, StopReason, WorkerId,
    decisions::{
        admission::{Admission, Census, ConnectionId, Place, Tally},
        connection::{ConnectionState, Ending},
        restart_limit::RestartLimit,
        stop::Stop,
        supervisor::{self as supervisor_state, SupervisorState, Timer, Verdict},
        worker::{self as worker_state, WorkerState},
    },
};

const PLACES: usize = 1;
const MAX_RESTARTS: usize = 1;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tree {
    admission: Admission,
    supervisor: SupervisorState<usize>,
    timers: BTreeSet<Timer>,
    workers: [Worker; 2],
    connections: BTreeMap<ConnectionId, Connection>,
    /// Clients whose handshakes are under way.
    handshakes: usize,
    /// Clients in the kernel's queue.
    backlog: usize,
    /// Clients found in the backlog by the Supervisor.
    taken: usize,
    listening: bool,
    /// Signals, without their echoes.
    signals: usize,
    echoes: usize,
    /// Orders to abort.
    aborts: usize,
    /// Whether such an order began the stop.
    begun_by_abort: bool,
    crashes: usize,
    aborted: bool,
    /// Whether the kernel refuses new clients.
    refusing: bool,
    /// Whether the socket was closed under a handshake, though its time was not over and no force was used.
    closed_early: bool,
    /// Whether the time for handshakes is over.
    handshakes_over: bool,
    /// Whether a sweep has run out of descriptors, which happens once.
    exhausted: bool,
    served_late: bool,
    /// Whether the end of one that had been told to drain was called anything else.
    misnamed: bool,
    /// Whether a client of the backlog went to a thread that had not answered, though another had.
    misdirected: bool,
    /// Whose Acceptors the Supervisor knows to have ended.
    answered: [bool; 2],
    connection_crashes: usize,
    census: Option<Census>,
    report: Option<(Verdict, Tally)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Worker {
    state: WorkerState<ConnectionId, ()>,
    alive: bool,
    /// The last order that it has heard.
    heard: Option<Stop>,
    acceptor_due: bool,
    acceptor_alive: bool,
    from_supervisor: VecDeque<Order>,
    to_supervisor: VecDeque<supervisor_state::Event>,
    /// Whether its Acceptor has been told to stop, by whichever step of the stop.
    acceptor_told: bool,
    from_acceptor: VecDeque<News>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Order {
    Stop(Stop),
    TakeIn(ConnectionId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum News {
    Accepted(ConnectionId, Place),
    Stopped { crashed: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Connection {
    worker: usize,
    state: ConnectionState,
    /// Whether it need not ask the gate: it was given a slot when it was accepted.
    has_slot: bool,
    /// Whether its service has begun.
    begun: bool,
    /// `false` when it has ended and its `Stopped` is on the way.
    alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    Signal,
    Echo,
    Abort,
    HandshakeEnds,
    Elapse { timer: Timer, exhausted: bool },
    SupervisorHears { worker: usize },
    WorkerHearsSupervisor(usize),
    WorkerHearsAcceptor(usize),
    WorkerHears(ConnectionId),
    WorkerCrashes(usize),
    AcceptorIsDue(usize),
    AcceptorIsExhausted(usize),
    Accept(usize),
    AcceptorHears(usize),
    AcceptorCrashes(usize),
    Begin(ConnectionId),
    End(ConnectionId),
    Crash(ConnectionId),
}

impl Action {
    /// Whether it is what ends a stop that does not come to its end by itself.
    fn is_force(&self) -> bool {
        matches!(self, Self::Signal | Self::Abort | Self::Elapse { timer: Timer::Deadline | Timer::Patience, .. })
    }
}

impl Tree {
    fn supervisor_on(&mut self, event: supervisor_state::Event, exhausted: bool) {
        use supervisor_state::{Event, Step};
        for step in self.supervisor.on(event) {
            match step {
                Step::Begin(reason) => {
                    self.begun_by_abort = reason == StopReason::Handle;
                    self.census = Some(self.admission.close());
                    self.supervisor_on(Event::Begun { refusing: self.refusing }, false);
                }
                // Without a handshake it decides nothing.
                Step::Start(Timer::Handshakes) if self.handshakes == 0 => {}
                Step::Start(timer) => assert!(self.timers.insert(timer), "{timer:?} runs already"),
                Step::Tell(stop) => {
                    assert!(
                        stop != Stop::Finish || !self.listening,
                        "told that no client comes before the socket is closed"
                    );
                    assert!(self.census.is_some(), "told of a stop before the gate is closed");
                    self.aborted |= stop == Stop::Abort;
                    let told: Vec<usize> = self.supervisor.workers().copied().collect();
                    told.into_iter().for_each(|worker| self.send(worker, Order::Stop(stop)));
                }
                Step::Sweep { ask } => {
                    self.exhausted |= exhausted;
                    let under_way = ask && self.handshakes > 0;
                    self.sweep(if exhausted { self.backlog / 2 } else { self.backlog });
                    self.supervisor_on(Event::Swept { empty: !exhausted, under_way }, false);
                    let settled = self.handshakes_over || !self.refusing && !self.timers.contains(&Timer::Settling);
                    assert!(exhausted || !settled || !self.listening, "the socket stays open for longer than it may");
                    let drains = |worker: &Worker| {
                        let told = |order: &Order| matches!(order, Order::Stop(stop) if *stop >= Stop::Drain);
                        !worker.alive || worker.heard >= Some(Stop::Drain) || worker.from_supervisor.iter().any(told)
                    };
                    assert!(!exhausted || self.workers.iter().all(drains), "only a drain frees descriptors");
                }
                Step::CloseListener => {
                    let timely = self.timers.contains(&Timer::Handshakes) && !self.aborted && self.crashes == 0;
                    self.closed_early = self.refusing && self.handshakes > 0 && timely;
                    self.sweep(self.backlog);
                    self.listening = false;
                    self.handshakes = 0;
                    // They decide nothing any more.
                    self.timers.retain(|timer| !matches!(timer, Timer::Settling | Timer::Handshakes));
                }
                Step::GiveUpOn(_) => {}
                Step::Report(verdict) => self.report = Some((verdict, self.admission.tally())),
            }
        }
    }

    fn sweep(&mut self, clients: usize) {
        let takers: Vec<usize> = self.supervisor.takers().map(|(_, &worker)| worker).collect();
        for n in 0..clients {
            self.backlog -= 1;
            self.taken += 1;
            let id = self.admission.take_in();
            match takers.get(n % takers.len().max(1)) {
                Some(&worker) => {
                    let another_has = self.supervisor.workers().any(|&other| self.answered[other]);
                    self.misdirected |= !self.answered[worker] && another_has;
                    self.send(worker, Order::TakeIn(id));
                }
                None => self.leave(id, CloseReason::Forced),
            }
        }
    }

    fn send(&mut self, worker: usize, order: Order) {
        match order {
            _ if self.workers[worker].alive => self.workers[worker].from_supervisor.push_back(order),
            Order::TakeIn(id) => self.leave(id, CloseReason::Forced),
            Order::Stop(_) => {}
        }
    }

    fn worker_on(&mut self, n: usize, event: worker_state::Event<ConnectionId>) {
        use supervisor_state::Event;
        use worker_state::Step;
        for step in self.workers[n].state.on(event) {
            let worker = &mut self.workers[n];
            match step {
                Step::StartAcceptor { .. } => worker.acceptor_alive = true,
                Step::WaitForAcceptor => worker.acceptor_due = true,
                Step::TellAcceptor(_) if worker.acceptor_alive => worker.acceptor_told = true,
                Step::TellAcceptor(_) => {}
                Step::TellConnections(stop) => {
                    let of_this_worker = |(&id, c): (&ConnectionId, &Connection)| (c.worker == n).then_some(id);
                    let told: Vec<_> = self.connections.iter().filter_map(of_this_worker).collect();
                    told.into_iter().for_each(|id| self.connection_hears(id, stop));
                }
                Step::AcceptingIsOver { .. } => {
                    worker.to_supervisor.push_back(Event::AcceptorStopped(WorkerId(n)));
                }
                Step::Finish => {
                    worker.alive = false;
                    worker.to_supervisor.push_back(Event::WorkerStopped { worker: WorkerId(n), crashed: false });
                }
            }
        }
    }

    fn worker_crashes(&mut self, n: usize) {
        self.admission.close();
        let worker = &mut self.workers[n];
        worker.alive = false;
        worker.acceptor_due = false;
        let crash = supervisor_state::Event::WorkerStopped { worker: WorkerId(n), crashed: true };
        worker.to_supervisor.push_back(crash);
        // What its mailbox holds is dropped, and with it the permits.
        let orders = std::mem::take(&mut worker.from_supervisor);
        let news = std::mem::take(&mut worker.from_acceptor);
        let taken_in =
            orders.into_iter().filter_map(|order| if let Order::TakeIn(id) = order { Some(id) } else { None });
        let accepted =
            news.into_iter().filter_map(|news| if let News::Accepted(id, _) = news { Some(id) } else { None });
        taken_in.chain(accepted).for_each(|id| self.leave(id, CloseReason::Forced));
        self.connections.retain(|_, connection| connection.worker != n || connection.alive);
        let orphans: Vec<_> = self.connections.iter().filter(|(_, c)| c.worker == n).map(|(&id, _)| id).collect();
        orphans.into_iter().for_each(|id| self.connection_hears(id, Stop::Abort));
    }

    /// Heard as soon as it is told: all that the connection could do in between, it can do before too.
    fn connection_hears(&mut self, id: ConnectionId, stop: Stop) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.alive) else { return };
        match stop {
            Stop::Accepting => {}
            Stop::Drain | Stop::Finish => connection.state = connection.state.end_input(Ending::Stopped),
            Stop::Abort => self.end(id, CloseReason::Forced),
        }
    }

    fn start(&mut self, worker: usize, id: ConnectionId, has_slot: bool) {
        let missed = self.workers[worker].state.enter(id, ());
        let state = ConnectionState::Waiting;
        self.connections.insert(id, Connection { worker, state, has_slot, begun: false, alive: true });
        missed.into_iter().for_each(|stop| self.connection_hears(id, stop));
    }

    fn begin(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.begun = true;
        connection.state = connection.state.serve();
        let is_late = self.census.is_some() && !connection.has_slot;
        self.served_late |= is_late && connection.state == ConnectionState::Serving;
    }

    fn leave(&mut self, id: ConnectionId, reason: CloseReason) {
        self.admission.leave(id, reason, 0);
    }

    fn end(&mut self, id: ConnectionId, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if self.workers[connection.worker].alive {
            connection.alive = false;
            self.leave(id, reason);
        } else {
            self.connections.remove(&id);
            self.leave(id, if reason == CloseReason::Crashed { CloseReason::Forced } else { reason });
        }
    }

    fn reported(&self) -> Option<&(Verdict, Tally)> {
        self.report.as_ref()
    }

    /// Whether its wait is over.
    fn may_begin(&self, id: ConnectionId, connection: &Connection) -> bool {
        connection.has_slot || self.admission.is_served(id) || connection.state.ending().is_some()
    }
}

/// Where a run begins, and how much may crash in it.
pub struct Model {
    pub slots: usize,
    /// Clients that are served already, on each Worker.
    pub served: [usize; 2],
    /// Clients in the kernel's queue.
    pub backlog: usize,
    /// Clients whose handshakes are under way.
    pub handshakes: usize,
    /// Whether the kernel can refuse new clients.
    pub refusing: bool,
    /// How many echoes of a signal there may be.
    pub echoes: usize,
    /// How many orders to abort there may be.
    pub aborts: usize,
    /// How many crashes of all kinds there may be.
    pub crashes: usize,
    /// What at least one run must come to: otherwise this is not the world that was meant.
    pub reaches: &'static [Reached],
}

/// What a run may come to.
type Reached = (&'static str, fn(&Model, &Tree) -> bool);

pub const GRACEFUL: Reached = ("a graceful stop", |model, tree| {
    let clients = model.served.iter().sum::<usize>() + model.backlog + model.handshakes;
    tree.reported().is_some_and(|(_, tally)| tally.acknowledged == clients)
});
pub const FORCED: Reached = ("a forced stop", |_, tree| tree.reported().is_some_and(|(_, tally)| tally.forced > 0));
pub const STUCK: Reached =
    ("a Worker that is stuck", |_, tree| tree.reported().is_some_and(|(verdict, _)| !verdict.stuck.is_empty()));
pub const ESCALATION: Reached = ("an escalation of too many restarts", |_, tree| {
    let no_worker_crashed = tree.workers.iter().all(|worker| worker.state.is_finished());
    tree.reported().is_some_and(|(verdict, _)| verdict.gave_up && no_worker_crashed)
});
pub const WORKER_CRASH: Reached = ("a Worker that crashed", |_, tree| {
    tree.reported().is_some_and(|(verdict, _)| verdict.gave_up) && !tree.workers.iter().all(|w| w.state.is_finished())
});
pub const RESTART: Reached = ("a second Acceptor of a Worker", |_, tree| {
    tree.census.is_none() && tree.crashes > 0 && tree.workers.iter().all(|worker| worker.alive && worker.acceptor_alive)
});
pub const FULL_HOUSE: Reached = ("a full house with one who waits", |model, tree| {
    (tree.admission.served(), tree.admission.waiting()) == (model.slots, PLACES)
});
pub const TWO_SWEEPS: Reached =
    ("a backlog taken in in two goes", |_, tree| tree.taken > 0 && tree.listening && tree.backlog > 0);
pub const ABORTED: Reached = ("an abort that begins the stop and forces all", |model, tree| {
    let clients = model.served.iter().sum::<usize>() + model.backlog + model.handshakes;
    tree.begun_by_abort && tree.reported().is_some_and(|(_, tally)| tally.forced == clients)
});
pub const ABORTED_LATE: Reached = ("an abort of a stop that has drained a connection", |_, tree| {
    let acknowledged = tree.reported().is_some_and(|(_, tally)| tally.acknowledged > 0 && tally.forced > 0);
    acknowledged && tree.aborts > 0 && tree.signals == 1 && tree.timers.contains(&Timer::Deadline)
});
pub const LATE_HANDSHAKE: Reached = ("a handshake that ends after the first sweep", |_, tree| {
    let settling = tree.timers.contains(&Timer::Settling);
    tree.census.is_some() && tree.listening && !settling && tree.backlog > 0 && tree.timers.contains(&Timer::Handshakes)
});

impl stateright::Model for Model {
    type State = Tree;
    type Action = Action;

    fn init_states(&self) -> Vec<Tree> {
        let worker = || Worker {
            state: WorkerState::new(RestartLimit::new(MAX_RESTARTS, Duration::from_secs(1))),
            alive: true,
            heard: None,
            acceptor_due: false,
            acceptor_alive: false,
            from_supervisor: VecDeque::new(),
            to_supervisor: VecDeque::new(),
            acceptor_told: false,
            from_acceptor: VecDeque::new(),
        };
        let mut tree = Tree {
            admission: Admission::new(self.slots, PLACES),
            supervisor: SupervisorState::new([(WorkerId(0), 0), (WorkerId(1), 1)]),
            timers: BTreeSet::new(),
            workers: [worker(), worker()],
            connections: BTreeMap::new(),
            handshakes: self.handshakes,
            backlog: self.backlog,
            taken: 0,
            listening: true,
            signals: 0,
            echoes: 0,
            aborts: 0,
            begun_by_abort: false,
            crashes: 0,
            aborted: false,
            refusing: self.refusing,
            closed_early: false,
            handshakes_over: false,
            exhausted: false,
            served_late: false,
            misnamed: false,
            misdirected: false,
            answered: [false; 2],
            connection_crashes: 0,
            census: None,
            report: None,
        };
        for (n, served) in self.served.into_iter().enumerate() {
            tree.worker_on(n, worker_state::Event::AcceptorDue);
            for _ in 0..served {
                let (id, _) = tree.admission.arrive();
                tree.start(n, id, true);
                tree.begin(id);
            }
        }
        vec![tree]
    }

    fn actions(&self, tree: &Tree, actions: &mut Vec<Action>) {
        if tree.report.is_some() {
            return;
        }
        if tree.signals < 2 && !tree.aborted {
            actions.push(Action::Signal);
        }
        if tree.signals > 0 && tree.echoes < self.echoes && !tree.aborted {
            actions.push(Action::Echo);
        }
        if tree.aborts < self.aborts {
            actions.push(Action::Abort);
        }
        if tree.handshakes > 0 {
            actions.push(Action::HandshakeEnds);
        }
        for &timer in tree.timers.iter().filter(|&&timer| timer != Timer::Deadline || !tree.aborted) {
            actions.push(Action::Elapse { timer, exhausted: false });
            if timer == Timer::Look && tree.backlog > 0 && !tree.exhausted {
                actions.push(Action::Elapse { timer, exhausted: true });
            }
        }
        for (n, worker) in tree.workers.iter().enumerate() {
            let mut offer = |possible: bool, action| actions.extend(possible.then_some(action));
            let may_crash = tree.crashes < self.crashes;
            offer(!worker.to_supervisor.is_empty(), Action::SupervisorHears { worker: n });
            offer(!worker.from_supervisor.is_empty() && worker.alive, Action::WorkerHearsSupervisor(n));
            offer(!worker.from_acceptor.is_empty() && worker.alive, Action::WorkerHearsAcceptor(n));
            offer(worker.alive && may_crash, Action::WorkerCrashes(n));
            offer(worker.acceptor_due, Action::AcceptorIsDue(n));
            offer(worker.acceptor_due, Action::AcceptorIsExhausted(n));
            offer(worker.acceptor_alive && tree.backlog > 0 && tree.admission.has_room(), Action::Accept(n));
            offer(worker.acceptor_told, Action::AcceptorHears(n));
            offer(worker.acceptor_alive && may_crash, Action::AcceptorCrashes(n));
        }
        for (&id, connection) in &tree.connections {
            let mut offer = |possible: bool, action| actions.extend(possible.then_some(action));
            offer(!connection.alive, Action::WorkerHears(id));
            let begins = connection.alive && !connection.begun && tree.may_begin(id, connection);
            offer(begins, Action::Begin(id));
            let waits = connection.state == ConnectionState::Waiting && !connection.has_slot;
            // Of those that are alike the oldest goes first: which of them it is makes no difference.
            let first = || !tree.connections.range(..id).any(|(_, older)| older == connection);
            offer(connection.alive && (waits || connection.begun && first()), Action::End(id));
            offer(connection.alive && tree.crashes < self.crashes, Action::Crash(id));
        }
    }

    fn next_state(&self, tree: &Tree, action: Action) -> Option<Tree> {
        let mut tree = tree.clone();
        match action {
            Action::Signal | Action::Echo => {
                let echo = action == Action::Echo;
                tree.signals += usize::from(!echo);
                tree.echoes += usize::from(echo);
                let now = Duration::from_secs(tree.signals as u64);
                let shutdown = supervisor_state::Event::Shutdown { reason: StopReason::Sigterm, now };
                tree.supervisor_on(shutdown, false);
            }
            Action::Abort => {
                tree.aborts += 1;
                tree.supervisor_on(supervisor_state::Event::Abort, false);
            }
            Action::HandshakeEnds => {
                tree.handshakes -= 1;
                tree.backlog += 1;
            }
            Action::Elapse { timer, exhausted } => {
                tree.timers.remove(&timer);
                tree.handshakes_over |= timer == Timer::Handshakes;
                tree.supervisor_on(supervisor_state::Event::Elapsed(timer), exhausted);
            }
            Action::SupervisorHears { worker } => {
                let event = tree.workers[worker].to_supervisor.pop_front()?;
                tree.answered[worker] |= matches!(event, supervisor_state::Event::AcceptorStopped(_));
                tree.supervisor_on(event, false);
            }
            Action::WorkerHearsSupervisor(n) => match tree.workers[n].from_supervisor.pop_front()? {
                Order::Stop(stop) => {
                    tree.workers[n].heard = Some(stop);
                    tree.worker_on(n, worker_state::Event::Stop(stop));
                }
                Order::TakeIn(id) => tree.start(n, id, false),
            },
            Action::WorkerHearsAcceptor(n) => match tree.workers[n].from_acceptor.pop_front()? {
                News::Accepted(id, place) => tree.start(n, id, place == Place::Served),
                News::Stopped { crashed } => {
                    tree.worker_on(n, worker_state::Event::AcceptorStopped { crashed, now: Duration::ZERO });
                }
            },
            Action::WorkerHears(id) => {
                let worker = tree.connections.remove(&id)?.worker;
                tree.worker_on(worker, worker_state::Event::ConnectionStopped(id));
            }
            Action::WorkerCrashes(n) => {
                tree.crashes += 1;
                tree.worker_crashes(n);
            }
            Action::AcceptorIsDue(n) => {
                tree.workers[n].acceptor_due = false;
                tree.worker_on(n, worker_state::Event::AcceptorDue);
            }
            Action::AcceptorIsExhausted(n) => {
                tree.workers[n].acceptor_due = false;
                tree.worker_on(n, worker_state::Event::AcceptorDue);
                if std::mem::take(&mut tree.workers[n].acceptor_alive) {
                    tree.worker_on(n, worker_state::Event::AcceptorExhausted);
                }
            }
            Action::Accept(n) => {
                tree.backlog -= 1;
                let (id, place) = tree.admission.arrive();
                tree.workers[n].from_acceptor.push_back(News::Accepted(id, place));
            }
            Action::AcceptorHears(n) | Action::AcceptorCrashes(n) => {
                let crashed = action == Action::AcceptorCrashes(n);
                tree.crashes += usize::from(crashed);
                let worker = &mut tree.workers[n];
                worker.acceptor_alive = false;
                worker.acceptor_told = false;
                if worker.alive {
                    worker.from_acceptor.push_back(News::Stopped { crashed });
                }
            }
            Action::Begin(id) => tree.begin(id),
            Action::End(id) => {
                let connection = &tree.connections[&id];
                let reason = connection.state.finish().reason();
                tree.misnamed |= connection.begun
                    && tree.workers[connection.worker].heard >= Some(Stop::Drain)
                    && reason != CloseReason::Stopped;
                tree.end(id, reason);
            }
            Action::Crash(id) => {
                tree.crashes += 1;
                tree.connection_crashes += usize::from(tree.workers[tree.connections[&id].worker].alive);
                tree.end(id, CloseReason::Crashed);
            }
        }
        Some(tree)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("before the stop the cap holds", |model: &Self, tree: &Tree| {
                tree.census.is_some() || tree.admission.served() <= model.slots
            }),
            Property::always("who had no slot at the close is never served", |_, tree: &Tree| !tree.served_late),
            Property::always("who has been told to drain is not served", |_, tree: &Tree| {
                let told = |c: &Connection| tree.workers[c.worker].heard >= Some(Stop::Drain);
                !tree.connections.values().any(|c| c.alive && told(c) && c.state == ConnectionState::Serving)
            }),
            Property::always("the report's numbers add up to those who were alive", |_, tree: &Tree| {
                let (Some((_, tally)), Some(census)) = (&tree.report, tree.census) else { return true };
                tally.acknowledged + tally.forced == census.connections + census.pending + tree.taken
            }),
            Property::always(
                "a Worker that crashed is in the verdict, unless it is named as stuck",
                |_, tree: &Tree| {
                    let Some((verdict, _)) = &tree.report else { return true };
                    let crashed = |n: usize| !tree.workers[n].alive && !tree.workers[n].state.is_finished();
                    verdict.gave_up || (0..2).all(|n| !crashed(n) || verdict.stuck.contains(&WorkerId(n)))
                },
            ),
            Property::always("the report counts every crash of a connection", |_, tree: &Tree| {
                tree.report.as_ref().is_none_or(|(_, tally)| tally.crashed == tree.connection_crashes)
            }),
            Property::always("who is told to drain and comes to its end is called stopped", |_, tree: &Tree| {
                !tree.misnamed
            }),
            Property::always("the backlog goes to threads that answer, if there are any", |_, tree: &Tree| {
                !tree.misdirected
            }),
            Property::always("before the stop every Worker accepts, or will, or has given up", |_, tree: &Tree| {
                let accepts =
                    |worker: &Worker| worker.acceptor_alive || worker.acceptor_due || !worker.from_acceptor.is_empty();
                let says_no = |worker: &Worker| !worker.alive || !worker.to_supervisor.is_empty();
                tree.census.is_some() || tree.workers.iter().all(|worker| accepts(worker) || says_no(worker))
            }),
            Property::always("the report leaves no client in the backlog behind", |_, tree: &Tree| {
                tree.report.is_none() || (tree.backlog == 0 && !tree.listening)
            }),
            Property::always("a Worker that has finished has forgotten no client", |_, tree: &Tree| {
                tree.workers.iter().enumerate().all(|(n, worker)| {
                    let mut connections = tree.connections.values().filter(|connection| connection.worker == n);
                    let none = connections.next().is_none()
                        && worker.from_acceptor.is_empty()
                        && worker.from_supervisor.iter().all(|order| matches!(order, Order::Stop(_)))
                        && !worker.acceptor_alive;
                    !worker.state.is_finished() || none
                })
            }),
            Property::always("every Worker has ended before the report, or is named as stuck", |_, tree: &Tree| {
                let Some((verdict, _)) = &tree.report else { return true };
                let ended = |n: usize| !tree.workers[n].alive || verdict.stuck.contains(&WorkerId(n));
                (0..2).all(ended)
            }),
            Property::always("no client is forced by a stop that comes to its own end", |_, tree: &Tree| {
                let Some((_, tally)) = &tree.report else { return true };
                tally.forced == 0 || tree.aborted || tree.crashes > 0
            }),
            Property::always("a stop comes to its own end when all clients have", |model: &Self, tree: &Tree| {
                let mut actions = Vec::new();
                model.actions(tree, &mut actions);
                tree.report.is_some() || tree.census.is_none() || !actions.iter().all(Action::is_force)
            }),
            Property::always("a second signal, an abort, or the deadline ends the stop by force", |_, tree: &Tree| {
                let deadline_is_over = tree.census.is_some() && !tree.timers.contains(&Timer::Deadline);
                tree.aborted || tree.report.is_some() || !(tree.signals == 2 || tree.aborts > 0 || deadline_is_over)
            }),
            Property::always("an abort that begins the stop drains no connection", |_, tree: &Tree| {
                let drained = |worker: &Worker| matches!(worker.heard, Some(Stop::Drain | Stop::Finish));
                !tree.begun_by_abort || !tree.workers.iter().any(drained)
            }),
            Property::always(
                "only a second signal, not an echo, an abort, or the deadline uses force",
                |_, tree: &Tree| {
                    let deadline_is_over = tree.census.is_some() && !tree.timers.contains(&Timer::Deadline);
                    !tree.aborted || tree.signals == 2 || tree.aborts > 0 || deadline_is_over
                },
            ),
            Property::always("the socket is not closed under a handshake before its time is over", |_, tree: &Tree| {
                !tree.closed_early
            }),
            Property::always(
                "if clients could come back, the drain begins when the socket is closed",
                |_, tree: &Tree| {
                    let drains = tree.workers.iter().any(|worker| worker.heard == Some(Stop::Drain));
                    tree.refusing || !tree.listening || !drains || tree.exhausted
                },
            ),
            Property::always("no Worker is told that no client comes before the socket is closed", |_, tree: &Tree| {
                !tree.listening || tree.workers.iter().all(|worker| worker.heard != Some(Stop::Finish))
            }),
            Property::always("after that no Worker is waited for for ever", |_, tree: &Tree| {
                tree.report.is_some() || !tree.aborted || tree.timers.contains(&Timer::Patience)
            }),
            Property::eventually("the report comes", |_, tree: &Tree| tree.report.is_some()),
        ];
        let sometimes = self.reaches.iter().map(|&(name, condition)| Property::sometimes(name, condition));
        properties.extend(sometimes);
        properties
    }
}
