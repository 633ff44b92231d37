//! TCP connections as supervised actix actors: every one has a supervisor, every stop is acknowledged.
#![warn(missing_docs)]

pub mod error;
/// How settings are layered, and the error that names the layer.
pub mod layers;
/// The typed settings of server and client.
pub mod settings;

pub use error::Error;
