//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
#![warn(missing_docs)]

mod acceptor;
pub mod admission;
mod connection;
mod descriptors;
mod echo;
mod error;
mod escape;
mod farewell;
pub mod gate;
pub mod healthcheck;
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
mod worker;

pub use echo::Echo;
pub use error::Error;
pub use server::{Handle, Server};
pub use service::{Service, Socket};
pub use settings::Settings;
pub use signals::Signals;
pub use supervisor::{Report, StopReason};
