//! How a server, a client and their programs log.
//!
//! The library only needs a logger that cannot harm it (`contained`); the programs take theirs from `program`.

mod contained;
#[cfg(feature = "cli")]
mod in_order;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
mod queue;
#[cfg(feature = "cli")]
mod status_line;
#[cfg(all(test, feature = "cli"))]
mod testing;
#[cfg(feature = "cli")]
mod threshold;

pub(crate) use contained::contained;
#[cfg(feature = "cli")]
pub use program::{Stream, logger, logger_above};
#[cfg(feature = "cli")]
pub use queue::Guard;
#[cfg(feature = "cli")]
pub use status_line::StatusLine;
#[cfg(feature = "cli")]
pub use threshold::Threshold;
