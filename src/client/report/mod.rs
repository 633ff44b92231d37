//! What a client reports at its end: counts, times, and the exit code that follows from them.
//!
//! A report is one document. `document`, `parts` and `times` say what is in it; `measured` fills it in; the other files show it,
//! hold it against limits, or make one out of many. No file here uses this one.

mod baseline;
mod books;
mod chart;
mod charts;
mod distinct;
mod document;
mod measured;
mod merge;
mod page;
mod parts;
mod picture;
mod read;
mod rows;
mod save;
mod sums;
mod table;
#[cfg(test)]
mod testing;
mod times;
mod verdict;

pub use document::ClientReport;
pub use merge::merge;
pub use parts::*;
pub use read::{Found, ReadError, read};
pub use save::{SaveError, SaveTo};
pub use times::{Hdr, Times};
