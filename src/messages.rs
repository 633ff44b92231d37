//! Every message between the actors, each with the rule that it carries.
//!
//! Orders go down the tree ([`Stop`]), what has ended is reported up ([`Stopped`]). Between two actors messages arrive in
//! the order in which they were sent; what else is relied on stands with each message.

use crate::{
    admission::Place,
    connection::ConnectionExit,
    gate::Permit,
    supervisor::StopReason,
    worker::{Tally, WorkerId},
};
use actix::Message;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Anyone to the Supervisor, the server's or the client's: stop. The first one begins the graceful stop, a second *signal*
/// ends it by force, and all others change nothing. The answer is the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Shutdown(pub StopReason);

/// The broadcast, from parent to child, and how far it goes. Each step includes those before it, so a later one may come
/// without them, and an earlier one that comes late changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
#[rtype(result = "()")]
pub enum Stop {
    /// Accept nothing more. Answered by the Acceptor's `Stopped`, after everything that it has accepted.
    Accepting,
    /// Every connection echoes what has arrived (a client's: waits for the echo that is due), closes and acknowledges.
    Drain,
    /// Nobody else will be taken in from the backlog: acknowledge as soon as no child owes anything.
    Finish,
    /// End by force whatever is left.
    Abort,
}

/// A child to its parent: I am gone. Sent once per life, whatever ended it, from one place, the `Drop` of the child: that
/// also runs when the child panics. News while running, the acknowledgement while stopping; a [`Stop`] that crosses it is
/// dropped with the mailbox, and that is right.
#[derive(Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Stopped<E>(pub E);

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
    /// Whether it panicked; its connections are then among the forced.
    pub crashed: bool,
    /// What became of its connections.
    pub tally: Tally,
}

/// Acceptor to its Worker: a client, with the slot or the place that it was given. The Worker owes it a ConnectionActor, also
/// during a stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Accepted {
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
pub struct TakeIn {
    /// The stream, which no thread's reactor knows yet.
    pub stream: std::net::TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Accounts for it; there is no slot behind it.
    pub permit: Permit,
}

/// A ConnectionActor to its Worker.
pub type ConnectionStopped = Stopped<ConnectionExit>;
