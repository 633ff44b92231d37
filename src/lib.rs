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
//! * The actors, from the root down: `supervisor`, `worker`, `acceptor`, `connection`; what they say to each other:
//!   [`messages`].
//! * The decisions, pure state machines without actors, sockets, locks or clocks: [`supervisor_state`], [`worker_state`],
//!   [`connection_state`], and what these are made of: [`admission`] (who is served, who waits), [`roster`] (who still owes an
//!   acknowledgement), [`restart_limit`]; the classifier of accept errors is in `acceptor`.
//! * Between the two: `gate`, the lock round the admission; `link`, what the planes of a connection share; `farewell`,
//!   how it comes to a clean end; `context`, the actix context that all connections have.
//! * The data plane: `service` (what a protocol is), `echo` (the built-in one).
//! * The verifying client, on the same roster and messages: `client` (its supervisor), `caller` (the actor of one connection),
//!   `dialogue` (its data plane), `connect`, `verify`, `journal` and `client_report`.
//! * Round it: `server` (the front), `listener`, [`descriptors`], `signals`, [`settings`] and how they are put together in
//!   [`layers`], [`logging`], [`healthcheck`], `error`.
#![warn(missing_docs)]

mod acceptor;
pub mod admission;
mod caller;
mod client;
mod client_report;
#[cfg(test)]
mod client_testing;
mod connect;
mod connection;
pub mod connection_state;
mod context;
pub mod descriptors;
mod dialogue;
mod echo;
mod error;
mod escape;
mod exchange;
mod farewell;
mod gate;
pub mod healthcheck;
mod journal;
pub mod layers;
mod link;
mod listener;
pub mod logging;
pub mod messages;
pub mod restart_limit;
pub mod roster;
mod server;
mod service;
pub mod settings;
mod signals;
mod supervisor;
pub mod supervisor_state;
#[cfg(test)]
mod testing;
mod verify;
mod worker;
pub mod worker_state;

pub use client::Client;
pub use client_report::{ClientReport, RoundTrip};
pub use connection::Reason;
pub use echo::Echo;
pub use error::Error;
pub use server::{Handle, Server};
pub use service::{Service, Socket};
pub use settings::Settings;
pub use signals::Signals;
pub use supervisor::{Report, StopReason};
pub use worker::WorkerId;

/// The examples in the README are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
