//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
#![warn(missing_docs)]

pub mod error;
mod escape;
pub mod layers;
pub mod settings;

pub use error::Error;
