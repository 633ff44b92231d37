//! What can keep a program from starting or running, and the exit code that tells the caller which it was.

#[cfg(feature = "cli")]
use crate::settings::layers::SettingsError;
use std::{io, net::SocketAddr};

/// Why a server could not start or run.
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
    /// The limit of file descriptors leaves none for a connection.
    #[error(
        "the limit of {limit} file descriptors leaves none for a connection: {reserved} are needed for the server itself"
    )]
    Descriptors {
        /// The soft limit, after it was raised to the hard one.
        limit: usize,
        /// What the server needs for itself, spare ones included.
        reserved: usize,
    },
    /// The settings, made by hand, let nobody in.
    #[error("max_connections is 0: nobody could be served")]
    NoConnections,
    /// The server did not echo.
    #[error("healthcheck of {address}: {source}")]
    Healthcheck {
        /// The address that was asked.
        address: SocketAddr,
        /// What came instead of the echo.
        source: io::Error,
    },
    /// The settings are wrong.
    #[cfg(feature = "cli")]
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The signals could not be taken over.
    #[error("cannot register signal handlers: {0}")]
    Signals(#[source] io::Error),
    /// What was asked for could not be written to standard output.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// The Supervisor itself has crashed: a defect of this library.
    #[error("the supervisor crashed")]
    Supervisor,
    /// A Worker's thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Error {
    /// What a program that ends with this error should exit with: 78 for its settings, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            #[cfg(feature = "cli")]
            Self::Settings(_) => 78,
            _ => 1,
        }
    }
}
