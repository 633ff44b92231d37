//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
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
mod descriptors;
mod dialogue;
mod echo;
mod error;
mod escape;
mod exchange;
mod farewell;
pub mod gate;
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
#[cfg(test)]
mod testing;
mod verify;
mod worker;

pub use client::Client;
pub use client_report::{ClientReport, RoundTrip};
pub use echo::Echo;
pub use error::Error;
pub use server::{Handle, Server};
pub use service::{Service, Socket};
pub use settings::Settings;
pub use signals::Signals;
pub use supervisor::{Report, StopReason};
