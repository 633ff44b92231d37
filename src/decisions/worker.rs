//! What a Worker decides: whether it replaces its Acceptor, whom it tells of a stop, and when it ends itself.
//!
//! A pure state machine, as [`supervisor`](super::supervisor) is. The actor in `worker` carries out its [`Step`]s.

use crate::decisions::{restart_limit::RestartLimit, roster::Roster, stop::Stop};
use std::time::Duration;

/// Something has happened. `C` names a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event<C> {
    /// The time for an Acceptor has come. A Worker to which this never happens only serves.
    AcceptorDue,
    /// The Acceptor could not be started for want of descriptors or memory. This is no crash and no reason to give up.
    AcceptorExhausted,
    /// The Acceptor has ended, or could not be started.
    AcceptorStopped {
        /// Whether it ended without an order to stop.
        crashed: bool,
        /// The time, counted from any fixed moment.
        now: Duration,
    },
    /// The Supervisor orders a stop.
    Stop(Stop),
    /// A connection has ended.
    ConnectionStopped(C),
}

/// Something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Start an Acceptor.
    StartAcceptor {
        /// The number of restarts within the window, this one included, if the Acceptor before it has crashed; otherwise
        /// `None`.
        restarts: Option<usize>,
    },
    /// Let [`Event::AcceptorDue`] happen after a while.
    WaitForAcceptor,
    /// Tell the Acceptor.
    TellAcceptor(Stop),
    /// Tell every connection that [owes](WorkerState::connections).
    TellConnections(Stop),
    /// Tell the Supervisor that this Worker accepts nothing any more.
    AcceptingIsOver {
        /// Whether the Acceptor has crashed too often.
        given_up: bool,
    },
    /// Acknowledge the stop: no child owes anything.
    Finish,
}

/// A Worker's part of the tree. `C` names a connection, `H` is how the Worker reaches it.
///
/// ```
/// use std::time::Duration;
/// use supervised_echo::decisions::{restart_limit::RestartLimit, stop::Stop, worker::{Event, Step, WorkerState}};
///
/// let mut state = WorkerState::new(RestartLimit::new(5, Duration::from_secs(10)));
/// assert_eq!(state.on(Event::AcceptorDue), [Step::StartAcceptor { restarts: None }]);
/// state.enter("a client", ());
/// let stop = Stop::Finish;
/// assert_eq!(state.on(Event::Stop(stop)), [Step::TellConnections(stop), Step::TellAcceptor(stop)]);
/// let stopped = Event::AcceptorStopped { crashed: false, now: Duration::ZERO };
/// assert_eq!(state.on(stopped), [Step::AcceptingIsOver { given_up: false }]);
/// assert_eq!(state.on(Event::ConnectionStopped("a client")), [Step::Finish]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerState<C: Ord, H> {
    connections: Roster<C, H>,
    acceptor: Acceptor,
    restart_limit: RestartLimit,
    finished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Acceptor {
    /// No Acceptor runs, and the next one is due.
    Due {
        restarts: Option<usize>,
    },
    Running,
    /// No Acceptor runs, and none will.
    Over,
}

impl<C: Ord, H> WorkerState<C, H> {
    /// A Worker without connections, whose Acceptor is due.
    pub fn new(restart_limit: RestartLimit) -> Self {
        Self {
            connections: Roster::default(),
            acceptor: Acceptor::Due { restarts: None },
            restart_limit,
            finished: false,
        }
    }

    /// Changes how often the Acceptor may be restarted.
    pub fn limit_restarts(&mut self, max: usize, window: Duration) {
        self.restart_limit.change(max, window);
    }

    /// A connection has been started. Gives the order that the others already have; the Worker must give it to this one
    /// now.
    pub fn enter(&mut self, connection: C, handle: H) -> Option<Stop> {
        self.connections.enter(connection, handle)
    }

    /// Gives the steps that answer `event`, in their order.
    pub fn on(&mut self, event: Event<C>) -> Vec<Step> {
        let mut steps = Vec::new();
        match event {
            Event::AcceptorDue => {
                if let Acceptor::Due { restarts } = self.acceptor {
                    self.acceptor = Acceptor::Running;
                    steps.push(Step::StartAcceptor { restarts });
                }
            }
            Event::AcceptorExhausted => self.wait_for_acceptor(None, &mut steps),
            // An Acceptor that crashes during a stop has stopped all the same.
            Event::AcceptorStopped { crashed, now } if crashed && self.connections.ordered().is_none() => {
                match self.restart_limit.restart(now) {
                    restarts @ Some(_) => self.wait_for_acceptor(restarts, &mut steps),
                    None => self.accepting_is_over(true, &mut steps),
                }
            }
            Event::AcceptorStopped { .. } => self.accepting_is_over(false, &mut steps),
            Event::Stop(stop) => {
                // To a connection `Drain` and `Finish` are the same order, and `Accepting` is none.
                let drains = self.connections.ordered() >= Some(Stop::Drain);
                let is_news = stop == Stop::Abort || stop >= Stop::Drain && !drains;
                if self.connections.order(stop).next().is_some() && is_news {
                    steps.push(Step::TellConnections(stop));
                }
                match self.acceptor {
                    Acceptor::Due { .. } => self.accepting_is_over(false, &mut steps),
                    Acceptor::Running => steps.push(Step::TellAcceptor(stop)),
                    Acceptor::Over => {}
                }
            }
            Event::ConnectionStopped(connection) => {
                self.connections.acknowledge(&connection);
            }
        }
        // While its Acceptor has not answered, the mailbox may still hold clients from it. Without force, the Supervisor says
        // `Finish` only when all the other Acceptors have answered too.
        let no_client_comes = self.connections.ordered() >= Some(Stop::Finish) && self.acceptor == Acceptor::Over;
        if no_client_comes && self.connections.is_empty() && !std::mem::replace(&mut self.finished, true) {
            steps.push(Step::Finish);
        }
        steps
    }

    fn wait_for_acceptor(&mut self, restarts: Option<usize>, steps: &mut Vec<Step>) {
        self.acceptor = Acceptor::Due { restarts };
        steps.push(Step::WaitForAcceptor);
    }

    fn accepting_is_over(&mut self, given_up: bool, steps: &mut Vec<Step>) {
        self.acceptor = Acceptor::Over;
        steps.push(Step::AcceptingIsOver { given_up });
    }

    /// The connections that owe their acknowledgement.
    pub fn connections(&self) -> impl Iterator<Item = &H> {
        self.connections.owing().map(|(_, handle)| handle)
    }

    /// Of them, those that come after this one.
    pub fn connections_after(&self, connection: Option<C>) -> impl Iterator<Item = &H> {
        self.connections.owing_after(connection).map(|(_, handle)| handle)
    }

    /// Whether the Worker has ended itself.
    pub fn is_finished(&self) -> bool {
        self.finished
    }
}
