//! What a watcher sees: the tree of actors with its numbers, one page of its connections, and each change of it. With serde
//! the types give the JSON of the endpoints, `docs/schema/` describes it.

use crate::decisions::{
    connection::{CloseReason, ConnectionState},
    ids::{ConnectionId, WorkerId},
    stop::{Stop, StopReason},
};
use serde::Serialize;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// The server and everything below it, at one moment.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Tree {
    /// The version of this form.
    pub v: u8,
    /// The process.
    pub server: ServerInfo,
    /// Where the server stands.
    pub phase: Phase,
    /// The stop, once one has begun.
    pub stop: Option<Stopping>,
    /// The caps and what is left of them.
    pub admission: Occupancy,
    /// The sums over all Workers.
    pub totals: Totals,
    /// The Workers, in the order of their ids.
    pub workers: Vec<WorkerView>,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answers {
    /// The main thread, on which the Supervisor runs.
    pub main: bool,
    /// At least one Worker.
    pub workers: bool,
}

/// The process that serves.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Of this crate.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// When it began to listen, by the system's clock, as RFC 3339 has it.
    pub started: String,
    /// How long ago that was.
    pub uptime_ms: u64,
    /// The address that it listens on.
    pub listen: SocketAddr,
}

/// How far a server has come. Later phases are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// It does not serve yet: its clients wait in the backlog.
    Bound,
    /// It accepts and serves.
    Running,
    /// It still accepts and serves, and says that it is about to stop.
    LameDuck,
    /// It lets no new client in, and its connections drain or are forced.
    Stopping,
    /// Its report is made, it has failed, or it was dropped before it ran. Connections that it still has belong to a Worker
    /// that is stuck.
    Stopped,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Bound, Self::Running, Self::LameDuck, Self::Stopping, Self::Stopped];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Running => "running",
            Self::LameDuck => "lame_duck",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// A stop under way, or over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stopping {
    /// What began it.
    pub reason: StopReason,
    /// The last order that was broadcast.
    pub step: Option<Order>,
    /// How long ago it began.
    pub since_ms: u64,
    /// How long it may take.
    pub timeout_ms: u64,
    /// The connections that were there when it began: served ones and waiting ones.
    pub owed: usize,
    /// Those taken in from the backlog since then.
    pub taken: usize,
    /// Of both, those that have come to their own end.
    pub acknowledged: usize,
    /// Of both, those that were ended by force.
    pub forced: usize,
    /// The listening socket.
    pub listener: Listening,
}

/// The listening socket during a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listening {
    /// The kernel cannot refuse new clients. They wait in the backlog.
    Open,
    /// The kernel refuses new clients.
    Refusing,
    /// It is closed.
    Closed,
}

/// An order of the [`Stop`] broadcast, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Order {
    /// [`Stop::Accepting`].
    Accepting,
    /// [`Stop::Drain`].
    Drain,
    /// [`Stop::Finish`].
    Finish,
    /// [`Stop::Abort`].
    Abort,
}

impl Order {
    pub(crate) const ALL: [Self; 4] = [Self::Accepting, Self::Drain, Self::Finish, Self::Abort];
}

impl From<Stop> for Order {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Accepting => Self::Accepting,
            Stop::Drain => Self::Drain,
            Stop::Finish => Self::Finish,
            Stop::Abort => Self::Abort,
        }
    }
}

/// The caps, and how much of them is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Occupancy {
    /// Connections that have a slot.
    pub served: usize,
    /// The slots.
    pub max_connections: usize,
    /// Connections that wait for one.
    pub waiting: usize,
    /// The places in the queue.
    pub max_pending: usize,
    /// Whether accepting has paused for want of file descriptors, memory or watches of epoll.
    pub out_of_descriptors: bool,
}

/// Sums since the server began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Connections.
    pub accepted: u64,
    /// Connections that have ended, by reason.
    pub closed: BTreeMap<&'static str, u64>,
    /// Bytes that services have read.
    pub received: u64,
    /// Bytes that services have written and the system has taken.
    pub echoed: u64,
    /// Bytes that came after the service was done.
    pub discarded: u64,
}

/// One Worker.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerView {
    /// Which one.
    pub worker: WorkerId,
    /// The number of its changes so far. A change with a number not above this one is in here already.
    pub n: u64,
    /// Whether it has answered. If not, its connections are counted and not listed.
    pub answered: bool,
    /// Where it stands.
    pub state: WorkerPhase,
    /// The last order of a stop that it was given.
    pub ordered: Option<Order>,
    /// Its Acceptor.
    pub acceptor: AcceptorView,
    /// Its open connections, by state.
    pub count: Open,
    /// The oldest of them.
    pub connections: Vec<ConnectionView>,
    /// How many more there are.
    pub more: usize,
}

impl WorkerPhase {
    pub(crate) const ALL: [Self; 5] = [Self::Running, Self::Stopping, Self::Stopped, Self::Crashed, Self::Stuck];
}

/// Where a Worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkerPhase {
    /// It serves.
    Running,
    /// It was told to stop.
    Stopping,
    /// It has acknowledged.
    Stopped,
    /// It has panicked.
    Crashed,
    /// It has not answered an abort.
    Stuck,
}

/// The Acceptor of a Worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AcceptorView {
    /// Where it stands.
    pub state: AcceptorPhase,
    /// How often it was restarted.
    pub restarts: u64,
}

/// Where an Acceptor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AcceptorPhase {
    /// This Worker has none.
    None,
    /// It accepts.
    Accepting,
    /// It has crashed, and another one is about to be started.
    Restarting,
    /// It has crashed too often.
    GivenUp,
    /// It has stopped.
    Stopped,
}

impl AcceptorPhase {
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Accepting, Self::Restarting, Self::GivenUp, Self::Stopped];
}

/// Open connections by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Open {
    /// Without a slot.
    pub waiting: u64,
    /// With their service.
    pub serving: u64,
    /// The input has ended; the service answers what had arrived.
    pub draining: u64,
    /// The service is done; the client gets what it is owed.
    pub closing: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionView {
    /// Which one.
    pub connection: ConnectionId,
    /// The Worker on which it lives. The tree does not repeat it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The client's address.
    pub peer: SocketAddr,
    /// Where it stands.
    pub state: State,
    /// How long it is open.
    pub since_ms: u64,
    /// Bytes that its service has read.
    pub received: u64,
    /// Bytes that its service has written and the system has taken.
    pub echoed: u64,
    /// Bytes that came after its service was done.
    pub discarded: u64,
}

/// What is shown of the state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It has no slot yet.
    Waiting,
    /// Its service and the client talk to each other.
    Serving,
    /// The server has ended its input, or waits for its last word. The service answers what had arrived, or that word.
    Draining,
    /// The service is done, or has failed. The client gets what it is owed.
    Closing,
}

impl State {
    /// All of them, in the order of their names in [`Open`].
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Serving, Self::Draining, Self::Closing];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Closing => "closing",
        }
    }
}

impl State {
    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl From<ConnectionState> for State {
    fn from(state: ConnectionState) -> Self {
        match state {
            ConnectionState::Waiting => Self::Waiting,
            ConnectionState::Serving => Self::Serving,
            ConnectionState::LastWord | ConnectionState::Draining(_) => Self::Draining,
            ConnectionState::Closing(_) | ConnectionState::Failing => Self::Closing,
        }
    }
}

/// One page of a listing of all connections.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Connections {
    /// In the order of their ids.
    pub connections: Vec<ConnectionView>,
    /// After which one the next page begins; `None` if this is the last one.
    pub next: Option<ConnectionId>,
    /// Workers that did not answer. Theirs are missing.
    pub silent: Vec<WorkerId>,
}

/// Something in the tree has changed. `n` counts the changes of one Worker, `at_ms` counts from the start of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of the views above")]
pub enum Change {
    /// A connection is new.
    Opened { worker: WorkerId, n: u64, at_ms: u64, connection: ConnectionId, peer: SocketAddr, state: State },
    /// A connection has changed its state.
    State { worker: WorkerId, n: u64, at_ms: u64, connection: ConnectionId, state: State },
    /// A connection has ended.
    Closed {
        worker: WorkerId,
        n: u64,
        at_ms: u64,
        connection: ConnectionId,
        reason: CloseReason,
        received: u64,
        echoed: u64,
        discarded: u64,
    },
    /// An Acceptor has changed its state.
    Acceptor { worker: WorkerId, n: u64, at_ms: u64, state: AcceptorPhase, restarts: u64 },
    /// A Worker has changed its state.
    Worker { worker: WorkerId, n: u64, at_ms: u64, state: WorkerPhase },
    /// The server is in a new phase. The last three are there if it stops.
    Phase {
        at_ms: u64,
        phase: Phase,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<StopReason>,
        #[serde(skip_serializing_if = "Option::is_none")]
        owed: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// The Supervisor has broadcast an order.
    Step { at_ms: u64, step: Order },
    /// The listening socket has changed.
    Listener { at_ms: u64, state: Listening, taken: usize },
    /// The settings were read again.
    Reload { at_ms: u64, changed: Arc<[&'static str]> },
}
