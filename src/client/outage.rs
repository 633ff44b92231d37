//! When the server was away, from the attempts that failed and the echoes that came back.
//!
//! Pure: times are given, from T0 on. An attempt is a message or a connect. An outage opens at the beginning of an attempt
//! that failed, if no echo that was sent after it has come back. It closes when an echo that was sent after it comes back
//! verified. Outages that lie over each other are one: when a server dies, the echoes that it had sent before are read between
//! the failures.

use std::{collections::BTreeMap, time::Duration};

/// Outages that are kept one by one: the longest, and the last. The others are only counted.
const KEPT: usize = 600;

/// A time in which no echo came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outage {
    /// The beginning of the first attempt that failed.
    pub from: Duration,
    /// When the first verified echo came back that was sent after every attempt that failed in it, or the end of the run.
    pub to: Duration,
    /// Whether it was not over when the run ended.
    pub open: bool,
    /// Attempts that failed and had begun in it.
    pub failed: u64,
    /// Why they failed, and how often each.
    pub reasons: BTreeMap<&'static str, u64>,
    /// How long before `from` the last message was sent whose echo came back: the server may have been away for that much
    /// longer. `None` if no echo had come back.
    pub since_verified: Option<Duration>,
    /// The beginning of the last attempt that failed.
    last_begun: Duration,
}

impl Outage {
    fn new(from: Duration) -> Self {
        Self {
            from,
            to: from,
            open: false,
            failed: 0,
            reasons: BTreeMap::new(),
            since_verified: None,
            last_begun: from,
        }
    }

    fn add(&mut self, why: &'static str) {
        self.failed += 1;
        *self.reasons.entry(why).or_default() += 1;
    }

    /// This one goes on where `earlier` seemed to be over.
    fn join(&mut self, earlier: Self) {
        if earlier.from <= self.from {
            (self.from, self.since_verified) = (earlier.from, earlier.since_verified);
        }
        self.failed += earlier.failed;
        for (why, count) in earlier.reasons {
            *self.reasons.entry(why).or_default() += count;
        }
    }

    /// How long it was.
    pub fn length(&self) -> Duration {
        self.to - self.from
    }

    /// The most frequent reason. Messages that were not sent, or stood behind one that failed, tell of no reason of their
    /// own.
    pub fn why(&self) -> &'static str {
        let of_its_own = |why: &str| !["unsent", "abandoned"].contains(&why);
        let most = self.reasons.iter().max_by_key(|(why, count)| (of_its_own(why), **count));
        most.map_or("", |(why, _)| why)
    }
}

/// All outages of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outages {
    /// Those that are over, in their order: the longest, and the last, which the next one may join.
    pub windows: Vec<Outage>,
    pub count: u64,
    pub longest: Duration,
    pub total: Duration,
    open: Option<Outage>,
    /// When the last message was sent whose echo has come back.
    last_verified: Option<Duration>,
}

impl Outages {
    /// An attempt that began at `begun` has failed.
    pub fn failed(&mut self, begun: Duration, why: &'static str) {
        if self.last_verified.is_some_and(|sent| sent > begun) {
            // The server was there after it. If it was away before, the attempt belongs to that outage.
            if let Some(outage) = self.of(begun) {
                outage.add(why);
            }
            return;
        }
        let outage = self.open.get_or_insert_with(|| Outage::new(begun));
        // Of many attempts at once the first to begin need not be the first to fail.
        outage.from = outage.from.min(begun);
        outage.last_begun = outage.last_begun.max(begun);
        outage.add(why);
    }

    /// An attempt that began at `begun` and has failed, `why`, is none. An outage without any other one was none.
    pub fn take_back(&mut self, begun: Duration, why: &'static str) {
        let Some(outage) = self.of(begun) else { return };
        let Some(count) = outage.reasons.get_mut(why) else { return };
        *count -= 1;
        outage.reasons.retain(|_, count| *count > 0);
        outage.failed -= 1;
        if outage.failed > 0 {
            return;
        }
        self.open.take_if(|open| open.failed == 0);
        for none in self.windows.extract_if(.., |outage| outage.failed == 0) {
            self.count -= 1;
            self.total -= none.length();
        }
        self.longest = self.windows.iter().map(Outage::length).max().unwrap_or_default();
    }

    /// The outage in which an attempt began.
    fn of(&mut self, begun: Duration) -> Option<&mut Outage> {
        let open = self.open.as_mut().filter(|open| open.from <= begun);
        open.or_else(|| self.windows.iter_mut().rev().find(|outage| (outage.from..=outage.to).contains(&begun)))
    }

    /// The echo of a message that was sent at `sent` has come back at `back`, verified.
    pub fn verified(&mut self, sent: Duration, back: Duration) {
        if self.open.as_ref().is_some_and(|outage| sent > outage.last_begun) {
            self.close(back, false);
        }
        self.last_verified = self.last_verified.max(Some(sent));
    }

    /// The run is over.
    pub fn finish(&mut self, at: Duration) {
        self.close(at, true);
    }

    fn close(&mut self, at: Duration, open: bool) {
        let Some(outage) = self.open.take() else { return };
        let since_verified = self.last_verified.map(|sent| outage.from.saturating_sub(sent));
        let mut outage = Outage { to: at.max(outage.from), open, since_verified, ..outage };
        while let Some(earlier) = self.windows.pop_if(|last| last.to >= outage.from) {
            self.count -= 1;
            self.total -= earlier.length();
            outage.join(earlier);
        }
        self.count += 1;
        self.total += outage.length();
        self.longest = self.longest.max(outage.length());
        self.windows.push(outage);
        self.keep_the_longest();
    }

    /// Forgets the shortest if there is one too many; of those as short as each other, the last.
    fn keep_the_longest(&mut self) {
        // The last is not over, or the next one may join it.
        let earlier = self.windows.iter().enumerate().rev().skip(1);
        if self.windows.len() > KEPT
            && let Some((shortest, _)) = earlier.min_by_key(|(_, outage)| outage.length())
        {
            self.windows.remove(shortest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// When the attempt began.
        Failed(u64),
        /// When the message was sent; its echo is back now.
        Verified(u64),
    }
    use Event::{Failed, Verified};

    #[test]
    fn an_attempt_that_is_taken_back_was_no_outage_but_leaves_one_with_others() {
        let mut outages = Outages::default();
        outages.verified(ms(0), ms(1));
        for (begun, back) in [(10, 30), (100, 200), (300, 350)] {
            outages.failed(ms(begun), "closed");
            outages.verified(ms(back - 1), ms(back));
        }
        outages.failed(ms(10), "abandoned");
        outages.failed(ms(400), "closed");
        let taken_back = |outages: &mut Outages, begun| {
            outages.take_back(ms(begun), "closed");
            (outages.count, outages.total, outages.longest)
        };
        assert_eq!(taken_back(&mut outages, 100), (2, ms(70), ms(50)));
        assert_eq!(taken_back(&mut outages, 10), (2, ms(70), ms(50)));
        assert_eq!(taken_back(&mut outages, 400), (2, ms(70), ms(50)));
        outages.finish(ms(500));
        assert_eq!((outages.count, outages.windows[0].failed, outages.windows[0].why()), (2, 1, "abandoned"));
    }

    /// The outages after these events, each at its time.
    fn outages(events: &[(u64, Event)], end: u64) -> Outages {
        let mut outages = Outages::default();
        for &(at, event) in events {
            match event {
                Failed(begun) => outages.failed(ms(begun), "timeout"),
                Verified(sent) => outages.verified(ms(sent), ms(at)),
            }
        }
        outages.finish(ms(end));
        outages
    }

    /// From, to, and how many attempts failed in it.
    fn windows(outages: &Outages) -> Vec<(u64, u64, u64)> {
        let ms = |time: Duration| time.as_millis() as u64;
        outages.windows.iter().map(|outage| (ms(outage.from), ms(outage.to), outage.failed)).collect()
    }

    #[test]
    fn an_outage_lasts_from_the_first_attempt_that_fails_to_the_first_echo_of_a_later_message() {
        for (name, events, expected) in [
            ("all is well", &[(1, Verified(0)), (2, Verified(1))][..], &[][..]),
            ("one attempt fails", &[(1, Verified(0)), (9, Failed(2)), (20, Verified(19))], &[(2, 20, 1)]),
            (
                "an echo of an earlier message closes nothing",
                &[(9, Failed(2)), (10, Verified(1)), (30, Verified(20))],
                &[(2, 30, 1)],
            ),
            ("a later message came back before", &[(4, Verified(3)), (9, Failed(2))], &[]),
            (
                "the first to begin is the last to fail",
                &[(9, Failed(4)), (10, Failed(2)), (20, Verified(11))],
                &[(2, 20, 2)],
            ),
            ("heard of when it is over", &[(9, Failed(2)), (20, Verified(11)), (21, Failed(5))], &[(2, 20, 2)]),
            (
                "heard of when it is over, and from before",
                &[(9, Failed(2)), (20, Verified(11)), (21, Failed(1))],
                &[(2, 20, 1)],
            ),
            ("never over", &[(9, Failed(2))], &[(2, 100, 1)]),
            ("two", &[(2, Failed(1)), (4, Verified(3)), (6, Failed(5)), (9, Verified(8))], &[(1, 4, 1), (5, 9, 1)]),
        ] {
            assert_eq!(windows(&outages(events, 100)), expected, "{name}");
        }
    }

    #[test]
    fn an_outage_tells_since_when_the_server_may_have_been_away() {
        let first = outages(&[(3, Failed(2)), (9, Verified(8))], 100);
        assert_eq!((first.windows[0].since_verified, first.windows[0].open), (None, false));
        assert!(outages(&[(3, Failed(2))], 100).windows[0].open);
        let later = outages(&[(4, Verified(3)), (7, Failed(5)), (9, Verified(8))], 100);
        assert_eq!(later.windows[0].since_verified, Some(ms(2)));
    }

    #[test]
    fn the_reason_of_an_outage_is_the_most_frequent_one_that_tells_of_a_cause() {
        let mut outages = Outages::default();
        for why in ["unsent", "unsent", "reset", "refused", "refused", "abandoned"] {
            outages.failed(ms(1), why);
        }
        outages.finish(ms(2));
        let outage = &outages.windows[0];
        assert_eq!((outage.why(), outage.failed, outage.reasons["unsent"]), ("refused", 6, 2));
    }

    #[test]
    fn many_outages_are_counted_without_an_end_and_the_longest_and_the_one_that_is_open_are_kept() {
        // The 700th is the longest, and the last is open.
        let length = |n| if n == 700 { 9 } else { 2 };
        let mut events: Vec<_> =
            (1..=1000).flat_map(|n| [(10 * n, Failed(10 * n)), (10 * n + length(n), Verified(10 * n + 1))]).collect();
        events.push((19_999, Failed(19_999)));
        let outages = outages(&events, 20_000);
        assert_eq!((outages.windows.len(), outages.count), (KEPT, 1001));
        assert_eq!((outages.longest, outages.total), (ms(9), ms(2 * 999 + 9 + 1)));
        let kept = windows(&outages);
        assert_eq!(kept[..KEPT - 2], (1..=598).map(|n| (10 * n, 10 * n + 2, 1)).collect::<Vec<_>>());
        assert_eq!(kept[KEPT - 2..], [(7_000, 7_009, 1), (19_999, 20_000, 1)]);
        assert!(outages.windows[KEPT - 1].open);
    }

    #[test]
    fn outages_that_lie_over_each_other_are_one() {
        for (name, events, expected) in [
            (
                "echoes that had come before the server died are read between the failures",
                &[
                    (9, Failed(2)),
                    (10, Verified(3)),
                    (11, Failed(4)),
                    (12, Verified(5)),
                    (13, Failed(6)),
                    (90, Verified(80)),
                ][..],
                &[(2, 90, 3)][..],
            ),
            (
                "an echo from between two attempts that failed closes nothing",
                &[(9, Failed(2)), (10, Failed(6)), (11, Verified(5)), (12, Failed(3)), (90, Verified(80))],
                &[(2, 90, 3)],
            ),
            (
                "one connection is refused while the others still have their echoes",
                &[
                    (10, Failed(10)),
                    (11, Verified(9)),
                    (12, Verified(11)),
                    (12, Failed(12)),
                    (13, Failed(11)),
                    (90, Verified(80)),
                ],
                &[(10, 90, 3)],
            ),
            (
                "but not those between which an echo came: a server may refuse the new ones and answer the old ones",
                &[(10, Failed(10)), (12, Verified(11)), (14, Failed(14)), (20, Verified(15))],
                &[(10, 12, 1), (14, 20, 1)],
            ),
            (
                "the last to be heard of joins two",
                &[(2, Failed(0)), (5, Verified(1)), (8, Failed(7)), (9, Failed(4)), (20, Verified(15))],
                &[(0, 20, 3)],
            ),
        ] {
            assert_eq!(windows(&outages(events, 100)), expected, "{name}");
        }
    }

    /// What the definition says, read from all events: how many milliseconds no echo came back.
    fn by_definition(events: &[(u64, Event)], end: u64) -> Vec<(u64, u64)> {
        let echo_after = |begun: u64, events: &[(u64, Event)]| {
            events.iter().find(|(_, event)| matches!(event, Verified(sent) if *sent > begun)).map(|(at, _)| *at)
        };
        let mut windows: Vec<_> = (0..events.len())
            .filter_map(|heard| {
                let Failed(begun) = events[heard].1 else { return None };
                let away = echo_after(begun, &events[..heard]).is_none();
                away.then(|| (begun, echo_after(begun, &events[heard..]).unwrap_or(end)))
            })
            .collect();
        windows.sort_unstable();
        windows.dedup_by(|next, one| {
            let over_each_other = next.0 <= one.1;
            one.1 = if over_each_other { one.1.max(next.1) } else { one.1 };
            over_each_other
        });
        windows
    }

    proptest! {
        #[test]
        fn outages_are_what_the_definition_says_in_every_order_of_events(
            steps in prop::collection::vec((1..5u64, 0..20u64, any::<bool>()), 0..60),
        ) {
            let mut now = 0;
            let events: Vec<_> = steps.into_iter().map(|(pause, ago, failed)| {
                now += pause;
                let begun = now.saturating_sub(ago);
                (now, if failed { Failed(begun) } else { Verified(begun) })
            }).collect();
            let outages = outages(&events, now + 1);
            let found: Vec<_> = windows(&outages).into_iter().map(|(from, to, _)| (from, to)).collect();
            prop_assert_eq!(&found, &by_definition(&events, now + 1));
            prop_assert_eq!(outages.total, found.iter().map(|(from, to)| ms(to - from)).sum::<Duration>());
            prop_assert_eq!(outages.count, found.len() as u64);
        }
    }
}
