//! The arithmetic of a timeline: rows add up, and several short ones make a longer one.
//!
//! Relies on the buckets of a row, which add up as those of a histogram do. Its p50 and p99 are always read from them.

use super::{
    parts::{Row, Timeline},
    times::Hdr,
};
use std::collections::BTreeMap;

impl Row {
    /// Reads p50 and p99 from the buckets. No time is longer than `max_us`, though its bucket's edge may be.
    pub(crate) fn settled(self) -> Self {
        let mut hdr = Hdr::coarse();
        self.buckets_ns.iter().for_each(|&(nanos, n)| hdr.record_n(nanos, n));
        let at = |share| self.max_us.map(|max| (hdr.at(share) / 1_000).min(max));
        Self { p50_us: at(0.5), p99_us: at(0.99), ..self }
    }

    /// Adds the messages of `other`. Their connections are the caller's to add.
    fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.verified += other.verified;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.max_us = self.max_us.max(other.max_us);
        let mut buckets: BTreeMap<u64, u64> = self.buckets_ns.iter().copied().collect();
        other.buckets_ns.iter().for_each(|&(nanos, n)| *buckets.entry(nanos).or_default() += n);
        self.buckets_ns = buckets.into_iter().collect();
    }
}

/// Puts rows that fall on the same time together; `connections` says what two rows make of their connections.
fn grouped(rows: impl Iterator<Item = Row>, connections: fn(u64, u64) -> u64) -> Vec<Row> {
    let mut sum = BTreeMap::<u64, Row>::new();
    for row in rows {
        match sum.get_mut(&row.at_s) {
            Some(there) => {
                there.connections = connections(there.connections, row.connections);
                there.add(&row);
            }
            None => drop(sum.insert(row.at_s, row)),
        }
    }
    sum.into_values().map(Row::settled).collect()
}

impl Timeline {
    /// The same with rows of `interval_s`, a multiple of what they have, `later_s` seconds later.
    fn moved(&self, interval_s: u64, later_s: u64) -> Vec<Row> {
        let at = |row: &Row| (row.at_s + later_s) / interval_s * interval_s;
        grouped(self.rows.iter().map(|row| Row { at_s: at(row), ..row.clone() }), u64::max)
    }

    /// The sum of timelines, each with how many seconds after the earliest it began.
    pub(crate) fn sum(timelines: &[(&Self, u64)]) -> Self {
        let interval_s = timelines.iter().map(|(timeline, _)| timeline.interval_s).max().unwrap_or_default().max(1);
        let rows = timelines.iter().flat_map(|(timeline, later_s)| timeline.moved(interval_s, *later_s));
        Self { interval_s, rows: grouped(rows, |one, other| one + other) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A row in which every message was answered, after so many nanoseconds.
    fn row(at_s: u64, connections: u64, nanos: &[u64]) -> Row {
        let mut hdr = Hdr::coarse();
        nanos.iter().for_each(|&nanos| hdr.record_n(nanos, 1));
        let n = nanos.len() as u64;
        let max_us = nanos.iter().max().map(|nanos| nanos / 1_000);
        Row { at_s, due: n, verified: n, connections, max_us, buckets_ns: hdr.buckets().collect(), ..Row::default() }
            .settled()
    }

    fn timeline(interval_s: u64, rows: &[Row]) -> Timeline {
        Timeline { interval_s, rows: rows.to_vec() }
    }

    #[test]
    fn rows_of_the_same_time_add_up_and_so_do_their_connections() {
        let one = timeline(1, &[row(0, 2, &[10_000]), row(1, 2, &[20_000])]);
        let other = timeline(1, &[row(0, 3, &[30_000])]);
        let sum = Timeline::sum(&[(&one, 0), (&other, 1)]);
        assert_eq!(sum, timeline(1, &[row(0, 2, &[10_000]), row(1, 5, &[20_000, 30_000])]));
    }

    #[test]
    fn the_longest_interval_is_that_of_the_sum() {
        let one = timeline(1, &[row(0, 1, &[10_000]), row(1, 4, &[20_000]), row(3, 2, &[1_000])]);
        let sum = Timeline::sum(&[(&one, 0), (&timeline(2, &[]), 0)]);
        assert_eq!(sum, timeline(2, &[row(0, 4, &[10_000, 20_000]), row(2, 2, &[1_000])]));
    }

    #[test]
    fn no_percentile_of_a_row_is_above_its_longest_time() {
        let row = row(0, 1, &[1_000_001]);
        assert_eq!((row.p50_us, row.p99_us, row.max_us), (Some(1_000), Some(1_000), Some(1_000)));
    }

    proptest! {
        #[test]
        fn the_sum_of_the_parts_of_a_row_is_the_whole_bucket_for_bucket(
            nanos in prop::collection::vec(0..1_u64 << 40, 1..60), cut in any::<prop::sample::Index>(),
        ) {
            let (left, right) = nanos.split_at(cut.index(nanos.len()));
            let parts = [left, right].map(|part| timeline(1, &[row(0, 1, part)]));
            let sum = Timeline::sum(&[(&parts[0], 0), (&parts[1], 0)]);
            prop_assert_eq!(sum, timeline(1, &[row(0, 2, &nanos)]));
        }
    }
}
