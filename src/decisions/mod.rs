//! What the server decides, as pure state machines: events in, steps out. Nothing here knows an actor, a socket, a lock or a
//! clock, so `tests/model.rs` runs this very code through every order of events. It imports nothing of this crate but itself.
//!
//! **Outside semver.** It is public for the model checker alone, and any version may change it. What the root of this crate
//! gives a name to (`CloseReason`, `Ending`, `StopReason`, `WorkerId`) is within semver by that name.

pub(crate) mod accept_error;
pub mod admission;
pub mod connection;
pub mod ids;
pub mod restart_limit;
pub mod roster;
pub mod stop;
pub mod supervisor;
pub mod worker;
