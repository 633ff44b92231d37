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

/// Errors of each kind, for the tests of all that meet them.
#[cfg(test)]
pub(crate) mod testing {
    use rustix::io::Errno;

    pub const CLIENTS: [Errno; 11] = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
    ];
    pub const EXHAUSTED: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    pub const LISTENERS: [Errno; 3] = [Errno::INVAL, Errno::BADF, Errno::NOTSOCK];
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{CLIENTS, EXHAUSTED, LISTENERS},
        *,
    };

    #[test]
    fn every_accept_error_has_its_meaning() {
        let of = |errno: Errno| AcceptError::of(&errno.into());
        CLIENTS.iter().for_each(|&errno| assert_eq!(of(errno), AcceptError::Client, "{errno:?}"));
        EXHAUSTED.iter().for_each(|&errno| assert_eq!(of(errno), AcceptError::Exhausted, "{errno:?}"));
        LISTENERS.iter().for_each(|&errno| assert_eq!(of(errno), AcceptError::Listener, "{errno:?}"));
        assert_eq!(AcceptError::of(&io::Error::other("not the system's")), AcceptError::Listener);
    }
}
