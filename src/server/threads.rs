//! The Workers' threads. Either all are started or none, and they are joined without another thread.
//!
//! A thread's end is seen by the last value that the thread drops. This relies on Rust dropping thread-locals in the
//! reverse order of their making: the first one made outlives all that a service may have left there.

use crate::{decisions::ids::WorkerId, error::Error, resources};
use actix::prelude::*;
use slog::Logger;
use std::{
    cell::Cell,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long the threads whose Workers have acknowledged may take to end, all together. It is long enough that on a busy
/// machine none of them looks stuck. It is short enough that the process ends within a second of the deadline.
const JOIN_PATIENCE: Duration = Duration::from_millis(900);
/// The same, after stuck Workers have been waited for already.
const LESS_PATIENCE: Duration = Duration::from_millis(400);
/// The time between two looks at which threads have ended.
const LOOK: Duration = Duration::from_millis(1);

thread_local! {
    /// Held by each Worker's thread to its end.
    static RUNNING: Cell<Option<Arc<()>>> = const { Cell::new(None) };
}

/// The thread of one Worker.
struct Thread {
    worker: WorkerId,
    arbiter: Arbiter,
    running: Weak<()>,
}

/// The threads of all Workers.
pub(super) struct Threads(Vec<Thread>);

impl Threads {
    /// Starts one thread for each Worker. If one of them fails, none is left running.
    pub fn start(workers: usize) -> Result<Self, Error> {
        let mut threads = Vec::new();
        let started = (1..=workers)
            .map(WorkerId)
            .try_for_each(|worker| Thread::start(worker).map(|thread| threads.push(thread)))
            .and_then(|()| resources::memory());
        if let Err(error) = started {
            for Thread { arbiter, .. } in threads {
                arbiter.stop();
                // Nothing runs there yet that could hold the thread up.
                let _ = arbiter.join();
            }
            return Err(error);
        }
        Ok(Self(threads))
    }

    /// Each Worker, and the thread on which it is to run.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, ArbiterHandle)> {
        self.0.iter().map(|thread| (thread.worker, thread.arbiter.handle()))
    }

    /// Ends all threads and waits for those whose Workers have acknowledged. Gives the threads that do not end: something
    /// that a service left running may hold them. Like the threads of stuck Workers they go on, and the server does not
    /// wait for them.
    pub async fn join(self, stuck: &[WorkerId], log: &Logger) -> Vec<WorkerId> {
        let mut running = self.0;
        for thread in &running {
            thread.arbiter.stop();
        }
        running.retain(|thread| !stuck.contains(&thread.worker));
        let deadline = Instant::now() + if stuck.is_empty() { JOIN_PATIENCE } else { LESS_PATIENCE };
        loop {
            for Thread { worker, arbiter, .. } in running.extract_if(.., |thread| thread.has_ended()) {
                let _ = arbiter.join();
                slog::info!(log, "arbiter joined"; "worker" => worker.0);
            }
            if running.is_empty() || Instant::now() >= deadline {
                break;
            }
            // The state is looked at now and then. A thread at its very end cannot wake a task: the locals that waking
            // takes are gone by then.
            sleep(LOOK).await;
        }
        let running: Vec<_> = running.into_iter().map(|thread| thread.worker).collect();
        running.iter().for_each(|worker| slog::error!(log, "arbiter stuck"; "worker" => worker.0));
        running
    }
}

impl Thread {
    fn start(worker: WorkerId) -> Result<Self, Error> {
        resources::memory()?;
        let held = Arc::new(());
        let running = Arc::downgrade(&held);
        let arbiter = Arbiter::try_with_tokio_rt(move || {
            RUNNING.set(Some(held));
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        });
        Ok(Self { worker, arbiter: arbiter.map_err(resources::no_thread)?, running })
    }

    /// Whether the thread has dropped everything and only has to return to the system.
    fn has_ended(&self) -> bool {
        self.running.strong_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::log;
    use std::{
        cell::RefCell,
        sync::mpsc::{Receiver, channel},
    };

    #[actix::test]
    async fn threads_are_joined_and_told_of_one_by_one() {
        let (log, mut told) = log();
        assert_eq!(Threads::start(3).unwrap().join(&[], &log).await, []);
        assert_eq!([(); 3].map(|()| told.try_recv().unwrap()), ["arbiter joined"; 3]);
    }

    #[actix::test]
    async fn the_thread_of_a_stuck_worker_is_not_waited_for() {
        let (log, mut told) = log();
        assert_eq!(Threads::start(2).unwrap().join(&[WorkerId(1), WorkerId(2)], &log).await, []);
        assert!(told.try_recv().is_err());
    }

    #[actix::test]
    async fn a_thread_that_is_held_up_by_the_last_that_a_service_left_there_is_stuck_and_the_others_are_not() {
        struct Held(Receiver<()>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.0.recv();
            }
        }
        thread_local!(static LEFT: RefCell<Option<Held>> = const { RefCell::new(None) });

        let ((go_on, held), (left, is_left), (log, _told)) = (channel(), channel(), log());
        let threads = Threads::start(2).unwrap();
        threads.0[0].arbiter.spawn_fn(move || {
            LEFT.set(Some(Held(held)));
            left.send(()).unwrap();
        });
        is_left.recv().unwrap();
        assert_eq!(threads.join(&[], &log).await, [WorkerId(1)]);
        drop(go_on);
    }
}
