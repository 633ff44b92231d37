//! The stream of server-sent events: the whole tree, then its changes as they come, and at the end the sums and the report.
//!
//! A watcher that is too slow loses changes, and gets the whole tree anew instead of them. If a Worker was too busy to be in
//! it, the tree comes once more. Nothing is kept for it: an event
//! is made when the one before has been taken, so a watcher costs one tree at most. Relies on [`Events`] to tell of a loss.

use crate::{
    admin::{answer::to_json, ending::Ending},
    decisions::{ids::WorkerId, stop::StopReason},
    server::{
        report::Report,
        watch::{
            Watch,
            news::{Event, Events},
            tree::{Change, Occupancy, Phase, Stopping, Totals, WorkerPhase},
        },
    },
};
use futures_util::stream::{Stream, unfold};
use hyper::body::Bytes;
use serde::Serialize;
use std::time::Duration;
use tokio::{
    select,
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout_at},
};

/// Connections of each Worker in a tree.
pub(super) const LISTED: usize = 512;
/// How often the sums are told. They are told also if nothing has changed, so that a watcher that has vanished is noticed.
const TOTALS: Duration = Duration::from_secs(1);
/// How long changes are gathered, so that many at once are one event.
const GATHER: Duration = Duration::from_millis(20);
/// Changes in one event.
const BATCH: usize = 1024;

/// The events for one watcher. `place` is what allows it, and is given back at the end.
pub(super) fn stream(watch: Watch, ending: Ending, place: OwnedSemaphorePermit) -> impl Stream<Item = Bytes> {
    let mut totals = interval(TOTALS);
    totals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // From here on changes are heard, so the tree that is taken next misses none.
    let events = watch.events();
    let watcher = Watcher { watch, events, next: Next::Tree, gap: false, totals, ending, _place: place };
    unfold(watcher, |mut watcher| async { Some((watcher.next().await?, watcher)) })
}

struct Watcher {
    watch: Watch,
    events: Events,
    next: Next,
    /// Whether the last tree lacks the connections of a Worker that was too busy to answer.
    gap: bool,
    totals: Interval,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

/// What is told next.
enum Next {
    /// The whole tree.
    Tree,
    /// What comes.
    News,
    /// The last sums and the report, and no more.
    Report,
    Nothing,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.next {
                Next::Tree => {
                    let tree = self.watch.tree(LISTED).await;
                    let serves = |state| matches!(state, WorkerPhase::Running | WorkerPhase::Stopping);
                    self.gap = tree.workers.iter().any(|worker| !worker.answered && serves(worker.state));
                    // A tree of a server that has ended is the last word but one.
                    self.next = if tree.phase == Phase::Stopped { Next::Report } else { Next::News };
                    return Some(event("tree", &tree));
                }
                Next::News => select! {
                    biased; // where changes come all the time, the sums come too
                    _ = self.totals.tick() => if self.gap { self.next = Next::Tree } else { return Some(self.sums()) },
                    heard = self.events.next() => match self.gather(heard).await {
                        changes if changes.is_empty() => {}
                        changes => return Some(event("changes", &changes)),
                    },
                    () = self.ending.comes() => self.next = Next::Report,
                },
                Next::Report => {
                    self.next = Next::Nothing;
                    let report = self.watch.report()?;
                    // The sums that were told last are older than the end.
                    return Some([self.sums(), event("report", &Told::from(report))].concat().into());
                }
                Next::Nothing => return None,
            }
        }
    }

    fn sums(&self) -> Bytes {
        event(
            "totals",
            &Sums { admission: self.watch.occupancy(), totals: self.watch.totals(), stop: self.watch.stopping() },
        )
    }

    /// What was heard, with what comes soon after it.
    async fn gather(&mut self, mut heard: Option<Event>) -> Vec<Change> {
        let (until, mut changes) = (Instant::now() + GATHER, Vec::new());
        loop {
            match heard {
                Some(Event::Change(change)) => changes.push(change),
                Some(Event::Lost) => self.next = Next::Tree,
                None if self.gap => self.next = Next::Tree,
                None => self.next = Next::Report,
            }
            if changes.len() == BATCH || !matches!(self.next, Next::News) {
                return changes;
            }
            match timeout_at(until, self.events.next()).await {
                Ok(next) => heard = next,
                Err(_) => return changes,
            }
        }
    }
}

#[derive(Serialize)]
struct Sums {
    admission: Occupancy,
    totals: Totals,
    stop: Option<Stopping>,
}

/// The report of a server, and its exit code.
#[derive(Serialize)]
struct Told {
    reason: StopReason,
    exit_code: u8,
    acknowledged: usize,
    forced: usize,
    crashed: usize,
    reset: usize,
    failed: usize,
    discarded: u64,
    stuck: Vec<WorkerId>,
    elapsed_ms: u64,
}

impl From<Report> for Told {
    fn from(report: Report) -> Self {
        let exit_code = report.exit_code();
        let Report { reason, acknowledged, forced, crashed, reset, failed, discarded, stuck, elapsed, .. } = report;
        let elapsed_ms = elapsed.as_millis() as u64;
        Self { reason, exit_code, acknowledged, forced, crashed, reset, failed, discarded, stuck, elapsed_ms }
    }
}

/// An event: JSON has no line breaks of its own, so it is one line of data.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    [format!("event: {name}\ndata: ").as_bytes(), &to_json(data), b"\n\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::ending::ending,
        server::{testing::watched, watch::tree::AcceptorPhase},
    };
    use futures_util::StreamExt;
    use std::{pin::pin, sync::Arc};
    use tokio::sync::Semaphore;

    #[actix::test]
    async fn the_sums_are_told_each_second_also_while_changes_come_without_a_pause() {
        tokio::time::pause();
        let (watched, (_ends, ending)) = (watched(), ending());
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut events = pin!(stream(Watch::new(watched.watched()), ending, place));
        let (worker, mut sums, start) = (watched.worker(WorkerId(1)), 0, Instant::now());
        // One that runs would be asked for its connections.
        worker.worker(WorkerPhase::Stopped);
        while start.elapsed() < 5 * TOTALS {
            // There is a change whenever the watcher looks.
            worker.acceptor(AcceptorPhase::Accepting);
            let told = events.next().await.unwrap();
            sums += usize::from(told.starts_with(b"event: totals"));
        }
        assert!(sums >= 5, "{sums}");
    }
}
