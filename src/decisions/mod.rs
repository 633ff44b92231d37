//! What the server decides, as pure state machines: events in, steps out. They use no actor, socket, lock or clock, so
//! `tests/model.rs` runs this very code through every order of events. The folder imports nothing else of this crate.
//!
//! **Outside semver.** It is public for the model checker alone, and any version may change it. The names that the crate's
//! root re-exports (`CloseReason`, `Ending`, `StopReason`, `WorkerId`) are within semver.

pub(crate) mod accept_error;
pub mod admission;
pub mod connection;
pub mod health_check;
pub mod ids;
pub mod placement;
pub mod proxy_header;
pub mod restart_limit;
pub mod roster;
pub mod stop;
pub mod supervisor;
pub mod worker;
