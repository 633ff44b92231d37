//! What happened when: the messages of a run by the time at which each was due, and the connections that were open.
//!
//! Pure: times are given, from T0 on. Its memory is bounded: when there would be too many rows, the interval doubles and
//! each two rows become one.

use crate::client::times::Times;
use std::time::Duration;

/// The most rows.
pub(crate) const ROWS: usize = 600;

/// The messages that were due in one interval.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub verified: u64,
    pub wrong: u64,
    pub lost: u64,
    /// The most connections that were open at once.
    pub connections: u64,
    /// The response times of the verified ones; without a rate, their round trips. Those of the warm-up are not among them.
    pub times: Times,
}

impl Default for Row {
    fn default() -> Self {
        Self { verified: 0, wrong: 0, lost: 0, connections: 0, times: Times::coarse() }
    }
}

impl Row {
    /// The messages that were due.
    pub fn due(&self) -> u64 {
        self.verified + self.wrong + self.lost
    }

    fn absorb(&mut self, next: &Self) {
        self.verified += next.verified;
        self.wrong += next.wrong;
        self.lost += next.lost;
        self.connections = self.connections.max(next.connections);
        self.times.add(&next.times);
    }
}

/// All rows of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timeline {
    /// How long each row is: a second, or that doubled several times.
    pub interval: Duration,
    /// The first begins at T0.
    pub rows: Vec<Row>,
    /// How many connections are open now.
    open: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), rows: Vec::new(), open: 0 }
    }
}

impl Timeline {
    /// The row of this time.
    pub fn row(&mut self, at: Duration) -> &mut Row {
        let mut index = self.index(at);
        while index >= ROWS {
            self.double();
            index = self.index(at);
        }
        while self.rows.len() <= index {
            self.rows.push(Row { connections: self.open, ..Row::default() });
        }
        &mut self.rows[index]
    }

    /// From `at` on so many connections are open.
    pub fn connections(&mut self, at: Duration, open: u64) {
        // The rows up to here had as many as before.
        self.row(at);
        self.open = open;
        let row = self.row(at);
        row.connections = row.connections.max(open);
    }

    /// Gives a row to every interval up to the end of the run.
    pub fn finish(&mut self, at: Duration) {
        self.row(at);
    }

    fn index(&self, at: Duration) -> usize {
        // An interval is a number of whole seconds.
        (at.as_secs() / self.interval.as_secs()) as usize
    }

    /// Makes each two rows one.
    pub fn double(&mut self) {
        self.interval *= 2;
        let pairs = self.rows.chunks(2).map(|pair| {
            let mut row = pair[0].clone();
            pair[1..].iter().for_each(|next| row.absorb(next));
            row
        });
        self.rows = pairs.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_message_counts_in_the_second_in_which_it_was_due() {
        let mut timeline = Timeline::default();
        timeline.row(Duration::from_millis(2999)).verified += 1;
        timeline.row(Duration::from_millis(3000)).lost += 1;
        timeline.row(Duration::ZERO).wrong += 1;
        assert_eq!(timeline.rows.iter().map(Row::due).collect::<Vec<_>>(), [1, 0, 1, 1]);
        assert_eq!((timeline.rows[2].verified, timeline.rows[3].lost), (1, 1));
    }

    #[test]
    fn a_second_shows_the_most_connections_that_were_open_in_it() {
        let mut timeline = Timeline::default();
        for (at, open) in [(0, 1), (0, 2), (3, 1), (3, 0), (5, 1)] {
            timeline.connections(s(at), open);
        }
        timeline.finish(s(6));
        let open: Vec<_> = timeline.rows.iter().map(|row| row.connections).collect();
        assert_eq!(open, [2, 2, 2, 2, 0, 1, 1]);
    }

    #[test]
    fn a_run_of_a_year_has_no_more_rows_than_the_bound() {
        let mut timeline = Timeline::default();
        timeline.finish(s(365 * 86_400));
        assert!(timeline.rows.len() <= ROWS && timeline.rows.len() > ROWS / 2, "{}", timeline.rows.len());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_when_the_interval_doubles(seconds in prop::collection::vec(0..5_000u64, 1..100)) {
            let mut timeline = Timeline::default();
            for &at in &seconds {
                let row = timeline.row(s(at));
                row.verified += 1;
                row.times.record(s(at));
            }
            prop_assert!(timeline.rows.len() <= ROWS);
            for (n, row) in timeline.rows.iter().enumerate() {
                let within = |at: &&u64| **at as u128 / u128::from(timeline.interval.as_secs()) == n as u128;
                let due = seconds.iter().filter(within).count() as u64;
                prop_assert_eq!((row.due(), row.times.histogram().len()), (due, due));
                prop_assert_eq!(row.times.extremes().map(|(_, max)| max), seconds.iter().filter(within).max().map(|&at| s(at)));
            }
        }
    }
}
