//! Tells the changes of the tree to those that watch it.
//!
//! One bounded broadcast. A watcher that is too slow loses the oldest changes and hears that it has. Without a watcher a
//! change costs one relaxed load. The end closes the broadcast, so it is heard after all changes, and by late watchers too.
//!
//! Relies on each change of a Worker being told on the Worker's own thread.

use crate::{
    decisions::{
        connection::CloseReason,
        ids::{ConnectionId, WorkerId},
        stop::Stop,
    },
    server::watch::{
        counters::Counters,
        tree::{AcceptorPhase, Change, State, WorkerPhase},
    },
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::broadcast::{self, error::RecvError};

/// How many changes a watcher may be behind.
const BEHIND: usize = 4096;

/// Where all threads tell their changes.
#[derive(Debug)]
pub(crate) struct News {
    started: Instant,
    watchers: AtomicUsize,
    changes: RwLock<Changes>,
}

#[derive(Debug)]
enum Changes {
    /// No one has watched yet.
    Unheard,
    /// Made for the first watcher.
    Open(broadcast::Sender<Change>),
    /// The server has ended.
    Closed,
}

impl News {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            watchers: AtomicUsize::new(0),
            changes: RwLock::new(Changes::Unheard),
        })
    }

    /// How long ago the server was bound.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// Tells a change, given the time of day in milliseconds of uptime. The closure is run only if a watcher hears it.
    pub fn tell(&self, change: impl FnOnce(u64) -> Change) {
        if self.watchers() == 0 {
            return;
        }
        if let Changes::Open(changes) = &*self.changes.read().unwrap_or_else(PoisonError::into_inner) {
            // It fails if the last watcher has just gone.
            let _ = changes.send(change(self.uptime().as_millis() as u64));
        }
    }

    /// Tells that the server has ended. Nothing is told after it.
    pub fn end(&self) {
        *self.write() = Changes::Closed;
    }

    pub fn watch(self: &Arc<Self>) -> Events {
        let changes = match &mut *self.write() {
            Changes::Open(changes) => changes.subscribe(),
            Changes::Closed => broadcast::channel(1).1,
            unheard @ Changes::Unheard => {
                let (sender, changes) = broadcast::channel(BEHIND);
                *unheard = Changes::Open(sender);
                changes
            }
        };
        self.watchers.fetch_add(1, Relaxed);
        Events { changes, news: self.clone() }
    }

    /// Each change is one assignment, so a panic in between leaves a whole state.
    fn write(&self) -> RwLockWriteGuard<'_, Changes> {
        self.changes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of a server's tree, from the moment of [`Watch::events`](super::Watch::events) on.
///
/// Take the tree after that. A change with a number that is not above the tree's is in the tree already.
#[derive(Debug)]
pub struct Events {
    changes: broadcast::Receiver<Change>,
    news: Arc<News>,
}

/// What a watcher hears.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The tree has changed.
    Change(Change),
    /// The watcher was too slow, and changes are lost. Take the tree anew: it is not what it was plus later changes.
    Lost,
}

impl Events {
    /// The next event; `None` when the server has ended, and from then on. It is cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.changes.recv().await {
            Ok(change) => Some(Event::Change(change)),
            Err(RecvError::Lagged(_)) => Some(Event::Lost),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.news.watchers.fetch_sub(1, Relaxed);
    }
}

/// Where the thread of one Worker counts, and tells its changes.
#[derive(Debug, Clone)]
pub(crate) struct WorkerNews {
    pub worker: WorkerId,
    pub counters: Arc<Counters>,
    news: Arc<News>,
}

impl WorkerNews {
    pub fn new(worker: WorkerId, counters: Arc<Counters>, news: Arc<News>) -> Self {
        Self { worker, counters, news }
    }

    /// A connection is new.
    pub fn opened(&self, connection: ConnectionId, peer: SocketAddr, state: State) {
        self.counters.open[state as usize].add(1);
        self.tell(|worker, n, at_ms| Change::Opened { worker, n, at_ms, connection, peer, state });
    }

    /// A connection has changed its state.
    pub fn moved(&self, connection: ConnectionId, from: State, to: State) {
        self.counters.open[from as usize].subtract(1);
        self.counters.open[to as usize].add(1);
        self.tell(|worker, n, at_ms| Change::State { worker, n, at_ms, connection, state: to });
    }

    /// A connection has ended, with these bytes received, echoed and discarded. `from` is `None` if it was never told of.
    pub fn closed(&self, connection: ConnectionId, from: Option<State>, reason: CloseReason, bytes: [u64; 3]) {
        let [received, echoed, discarded] = bytes;
        self.counters.close(reason);
        if let Some(state) = from {
            self.counters.open[state as usize].subtract(1);
            self.tell(|worker, n, at_ms| Change::Closed {
                worker,
                n,
                at_ms,
                connection,
                reason,
                received,
                echoed,
                discarded,
            });
        }
    }

    /// The Acceptor has changed its state.
    pub fn acceptor(&self, state: AcceptorPhase) {
        self.counters.acceptor.set(state as u64);
        let restarts = self.counters.restarts.get();
        self.tell(|worker, n, at_ms| Change::Acceptor { worker, n, at_ms, state, restarts });
    }

    /// Whether watchers were told of an Acceptor.
    pub fn has_acceptor(&self) -> bool {
        self.counters.acceptor.get() != AcceptorPhase::None as u64
    }

    /// The Worker has changed its state.
    pub fn worker(&self, state: WorkerPhase) {
        self.counters.phase.set(state as u64);
        self.tell(|worker, n, at_ms| Change::Worker { worker, n, at_ms, state });
    }

    /// The Worker was given an order.
    pub fn ordered(&self, stop: Stop) {
        if self.counters.ordered.get() == 0 {
            self.worker(WorkerPhase::Stopping);
        }
        self.counters.ordered.set(1 + stop as u64);
    }

    fn tell(&self, change: impl FnOnce(WorkerId, u64, u64) -> Change) {
        self.counters.changes.add(1);
        self.news.tell(|at_ms| change(self.worker, self.counters.changes.get(), at_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::watch::tree::Phase;
    use futures_util::FutureExt;

    fn tell(news: &News) {
        news.tell(|at_ms| Change::Phase { at_ms, phase: Phase::Running, reason: None, owed: None, timeout_ms: None });
    }

    #[test]
    fn the_end_is_heard_each_time_also_by_a_watcher_that_comes_after_it() {
        let news = News::new();
        let mut before = news.watch();
        tell(&news);
        news.end();
        tell(&news);
        let mut after = news.watch();
        assert!(matches!(before.next().now_or_never(), Some(Some(Event::Change(_)))));
        for _ in 0..2 {
            assert_eq!(before.next().now_or_never(), Some(None));
            assert_eq!(after.next().now_or_never(), Some(None));
        }
    }

    #[test]
    fn a_watcher_that_takes_nothing_in_costs_no_more_than_the_last_changes() {
        let news = News::new();
        let mut slow = news.watch();
        (0..3 * BEHIND).for_each(|_| tell(&news));
        news.end();
        assert_eq!(slow.next().now_or_never(), Some(Some(Event::Lost)));
        let kept = std::iter::from_fn(|| slow.next().now_or_never().flatten()).count();
        assert_eq!(kept, BEHIND);
    }
}
