//! The ids that the log and the tree give to Workers and connections.
//!
//! A Worker and a connection are named by numbers that count from 1 and are never used twice.

use serde::Serialize;
use std::fmt;

/// Names a Worker; they count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct WorkerId(pub usize);

/// Names one connection as long as the server runs. A later arrival has a larger id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ConnectionId(pub(super) u64);

impl ConnectionId {
    /// The number that the log shows.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
