//! What an accept error means. Five errors speak of the listener itself, and only these end an Acceptor.
//!
//! Relies on the list of errors in accept(2). An error that no list names counts as exhaustion.

use rustix::io::Errno;
use std::io;

/// What an accept error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// One client or the network failed. The Acceptor accepts the next client.
    Client,
    /// The system has no more descriptors, memory or watches of epoll (ENOSPC) for now, or no list names the error. The
    /// Acceptor pauses: retrying at once would take the thread from the actors that can free some.
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
                | E::CONNRESET
                | E::HOSTDOWN
                | E::HOSTUNREACH
                | E::INTR
                | E::NETDOWN
                | E::NETUNREACH
                | E::NONET
                | E::NOPROTOOPT
                | E::OPNOTSUPP
                | E::PERM
                | E::PROTO
                | E::TIMEDOUT,
            ) => Self::Client,
            Some(E::BADF | E::FAULT | E::INVAL | E::NOSYS | E::NOTSOCK) => Self::Listener,
            _ => Self::Exhausted,
        }
    }
}

/// Errors of each kind, for the tests of all that meet them.
#[cfg(test)]
pub(crate) mod testing {
    use rustix::io::Errno;

    pub const CLIENTS: [Errno; 13] = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::NONET,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::PERM,
        Errno::PROTO,
        Errno::TIMEDOUT,
    ];
    /// Those that have been met; there are more.
    pub const EXHAUSTED: [Errno; 7] =
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC, Errno::NOSR, Errno::ACCESS];
    pub const LISTENERS: [Errno; 5] = [Errno::BADF, Errno::FAULT, Errno::INVAL, Errno::NOSYS, Errno::NOTSOCK];
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{CLIENTS, EXHAUSTED, LISTENERS},
        *,
    };

    #[test]
    fn every_error_of_the_system_has_its_meaning_and_only_five_speak_of_the_listener() {
        // Linux numbers them from 1 to 133; an error of its own may come with any number up to 4095.
        for number in 1..4096 {
            let errno = Errno::from_raw_os_error(number);
            let expected = match errno {
                _ if CLIENTS.contains(&errno) => AcceptError::Client,
                _ if LISTENERS.contains(&errno) => AcceptError::Listener,
                _ => AcceptError::Exhausted,
            };
            assert_eq!(AcceptError::of(&errno.into()), expected, "{errno:?}");
        }
        EXHAUSTED.iter().for_each(|&errno| assert_eq!(AcceptError::of(&errno.into()), AcceptError::Exhausted));
        assert_eq!(AcceptError::of(&io::Error::other("not the system's")), AcceptError::Exhausted);
    }
}
