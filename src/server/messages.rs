//! Every message between the actors, each with the rule that it carries.
//!
//! Orders go down the tree ([`Stop`]), what has ended is reported up ([`Stopped`]). Between two actors messages arrive in
//! the order in which they were sent; what else is relied on stands with each message.

use crate::{
    decisions::{
        admission::Place,
        connection::CloseReason,
        ids::{ConnectionId, WorkerId},
    },
    server::gate::Permit,
    stop::Stopped,
};
use actix::Message;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// How an Acceptor ended. To its Worker first, who starts another or passes it on: to the Supervisor it means that this
/// Worker accepts nothing any more, and while the server runs that the Worker has given up on restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptorExit {
    /// Whose Acceptor it was.
    pub worker: WorkerId,
    /// What it crashed of; `None` if it was told to stop.
    pub crash: Option<String>,
}

/// How a Worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerExit {
    /// Which one.
    pub worker: WorkerId,
    /// The connections that it had when it panicked, which are forced; `None` if it came to its own end.
    pub orphans: Option<usize>,
}

/// Acceptor to its Worker: a client, with the slot or the place that it was given. The Worker owes it a ConnectionActor, also
/// during a stop.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Accepted {
    /// The stream, of this thread's reactor.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its slot or its place in the queue.
    pub permit: Permit,
    /// Which of the two it was.
    pub place: Place,
}

/// Supervisor to a Worker: a client from the backlog, found when accepting had ended. It is drained, not served.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TakeIn {
    /// The stream, which no thread's reactor knows yet.
    pub stream: std::net::TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Accounts for it; there is no slot behind it.
    pub permit: Permit,
}

/// Supervisor to a Worker, now and then: look after clients that have gone without a word. The Workers' threads have no timer of
/// their own for it, since a runtime that has one looks at its clock at every turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Look;

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
