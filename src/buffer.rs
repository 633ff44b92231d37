//! The one read buffer of each thread.

use std::cell::RefCell;

/// Bytes that one read may bring; the one buffer of each thread has this size.
const BUFFER: usize = 64 * 1024;
/// Reads in a row before others on the thread get their turn: a current-thread runtime has no other fairness.
pub(crate) const READS_IN_A_ROW: usize = 16;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// Lends the thread's buffer for the time of one call: a connection that is idle holds none.
pub(crate) fn with_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SHARED.with_borrow_mut(|buffer| use_it(buffer))
}
