//! How one value is read. It must be of exactly the kind that the key wants, and within its range; otherwise it is refused.
//!
//! Relies on serde to pass each value on as it was written.

use super::network::Network;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Unexpected, Visitor},
};
use std::{
    fmt, iter,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Reads one value of exactly the kind that was written.
///
/// A derived field would ask `config` for a number, and get 0 for `"off"`, and 1 for `true` and for `1.4`. Here `read` sees
/// the value as it stands, and answers `None` if it is not `expected`.
pub(super) fn strict<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    read: impl Fn(Unexpected<'_>) -> Option<T>,
) -> Result<T, D::Error> {
    struct Strict<'a, F>(&'a str, F);

    impl<T, F: Fn(Unexpected<'_>) -> Option<T>> Strict<'_, F> {
        fn take<E: Error>(&self, value: Unexpected<'_>) -> Result<T, E> {
            (self.1)(value).ok_or_else(|| E::invalid_value(value, &self.0))
        }
    }

    impl<T, F: Fn(Unexpected<'_>) -> Option<T>> Visitor<'_> for Strict<'_, F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
            self.take(Unexpected::Bool(value))
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
            self.take(Unexpected::Signed(value))
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
            self.take(Unexpected::Float(value))
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
            self.take(Unexpected::Str(value))
        }
    }

    deserializer.deserialize_any(Strict(expected, read))
}

/// As [`strict`], for a value that is written as a string.
pub(super) fn parsed<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    strict(deserializer, expected, |value| match value {
        Unexpected::Str(text) => parse(text),
        _ => None,
    })
}

pub(super) fn integer<'de, const MIN: i64, const MAX: i64, T: TryFrom<i64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let expected = format!("an integer from {MIN} to {MAX}");
    strict(deserializer, &expected, |value| match value {
        Unexpected::Signed(n) if (MIN..=MAX).contains(&n) => T::try_from(n).ok(),
        _ => None,
    })
}

/// Reads a part of the whole. A whole number is a number too, so 0 and 1 are shares.
pub(super) fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    strict(deserializer, "a share from 0.0 to 1.0", |value| match value {
        Unexpected::Float(share) if (0.0..=1.0).contains(&share) => Some(share),
        Unexpected::Signed(whole @ (0 | 1)) => Some(whole as f64),
        _ => None,
    })
}

pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    strict(deserializer, "true or false", |value| match value {
        Unexpected::Bool(value) => Some(value),
        _ => None,
    })
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parsed(deserializer, "a string", |text| Some(text.to_owned()))
}

/// A longer wait means "never" to a person, and would overflow a clock. So no duration may be longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads a duration with its unit. `humantime` alone would also take a bare "0".
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok()?;
    (text != "0" && duration <= LONGEST).then_some(duration)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let expected = r#"a duration such as "10s", at most "365days""#;
    parsed(deserializer, expected, parse_duration)
}

pub(super) fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let expected = r#"a duration such as "10s", above "0s" and at most "365days""#;
    parsed(deserializer, expected, |text| parse_duration(text).filter(|duration| !duration.is_zero()))
}

/// Reads `500/s`, or steps of such. `0/s` is no rate.
pub(super) fn rates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let expected =
        r#"messages a second such as "500/s", from 0.001 to 10^9, or steps such as "500/s, 1000/s"; "0/s" for none"#;
    let step =
        |text: &str| text.trim().strip_suffix("/s")?.parse::<f64>().ok().filter(|rate| (0.001..=1e9).contains(rate));
    parsed(
        deserializer,
        expected,
        |text| if text == "0/s" { Some(Vec::new()) } else { text.split(',').map(step).collect() },
    )
}

pub(super) fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let expected = r#"an IP address and a port such as "0.0.0.0:12345" or "[::]:12345""#;
    parsed(deserializer, expected, |text| text.parse().ok())
}

pub(super) fn socket_address_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let expected = r#"an IP address and a port such as "127.0.0.1:8080", or "" for none"#;
    parsed(deserializer, expected, |text| if text.is_empty() { Some(None) } else { text.parse().map(Some).ok() })
}

pub(super) fn host_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, r#"a list of host names such as ["echo.example"]"#, |text| {
        let belongs = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (!text.is_empty() && text.chars().all(belongs)).then(|| text.to_owned())
    })
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    list(deserializer, r#"a list of networks such as ["10.0.0.0/8", "::1"]"#, |text| text.parse().ok())
}

/// Reads a list whose elements are written as strings.
fn list<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<Vec<T>, D::Error> {
    struct List<T>(&'static str, fn(&str) -> Option<T>);

    impl<T> Clone for List<T> {
        fn clone(&self) -> Self {
            Self(self.0, self.1)
        }
    }

    impl<'de, T> DeserializeSeed<'de> for List<T> {
        type Value = T;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            parsed(deserializer, self.0, self.1)
        }
    }

    impl<'de, T> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            iter::from_fn(|| elements.next_element_seed(self.clone()).transpose()).collect()
        }
    }

    deserializer.deserialize_any(List(expected, parse))
}

pub(super) fn host_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected = r#"host:port such as "server:12345", the port from 1 to 65535"#;
    parsed(deserializer, expected, |text| {
        let (host, port) = text.rsplit_once(':')?;
        let named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || ":/[]".contains(c));
        let bracketed = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6);
        let port_is_real = port.parse::<u16>().is_ok_and(|port| port > 0);
        (port_is_real && (named || bracketed().is_some())).then(|| text.to_owned())
    })
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::settings::{ClientSettings, Settings, testing::read};

    #[test]
    fn a_value_of_another_kind_is_refused_not_coerced() {
        for value in [r#""10""#, r#""off""#, "true", "1.0", "[1]", "{}", "2020-01-01"] {
            let error = read::<Settings>(&format!("supervisor.workers = {value}")).unwrap_err();
            assert!(error.ends_with("expected an integer from 0 to 1024"), "{value}: {error}");
        }
        for value in ["1", "0", r#""yes""#, r#""true""#, "1.0"] {
            let error = read::<ClientSettings>(&format!("traffic.reconnect = {value}")).unwrap_err();
            assert!(error.ends_with("expected true or false"), "{value}: {error}");
        }
        for value in [r#""0.5""#, "true", "nan", "[0.5]"] {
            let error = read::<Settings>(&format!("fault.wrong = {value}")).unwrap_err();
            assert!(error.ends_with("expected a share from 0.0 to 1.0"), "{value}: {error}");
        }
        for value in ["1", "true", "1.5", "[]"] {
            let error = read::<ClientSettings>(&format!("client.id = {value}")).unwrap_err();
            assert!(error.ends_with("expected a string"), "{value}: {error}");
        }
    }

    #[test]
    fn a_duration_without_its_unit_is_refused_and_one_with_it_is_suggested() {
        for value in ["10", "0", r#""10""#, r#""0""#, "1.5", r#""""#, r#""ten""#] {
            let error = read::<Settings>(&format!("connection.linger = {value}")).unwrap_err();
            assert!(error.contains(r#"expected a duration such as "10s""#), "{value}: {error}");
        }
        let settings = read::<Settings>(r#"connection.linger = "1m 30s""#).unwrap();
        assert_eq!(settings.connection.linger, Duration::from_secs(90));
    }
}
