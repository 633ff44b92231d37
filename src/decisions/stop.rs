//! How far a stop goes, what began it, and which signals count as new.
//!
//! Pure: it reads no clock, its user passes the time.

use serde::Serialize;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "&'static str")]
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

impl From<StopReason> for &'static str {
    fn from(reason: StopReason) -> Self {
        reason.as_str()
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

/// Tells a new signal from the echo of the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Echoes {
    /// When the last signal was heard, new or an echo.
    last: Option<Duration>,
}

impl Echoes {
    /// A signal is heard at `now` (counted from any fixed moment). True if it is new; an echo changes nothing.
    pub fn signal(&mut self, now: Duration) -> bool {
        self.last.replace(now).is_none_or(|last| now.saturating_sub(last) >= ECHO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the signals at these milliseconds are new.
    fn news<const N: usize>(heard: [u64; N]) -> [bool; N] {
        let mut echoes = Echoes::default();
        heard.map(|at| echoes.signal(Duration::from_millis(at)))
    }

    #[test]
    fn the_first_signal_is_news_whenever_it_comes() {
        assert_eq!(news([0]), [true]);
        assert_eq!(news([1_000]), [true]);
    }

    #[test]
    fn a_signal_within_a_quarter_of_a_second_is_an_echo_and_a_later_one_is_news() {
        assert_eq!(news([100, 100, 1_000]), [true, false, true]);
        assert_eq!(news([100, 349]), [true, false]);
        assert_eq!(news([100, 350]), [true, true]);
    }

    #[test]
    fn an_echo_may_have_an_echo() {
        assert_eq!(news([0, 200, 400, 600, 850]), [true, false, false, false, true]);
    }
}
