//! What can keep a program from starting or running, and the exit code that tells the caller which it was.

use std::{io, net::SocketAddr};

use crate::layers::SettingsError;

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
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The server did not echo.
    #[error("healthcheck of {address}: {source}")]
    Healthcheck {
        /// The address that was asked.
        address: SocketAddr,
        /// What came instead of the echo.
        source: io::Error,
    },
}

impl Error {
    /// The exit code of a program that ends with this error: 78 for its settings, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 78,
            _ => 1,
        }
    }
}
