//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
#![warn(missing_docs)]

pub mod error;
mod escape;
pub mod healthcheck;
pub mod layers;
pub mod logging;
pub mod settings;

pub use error::Error;
