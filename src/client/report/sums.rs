//! How the parts of reports add up: counts, bytes, connections, outages.
//!
//! Pure. `merge` puts whole reports together, and `rows` adds timelines.

use super::parts::{Bytes, Connections, LostBy, Outages, Part, Window};
use std::{ops::Add, time::Duration};

pub(super) fn wider(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((min, max)), Some((least, most))) => Some((min.min(least), max.max(most))),
        (one, other) => one.or(other),
    }
}

impl LostBy {
    pub(super) fn add(&mut self, other: Self) {
        self.timeout += other.timeout;
        self.closed += other.closed;
        self.reset += other.reset;
        self.unsent += other.unsent;
        self.abandoned += other.abandoned;
    }
}

impl Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            verified: self.verified + other.verified,
            wrong: self.wrong + other.wrong,
            lost: self.lost + other.lost,
            resent: self.resent + other.resent,
            given_up: self.given_up + other.given_up,
        }
    }
}

impl Connections {
    pub(super) fn add(&mut self, other: Self) {
        self.made += other.made;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.closed_by_server += other.closed_by_server;
        self.reset += other.reset;
        self.reconnects += other.reconnects;
        self.renewed += other.renewed;
    }
}

impl Outages {
    pub(super) fn add(&mut self, other: &Self, later: Duration) {
        let later = later.as_secs_f64();
        self.count += other.count;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        self.total_ms += other.total_ms;
        let moved =
            |window: &Window| Window { from_s: window.from_s + later, to_s: window.to_s + later, ..window.clone() };
        self.windows.extend(other.windows.iter().map(moved));
    }
}

/// The longest time in which every client that ran was out. Outages of one client never lie over each other.
pub(super) fn all_at_once(windows: &[Window], clients: &[Part]) -> u64 {
    let out = windows.iter().flat_map(|window| [(window.from_s, 1, 0), (window.to_s, -1, 0)]);
    let running = clients.iter().flat_map(|part| [(part.from_s, 0, 1), (part.to_s, 0, -1)]);
    let mut changes: Vec<(f64, i64, i64)> = out.chain(running).collect();
    changes.sort_by(|one, other| one.0.total_cmp(&other.0));
    let ((mut out, mut running), mut since, mut longest) = ((0, 0), None, 0.0_f64);
    // Changes at the same time are one change.
    for now in changes.chunk_by(|one, other| one.0 == other.0) {
        out += now.iter().map(|change| change.1).sum::<i64>();
        running += now.iter().map(|change| change.2).sum::<i64>();
        if out > 0 && out >= running {
            since.get_or_insert(now[0].0);
        } else if let Some(since) = since.take() {
            longest = longest.max(now[0].0 - since);
        }
    }
    (longest * 1e3).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_s: f64, to_s: f64) -> Window {
        Window { from_s, to_s, why: "refused".into(), ..Window::default() }
    }

    #[test]
    fn all_are_out_at_once_while_each_that_runs_is() {
        let both = &[(0.0, 10.0), (0.0, 10.0)][..];
        for (windows, clients, expected) in [
            (&[][..], both, 0),
            (&[(1.0, 4.0)], &both[..1], 3_000),
            (&[(1.0, 4.0)], both, 0),
            (&[(1.0, 4.0), (2.0, 3.0)], both, 1_000),
            (&[(1.0, 4.0), (4.0, 5.0)], both, 0),
            (&[(1.0, 2.0), (1.0, 2.0), (5.0, 9.0), (6.0, 9.0)], both, 3_000),
            // The second has ended, or not begun.
            (&[(5.0, 9.0)], &[(0.0, 10.0), (0.0, 5.0)], 4_000),
            (&[(5.0, 9.0), (6.0, 8.0)], &[(0.0, 10.0), (6.0, 16.0)], 3_000),
        ] {
            let windows: Vec<_> = windows.iter().map(|&(from, to)| window(from, to)).collect();
            let clients: Vec<_> =
                clients.iter().map(|&(from_s, to_s)| Part { from_s, to_s, ..Part::default() }).collect();
            assert_eq!(all_at_once(&windows, &clients), expected, "{windows:?}");
        }
    }
}
