//! What the Supervisor decides: how a stop goes from step to step.
//!
//! A pure state machine: events in, [`Step`]s out. The actor in `supervisor` carries them out in their order. It uses no
//! actor, socket or clock, so a model checker can run it through every order of events.

use crate::decisions::{
    ids::WorkerId,
    roster::Roster,
    stop::{Echoes, Heard, Stop, StopReason},
};
use std::time::Duration;

/// Something has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The server is told to stop.
    Shutdown {
        /// What began the stop.
        reason: StopReason,
        /// The time, counted from any fixed moment.
        now: Duration,
    },
    /// The server is told to end by force now. It needs no stop before it.
    Abort,
    /// The gate is closed.
    Begun {
        /// Whether the kernel refuses new clients from now on.
        refusing: bool,
    },
    /// A timer that was started is over, or there was no time to wait.
    Elapsed(Timer),
    /// The Supervisor has taken in the backlog: all of it, or as much as there were descriptors for.
    Swept {
        /// Whether it is empty.
        empty: bool,
        /// Whether handshakes were under way just before, if the step asked for it.
        under_way: bool,
    },
    /// A Worker has stopped accepting for good.
    AcceptorStopped(WorkerId),
    /// A Worker has ended.
    WorkerStopped {
        /// Which one.
        worker: WorkerId,
        /// Whether it panicked.
        crashed: bool,
    },
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Say that a stop will begin, and go on serving for a while: start [`Timer::LameDuck`].
    Announce(StopReason),
    /// Close the gate, let the kernel refuse new clients, and answer with [`Event::Begun`].
    Begin(StopReason),
    /// Start a timer.
    Start(Timer),
    /// Tell every Worker that [owes](SupervisorState::workers).
    Tell(Stop),
    /// Hand the clients in the backlog to the [takers](SupervisorState::takers), and answer with [`Event::Swept`].
    Sweep {
        /// Whether to ask, before that, for handshakes under way.
        ask: bool,
    },
    /// Close the listening socket. First count the clients that have come into the backlog since the sweep.
    CloseListener,
    /// Stop waiting for this Worker: it is stuck.
    GiveUpOn(WorkerId),
    /// Make the report: no Worker owes an acknowledgement.
    Report(Verdict),
}

/// What the Supervisor waits for besides messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The time between the first order to stop and the stop.
    LameDuck,
    /// Until the next look into the backlog.
    Look,
    /// The time for Acceptors to answer, and for the last clients before the refusal. The socket stays open at least this
    /// long.
    Settling,
    /// The time for handshakes under way. The socket stays open for them, but not longer than this.
    Handshakes,
    /// The time for the graceful stop. Then it is ended by force.
    Deadline,
    /// The time for Workers to answer after that.
    Patience,
}

/// How the stop went, apart from the numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What began it.
    pub reason: StopReason,
    /// Whether supervision gave up: too many restarts, or a Worker that panicked.
    pub gave_up: bool,
    /// Workers that did not answer.
    pub stuck: Vec<WorkerId>,
}

/// The Supervisor's part of the tree. `H` is how it reaches a Worker.
///
/// ```
/// use std::time::Duration;
/// use supervised_echo::{StopReason, WorkerId, decisions::{stop::Stop, supervisor::{Event, Step, SupervisorState, Timer}}};
///
/// let mut state = SupervisorState::new([(WorkerId(1), ())]);
/// let begin = state.on(Event::Shutdown { reason: StopReason::Handle, now: Duration::ZERO });
/// assert_eq!(begin, [Step::Announce(StopReason::Handle)]);
/// assert_eq!(state.on(Event::Elapsed(Timer::LameDuck)), [Step::Begin(StopReason::Handle)]);
/// assert_eq!(state.on(Event::Begun { refusing: true })[0], Step::Tell(Stop::Drain));
/// state.on(Event::AcceptorStopped(WorkerId(1)));
/// state.on(Event::Elapsed(Timer::Settling));
/// assert_eq!(state.on(Event::Elapsed(Timer::Look)), [Step::Sweep { ask: true }]);
/// let swept = Event::Swept { empty: true, under_way: false };
/// assert_eq!(state.on(swept), [Step::CloseListener, Step::Tell(Stop::Finish)]);
/// let steps = state.on(Event::WorkerStopped { worker: WorkerId(1), crashed: false });
/// assert!(matches!(&steps[..], [Step::Report(verdict)] if !verdict.gave_up));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SupervisorState<H> {
    workers: Roster<WorkerId, H>,
    /// Workers that still accept.
    acceptors: Roster<WorkerId, ()>,
    phase: Phase,
    echoes: Echoes,
    /// Whether the kernel refuses new clients. If it does not, the connections drain only after the socket is closed: a
    /// client whose connection ends would come back at once.
    refusing: bool,
    settling: Settling,
    listening: bool,
    gave_up: bool,
    stuck: Vec<WorkerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Running,
    /// The stop is announced.
    LameDuck {
        reason: StopReason,
    },
    Stopping {
        reason: StopReason,
    },
    /// The report is made. All later events are ignored.
    Reported,
}

/// How long the socket stays open after the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Settling {
    /// In any case.
    Always,
    /// While handshakes are under way.
    WhileUnderWay,
    /// No longer.
    Over,
}

impl<H> SupervisorState<H> {
    /// The state over these Workers, which run already.
    pub fn new(workers: impl IntoIterator<Item = (WorkerId, H)>) -> Self {
        let (mut roster, mut acceptors) = (Roster::default(), Roster::default());
        for (worker, handle) in workers {
            roster.enter(worker, handle);
            acceptors.enter(worker, ());
        }
        Self {
            workers: roster,
            acceptors,
            phase: Phase::Running,
            echoes: Echoes::default(),
            refusing: false,
            settling: Settling::Always,
            listening: true,
            gave_up: false,
            stuck: Vec::new(),
        }
    }

    /// Gives the steps that answer `event`, in their order.
    pub fn on(&mut self, event: Event) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.phase == Phase::Reported {
            return steps;
        }
        match event {
            Event::Shutdown { reason, now } => {
                let heard = reason.is_signal().then(|| self.echoes.signal(now));
                match (self.phase, heard) {
                    (Phase::Running, _) => self.announce(reason, &mut steps),
                    // A signal moves the stop one stage on.
                    (Phase::LameDuck { .. }, Some(Heard::First | Heard::Again)) => self.begin(reason, &mut steps),
                    (Phase::Stopping { .. }, Some(Heard::Again)) => self.abort(&mut steps),
                    _ => {}
                }
            }
            Event::Abort => {
                // The Workers have this order before any other, so that none of them drains.
                self.begin(StopReason::Handle, &mut steps);
                self.abort(&mut steps);
            }
            Event::Begun { refusing } => {
                self.refusing = refusing;
                self.tell(if refusing { Stop::Drain } else { Stop::Accepting }, &mut steps);
                let timers = [Timer::Look, Timer::Settling, Timer::Handshakes, Timer::Deadline];
                steps.extend(timers.map(Step::Start));
            }
            Event::Elapsed(Timer::LameDuck) => {
                if let Phase::LameDuck { reason } = self.phase {
                    self.begin(reason, &mut steps);
                }
            }
            Event::Elapsed(Timer::Look) => {
                if self.workers.ordered() <= Some(Stop::Drain) {
                    // If new clients are let in, it does not ask: a handshake would always be under way.
                    steps.push(Step::Sweep { ask: self.settling == Settling::WhileUnderWay && self.refusing });
                }
            }
            Event::Elapsed(Timer::Settling) => self.settling = self.settling.max(Settling::WhileUnderWay),
            Event::Elapsed(Timer::Handshakes) => self.settling = Settling::Over,
            Event::Swept { empty, under_way } => {
                let over = empty && !under_way && self.settling > Settling::Always;
                if over {
                    self.close_listener(&mut steps);
                    self.finish_if_no_client_comes(&mut steps);
                }
                if over || !empty {
                    // The drain frees descriptors. The Workers stay for the clients that may still come to them.
                    self.tell(Stop::Drain, &mut steps);
                }
                if !over {
                    steps.push(Step::Start(Timer::Look));
                }
            }
            Event::Elapsed(Timer::Deadline) => self.abort(&mut steps),
            Event::Elapsed(Timer::Patience) => {
                let silent: Vec<WorkerId> = self.workers.owing().map(|(&worker, _)| worker).collect();
                for worker in silent {
                    self.workers.acknowledge(&worker);
                    self.stuck.push(worker);
                    steps.push(Step::GiveUpOn(worker));
                }
                self.report_if_nothing_is_owed(&mut steps);
            }
            Event::AcceptorStopped(worker) => {
                self.acceptors.acknowledge(&worker);
                if !matches!(self.phase, Phase::Stopping { .. }) {
                    // The Supervisor has not told it to stop: its Worker has given up on restarts.
                    self.give_up(&mut steps);
                }
                self.finish_if_no_client_comes(&mut steps);
            }
            Event::WorkerStopped { worker, crashed } => {
                if !self.workers.acknowledge(&worker) {
                    return steps;
                }
                if crashed {
                    self.give_up(&mut steps);
                }
                // The Acceptor of a crashed Worker runs on its thread. The gate was closed there, so it accepts no more.
                self.acceptors.acknowledge(&worker);
                self.finish_if_no_client_comes(&mut steps);
                self.report_if_nothing_is_owed(&mut steps);
            }
        }
        steps
    }

    fn give_up(&mut self, steps: &mut Vec<Step>) {
        self.gave_up = true;
        self.begin(StopReason::Restarts, steps);
    }

    fn announce(&mut self, reason: StopReason, steps: &mut Vec<Step>) {
        self.phase = Phase::LameDuck { reason };
        steps.push(Step::Announce(reason));
    }

    /// Begins the stop, unless one is under way. If it was announced, the reason is the one that was given then.
    fn begin(&mut self, reason: StopReason, steps: &mut Vec<Step>) {
        let reason = match self.phase {
            Phase::Running => reason,
            Phase::LameDuck { reason } => reason,
            Phase::Stopping { .. } | Phase::Reported => return,
        };
        self.phase = Phase::Stopping { reason };
        steps.push(Step::Begin(reason));
    }

    fn tell(&mut self, stop: Stop, steps: &mut Vec<Step>) {
        if self.workers.order(stop).next().is_some() {
            steps.push(Step::Tell(stop));
        }
    }

    fn abort(&mut self, steps: &mut Vec<Step>) {
        if self.workers.ordered() < Some(Stop::Abort) {
            self.tell(Stop::Abort, steps);
            steps.push(Step::Start(Timer::Patience));
        }
    }

    fn close_listener(&mut self, steps: &mut Vec<Step>) {
        if std::mem::take(&mut self.listening) {
            steps.push(Step::CloseListener);
        }
    }

    /// Until its Acceptor has answered, a client may be on its way from each Worker's thread to each other one.
    fn finish_if_no_client_comes(&mut self, steps: &mut Vec<Step>) {
        if !self.listening && self.acceptors.is_empty() {
            self.tell(Stop::Finish, steps);
        }
    }

    fn report_if_nothing_is_owed(&mut self, steps: &mut Vec<Step>) {
        if let Phase::Stopping { reason } = self.phase
            && self.workers.is_empty()
        {
            self.phase = Phase::Reported;
            self.close_listener(steps);
            let stuck = std::mem::take(&mut self.stuck);
            steps.push(Step::Report(Verdict { reason, gave_up: self.gave_up, stuck }));
        }
    }

    /// The Workers that owe their acknowledgement.
    pub fn workers(&self) -> impl Iterator<Item = &H> {
        self.workers.owing().map(|(_, handle)| handle)
    }

    /// The Workers that take in the backlog, by turns. A Worker whose Acceptor has answered has a thread that runs. The
    /// others are asked only if there is no such Worker.
    pub fn takers(&self) -> impl Iterator<Item = (WorkerId, &H)> + Clone {
        let answered = |worker: &WorkerId| !self.acceptors.owing().any(|(owing, ())| owing == worker);
        let any_answered = self.workers.owing().any(|(worker, _)| answered(worker));
        let owing = self.workers.owing().filter(move |(worker, _)| !any_answered || answered(worker));
        owing.map(|(&worker, handle)| (worker, handle))
    }
}
