//! The messages of a stop that a server and a client share, and the handle that orders one.
//!
//! Relies on the order of messages between two actors, and on `Drop` running when an actor panics.

use crate::decisions::stop::{Stop, StopReason};
use actix::Message;
use tokio::sync::mpsc;

impl Message for Stop {
    type Result = ();
}

/// To the Supervisor of a server or a client, from any sender: end. The answer is the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Shutdown {
    /// Stop. The first one begins the graceful stop. A second *signal* ends it by force, and all others change nothing.
    Stop(StopReason),
    /// End by force now, also if no stop is under way. Repeating it changes nothing.
    Abort,
}

/// A child to its parent: I have ended. The child sends it once, after every kind of end, from one place: its `Drop`, which
/// also runs when the child panics. While the parent runs it is news; during a stop it is the acknowledgement. A [`Stop`]
/// that crosses it is dropped with the mailbox, and that is right.
#[derive(Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Stopped<E>(pub E);

/// Stops a server or a client; can be cloned and sent to any thread. A server's [`Handle`](crate::Handle) can be turned into
/// one.
#[derive(Debug, Clone)]
pub struct StopHandle(mpsc::UnboundedSender<Shutdown>);

impl StopHandle {
    /// A handle, and the channel on which its orders arrive.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Shutdown>) {
        let (orders, received) = mpsc::unbounded_channel();
        (Self(orders), received)
    }

    /// Begins the graceful stop. Repeating it changes nothing.
    pub fn stop(&self) {
        self.shutdown(StopReason::Handle);
    }

    /// Ends the stop by force now, as a second signal does. If no stop is under way, it begins one and forces it at once.
    /// Repeating it changes nothing.
    pub fn abort(&self) {
        self.send(Shutdown::Abort);
    }

    pub(crate) fn shutdown(&self, reason: StopReason) {
        self.send(Shutdown::Stop(reason));
    }

    fn send(&self, shutdown: Shutdown) {
        // If the other end is gone, it has stopped already.
        let _ = self.0.send(shutdown);
    }
}
