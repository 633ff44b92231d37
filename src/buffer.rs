//! The one read buffer of each thread.
//!
//! Connections borrow it for one call at a time, so an idle connection holds none.

use std::cell::RefCell;

/// The most bytes that one read may bring: the size of each thread's one buffer.
pub(crate) const BUFFER: usize = 64 * 1024;
/// Reads in a row before the thread's other tasks get their turn. A current-thread runtime has no other fairness.
pub(crate) const READS_IN_A_ROW: usize = 16;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Lends the thread's buffer for the time of one call, so an idle connection holds none.
pub(crate) fn with_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SHARED.with_borrow_mut(|buffer| use_it(buffer))
}
