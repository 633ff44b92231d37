//! Holds a report against limits, and says what follows.
//!
//! Relies on the settings for the grammar of the limits. A metric without data breaks its limit: what was not measured was not
//! kept.

use super::{
    document::ClientReport,
    parts::{Judged, Verdict},
    table::readable,
};
use crate::settings::{Bound, Count, Figure, Limit, Limits, Metric, Of, Side};

impl ClientReport {
    /// Holds the report against `limits` and beside `baseline`, and sets `limits`, `baseline` and `verdict`. A limit such as
    /// `1.2x` is a multiple of what the baseline had. A limit that a merged client broke by itself stays, unless the same limit is held over the whole.
    #[must_use]
    pub fn judged(mut self, limits: &Limits, baseline: Option<&Self>) -> Self {
        let judged: Vec<_> = limits.0.iter().map(|limit| self.judge(limit, baseline)).collect();
        self.limits.retain(|own| own.client.is_some() && judged.iter().all(|whole| whole.limit != own.limit));
        self.limits.splice(0..0, judged);
        self.baseline = baseline.map(|baseline| self.beside(baseline)).unwrap_or_default();
        self.verdict = match self.exit_code() {
            0 => Verdict::Passed,
            3 => Verdict::Forced,
            _ => Verdict::Failed,
        };
        self
    }

    fn judge(&self, limit: &Limit, baseline: Option<&Self>) -> Judged {
        let value = self.value(limit.metric);
        let bound = match limit.bound {
            Bound::Time(time) => Some(time.as_secs_f64() * 1e6),
            Bound::Number(number) | Bound::PerSecond(number) => Some(number),
            Bound::Percent(percent) => (self.due > 0).then(|| percent / 100.0 * self.due as f64),
            Bound::Ratio(ratio) => {
                baseline.and_then(|baseline| baseline.value(limit.metric)).map(|value| ratio * value)
            }
        };
        // Seven of a thousand are 0.7 %, and not a little more.
        let bound = bound.map(|bound| (bound * 1e6).round() / 1e6);
        let broken = value.zip(bound).is_none_or(|(value, bound)| match limit.side {
            Side::Above => value > bound,
            Side::AtLeast => value >= bound,
            Side::Below => value < bound,
            Side::AtMost => value <= bound,
        });
        let shown = value.map_or_else(|| "-".into(), |value| shown(limit.metric, value));
        let beside = match (limit.bound, value, bound) {
            (Bound::Percent(_), Some(value), Some(_)) => format!(" ({}%)", rounded(value * 100.0 / self.due as f64)),
            (Bound::Ratio(ratio), Some(value), Some(bound)) if bound > 0.0 => {
                format!(" ({:.2}x)", value / bound * ratio)
            }
            _ => String::new(),
        };
        Judged { limit: limit.to_string(), value: shown + &beside, broken, client: None }
    }

    /// What a metric came to: microseconds, a count, or a rate a second.
    fn value(&self, metric: Metric) -> Option<f64> {
        Some(match metric {
            Metric::Time(of, figure) => {
                let times = match of {
                    Of::Echo => self.echo_times(),
                    Of::Response => &self.response,
                    Of::RoundTrip => &self.round_trip,
                    Of::Late => &self.late,
                    Of::Connect => &self.connect,
                };
                let figure = match figure {
                    Figure::Min => times.min_us,
                    Figure::Mean => times.mean_us,
                    Figure::P50 => times.p50_us,
                    Figure::P90 => times.p90_us,
                    Figure::P99 => times.p99_us,
                    Figure::P999 => times.p99_9_us,
                    Figure::P9999 => times.p99_99_us,
                    Figure::P99999 => times.p99_999_us,
                    Figure::Max => times.max_us,
                };
                figure? as f64
            }
            Metric::Count(count) => self.count(count) as f64,
            Metric::Outage => self.outages.longest_ms as f64 * 1e3,
            Metric::Downtime => self.outages.total_ms as f64 * 1e3,
            Metric::Rate => self.rate()?,
        })
    }

    fn count(&self, count: Count) -> u64 {
        match count {
            Count::Due => self.due,
            Count::Verified => self.verified,
            Count::Wrong => self.wrong,
            Count::Lost => self.lost,
            Count::GivenUp => self.given_up,
            Count::Resent => self.resent,
            Count::Unreachable => self.unreachable,
            Count::Refused => self.connections.refused,
            Count::Unanswered => self.connections.unanswered,
            Count::ClosedByServer => self.connections.closed_by_server,
            Count::Reset => self.connections.reset,
            Count::Reconnects => self.connections.reconnects,
            Count::Outages => self.outages.count,
        }
    }
}

/// To three significant digits.
fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

fn shown(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Time(..) | Metric::Outage | Metric::Downtime => readable(value as u64),
        Metric::Count(_) => value.to_string(),
        Metric::Rate => format!("{value:.1}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    #[test]
    fn a_limit_is_broken_on_its_side_of_the_bound_only() {
        // 10,000 due, 9,796 verified in 10 s, 204 lost; p99 of the response 9.9 ms; an outage of 3.02 s.
        for (limit, value, broken) in [
            ("p99 > 5ms", "9.90 ms", true),
            ("p99 > 10ms", "9.90 ms", false),
            ("round_trip.p99 > 5ms", "990 µs", false),
            ("p50 < 1ms", "5.00 ms", false),
            ("outage > 1s", "3.02 s", true),
            ("outage >= 3s 20ms", "3.02 s", true),
            ("outage > 3s 20ms", "3.02 s", false),
            ("outages > 0", "1", true),
            ("downtime > 1m", "3.02 s", false),
            ("lost > 0", "204", true),
            ("lost > 1%", "204 (2.04%)", true),
            ("lost > 3%", "204 (2.04%)", false),
            ("rate < 979.6/s", "979.6/s", false),
            ("rate <= 979.6/s", "979.6/s", true),
            ("refused > 599", "600", true),
            ("reconnects > 64", "64", false),
            ("late.p99 > 1ms", "-", true),
            ("late.p99 < 1ms", "-", true),
        ] {
            let report = sample().judged(&limit.parse().unwrap(), None);
            let judged = &report.limits[0];
            assert_eq!((&*judged.limit, &*judged.value, judged.broken), (limit, value, broken));
        }
    }

    #[test]
    fn a_value_that_is_just_its_bound_is_not_above_it() {
        let broken =
            |report: ClientReport, limit: String| report.judged(&limit.parse().unwrap(), None).limits[0].broken;
        for tenths in 1..=1000 {
            let (whole, tenth) = (tenths / 10, tenths % 10);
            let lost = || ClientReport { lost: tenths, due: 1000, ..sample() };
            for (side, wanted) in [(">", false), (">=", true)] {
                assert_eq!(broken(lost(), format!("lost {side} {whole}.{tenth}%")), wanted, "{whole}.{tenth}%");
            }
            let late = || {
                let mut report = sample();
                report.response.p99_us = Some(tenths * 100);
                report
            };
            for (side, wanted) in [(">", false), (">=", true)] {
                assert_eq!(broken(late(), format!("p99 {side} {whole}.{tenth}ms")), wanted, "{whole}.{tenth}ms");
            }
        }
    }

    #[test]
    fn a_share_is_told_to_three_significant_digits() {
        for (lost, due, told) in [
            (1, 300, "1 (0.333%)"),
            (2, 3, "2 (66.7%)"),
            (300, 300, "300 (100%)"),
            (1, 3_000_000_000, "1 (0.0000000333%)"),
            (0, 7, "0 (0%)"),
        ] {
            let report = ClientReport { lost, due, ..sample() }.judged(&"lost > 1%".parse().unwrap(), None);
            assert_eq!(report.limits[0].value, told);
        }
    }

    #[test]
    fn without_a_rate_p99_is_that_of_the_round_trip() {
        let report = ClientReport { response: Default::default(), ..sample() };
        assert_eq!(report.judged(&"p99 > 1ms".parse().unwrap(), None).limits[0].value, "990 µs");
    }

    #[test]
    fn a_multiple_is_of_what_the_baseline_had_and_broken_without_one() {
        let fast = ClientReport { response: sample().round_trip, ..sample() };
        for (limit, value, broken) in [
            ("p99 > 1.2x", "9.90 ms (10.00x)", true),
            ("p99 > 11x", "9.90 ms (10.00x)", false),
            ("rate < 0.9x", "979.6/s (1.00x)", false),
            ("late.p50 > 1.2x", "-", true),
        ] {
            let judged = &sample().judged(&limit.parse().unwrap(), Some(&fast)).limits[0];
            assert_eq!((&*judged.value, judged.broken), (value, broken), "{limit}");
        }
        assert!(sample().judged(&"p99 > 9x".parse().unwrap(), None).limits[0].broken);
    }

    #[test]
    fn the_verdict_follows_the_exit_code() {
        let clean = ClientReport { lost: 0, ..sample() };
        for (limits, report, verdict, code) in [
            ("", clean.clone(), Verdict::Passed, 0),
            ("p99 > 1s", clean.clone(), Verdict::Passed, 0),
            ("p99 > 1ms", clean.clone(), Verdict::Failed, 4),
            ("", sample(), Verdict::Failed, 1),
            ("p99 > 1ms", ClientReport { forced: true, ..clean }, Verdict::Forced, 3),
        ] {
            let report = report.judged(&limits.parse().unwrap(), None);
            assert_eq!((report.verdict, report.exit_code()), (verdict, code), "{limits}");
        }
    }

    #[test]
    fn the_limit_of_one_client_stays_unless_it_is_held_over_the_whole() {
        let own =
            |limit: &str| Judged { limit: limit.into(), broken: true, client: Some("a".into()), ..Judged::default() };
        let report = ClientReport { limits: vec![own("p99 > 1ms"), own("p50 > 1us")], ..sample() };
        let report = report.judged(&"p99 > 1ms".parse().unwrap(), None);
        let limits: Vec<_> = report.limits.iter().map(|limit| (&*limit.limit, limit.client.as_deref())).collect();
        assert_eq!(limits, [("p99 > 1ms", None), ("p50 > 1us", Some("a"))]);
    }

    #[test]
    fn nothing_due_has_no_share_lost() {
        let nothing = ClientReport { due: 0, lost: 0, ..sample() };
        assert!(nothing.judged(&"lost > 1%".parse().unwrap(), None).limits[0].broken);
    }
}
