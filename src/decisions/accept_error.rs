//! What an accept error means.

use rustix::io::Errno;
use std::io;

/// What an accept error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// One client or the network failed: on to the next.
    Client,
    /// The system has no more to give for now: a real pause, or retrying would starve the very actors that can free some.
    Exhausted,
    /// The listener itself is broken.
    Listener,
}

impl AcceptError {
    /// Linux hands pending network errors of the new connection to `accept` (see accept(2)); they say nothing of the listener.
    pub fn of(error: &io::Error) -> Self {
        use Errno as E;
        match E::from_io_error(error) {
            Some(
                E::CONNABORTED
                | E::INTR
                | E::PERM
                | E::PROTO
                | E::NOPROTOOPT
                | E::OPNOTSUPP
                | E::NETDOWN
                | E::NETUNREACH
                | E::HOSTDOWN
                | E::HOSTUNREACH
                | E::NONET,
            ) => Self::Client,
            Some(E::MFILE | E::NFILE | E::NOBUFS | E::NOMEM) => Self::Exhausted,
            _ => Self::Listener,
        }
    }
}
