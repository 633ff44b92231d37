//! The least severe level that is logged. It can be changed while the program runs.

use slog::{Drain, Level, Never, OwnedKVList, Record};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The least severe level of a log. All clones are the same one.
#[derive(Debug, Clone)]
pub struct Threshold(Arc<AtomicUsize>);

impl Threshold {
    pub(super) fn new(level: Level) -> Self {
        Self(Arc::new(AtomicUsize::new(level.as_usize())))
    }

    /// Changes it, for the records from now on.
    pub fn set(&self, level: Level) {
        self.0.store(level.as_usize(), Ordering::Relaxed);
    }

    /// Lets through to `drain` what is severe enough.
    pub(super) fn before<D>(&self, drain: D) -> Above<D> {
        Above { threshold: self.clone(), drain }
    }

    /// A more severe level is a smaller number.
    fn lets_through(&self, level: Level) -> bool {
        level.as_usize() <= self.0.load(Ordering::Relaxed)
    }
}

/// A drain behind a [`Threshold`].
pub(super) struct Above<D> {
    threshold: Threshold,
    drain: D,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for Above<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.threshold.lets_through(record.level()) { self.drain.log(record, values) } else { Ok(()) }
    }

    /// A record that no one wants is not made.
    fn is_enabled(&self, level: Level) -> bool {
        self.threshold.lets_through(level)
    }
}
