//! How far a stop goes, and what began it.

use std::fmt;

/// The broadcast, from parent to child, and how far it goes. Each step includes those before it, so a later one may come
/// without them, and an earlier one that comes late changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// Why a server or a client stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The signal SIGTERM.
    Sigterm,
    /// The signal SIGINT, Ctrl-C.
    Sigint,
    /// [`Handle::stop`](crate::Handle::stop).
    Handle,
    /// Too many restarts, or a Worker that panicked.
    Restarts,
}

impl StopReason {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigint => "SIGINT",
            Self::Handle => "handle",
            Self::Restarts => "restarts",
        }
    }

    pub(crate) fn is_signal(self) -> bool {
        matches!(self, Self::Sigterm | Self::Sigint)
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
