//! How far a stop goes, and what began it.

use std::{fmt, time::Duration};

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

/// How long after the refusal of new clients the listening socket stays open in any case: for the Acceptors to answer, and for
/// handshakes where the kernel does not tell of them.
pub const SETTLING: Duration = Duration::from_millis(100);

/// How long it stays open for handshakes under way. Such a client takes itself for connected, and a close would reset it. Its
/// last packet is a round trip off, or a second if it was lost: then the kernel repeats its own.
pub const HANDSHAKES: Duration = Duration::from_millis(1_500);

/// How soon after a signal another one is its echo: `timeout` and a shell's trap send two at once, and a person who means a
/// second one is slower.
const ECHO: Duration = Duration::from_millis(250);

/// Tells signals that are news from the echoes of those before them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Echoes {
    /// When the last signal was heard, news or not.
    last: Option<Duration>,
}

impl Echoes {
    /// A signal is heard at `now` (since any fixed moment). True if it is news; an echo changes nothing.
    pub fn signal(&mut self, now: Duration) -> bool {
        self.last.replace(now).is_none_or(|last| now.saturating_sub(last) >= ECHO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the signals that are heard at these milliseconds are news.
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
