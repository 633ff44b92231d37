//! Raises the limit of file descriptors as far as it goes, and lowers the caps to fit into it.
//!
//! One connection takes one descriptor. The server survives running out at run time (see `acceptor`), but it should not
//! start with caps that it cannot keep.

use crate::{error::Error, resources, settings::SupervisorSettings};
use slog::Logger;
use std::{ffi::OsString, fs};

/// Kept free for files that are opened now and then, such as a log or a name look-up.
const SPARE: usize = 16;
/// What one Worker's thread needs: an epoll instance, its waker, its end of the signal pipe, its handle of the listener, both
/// ends of the pipe for streams in bulk.
const PER_WORKER: usize = 6;
/// What the Admin needs: an epoll instance, its waker, its end of the signal pipe, its listener, 16 connections, and a
/// directory and a file of `/proc` that it reads.
const ADMIN: usize = 22;

/// The caps that the limit allows, and what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    pub limit: usize,
    /// The spare ones, and those that the process needs for itself.
    pub reserved: usize,
    pub max_connections: usize,
    pub max_pending: usize,
}

/// Raises the limit and fits the caps into it: first `max_pending` is lowered, then `max_connections`.
pub(crate) fn reserve(workers: usize, admin: bool, asked: &SupervisorSettings) -> Result<Caps, Error> {
    let limit = resources::raise_descriptors();
    // Descriptors numbered above the limit take none of it.
    let counts = |name: OsString| name.to_str().and_then(|name| name.parse().ok()).is_none_or(|fd: usize| fd < limit);
    let open = fs::read_dir("/proc/self/fd").map(|open| open.flatten().filter(|fd| counts(fd.file_name())).count());
    let open = open.unwrap_or(SPARE);
    let admin = if admin { ADMIN } else { 0 };
    fit(limit, SPARE + open + workers * PER_WORKER + admin, asked.max_connections, asked.max_pending)
}

impl Caps {
    /// Fits other caps into the same limit.
    pub fn fit(&self, max_connections: usize, max_pending: usize) -> Self {
        // There was room for one connection, so there still is.
        fit(self.limit, self.reserved, max_connections, max_pending).unwrap_or(*self)
    }

    /// Warns if they are lower than what was asked for.
    pub fn warn(&self, asked: &SupervisorSettings, log: &Logger) {
        if (self.max_connections, self.max_pending) != (asked.max_connections, asked.max_pending) {
            slog::warn!(log, "caps lowered to fit the descriptor limit"; "limit" => self.limit, "reserved" => self.reserved,
                "max_connections_asked" => asked.max_connections, "max_connections" => self.max_connections,
                "max_pending_asked" => asked.max_pending, "max_pending" => self.max_pending);
        }
    }
}

fn fit(limit: usize, reserved: usize, max_connections: usize, max_pending: usize) -> Result<Caps, Error> {
    let room = limit.saturating_sub(reserved);
    if room < 1 {
        return Err(Error::Descriptors { limit, reserved });
    }
    let max_connections = max_connections.min(room);
    let max_pending = max_pending.min(room - max_connections);
    Ok(Caps { limit, reserved, max_connections, max_pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(limit: usize, max_connections: usize, max_pending: usize) -> (usize, usize) {
        let caps = fit(limit, 20, max_connections, max_pending).expect("there is room");
        (caps.max_connections, caps.max_pending)
    }

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(caps(130, 100, 10), (100, 10));
        assert_eq!(caps(usize::MAX, 100, 10), (100, 10));
    }

    #[test]
    fn the_queue_is_lowered_first_and_the_connections_only_then() {
        assert_eq!(caps(129, 100, 10), (100, 9));
        assert_eq!(caps(120, 100, 10), (100, 0));
        assert_eq!(caps(119, 100, 10), (99, 0));
        assert_eq!(caps(21, 100, 10), (1, 0));
    }

    #[test]
    fn a_limit_without_room_for_one_connection_is_an_error() {
        assert!(matches!(fit(20, 20, 1, 0), Err(Error::Descriptors { limit: 20, reserved: 20 })));
        assert!(matches!(fit(3, 20, 1, 0), Err(Error::Descriptors { .. })));
    }
}
