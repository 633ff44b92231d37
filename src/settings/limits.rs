//! The limits of `verdict.fail_if`: what must not be so at the end of a run.
//!
//! Relies on `fields` for how a duration is written. The report says what each metric came to.

use super::{
    fields::{parse_duration, text},
    metric::Metric,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected},
};
use std::{fmt, str::FromStr, time::Duration};

/// Limits, such as `p99 > 5ms, outage > 1s, lost > 0.1%, rate < 900/s, p99 > 1.2x`: each is what breaks it. Displayed, they
/// are the text that gives them again.
///
/// ```
/// use supervised_echo::settings::Limits;
///
/// let limits: Limits = "p99 > 5ms,outage>1s".parse()?;
/// assert_eq!(limits.to_string(), "p99 > 5ms, outage > 1s");
/// # Ok::<(), supervised_echo::settings::LimitsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Limits(pub(crate) Vec<Limit>);

/// One limit: it is broken if the metric is on this side of the bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub metric: Metric,
    pub side: Side,
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    Time(Duration),
    Number(f64),
    /// Of what was due.
    Percent(f64),
    PerSecond(f64),
    /// So many times what the baseline had.
    Ratio(f64),
}

/// The longer ones first, as each is looked for at the beginning of a text.
const SIDES: [(&str, Side); 4] = [(">=", Side::AtLeast), ("<=", Side::AtMost), (">", Side::Above), ("<", Side::Below)];

impl Metric {
    /// What its bound looks like.
    fn bounds(self) -> &'static str {
        match self {
            Self::Time(..) | Self::Outage | Self::Downtime => "a duration such as 5ms",
            Self::Count(_) => "a count such as 10, or a share of what was due such as 0.1%",
            Self::Rate => "a rate such as 900/s",
        }
    }

    fn takes(self, bound: Bound) -> bool {
        match bound {
            Bound::Time(_) => matches!(self, Self::Time(..) | Self::Outage | Self::Downtime),
            Bound::Number(_) | Bound::Percent(_) => matches!(self, Self::Count(_)),
            Bound::PerSecond(_) => self == Self::Rate,
            Bound::Ratio(_) => true,
        }
    }
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let plain = digits.starts_with(|c: char| c.is_ascii_digit());
            digits.parse().ok().filter(|number: &f64| plain && number.is_finite())
        };
        for (suffix, bound) in [("%", Self::Percent as fn(f64) -> Self), ("/s", Self::PerSecond), ("x", Self::Ratio)] {
            if let Some(digits) = text.strip_suffix(suffix) {
                return number(digits).map(bound);
            }
        }
        number(text).map(Self::Number).or_else(|| parse_duration(text).map(Self::Time))
    }
}

impl Limit {
    /// Reads one limit. The error is how many bytes of it are right, and what is expected there.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let name = text.split(|c: char| c.is_whitespace() || "<>=".contains(c)).next().unwrap_or_default();
        let known = "a metric such as p99, late.p99, outage, lost or rate".to_owned();
        let metric = Metric::parse(name).ok_or((0, known))?;
        let rest = text[name.len()..].trim_start();
        let at = text.len() - rest.len();
        let side = SIDES.iter().find_map(|(sign, side)| Some((*side, rest.strip_prefix(sign)?)));
        let (side, rest) = side.ok_or((at, ">, >=, < or <=".to_owned()))?;
        let rest = rest.trim_start();
        let bound = Bound::parse(rest).filter(|bound| metric.takes(*bound));
        let expected = || format!("{}, or a multiple of the baseline's such as 1.2x", metric.bounds());
        Ok(Self { metric, side, bound: bound.ok_or_else(|| (text.len() - rest.len(), expected()))? })
    }
}

/// What is wrong with the text of limits, and at which character, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expected} at character {at}")]
pub struct LimitsError {
    at: usize,
    expected: String,
}

impl Limits {
    /// Whether one of them is a multiple of what a baseline had.
    pub fn need_baseline(&self) -> bool {
        self.0.iter().any(|limit| matches!(limit.bound, Bound::Ratio(_)))
    }
}

impl FromStr for Limits {
    type Err = LimitsError;

    fn from_str(text: &str) -> Result<Self, LimitsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut begin = 0;
        let limit = |part: &str| {
            let indent = part.len() - part.trim_start().len();
            let limit = Limit::parse(part.trim()).map_err(|(right, expected)| {
                let before = &text[..begin + indent + right];
                LimitsError { at: before.chars().count() + 1, expected }
            });
            begin += part.len() + 1;
            limit
        };
        text.split(',').map(limit).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Limit::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = SIDES.iter().find(|(_, side)| *side == self.side).map_or("", |(sign, _)| sign);
        write!(f, "{} {sign} ", self.metric)?;
        match self.bound {
            Bound::Time(time) => humantime::format_duration(time).fmt(f),
            Bound::Number(number) => number.fmt(f),
            Bound::Percent(number) => write!(f, "{number}%"),
            Bound::PerSecond(number) => write!(f, "{number}/s"),
            Bound::Ratio(number) => write!(f, "{number}x"),
        }
    }
}

pub(super) fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let text = text(deserializer)?;
    text.parse().map_err(|error: LimitsError| D::Error::invalid_value(Unexpected::Str(&text), &&*error.to_string()))
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        limits(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::metric::{FIGURES, OTHERS, SPANS};
    use proptest::prelude::*;

    #[test]
    fn limits_are_read_with_and_without_spaces() {
        for (text, shown) in [
            ("", ""),
            ("  ", ""),
            ("p99>5ms", "p99 > 5ms"),
            (" p99.999 >= 1m 30s ,late.max<1us", "p99.999 >= 1m 30s, late.max < 1us"),
            ("lost > 0.1%, wrong > 0", "lost > 0.1%, wrong > 0"),
            ("rate <= 900/s, p99 > 1.2x, outages > 1x", "rate <= 900/s, p99 > 1.2x, outages > 1x"),
            ("connect.mean > 1s, outage > 1s, downtime > 2s", "connect.mean > 1s, outage > 1s, downtime > 2s"),
        ] {
            assert_eq!(text.parse::<Limits>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_error_names_the_character_and_what_is_expected_there() {
        for (text, at, expected) in [
            ("p98 > 5ms", 1, "a metric such as"),
            ("p99 > 5ms,", 11, "a metric such as"),
            ("p99 > 5ms, , lost > 0", 12, "a metric such as"),
            ("p99 > 5ms, späť > 1", 12, "a metric such as"),
            ("late > 5ms", 1, "a metric such as"),
            ("p99", 4, ">, >=, < or <="),
            ("p99 = 5ms", 5, ">, >=, < or <="),
            ("p99 5ms", 5, ">, >=, < or <="),
            ("p99 >", 6, "a duration such as 5ms, or"),
            ("p99 > 5", 7, "a duration such as 5ms, or"),
            ("p99 > 5%", 7, "a duration such as 5ms, or"),
            ("p99 >  -5ms", 8, "a duration such as 5ms, or"),
            ("p99 > 1ms, lost > 5ms", 19, "a count such as 10, or a share"),
            ("lost > -1", 8, "a count such as 10, or a share"),
            ("lost > inf", 8, "a count such as 10, or a share"),
            ("lost > nan%", 8, "a count such as 10, or a share"),
            ("rate < 900", 8, "a rate such as 900/s, or"),
            ("rate < x", 8, "a rate such as 900/s, or"),
        ] {
            let error = text.parse::<Limits>().unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.expected.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_multiple_needs_a_baseline() {
        for (text, needs) in [("", false), ("p99 > 1ms, rate < 1/s", false), ("p99 > 1ms, rate < 0.9x", true)] {
            assert_eq!(text.parse::<Limits>().unwrap().need_baseline(), needs, "{text}");
        }
    }

    /// A limit of any metric with a bound that it takes.
    fn any_limit() -> impl Strategy<Value = Limit> {
        let time = (prop::sample::select(&SPANS[..]), prop::sample::select(&FIGURES[..]));
        let metric = prop_oneof![
            time.prop_map(|((_, of), (_, figure))| Metric::Time(of, figure)),
            prop::sample::select(&OTHERS[..]).prop_map(|(_, metric)| metric),
        ];
        let number = || 0.0..1e12_f64;
        let bound = prop_oneof![
            (0..365 * 86_400_000_u64).prop_map(|ms| Bound::Time(Duration::from_millis(ms))),
            number().prop_map(Bound::Number),
            number().prop_map(Bound::Percent),
            number().prop_map(Bound::PerSecond),
            number().prop_map(Bound::Ratio),
        ];
        let limit = (metric, prop::sample::select(&SIDES[..]), bound);
        limit
            .prop_map(|(metric, (_, side), bound)| Limit { metric, side, bound })
            .prop_filter("the metric takes the bound", |limit| limit.metric.takes(limit.bound))
    }

    proptest! {
        #[test]
        fn limits_that_are_shown_are_read_as_they_were(limits in prop::collection::vec(any_limit(), 0..5)) {
            let limits = Limits(limits);
            prop_assert_eq!(limits.to_string().parse::<Limits>(), Ok(limits));
        }

        #[test]
        fn no_text_makes_it_panic_and_an_error_lies_within_the_text(text in "[p0-9.<>=,ms/xé% -]{0,20}|.{0,20}") {
            if let Err(error) = text.parse::<Limits>() {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.at), "{error}");
            }
        }
    }
}
