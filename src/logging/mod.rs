//! How a server, a client and their programs log.

mod contained;
#[cfg(feature = "cli")]
mod in_order;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
mod queue;
#[cfg(all(test, feature = "cli"))]
mod testing;

pub(crate) use contained::contained;
#[cfg(feature = "cli")]
pub use program::{Stream, logger};
#[cfg(feature = "cli")]
pub use queue::Guard;
