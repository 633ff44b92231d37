//! Reports for the unit tests.

use super::{document::ClientReport, parts::*, times::*};
use crate::client::tally::{Moments, Tally};
use std::{collections::BTreeMap, time::Duration};

/// 10,000 were due in 10 s; 204 were lost in an outage of 3.02 s. Responses take 1 to 10 ms, round trips a tenth of that.
pub(super) fn sample() -> ClientReport {
    let mut hdr = Histograms::default();
    for n in 1..=9_796_u64 {
        hdr.response.record_n(10_000_000 * n / 9_796, 1);
        hdr.round_trip.record_n(1_000_000 * n / 9_796, 1);
    }
    let response = Times::within(&hdr.response, Some((1, 10_000)));
    let round_trip = Times::within(&hdr.round_trip, Some((0, 1_000)));
    let rows = (0..10).map(|at_s| {
        let out = (2..5).contains(&at_s);
        let mut row_hdr = Hdr::coarse();
        (1..=if out { 932 } else { 1_000_u64 }).for_each(|n| row_hdr.record_n(10_000 * n, 1));
        let verified = row_hdr.count();
        let buckets_ns = row_hdr.buckets().collect();
        let lost = 1_000 - verified;
        Row { at_s, due: 1_000, verified, lost, connections: 64, max_us: Some(10_000), buckets_ns, ..Row::default() }
            .settled()
    });
    let window = Window {
        from_s: 2.1,
        to_s: 5.12,
        failed: 604,
        why: "refused".into(),
        reasons: BTreeMap::from([("refused".into(), 600), ("reset".into(), 4)]),
        since_verified_ms: Some(5),
        open: false,
    };
    ClientReport {
        client: "demo".into(),
        sent: 10_000,
        due: 10_000,
        verified: 9_796,
        lost: 204,
        lost_by: LostBy { timeout: 200, reset: 4, ..LostBy::default() },
        run: "9f3c61d2".into(),
        version: "0.2.0".into(),
        started: "2026-11-24T09:00:00.000Z".into(),
        server: "server:12345".into(),
        settings: BTreeMap::from([("traffic".into(), BTreeMap::from([("rate".into(), "1000/s".into())]))]),
        response,
        connections: Connections {
            made: 128,
            refused: 600,
            reset: 4,
            reconnects: 64,
            renewed: 3,
            ..Connections::default()
        },
        servers: BTreeMap::from([("10.0.0.3:12345".into(), ServerShare { connections: 128, verified: 9_796 })]),
        own: Own { cpu: 0.21, ..Own::default() },
        timeline: Timeline { interval_s: 1, rows: rows.collect() },
        outages: Outages { count: 1, longest_ms: 3_020, total_ms: 3_020, all_at_once_ms: 3_020, windows: vec![window] },
        hdr,
        ..ClientReport::default()
    }
    .with_round_trip(round_trip)
    .with_elapsed(Duration::from_secs(10))
    .judged(&Default::default(), None)
}

/// Of a client without a rate, whose echoes took 1 µs, 2 µs and so on.
pub(super) fn report(verified: u64, wrong: u64, lost: u64) -> ClientReport {
    let mut tally = Tally::default();
    (1..=verified).for_each(|n| tally.verified(&Moments::default(), Duration::from_micros(n)));
    (tally.wrong, tally.lost) = (wrong, lost);
    ClientReport::new("c-1".into(), &mut tally)
}
