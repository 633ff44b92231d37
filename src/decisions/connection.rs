//! What a connection decides: whether it is still served when its slot or a stop comes, and what its end is called.
//!
//! A pure state machine, as [`supervisor`](super::supervisor) is. The actor and the data plane of the connection both feed
//! it.

use serde::Serialize;
use std::fmt;

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CloseReason {
    /// The conversation was over. Usually the client ended it.
    Client,
    /// The server stopped, and the client has everything that was received from it.
    Stopped,
    /// Nothing moved for `idle_timeout`.
    Idle,
    /// The client reset it, or has vanished while it was owed bytes.
    Reset,
    /// The service failed. The client gets what the service had written, then it sees a reset.
    Failed,
    /// The service or the actor panicked. The client sees a reset.
    Crashed,
    /// It was still open at the deadline, at a second signal or at an abort. The client sees a reset.
    Forced,
    /// Its PROXY header was malformed, too long, too slow, missing or not to be trusted. The client sees a reset.
    Header,
}

impl CloseReason {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 8] =
        [Self::Client, Self::Stopped, Self::Idle, Self::Reset, Self::Failed, Self::Crashed, Self::Forced, Self::Header];

    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Stopped => "stopped",
            Self::Idle => "idle",
            Self::Reset => "reset",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Forced => "forced",
            Self::Header => "header",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a connection stands.
///
/// ```
/// use supervised_echo::{CloseReason, decisions::connection::{ConnectionState, Ending}};
///
/// let waiting = ConnectionState::Waiting;
/// let stopped = waiting.end_input(Ending::Stopped);
/// assert_eq!(stopped.serve(), stopped, "a slot that comes after the stop comes too late");
/// assert_eq!(stopped.finish().reason(), CloseReason::Stopped);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// In the queue, without a slot.
    Waiting,
    /// The service and the client talk to each other.
    Serving,
    /// The server stops and nothing is due. What comes next is answered, and it is the client's last word.
    LastWord,
    /// The server has ended the input. The service still answers what had arrived by then.
    Draining(Ending),
    /// The service is done and FIN is sent. The client still gets what it is owed.
    Closing(Option<Ending>),
    /// The service has failed. The client still gets what it is owed, and then a reset.
    Failing,
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
    /// The connection gets its slot.
    #[must_use]
    pub fn serve(self) -> Self {
        if self == Self::Waiting { Self::Serving } else { self }
    }

    /// The server stops. A connection that `may_wait` waits for its client's last word. Its input ends when that has come, or when
    /// the time for it is over. Where the input has ended already, no last word is waited for.
    #[must_use]
    pub fn stop(self, may_wait: bool) -> Self {
        match self {
            Self::Waiting | Self::Serving if may_wait => Self::LastWord,
            Self::LastWord => Self::LastWord,
            _ => self.end_input(Ending::Stopped),
        }
    }

    /// The server ends the input. A stop outweighs everything that came before it.
    #[must_use]
    pub fn end_input(self, ending: Ending) -> Self {
        match self {
            Self::Waiting | Self::Serving | Self::Draining(_) => Self::Draining(ending),
            Self::LastWord => Self::Draining(Ending::Stopped),
            Self::Closing(_) => Self::Closing(Some(ending)),
            Self::Failing => Self::Failing,
        }
    }

    /// The service is done.
    #[must_use]
    pub fn finish(self) -> Self {
        Self::Closing(self.ending())
    }

    /// The service has failed.
    #[must_use]
    pub fn fail(self) -> Self {
        Self::Failing
    }

    /// Whether the server has ended the input.
    pub fn input_has_ended(self) -> bool {
        self != Self::LastWord && self.ending().is_some()
    }

    /// Why the server wants the service to end; `None` if it does not.
    pub fn ending(self) -> Option<Ending> {
        match self {
            Self::Waiting | Self::Serving | Self::Failing => None,
            Self::LastWord => Some(Ending::Stopped),
            Self::Draining(ending) => Some(ending),
            Self::Closing(ending) => ending,
        }
    }

    /// The close reason, if the connection ends now and not by force.
    pub fn reason(self) -> CloseReason {
        match (self, self.ending()) {
            (Self::Failing, _) => CloseReason::Failed,
            (_, None) => CloseReason::Client,
            (_, Some(Ending::Idle)) => CloseReason::Idle,
            (_, Some(Ending::Stopped)) => CloseReason::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDINGS: [(Ending, CloseReason); 2] =
        [(Ending::Idle, CloseReason::Idle), (Ending::Stopped, CloseReason::Stopped)];

    #[test]
    fn the_end_is_named_by_what_ended_the_input() {
        assert_eq!(ConnectionState::Serving.finish().reason(), CloseReason::Client);
        for (ending, reason) in ENDINGS {
            assert_eq!(ConnectionState::Waiting.end_input(ending).finish().reason(), reason);
            assert_eq!(ConnectionState::Serving.end_input(ending).finish().reason(), reason);
            assert_eq!(ConnectionState::Serving.finish().end_input(ending).reason(), reason);
        }
    }

    #[test]
    fn a_stop_outweighs_an_idle_timeout() {
        let idle = ConnectionState::Serving.end_input(Ending::Idle);
        assert_eq!(idle.end_input(Ending::Stopped).finish().reason(), CloseReason::Stopped);
        assert_eq!(idle.finish().end_input(Ending::Stopped).reason(), CloseReason::Stopped);
    }

    #[test]
    fn a_last_word_is_waited_for_once_and_only_while_the_input_is_open() {
        for open in [ConnectionState::Waiting, ConnectionState::Serving] {
            let waits = open.stop(true);
            assert_eq!((waits, waits.input_has_ended()), (ConnectionState::LastWord, false));
            assert_eq!(waits.ending(), Some(Ending::Stopped), "the service may know of the stop");
            for again in [true, false] {
                assert_eq!(waits.stop(again), waits, "a later step of the stop ends no input");
            }
            let over = waits.end_input(Ending::Stopped);
            assert_eq!(over, ConnectionState::Draining(Ending::Stopped));
            assert_eq!(over.stop(true), over);
            assert_eq!(open.stop(false), over);
        }
        let idle = ConnectionState::Serving.end_input(Ending::Idle);
        assert_eq!(idle.stop(true), ConnectionState::Draining(Ending::Stopped));
        assert_eq!(idle.finish().stop(true), ConnectionState::Closing(Some(Ending::Stopped)));
        assert_eq!(ConnectionState::Failing.stop(true), ConnectionState::Failing);
    }

    #[test]
    fn a_service_that_ends_before_the_last_word_was_stopped_or_has_failed() {
        let waits = ConnectionState::Serving.stop(true);
        assert_eq!(waits.serve(), waits, "a slot that comes after the stop comes too late");
        assert_eq!(waits.finish().reason(), CloseReason::Stopped);
        assert_eq!(waits.fail().reason(), CloseReason::Failed);
    }

    #[test]
    fn a_failure_is_called_one_though_a_stop_or_an_idle_timeout_comes_before_or_after_it() {
        for (ending, _) in ENDINGS {
            assert_eq!(ConnectionState::Serving.end_input(ending).fail().reason(), CloseReason::Failed);
            assert_eq!(ConnectionState::Serving.fail().end_input(ending).reason(), CloseReason::Failed);
        }
    }

    #[test]
    fn only_a_waiting_connection_is_served() {
        assert_eq!(ConnectionState::Waiting.serve(), ConnectionState::Serving);
        for (ending, _) in ENDINGS {
            let draining = ConnectionState::Waiting.end_input(ending);
            assert_eq!(draining.serve(), draining);
            assert_eq!(draining.finish().serve(), draining.finish());
        }
    }
}
