//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
//!
//! ```text
//! main thread
//! └── Supervisor                 root: owns the listening socket and the gate, broadcasts Stop, reports
//!     ├── Worker 1               one per thread: supervises what runs on it
//!     │   ├── Acceptor           accepts from the one shared listening socket
//!     │   ├── ConnectionActor    one per client
//!     │   └── ConnectionActor …
//!     └── Worker N
//! ```
//!
//! You write a [`Service`], the protocol of one connection; the library accepts, caps, queues, supervises and stops. The
//! built-in one is [`Echo`]. A server that answers Ctrl-C and SIGTERM gracefully:
//!
//! ```no_run
//! use supervised_echo::{Echo, Error, Server, Settings, Signals};
//!
//! #[actix::main]
//! async fn main() -> Result<std::process::ExitCode, Error> {
//!     let signals = Signals::register()?;
//!     let server = Server::bind(Settings::default(), Echo)?;
//!     signals.forward_to(server.handle());
//!     let report = server.run().await?;
//!     println!("{} acknowledged, {} forced", report.acknowledged, report.forced);
//!     Ok(report.exit_code().into())
//! }
//! ```
//!
//! # Layout
//!
//! Folders are layers, and their arrows go one way (`tests/layers.rs` keeps them):
//!
//! * [`decisions`]: what the server decides, as pure state machines.
//! * `server`: the actors that carry the decisions out, the data plane, and what a protocol is.
//! * `client`: the verifying client, with the same messages and roster.
//! * [`settings`]: what both are told, and how its layers are put together. [`logging`]: how they log.
//! * `stop`: the messages of a stop, and the handle that begins one. `signals` turns the system's into them.
//! * `bin`: the two programs.
#![warn(missing_docs)]

mod buffer;
#[cfg(feature = "client")]
mod client;
pub mod decisions;
mod error;
#[cfg(feature = "cli")]
pub mod logging;
mod server;
pub mod settings;
mod signals;
mod stop;
#[cfg(test)]
mod testing;
#[cfg(any(feature = "cli", feature = "client"))]
mod text;

#[cfg(feature = "client")]
pub use client::{
    Client, healthcheck,
    report::{ClientReport, RoundTrip},
};
pub use decisions::{
    connection::{CloseReason, Ending},
    ids::WorkerId,
    stop::StopReason,
};
pub use error::Error;
pub use server::{
    Server,
    connection::socket::Socket,
    descriptors,
    echo::Echo,
    report::Report,
    service::{AtStop, Service},
};
pub use settings::Settings;
pub use signals::Signals;
pub use stop::Handle;

/// Every message between the actors.
pub mod messages {
    pub use crate::{decisions::stop::Stop, server::messages::*, stop::*};
}

/// The examples in the README are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
