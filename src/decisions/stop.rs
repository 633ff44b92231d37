//! How far a stop goes, what began it, and which signals count as new.
//!
//! Pure: it reads no clock, its user passes the time.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The broadcast from parent to child. Each step includes those before it. So a later step may come without the earlier
/// ones, and an earlier one that comes late changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stop {
    /// Accept nothing more. The Acceptor answers with its `Stopped`, after everything that it has accepted.
    Accepting,
    /// Drain. Each connection of the server echoes what has arrived, closes and acknowledges. Each connection of the client
    /// waits for the echo that is due first.
    Drain,
    /// No more clients come, from the backlog or from an Acceptor. Acknowledge as soon as no child owes anything.
    Finish,
    /// End by force everything that is left.
    Abort,
}

/// Why a server or a client stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum StopReason {
    /// The signal SIGTERM.
    Sigterm,
    /// The signal SIGINT, Ctrl-C.
    Sigint,
    /// The signal SIGQUIT, Ctrl-\\.
    Sigquit,
    /// The signal SIGHUP: a terminal was closed.
    Sighup,
    /// [`Handle::stop`](crate::Handle::stop) or [`Handle::abort`](crate::Handle::abort).
    #[serde(rename = "handle")]
    Handle,
    /// Too many restarts, or a Worker that panicked.
    #[serde(rename = "restarts")]
    Restarts,
}

impl StopReason {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigint => "SIGINT",
            Self::Sigquit => "SIGQUIT",
            Self::Sighup => "SIGHUP",
            Self::Handle => "handle",
            Self::Restarts => "restarts",
        }
    }

    pub(crate) fn is_signal(self) -> bool {
        matches!(self, Self::Sigterm | Self::Sigint | Self::Sigquit | Self::Sighup)
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The listening socket stays open for at least this long after new clients are refused. In this time the Acceptors answer,
/// and handshakes end where the kernel does not tell of them.
pub const SETTLING: Duration = Duration::from_millis(100);

/// How long it stays open for handshakes under way. Such a client takes itself for connected, and a close would reset it. Its
/// last packet is a round trip away. If that packet is lost, the kernel repeats its own after a second.
pub const HANDSHAKES: Duration = Duration::from_millis(1_500);

/// A signal that comes this soon after another one is its echo. `timeout` and a shell's trap send two at once; a person who
/// means a second signal is slower.
const ECHO: Duration = Duration::from_millis(250);

/// What a signal is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Heard {
    /// No signal was heard before. It begins the stop, if nothing else has.
    First,
    /// It changes nothing.
    Echo,
    /// It ends a stop that is under way by force.
    Again,
}

/// Tells the first signal, the echo of one, and another one apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Echoes {
    /// When the last signal was heard, an echo or not.
    last: Option<Duration>,
}

impl Echoes {
    /// A signal is heard at `now`, counted from any fixed moment.
    pub fn signal(&mut self, now: Duration) -> Heard {
        match self.last.replace(now) {
            None => Heard::First,
            Some(last) if now.saturating_sub(last) < ECHO => Heard::Echo,
            Some(_) => Heard::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Heard::*, *};

    /// What the signals at these milliseconds are.
    fn heard<const N: usize>(at: [u64; N]) -> [Heard; N] {
        let mut echoes = Echoes::default();
        at.map(|at| echoes.signal(Duration::from_millis(at)))
    }

    #[test]
    fn the_first_signal_is_no_echo_at_any_time() {
        assert_eq!(heard([0]), [First]);
        assert_eq!(heard([1_000]), [First]);
    }

    #[test]
    fn a_signal_within_a_quarter_of_a_second_is_an_echo_and_a_later_one_is_not() {
        assert_eq!(heard([100, 100, 1_000]), [First, Echo, Again]);
        assert_eq!(heard([100, 349]), [First, Echo]);
        assert_eq!(heard([100, 350]), [First, Again]);
    }

    #[test]
    fn an_echo_may_have_an_echo() {
        assert_eq!(heard([0, 200, 400, 600, 850]), [First, Echo, Echo, Echo, Again]);
    }
}
