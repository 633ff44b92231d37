//! What all connections of one client share while it runs: its measurements, its timetable, and T0.
//!
//! All measured times count from T0. A timetable begins when every connection is made or has failed once; without one the first
//! connection sends as soon as it is made.

use crate::{
    client::{alarm::Alarm, tally::Tally, timetable::Timetable},
    settings::TrafficSettings,
};
use std::{
    cell::{Cell, RefCell},
    io,
    time::{Duration, SystemTime},
};
use tokio::{sync::Notify, time::Instant};

/// With a rate, the times of all messages and what wakes the connections at them.
pub(crate) struct Pace {
    pub timetable: Timetable,
    pub alarm: Alarm,
}

/// What all connections of one client share.
pub(crate) struct Run {
    pub tally: RefCell<Tally>,
    /// `None`: each connection goes at its own pace.
    pub pace: Option<Pace>,
    /// Connections that have neither been made nor failed once.
    missing: Cell<usize>,
    t0: Cell<Option<Instant>>,
    begun: Notify,
}

impl Run {
    /// # Errors
    /// There is a rate, and no timer for it.
    pub fn new(traffic: &TrafficSettings) -> io::Result<Self> {
        let TrafficSettings { rate, duration, connections, warmup, .. } = traffic;
        let pace = Timetable::new(rate, *duration, *connections)
            .map(|timetable| Ok::<_, io::Error>(Pace { timetable, alarm: Alarm::new()? }))
            .transpose()?;
        let steps = pace.as_ref().map_or_else(Vec::new, |pace| pace.timetable.steps());
        Ok(Self {
            tally: RefCell::new(Tally::new(steps, *warmup)),
            pace,
            missing: Cell::new(*connections),
            t0: Cell::default(),
            begun: Notify::new(),
        })
    }

    /// One connection more is made or has failed for the first time.
    pub fn arrived(&self) {
        self.missing.set(self.missing.get().saturating_sub(1));
        if (self.missing.get() == 0 || self.pace.is_none()) && self.t0.get().is_none() {
            self.t0.set(Some(Instant::now()));
            self.begun.notify_waiters();
        }
    }

    /// Waits for T0.
    pub async fn t0(&self) -> Instant {
        loop {
            let begun = self.begun.notified();
            if let Some(t0) = self.t0.get() {
                return t0;
            }
            begun.await;
        }
    }

    /// T0; `None` before it.
    pub fn t0_if_begun(&self) -> Option<Instant> {
        self.t0.get()
    }

    /// T0 by the clock on the wall; `None` before it.
    pub fn began(&self) -> Option<SystemTime> {
        self.t0.get().and_then(|t0| SystemTime::now().checked_sub(t0.elapsed()))
    }

    /// From T0 to `at`; zero before.
    pub fn since(&self, at: Instant) -> Duration {
        self.t0.get().map_or(Duration::ZERO, |t0| at.saturating_duration_since(t0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::traffic;
    use futures_util::FutureExt;

    #[test]
    fn without_a_timetable_t0_is_when_the_first_connection_has_arrived() {
        let run = Run::new(&TrafficSettings { connections: 2, ..traffic(1) }).unwrap();
        run.arrived();
        let t0 = run.t0().now_or_never();
        assert!(t0.is_some());
        run.arrived();
        assert_eq!(run.t0().now_or_never(), t0);
    }

    #[actix::test]
    async fn with_a_timetable_t0_is_when_every_connection_has_arrived_and_stays() {
        let run = Run::new(&TrafficSettings { connections: 2, rate: vec![1.0], ..traffic(1) }).unwrap();
        let early = Instant::now();
        run.arrived();
        assert!(run.t0().now_or_never().is_none());
        run.arrived();
        let t0 = run.t0().now_or_never().unwrap();
        run.arrived();
        assert_eq!(run.t0().now_or_never(), Some(t0));
        assert_eq!(
            (run.since(early), run.since(t0 + Duration::from_secs(1))),
            (Duration::ZERO, Duration::from_secs(1))
        );
    }
}
