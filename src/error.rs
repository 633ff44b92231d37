//! What can keep a program from starting or running, and the exit code that tells the caller which it was.

use std::{io, net::SocketAddr};

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The listening socket could not be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The exit code of a program that ends with this error: 78 for its settings, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        1
    }
}
