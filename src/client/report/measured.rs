//! A report of what one client has measured.
//!
//! Relies on the tally for times since T0, and takes its histograms: at the end of a run no memory may be left for copies. A row's
//! times come to one digit, because there are many rows.

use super::{
    document::ClientReport,
    parts::{Histograms, Outages, Own, Row, ServerShare, Step, Timeline, Window},
    times::{Hdr, Times},
};
use crate::client::{outage, tally, tally::Tally, timeline, times};
use std::time::Duration;

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Hdr {
    fn take(times: &mut times::Times) -> (Self, Times) {
        let extremes = times.extremes();
        let hdr = Self::from(times.take());
        let figures = Times::of(&hdr, extremes);
        (hdr, figures)
    }
}

impl ClientReport {
    pub(crate) fn new(client: String, tally: &mut Tally) -> Self {
        let due = tally.due();
        let [(response_hdr, response), (round_trip_hdr, round_trip), (late_hdr, late), (connect_hdr, connect)] =
            [&mut tally.response, &mut tally.round_trip, &mut tally.late, &mut tally.connect].map(Hdr::take);
        let served = |(address, served): (&std::net::SocketAddr, &tally::Served)| {
            (address.to_string(), ServerShare { connections: served.connections, verified: served.verified })
        };
        Self {
            client,
            sent: due,
            verified: tally.verified,
            wrong: tally.wrong,
            lost: tally.lost,
            given_up: tally.given_up,
            due,
            resent: tally.resent,
            bytes: Some(tally.bytes),
            lost_by: tally.lost_by,
            response,
            late,
            connect,
            connections: tally.connections,
            servers: tally.servers.iter().map(served).collect(),
            own: (&tally.usage).into(),
            steps: tally.steps.iter_mut().map(Step::from).collect(),
            timeline: (&tally.timeline).into(),
            outages: (&tally.outages).into(),
            hdr: Histograms {
                response: response_hdr,
                round_trip: round_trip_hdr,
                late: late_hdr,
                connect: connect_hdr,
            },
            ..Self::default()
        }
        .with_round_trip(round_trip)
    }
}

impl From<&tally::Usage> for Own {
    fn from(usage: &tally::Usage) -> Self {
        let cpu = (usage.cpu * 1e3).round() / 1e3;
        Self { cpu, throttled_ms: millis(usage.throttled), notes: usage.notes.clone() }
    }
}

impl From<&mut tally::Step> for Step {
    fn from(step: &mut tally::Step) -> Self {
        let (hdr, response) = Hdr::take(&mut step.response);
        Self { rate: step.rate, due: step.due(), verified: step.verified, response, hdr }
    }
}

impl From<&timeline::Timeline> for Timeline {
    fn from(timeline: &timeline::Timeline) -> Self {
        let interval_s = timeline.interval.as_secs();
        let rows = (0..).zip(&timeline.rows).map(|(n, row)| Row { at_s: n * interval_s, ..row.into() });
        Self { interval_s, rows: rows.collect() }
    }
}

impl From<&timeline::Row> for Row {
    fn from(row: &timeline::Row) -> Self {
        let mut hdr = Hdr::coarse();
        let recorded = row.times.histogram().iter_recorded();
        recorded.for_each(|bucket| hdr.record_n(bucket.value_iterated_to(), bucket.count_since_last_iteration()));
        Self {
            at_s: 0,
            due: row.due(),
            verified: row.verified,
            lost: row.lost,
            wrong: row.wrong,
            connections: row.connections,
            p50_us: None,
            p99_us: None,
            max_us: row.times.extremes().map(|(_, max)| max.as_micros() as u64),
            buckets_ns: hdr.buckets().collect(),
        }
        .settled()
    }
}

impl From<&outage::Outages> for Outages {
    fn from(outages: &outage::Outages) -> Self {
        let longest_ms = millis(outages.longest);
        Self {
            count: outages.count,
            longest_ms,
            total_ms: millis(outages.total),
            // One client alone is all there are.
            all_at_once_ms: longest_ms,
            windows: outages.windows.iter().map(Window::from).collect(),
        }
    }
}

impl From<&outage::Outage> for Window {
    fn from(outage: &outage::Outage) -> Self {
        // To the microsecond.
        let seconds = |time: Duration| time.as_micros() as f64 / 1e6;
        Self {
            from_s: seconds(outage.from),
            to_s: seconds(outage.to),
            failed: outage.failed,
            why: outage.why().into(),
            reasons: outage.reasons.iter().map(|(why, n)| ((*why).into(), *n)).collect(),
            since_verified_ms: outage.since_verified.map(millis),
            open: outage.open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tally::{Moments, NotConnected, Usage};

    #[test]
    fn an_outage_that_the_run_did_not_outlast_is_said_to_be_open() {
        let s = Duration::from_secs;
        let mut tally = Tally::default();
        tally.not_connected(s(1), NotConnected::Refused);
        tally.verified(&Moments { due: s(2), sent: s(2), back: s(3) }, s(1));
        tally.not_connected(s(4), NotConnected::Refused);
        tally.finish(s(9), Usage::default());
        let report = ClientReport::new("c-1".into(), &mut tally);
        assert_eq!(report.outages.windows.iter().map(|window| window.open).collect::<Vec<_>>(), [false, true]);
        let table = report.to_string();
        assert!(table.contains("\noutage      2.00 s from 1.00 s on: 1 failed, refused\n"), "{table}");
        assert!(
            table.contains(
                " from 4.00 s on, 2000 ms after the last echoed message was sent: 1 failed, refused, and still out\n"
            ),
            "{table}"
        );
        let page = report.to_html();
        assert!(page.contains("<p>Outages: 2; the longest 5.00 s (refused), and still out at the end.</p>"), "{page}");
        assert!(page.contains("4.00 s to 9.00 s: refused, and still out</title>"), "{page}");
    }
}
