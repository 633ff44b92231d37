//! What one Worker counts. Its thread alone writes, every thread may read, and no one asks the Worker: so the numbers of a
//! stuck Worker can be read too.
//!
//! Relies on the single writer: a count is a load and a store, not an atomic addition.

use crate::{decisions::connection::CloseReason, server::watch::tree::Open};
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number that one thread writes and every thread may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    pub fn subtract(&self, n: u64) {
        self.set(self.get().wrapping_sub(n));
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The upper bounds of the buckets in which the waits for a slot are counted. One more bucket has no bound.
pub const WAIT_BOUNDS: [Duration; 7] = [
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// The counters of one Worker, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub accepted: Counter,
    closed: [Counter; CloseReason::ALL.len()],
    /// Read by services.
    pub received: Counter,
    /// Written by services and taken by the system.
    pub echoed: Counter,
    /// Read after the service was done.
    pub discarded: Counter,
    /// Of these three, the bytes of health checks that have ended.
    left_out: [Counter; 3],
    /// The open connections by what is [shown](super::tree::State) of their state.
    pub open: [Counter; 4],
    /// The changes of this Worker that were told.
    pub changes: Counter,
    pub restarts: Counter,
    /// An [`AcceptorPhase`](super::tree::AcceptorPhase).
    pub acceptor: Counter,
    /// A [`WorkerPhase`](super::tree::WorkerPhase).
    pub phase: Counter,
    /// One more than the last order of a stop; 0 for none.
    pub ordered: Counter,
    waits: [Counter; WAIT_BOUNDS.len() + 1],
    waited_us: Counter,
}

impl Counters {
    pub fn close(&self, reason: CloseReason) {
        self.closed[reason as usize].add(1);
    }

    /// A health check has ended, with these bytes received, echoed and discarded.
    pub fn leave_out(&self, bytes: [u64; 3]) {
        self.left_out.iter().zip(bytes).for_each(|(counter, n)| counter.add(n));
    }

    /// Bytes received, echoed and discarded, without those of health checks.
    pub fn bytes(&self) -> [u64; 3] {
        let counted = [&self.received, &self.echoed, &self.discarded];
        // The thread of a stuck Worker may still count.
        array::from_fn(|n| counted[n].get().saturating_sub(self.left_out[n].get()))
    }

    /// A client that has waited this long gets its slot.
    pub fn waited(&self, wait: Duration) {
        self.waits[WAIT_BOUNDS.partition_point(|bound| *bound < wait)].add(1);
        self.waited_us.add(wait.as_micros() as u64);
    }

    /// Open connections, of one moment if the Worker itself asks.
    pub fn count(&self) -> Open {
        let [waiting, serving, draining, closing] = self.open.each_ref().map(Counter::get);
        Open { waiting, serving, draining, closing }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted.get(),
            closed: CloseReason::ALL.map(|reason| (reason, self.closed[reason as usize].get())),
            received: self.received.get(),
            echoed: self.echoed.get(),
            discarded: self.discarded.get(),
            open: self.open.each_ref().map(Counter::get),
            restarts: self.restarts.get(),
            waits: self.waits.each_ref().map(Counter::get),
            waited: Duration::from_micros(self.waited_us.get()),
        }
    }
}

/// What one Worker has counted so far.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that it was given.
    pub accepted: u64,
    /// Connections that have ended, by reason.
    pub closed: [(CloseReason, u64); CloseReason::ALL.len()],
    /// Bytes that services have read.
    pub received: u64,
    /// Bytes that services have written and the system has taken.
    pub echoed: u64,
    /// Bytes that came after the service was done.
    pub discarded: u64,
    /// Open connections: waiting, serving, draining, closing.
    pub open: [u64; 4],
    /// Restarts of its Acceptor.
    pub restarts: u64,
    /// Clients that have waited for a slot and got one, by how long: one number for each of [`WAIT_BOUNDS`], and one for
    /// those above.
    pub waits: [u64; WAIT_BOUNDS.len() + 1],
    /// How long they have waited, all together.
    pub waited: Duration,
}
