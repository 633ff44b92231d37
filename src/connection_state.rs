//! What a connection decides: whether it is still served when its slot or a stop comes, and what its end is called.
//!
//! A pure state machine, as [`supervisor_state`](crate::supervisor_state) is; both planes of the connection move it on.

use crate::connection::Reason;

/// Where a connection stands.
///
/// ```
/// use supervised_echo::{Reason, connection_state::{ConnectionState, Ending}};
///
/// let waiting = ConnectionState::Waiting;
/// let stopped = waiting.end_input(Ending::Stopped);
/// assert_eq!(stopped.serve(), stopped, "a slot that comes after the stop comes too late");
/// assert_eq!(stopped.finish().reason(), Reason::Stopped);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// In the queue, without a slot.
    Waiting,
    /// Its service and its client speak with each other.
    Serving,
    /// Its input has been ended from this side: the service still answers what had arrived by then.
    Draining(Ending),
    /// The service is done and FIN is sent: the client still gets what it is owed.
    Farewell(Option<Ending>),
}

/// Why the input of a connection ends before the client ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing moved for `idle_timeout`.
    Idle,
    /// The server stops.
    Stopped,
}

impl ConnectionState {
    /// It has its slot.
    #[must_use]
    pub fn serve(self) -> Self {
        if self == Self::Waiting { Self::Serving } else { self }
    }

    /// Its input ends. A stop outweighs everything that came before it.
    #[must_use]
    pub fn end_input(self, ending: Ending) -> Self {
        match self {
            Self::Waiting | Self::Serving | Self::Draining(_) => Self::Draining(ending),
            Self::Farewell(_) => Self::Farewell(Some(ending)),
        }
    }

    /// The service is done.
    #[must_use]
    pub fn finish(self) -> Self {
        Self::Farewell(self.ending())
    }

    /// What has ended its input, if it was not the client.
    pub fn ending(self) -> Option<Ending> {
        match self {
            Self::Waiting | Self::Serving => None,
            Self::Draining(ending) => Some(ending),
            Self::Farewell(ending) => ending,
        }
    }

    /// What a clean end is called now.
    pub fn reason(self) -> Reason {
        match self.ending() {
            None => Reason::Client,
            Some(Ending::Idle) => Reason::Idle,
            Some(Ending::Stopped) => Reason::Stopped,
        }
    }
}
