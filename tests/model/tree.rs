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
    /// Whether the server goes on for a while after the first order to stop.
    lame_duck: bool,
    /// Whether a stop waits for the last words of clients to whom nothing is due.
    last_word: bool,
    /// Whether one whose input had ended was waited for again.
    asked_again: bool,
    /// Whether a client had its last word and got its answer, and whether one was forced while it was waited for.
    answered_last: bool,
    forced_before: bool,
    /// Signals, without their echoes.
    signals: usize,
    /// Those that had come when the stop began.
    signals_at_begin: usize,
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
    /// Whether the Supervisor has accepted a client before the stop.
    accepted_by_supervisor: bool,
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
    /// One queue for all senders, as in actix: what was sent before is heard before. Acknowledgements of connections come
    /// in any order.
    mailbox: VecDeque<Mail>,
    to_supervisor: VecDeque<supervisor_state::Event>,
    /// Whether its Acceptor has been told to stop, by any step of the stop.
    acceptor_told: bool,
    /// The client that its Acceptor has accepted for the other Worker and not sent there yet.
    in_hand: Option<(ConnectionId, Place)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mail {
    Stop(Stop),
    /// A client, with its place if it was accepted before the stop.
    Client(ConnectionId, Option<Place>),
    AcceptorStopped {
        crashed: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Connection {
    worker: usize,
    state: ConnectionState,
    /// Whether it need not ask the gate: it was given a slot when it was accepted.
    has_slot: bool,
    /// Whether its service has begun.
    begun: bool,
    /// Whether its client has sent something that is not answered yet.
    due: bool,
    /// `false` when it has ended and its `Stopped` is on the way.
    alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    Signal,
    Echo,
    Abort,
    HandshakeEnds,
    Elapse {
        timer: Timer,
        exhausted: bool,
    },
    SupervisorHears {
        worker: usize,
    },
    WorkerHears(usize),
    WorkerHearsConnection(ConnectionId),
    WorkerCrashes(usize),
    AcceptorIsDue(usize),
    AcceptorIsExhausted(usize),
    /// The client may live on the accepting Worker or on the other one: the placement decides, and any choice is right.
    Accept {
        acceptor: usize,
        lives: usize,
    },
    HandOver {
        acceptor: usize,
    },
    SupervisorAccepts {
        lives: usize,
    },
    AcceptorHears(usize),
    AcceptorCrashes(usize),
    Begin(ConnectionId),
    Speak(ConnectionId),
    LastWordIsOver(ConnectionId),
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
                Step::Announce(_) if self.lame_duck => assert!(self.timers.insert(Timer::LameDuck)),
                Step::Announce(_) => self.supervisor_on(Event::Elapsed(Timer::LameDuck), false),
                Step::Begin(reason) => {
                    self.signals_at_begin = self.signals;
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
                    told.into_iter().for_each(|worker| self.send(worker, Mail::Stop(stop)));
                }
                Step::Sweep { ask } => {
                    self.exhausted |= exhausted;
                    let under_way = ask && self.handshakes > 0;
                    self.sweep(if exhausted { self.backlog / 2 } else { self.backlog });
                    self.supervisor_on(Event::Swept { empty: !exhausted, under_way }, false);
                    let settled = self.handshakes_over || !self.refusing && !self.timers.contains(&Timer::Settling);
                    assert!(exhausted || !settled || !self.listening, "the socket stays open for longer than it may");
                    let drains = |worker: &Worker| {
                        let told = |mail: &Mail| matches!(mail, Mail::Stop(stop) if *stop >= Stop::Drain);
                        !worker.alive || worker.heard >= Some(Stop::Drain) || worker.mailbox.iter().any(told)
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
                    self.send(worker, Mail::Client(id, None));
                }
                None => self.leave(id, CloseReason::Forced),
            }
        }
    }

    fn send(&mut self, worker: usize, mail: Mail) {
        match mail {
            _ if self.workers[worker].alive => self.workers[worker].mailbox.push_back(mail),
            Mail::Client(id, _) => self.leave(id, CloseReason::Forced),
            Mail::Stop(_) | Mail::AcceptorStopped { .. } => {}
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
                    worker.to_supervisor.push_back(Event::WorkerStopped { worker: WorkerId(n), crashed: false });
                    self.worker_ends(n);
                }
            }
        }
    }

    fn worker_crashes(&mut self, n: usize) {
        self.admission.close();
        let worker = &mut self.workers[n];
        worker.acceptor_due = false;
        let crash = supervisor_state::Event::WorkerStopped { worker: WorkerId(n), crashed: true };
        worker.to_supervisor.push_back(crash);
        self.worker_ends(n);
        self.connections.retain(|_, connection| connection.worker != n || connection.alive);
        let orphans: Vec<_> = self.connections.iter().filter(|(_, c)| c.worker == n).map(|(&id, _)| id).collect();
        orphans.into_iter().for_each(|id| self.connection_hears(id, Stop::Abort));
    }

    /// What its mailbox holds is dropped, and with it the permits.
    fn worker_ends(&mut self, n: usize) {
        let worker = &mut self.workers[n];
        worker.alive = false;
        for mail in std::mem::take(&mut worker.mailbox) {
            if let Mail::Client(id, _) = mail {
                self.leave(id, CloseReason::Forced);
            }
        }
    }

    /// Heard as soon as it is told: all that the connection could do in between, it can do before too.
    fn connection_hears(&mut self, id: ConnectionId, stop: Stop) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.alive) else { return };
        match stop {
            Stop::Accepting => {}
            Stop::Drain | Stop::Finish => {
                let before = connection.state;
                connection.state = before.stop(self.last_word && !connection.due);
                self.asked_again |= before.input_has_ended() && !connection.state.input_has_ended();
            }
            Stop::Abort => {
                self.forced_before |= connection.state == ConnectionState::LastWord;
                self.end(id, CloseReason::Forced);
            }
        }
    }

    fn start(&mut self, worker: usize, id: ConnectionId, has_slot: bool) {
        let missed = self.workers[worker].state.enter(id, ());
        let state = ConnectionState::Waiting;
        self.connections.insert(id, Connection { worker, state, has_slot, begun: false, due: false, alive: true });
        missed.into_iter().for_each(|stop| self.connection_hears(id, stop));
    }

    fn begin(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.begun = true;
        connection.state = connection.state.serve();
        Self::read(connection, &mut self.answered_last);
        let is_late = self.census.is_some() && !connection.has_slot;
        self.served_late |= is_late && connection.state == ConnectionState::Serving;
    }

    /// The service reads what has come, which may be the last word. It reads nothing before it has begun.
    fn read(connection: &mut Connection, answered_last: &mut bool) {
        if connection.begun && connection.due && connection.state == ConnectionState::LastWord {
            connection.state = connection.state.end_input(Ending::Stopped);
            *answered_last = true;
        }
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

    fn heard_drain(&self) -> bool {
        self.workers.iter().any(|worker| worker.heard >= Some(Stop::Drain))
    }

    /// Whether a signal has come that uses force: the first one after the stop that was not the first of all.
    fn is_told_to_force(&self) -> bool {
        self.census.is_some() && self.signals > self.signals_at_begin.max(1)
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
    /// Whether each Worker has an Acceptor.
    pub accepts: [bool; 2],
    /// Clients that are served already, on each Worker.
    pub served: [usize; 2],
    /// Clients in the kernel's queue.
    pub backlog: usize,
    /// Clients whose handshakes are under way.
    pub handshakes: usize,
    /// Whether the kernel can refuse new clients.
    pub refusing: bool,
    /// Whether the server goes on for a while after the first order to stop.
    pub lame_duck: bool,
    /// Whether a stop waits for the last words of clients to whom nothing is due.
    pub last_word: bool,
    /// How many echoes of a signal there may be.
    pub echoes: usize,
    /// How many orders to abort there may be.
    pub aborts: usize,
    /// How many crashes of all kinds there may be.
    pub crashes: usize,
    /// What at least one run must come to: otherwise this is not the world that was meant.
    pub reaches: &'static [Reached],
}

impl Model {
    /// A server of one slot without clients, of which nothing is special. A test says what its own world has besides.
    pub const QUIET: Self = Self {
        slots: 1,
        accepts: [true; 2],
        served: [0; 2],
        backlog: 0,
        handshakes: 0,
        refusing: true,
        lame_duck: false,
        last_word: false,
        echoes: 0,
        aborts: 0,
        crashes: 0,
        reaches: &[],
    };
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
pub const RESTART: Reached = ("a second Acceptor of a Worker", |model, tree| {
    let whole = |(n, worker): (usize, &Worker)| worker.alive && worker.acceptor_alive == model.accepts[n];
    tree.census.is_none() && tree.crashes > 0 && tree.workers.iter().enumerate().all(whole)
});
pub const HANDED_OVER: Reached = ("a client accepted on one thread that lives on the other", |model, tree| {
    let moved = |connection: &Connection| connection.begun && !model.accepts[connection.worker];
    tree.connections.values().any(moved)
});
pub const HANDED_OVER_AT_A_STOP: Reached =
    ("a client in hand though every other Acceptor has answered a stop", |_, tree| {
        let in_hand = |n: usize| tree.workers[n].in_hand.is_some() && tree.answered[1 - n];
        tree.heard_drain() && (0..2).any(in_hand)
    });
pub const ACCEPTED_BY_THE_SUPERVISOR: Reached =
    ("a client that the Supervisor has accepted before the stop", |_, tree| {
        tree.census.is_none() && tree.accepted_by_supervisor
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
pub const LAME_DUCK: Reached = ("a client that is accepted after the announcement of a stop", |_, tree| {
    tree.timers.contains(&Timer::LameDuck) && tree.backlog == 0 && tree.connections.values().any(|c| c.begun)
});
pub const LAST_WORD: Reached = ("a graceful stop in which a client had its last word", |model, tree| {
    (GRACEFUL.1)(model, tree) && tree.answered_last
});
pub const FORCED_BEFORE_THE_LAST_WORD: Reached =
    ("a stop that forces a client whose last word is waited for", |_, tree| {
        tree.reported().is_some() && tree.forced_before
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
            mailbox: VecDeque::new(),
            to_supervisor: VecDeque::new(),
            acceptor_told: false,
            in_hand: None,
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
            lame_duck: self.lame_duck,
            last_word: self.last_word,
            asked_again: false,
            answered_last: false,
            forced_before: false,
            signals: 0,
            signals_at_begin: 0,
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
            accepted_by_supervisor: false,
            answered: [false; 2],
            connection_crashes: 0,
            census: None,
            report: None,
        };
        for (n, served) in self.served.into_iter().enumerate() {
            if self.accepts[n] {
                tree.worker_on(n, worker_state::Event::AcceptorDue);
            }
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
        if tree.signals < 2 + usize::from(self.lame_duck) && !tree.aborted {
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
            offer(!worker.mailbox.is_empty() && worker.alive, Action::WorkerHears(n));
            // While a client is in the Acceptor's hand, nothing else runs on this thread.
            let in_hand = worker.in_hand.is_some();
            offer(in_hand, Action::HandOver { acceptor: n });
            offer(worker.alive && may_crash && !in_hand, Action::WorkerCrashes(n));
            offer(worker.acceptor_due, Action::AcceptorIsDue(n));
            offer(worker.acceptor_due, Action::AcceptorIsExhausted(n));
            let comes = tree.backlog > 0 && tree.admission.has_room();
            for lives in 0..2 {
                offer(worker.acceptor_alive && comes && !in_hand, Action::Accept { acceptor: n, lives });
            }
            offer(comes, Action::SupervisorAccepts { lives: n });
            offer(worker.acceptor_told && !in_hand, Action::AcceptorHears(n));
            offer(worker.acceptor_alive && may_crash && !in_hand, Action::AcceptorCrashes(n));
        }
        for (&id, connection) in &tree.connections {
            let mut offer = |possible: bool, action| actions.extend(possible.then_some(action));
            offer(!connection.alive, Action::WorkerHearsConnection(id));
            let begins = connection.alive && !connection.begun && tree.may_begin(id, connection);
            offer(begins, Action::Begin(id));
            let waits = connection.state == ConnectionState::Waiting && !connection.has_slot;
            let open = connection.alive && !connection.state.input_has_ended();
            offer(self.last_word && open && !connection.due, Action::Speak(id));
            let last_word = connection.alive && connection.state == ConnectionState::LastWord;
            offer(last_word, Action::LastWordIsOver(id));
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
            Action::WorkerHears(n) => match tree.workers[n].mailbox.pop_front()? {
                Mail::Stop(stop) => {
                    tree.workers[n].heard = Some(stop);
                    tree.worker_on(n, worker_state::Event::Stop(stop));
                }
                Mail::Client(id, place) => tree.start(n, id, place == Some(Place::Served)),
                Mail::AcceptorStopped { crashed } => {
                    tree.worker_on(n, worker_state::Event::AcceptorStopped { crashed, now: Duration::ZERO });
                }
            },
            Action::WorkerHearsConnection(id) => {
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
            Action::Accept { acceptor, lives } => {
                tree.backlog -= 1;
                let (id, place) = tree.admission.arrive();
                if lives == acceptor {
                    tree.send(lives, Mail::Client(id, Some(place)));
                } else {
                    tree.workers[acceptor].in_hand = Some((id, place));
                }
            }
            Action::HandOver { acceptor } => {
                let (id, place) = tree.workers[acceptor].in_hand.take()?;
                tree.send(1 - acceptor, Mail::Client(id, Some(place)));
            }
            Action::SupervisorAccepts { lives } => {
                tree.backlog -= 1;
                tree.accepted_by_supervisor = true;
                let (id, place) = tree.admission.arrive();
                tree.send(lives, Mail::Client(id, Some(place)));
            }
            Action::AcceptorHears(n) | Action::AcceptorCrashes(n) => {
                let crashed = action == Action::AcceptorCrashes(n);
                tree.crashes += usize::from(crashed);
                let worker = &mut tree.workers[n];
                worker.acceptor_alive = false;
                worker.acceptor_told = false;
                tree.send(n, Mail::AcceptorStopped { crashed });
            }
            Action::Begin(id) => tree.begin(id),
            Action::Speak(id) => {
                let connection = tree.connections.get_mut(&id)?;
                connection.due = true;
                Tree::read(connection, &mut tree.answered_last);
            }
            Action::LastWordIsOver(id) => {
                let connection = tree.connections.get_mut(&id)?;
                connection.state = connection.state.end_input(Ending::Stopped);
            }
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
            Property::always("no last word is waited for after the input has ended", |_, tree: &Tree| {
                !tree.asked_again
            }),
            Property::always("no last word is waited for once force is used", |_, tree: &Tree| {
                let told = |c: &Connection| tree.workers[c.worker].heard == Some(Stop::Abort);
                !tree.connections.values().any(|c| c.alive && told(c) && c.state == ConnectionState::LastWord)
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
            Property::always(
                "before the stop every Acceptor accepts, or will, or was given up",
                |model: &Self, tree: &Tree| {
                    let accepts = |n: usize| {
                        let worker = &tree.workers[n];
                        let ended = |mail: &Mail| matches!(mail, Mail::AcceptorStopped { .. });
                        worker.acceptor_alive || worker.acceptor_due || worker.mailbox.iter().any(ended)
                    };
                    let says_no = |worker: &Worker| !worker.alive || !worker.to_supervisor.is_empty();
                    tree.census.is_some()
                        || (0..2).all(|n| !model.accepts[n] || accepts(n) || says_no(&tree.workers[n]))
                },
            ),
            Property::always("the report leaves no client in the backlog behind", |_, tree: &Tree| {
                tree.report.is_none() || (tree.backlog == 0 && !tree.listening)
            }),
            Property::always("a Worker that has finished has forgotten no client", |_, tree: &Tree| {
                tree.workers.iter().enumerate().all(|(n, worker)| {
                    let mut connections = tree.connections.values().filter(|connection| connection.worker == n);
                    let none = connections.next().is_none()
                        && worker.in_hand.is_none()
                        && worker.mailbox.iter().all(|mail| matches!(mail, Mail::Stop(_)))
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
                tree.aborted
                    || tree.report.is_some()
                    || !(tree.is_told_to_force() || tree.aborts > 0 || deadline_is_over)
            }),
            Property::always("an abort that begins the stop drains no connection", |_, tree: &Tree| {
                let drained = |worker: &Worker| matches!(worker.heard, Some(Stop::Drain | Stop::Finish));
                !tree.begun_by_abort || !tree.workers.iter().any(drained)
            }),
            Property::always(
                "only a second signal, not an echo, an abort, or the deadline uses force",
                |_, tree: &Tree| {
                    let deadline_is_over = tree.census.is_some() && !tree.timers.contains(&Timer::Deadline);
                    !tree.aborted || tree.is_told_to_force() || tree.aborts > 0 || deadline_is_over
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
