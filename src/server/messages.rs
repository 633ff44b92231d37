//! Every message between the actors, each with the rule that it carries.
//!
//! Orders go down the tree ([`Stop`]), and ends are reported up ([`Stopped`]). Messages between two actors arrive in the
//! order in which they were sent. Each message names what else it relies on.

use crate::{
    decisions::{
        admission::Place,
        connection::CloseReason,
        ids::{ConnectionId, WorkerId},
    },
    server::{
        gate::Permit,
        watch::tree::{ConnectionView, Open, State},
    },
    settings::Settings,
    stop::Stopped,
};
use actix::{Message, MessageResponse, Recipient};
use std::{fmt, net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;

/// How an Acceptor ended. It goes to the Acceptor's Worker, which starts another Acceptor or passes the message on. For the
/// Supervisor it means that this Worker accepts nothing any more. If the server still runs, the Worker has given up on
/// restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptorExit {
    /// Whose Acceptor it was.
    pub worker: WorkerId,
    /// The reason of the crash; `None` if it was told to stop.
    pub crash: Option<String>,
}

/// How a Worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExit {
    /// Which one.
    pub worker: WorkerId,
    /// The number of connections that it had when it panicked, all of them forced; `None` if it came to its own end.
    pub orphans: Option<usize>,
}

/// Server to a Worker: have an Acceptor, and let it hand clients to these Workers. A Worker that never gets it only serves.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Accept {
    /// All Workers, in the order of their ids.
    pub workers: Arc<[Recipient<TakeIn>]>,
}

/// Acceptor to its own Worker: a client, with its slot or its place in the queue. The Worker must start a ConnectionActor
/// for it, also during a stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Accepted {
    /// The stream, registered with this thread's reactor.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its slot or its place in the queue.
    pub permit: Permit,
    /// Whether it is a slot or a place.
    pub place: Place,
}

/// From another thread to a Worker: a client that is to live there. An Acceptor of another Worker has accepted it, or the
/// Supervisor has. The Worker must start a ConnectionActor for it, also during a stop. Without force no Worker ends before
/// the last one has come: see [`Stop::Finish`](crate::decisions::stop::Stop::Finish).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TakeIn {
    /// The stream, registered with no reactor yet.
    pub stream: std::net::TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its slot or its place in the queue; or what counts it, if it has neither.
    pub permit: Permit,
    /// Whether it is a slot or a place. `None` for a client from the backlog, found after accepting had ended: the Worker
    /// drains it and does not serve it.
    pub place: Option<Place>,
}

/// From a [`Handle`](crate::Handle) to the Supervisor: the settings from now on are those that this reads. What cannot be in force
/// without a restart stays as it is. During a stop nothing is read. So all that a reload changes changes at once, or not at all.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reload(pub ReadSettings);

/// Reads settings, or says in one line why it cannot.
pub type ReadSettings = Box<dyn FnOnce() -> Result<Settings, String> + Send>;

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// Supervisor to a Worker: these are the settings from now on. The connections that the Worker has keep theirs.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct Reconfigure(pub Settings);

/// Supervisor to a Worker, at intervals: look for clients that have vanished. The Workers' threads have no timer of their
/// own for it, because a runtime with a timer looks at its clock at every turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Look;

/// A watcher to a Worker: list connections, `most` of the oldest, behind `after`, in this state. Worker and watcher rely on
/// nothing else: the answer may come late or never.
#[derive(Clone, Copy, Message)]
#[rtype(result = "Inspected")]
pub(crate) struct Inspect {
    pub after: Option<ConnectionId>,
    pub state: Option<State>,
    pub most: usize,
}

/// A watcher to the Supervisor: answer, so that the watcher sees that the main thread is not held up.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ping;

/// The answer of a Worker.
#[derive(MessageResponse)]
pub(crate) struct Inspected {
    /// The number of the Worker's changes so far.
    pub n: u64,
    /// As of this change, like the rest.
    pub count: Open,
    pub connections: Vec<ConnectionView>,
}

/// A ConnectionActor to its Worker.
pub(crate) type ConnectionStopped = Stopped<ConnectionExit>;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionExit {
    /// Which one.
    pub connection: ConnectionId,
    /// Why.
    pub reason: CloseReason,
}
