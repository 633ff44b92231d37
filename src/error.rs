//! What can keep a server or a client from starting or running.
//!
//! Relies on each place that fails to keep the system's own error as the source. What only a program can meet, such as wrong
//! settings, stands in `bin`, and so does the exit code.

use std::{io, net::SocketAddr};

/// Why a server or a client could not start or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The listening socket could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket that was given cannot be served: it does not listen, or is not a TCP socket.
    #[error("cannot serve the socket that was given: {0}")]
    Listener(#[source] io::Error),
    /// The limit of file descriptors leaves none for a connection.
    #[error(
        "the limit of {limit} file descriptors leaves none for a connection: {reserved} are needed for the program itself"
    )]
    Descriptors {
        /// The soft limit, after it was raised to the hard one.
        limit: usize,
        /// Those that the program needs for itself: inherited ones and spare ones included.
        reserved: usize,
    },
    /// There is too little memory to start.
    #[error("the limit of {}memory leaves less than {} MiB to go on with", figure(limit.map(|bytes| bytes >> 10), "KiB of "), needed >> 20)]
    Memory {
        /// How many bytes there must be.
        needed: u64,
        /// The limit of address space or data, in bytes; `None` if the system itself has no more.
        limit: Option<u64>,
    },
    /// The settings, made in code, have `max_connections` 0.
    #[error("max_connections is 0: no client could be served")]
    NoConnections,
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// There is no actix [`System`](actix::System) for the actors to run in.
    #[error(
        "needs an actix System: begin with #[actix::main], not #[tokio::main], or with actix::System::new().block_on(..)"
    )]
    NoSystem,
    /// The signals could not be taken over.
    #[error("cannot register signal handlers: {0}")]
    Signals(#[source] io::Error),
    /// The Supervisor itself has crashed: a defect of this library.
    #[error("the supervisor crashed")]
    Supervisor,
    /// A thread could not be started.
    #[error("cannot start a thread: {source}: the limit of {}processes and threads is reached, or a container's own", figure(*limit, ""))]
    Thread {
        /// What the system said.
        source: io::Error,
        /// How many threads the user may have; `None` if that is not limited.
        limit: Option<u64>,
    },
}

/// The value of a limit with its unit, if it has one.
fn figure(limit: Option<u64>, unit: &str) -> String {
    limit.map_or_else(String::new, |limit| format!("{limit} {unit}"))
}
