//! The messages of a stop that a server and a client have in common, and the handle that begins one.

use crate::decisions::stop::{Stop, StopReason};
use actix::Message;
use tokio::sync::mpsc;

impl Message for Stop {
    type Result = ();
}

/// Anyone to the Supervisor, the server's or the client's: stop. The first one begins the graceful stop, a second *signal*
/// ends it by force, and all others change nothing. The answer is the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Shutdown(pub StopReason);

/// A child to its parent: I am gone. Sent once per life, whatever ended it, from one place, the `Drop` of the child: that
/// also runs when the child panics. News while running, the acknowledgement while stopping; a [`Stop`] that crosses it is
/// dropped with the mailbox, and that is right.
#[derive(Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Stopped<E>(pub E);

/// Stops a [`Server`](crate::Server) or a [`Client`](crate::Client); can be cloned and sent to any thread.
#[derive(Debug, Clone)]
pub struct Handle(mpsc::UnboundedSender<Shutdown>);

impl Handle {
    /// A handle, and where its orders come out.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Shutdown>) {
        let (orders, received) = mpsc::unbounded_channel();
        (Self(orders), received)
    }

    /// Begins the graceful stop, with what the server's `shutdown_timeout` allows. Repeating it changes nothing.
    ///
    /// [`Server::run`](crate::Server::run) returns when it is done.
    pub fn stop(&self) {
        self.shutdown(StopReason::Handle);
    }

    pub(crate) fn shutdown(&self, reason: StopReason) {
        // One that is gone has stopped.
        let _ = self.0.send(Shutdown(reason));
    }
}
