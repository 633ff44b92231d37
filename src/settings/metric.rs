//! The metrics of a report that a limit can name.
//!
//! Their names are those of the report's JSON.

use std::fmt;

/// What is held against a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Time(Of, Figure),
    Count(Count),
    /// The longest outage.
    Outage,
    /// All outages together.
    Downtime,
    /// Echoes verified a second.
    Rate,
}

/// Which times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The response if there is a rate, else the round trip.
    Echo,
    Response,
    RoundTrip,
    Late,
    Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Min,
    Mean,
    P50,
    P90,
    P99,
    P999,
    P9999,
    P99999,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Due,
    Verified,
    Wrong,
    Lost,
    GivenUp,
    Resent,
    Unreachable,
    Refused,
    Unanswered,
    ClosedByServer,
    Reset,
    Reconnects,
    Outages,
}

pub(super) const SPANS: [(&str, Of); 5] = [
    ("response.", Of::Response),
    ("round_trip.", Of::RoundTrip),
    ("late.", Of::Late),
    ("connect.", Of::Connect),
    ("", Of::Echo),
];
pub(super) const FIGURES: [(&str, Figure); 9] = [
    ("min", Figure::Min),
    ("mean", Figure::Mean),
    ("p50", Figure::P50),
    ("p90", Figure::P90),
    ("p99", Figure::P99),
    ("p99.9", Figure::P999),
    ("p99.99", Figure::P9999),
    ("p99.999", Figure::P99999),
    ("max", Figure::Max),
];
pub(super) const OTHERS: [(&str, Metric); 16] = [
    ("due", Metric::Count(Count::Due)),
    ("verified", Metric::Count(Count::Verified)),
    ("wrong", Metric::Count(Count::Wrong)),
    ("lost", Metric::Count(Count::Lost)),
    ("given_up", Metric::Count(Count::GivenUp)),
    ("resent", Metric::Count(Count::Resent)),
    ("unreachable", Metric::Count(Count::Unreachable)),
    ("refused", Metric::Count(Count::Refused)),
    ("unanswered", Metric::Count(Count::Unanswered)),
    ("closed_by_server", Metric::Count(Count::ClosedByServer)),
    ("reset", Metric::Count(Count::Reset)),
    ("reconnects", Metric::Count(Count::Reconnects)),
    ("outages", Metric::Count(Count::Outages)),
    ("outage", Metric::Outage),
    ("downtime", Metric::Downtime),
    ("rate", Metric::Rate),
];

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| *known == name).map(|(_, meant)| *meant)
}

fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], meant: T) -> &'static str {
    names.iter().find(|(_, known)| *known == meant).map_or("", |(name, _)| name)
}

impl Metric {
    pub fn parse(name: &str) -> Option<Self> {
        let time = |(span, of): &(&str, Of)| Some(Self::Time(*of, named(&FIGURES, name.strip_prefix(span)?)?));
        SPANS.iter().find_map(time).or_else(|| named(&OTHERS, name))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time(of, figure) => write!(f, "{}{}", name_of(&SPANS, of), name_of(&FIGURES, figure)),
            other => f.write_str(name_of(&OTHERS, other)),
        }
    }
}
