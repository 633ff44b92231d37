//! The settings of both programs, as types.
//!
//! The files `server.toml` and `client.toml` beside this one are compiled in and *are* the defaults; those in `settings/`,
//! for users to edit, begin as the same. Each field reads its own value and refuses any other with what would be right;
//! `layers` adds where the value came from.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Unexpected, Visitor},
};

use crate::layers::{Layered, defaults};

/// What the server is told. `Settings::default()` is the built-in `server.toml`.
///
/// ```
/// let settings = supervised_echo::settings::Settings::default();
/// assert_eq!(settings.listen.address.port(), 12345);
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document of sections")]
pub struct Settings {
    /// Where the server listens.
    pub listen: ListenSettings,
    /// How many it serves, and how it restarts and stops.
    pub supervisor: SupervisorSettings,
    /// What holds for each connection.
    pub connection: ConnectionSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// The listening socket.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct ListenSettings {
    /// A literal address and a port; `[::]` takes IPv4 as well, port 0 takes a free one.
    #[serde(deserialize_with = "socket_address")]
    pub address: SocketAddr,
    /// Connections that the kernel holds before they are accepted, 1 to 65535. Linux caps it at `net.core.somaxconn`.
    #[serde(deserialize_with = "integer::<1, 65_535, _, _>")]
    pub backlog: u32,
}

/// The supervision of Workers and connections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct SupervisorSettings {
    /// Threads, 0 to 1024; 0 means one per core.
    ///
    /// On Linux, with one shared listening socket, every Worker wakes for each connection. 20,000 connects cost the
    /// server 0.9 s of CPU with 1 Worker, 1.0 s with 2, 1.8 s with 16 and 4.7 s with 64.
    #[serde(deserialize_with = "integer::<0, 1_024, _, _>")]
    pub workers: usize,
    /// Connections that are served at once, over all Workers, 1 to 1,000,000.
    #[serde(deserialize_with = "integer::<1, 1_000_000, _, _>")]
    pub max_connections: usize,
    /// Connections beyond these that are accepted and wait for a free slot, 0 to 1,000,000.
    #[serde(deserialize_with = "integer::<0, 1_000_000, _, _>")]
    pub max_pending: usize,
    /// Restarts of one Worker's Acceptor within `restart_window` before the server gives up, 0 to 1,000,000.
    #[serde(deserialize_with = "integer::<0, 1_000_000, _, _>")]
    pub max_restarts: usize,
    /// How long a restart counts, above zero.
    #[serde(deserialize_with = "positive_duration")]
    pub restart_window: Duration,
    /// How long connections may drain at a stop before they are forced; zero forces them at once.
    #[serde(deserialize_with = "duration")]
    pub shutdown_timeout: Duration,
}

/// What holds for each connection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct ConnectionSettings {
    /// A connection that is silent for this long is closed; zero means never.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How long a stopped connection waits for the client's FIN once the client's kernel has everything echoed.
    #[serde(deserialize_with = "duration")]
    pub linger: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct LogSettings {
    /// The least severe level that is logged: `critical`, `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(deserialize_with = "level")]
    pub level: slog::Level,
    /// The shape of a record.
    #[serde(deserialize_with = "format")]
    pub format: LogFormat,
}

/// The shape of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Colours on a terminal, else `Compact`.
    Auto,
    /// One line of text.
    Compact,
    /// One line that holds a JSON object.
    Json,
}

/// What the client is told. `ClientSettings::default()` is `client.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document of sections")]
pub struct ClientSettings {
    /// Whom it talks to.
    pub server: ServerSettings,
    /// What it calls itself.
    pub client: IdentitySettings,
    /// What it sends.
    pub traffic: TrafficSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// The server, as the client knows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct ServerSettings {
    /// `host:port`; the host may be a name, and an IPv6 address stands in brackets.
    #[serde(deserialize_with = "host_and_port")]
    pub address: String,
    /// How long the client keeps trying to connect, above zero.
    #[serde(deserialize_with = "positive_duration")]
    pub connect_timeout: Duration,
}

/// The client's own identity.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct IdentitySettings {
    /// What stands for `{id}` in a message and for `client` in the logs; empty means the host name.
    #[serde(deserialize_with = "text")]
    pub id: String,
}

/// The client's traffic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
pub struct TrafficSettings {
    /// Connections at the same time, 1 to 1,000,000.
    #[serde(deserialize_with = "integer::<1, 1_000_000, _, _>")]
    pub connections: usize,
    /// Messages per connection, 0 to 10^12; 0 means no end.
    #[serde(deserialize_with = "integer::<0, 1_000_000_000_000, _, _>")]
    pub messages: u64,
    /// How long each connection sends, from its first connect on; zero means no end.
    #[serde(deserialize_with = "duration")]
    pub duration: Duration,
    /// The pause between two messages of one connection.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// Whether every message gets a connection of its own.
    #[serde(deserialize_with = "boolean")]
    pub reconnect: bool,
    /// What is sent, without its newline; `{id}` and `{n}` (counted from 1) are filled in.
    #[serde(deserialize_with = "text")]
    pub message: String,
    /// How long one echo may take, above zero.
    #[serde(deserialize_with = "positive_duration")]
    pub timeout: Duration,
}

impl Layered for Settings {
    const DEFAULTS: &'static str = include_str!("server.toml");
    const PREFIX: &'static str = "ECHO_SERVER_";
}

impl Layered for ClientSettings {
    const DEFAULTS: &'static str = include_str!("client.toml");
    const PREFIX: &'static str = "ECHO_CLIENT_";
}

impl Default for Settings {
    fn default() -> Self {
        defaults().settings
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        defaults().settings
    }
}

/// Reads one value of exactly the kind that was written.
///
/// A derived field would ask `config` for a number, and get 0 for `"off"`, 1 for `true` and for `1.4`. Here `read` sees
/// the value as it stands and answers `None` if it is not `expected`.
fn strict<'de, T, D: Deserializer<'de>>(
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

        fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
            self.take(Unexpected::Str(value))
        }
    }

    deserializer.deserialize_any(Strict(expected, read))
}

/// As [`strict`], for a value that is written as a string.
fn parsed<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    strict(deserializer, expected, |value| match value {
        Unexpected::Str(text) => parse(text),
        _ => None,
    })
}

fn integer<'de, const MIN: i64, const MAX: i64, T: TryFrom<i64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let expected = format!("an integer from {MIN} to {MAX}");
    strict(deserializer, &expected, |value| match value {
        Unexpected::Signed(n) if (MIN..=MAX).contains(&n) => T::try_from(n).ok(),
        _ => None,
    })
}

fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    strict(deserializer, "true or false", |value| match value {
        Unexpected::Bool(value) => Some(value),
        _ => None,
    })
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    parsed(deserializer, "a string", |text| Some(text.to_owned()))
}

/// A longer wait means "never" to a person, and would overflow a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `humantime` takes a bare "0"; here every duration carries its unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok()?;
    (text != "0" && duration <= LONGEST).then_some(duration)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let expected = r#"a duration such as "10s", at most "365days""#;
    parsed(deserializer, expected, parse_duration)
}

fn positive_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let expected = r#"a duration such as "10s", above "0s" and at most "365days""#;
    parsed(deserializer, expected, |text| parse_duration(text).filter(|duration| !duration.is_zero()))
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let expected = r#"an IP address and a port such as "0.0.0.0:12345" or "[::]:12345""#;
    parsed(deserializer, expected, |text| text.parse().ok())
}

fn host_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected = r#"host:port such as "server:12345", the port from 1 to 65535"#;
    parsed(deserializer, expected, |text| {
        let (host, port) = text.rsplit_once(':')?;
        let named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || ":/[]".contains(c));
        let bracketed = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6);
        let port_is_real = port.parse::<u16>().is_ok_and(|port| port > 0);
        (port_is_real && (named || bracketed().is_some())).then(|| text.to_owned())
    })
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<slog::Level, D::Error> {
    parsed(deserializer, "critical, error, warn, info, debug or trace", |text| {
        Some(match text {
            "critical" => slog::Level::Critical,
            "error" => slog::Level::Error,
            "warn" => slog::Level::Warning,
            "info" => slog::Level::Info,
            "debug" => slog::Level::Debug,
            "trace" => slog::Level::Trace,
            _ => return None,
        })
    })
}

fn format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    parsed(deserializer, "auto, compact or json", |text| {
        Some(match text {
            "auto" => LogFormat::Auto,
            "compact" => LogFormat::Compact,
            "json" => LogFormat::Json,
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a document of one assignment, given as `section.key = value`.
    fn read<S: Layered>(assignment: &str) -> Result<S, String> {
        let (key, value) = assignment.split_once(" = ").unwrap();
        let (section, key) = key.split_once('.').unwrap();
        let loaded = defaults().with_document("a.toml", &format!("[{section}]\n{key} = {value}\n"));
        loaded.map(|loaded| loaded.settings).map_err(|error| {
            let error = error.to_string();
            let prefix = format!("a.toml: {section}.{key}: invalid ");
            error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error}")).to_owned()
        })
    }

    #[test]
    fn the_defaults_of_the_server_are_the_documented_ones() {
        let expected = Settings {
            listen: ListenSettings { address: ([0, 0, 0, 0], 12345).into(), backlog: 1024 },
            supervisor: SupervisorSettings {
                workers: 0,
                max_connections: 1024,
                max_pending: 128,
                max_restarts: 5,
                restart_window: Duration::from_secs(10),
                shutdown_timeout: Duration::from_secs(8),
            },
            connection: ConnectionSettings { idle_timeout: Duration::ZERO, linger: Duration::from_secs(1) },
            log: LogSettings { level: slog::Level::Info, format: LogFormat::Auto },
        };
        assert_eq!(Settings::default(), expected);
    }

    #[test]
    fn the_files_to_edit_show_the_defaults() {
        assert_eq!(Settings::DEFAULTS, include_str!("../settings/server.toml"));
        assert_eq!(ClientSettings::DEFAULTS, include_str!("../settings/client.toml"));
    }

    #[test]
    fn the_defaults_of_the_client_are_the_documented_ones() {
        let expected = ClientSettings {
            server: ServerSettings { address: "server:12345".into(), connect_timeout: Duration::from_secs(10) },
            client: IdentitySettings { id: String::new() },
            traffic: TrafficSettings {
                connections: 1,
                messages: 5,
                duration: Duration::ZERO,
                period: Duration::from_secs(1),
                reconnect: false,
                message: "[CLIENT {id}] Message N°{n}".into(),
                timeout: Duration::from_secs(5),
            },
            log: LogSettings { level: slog::Level::Info, format: LogFormat::Auto },
        };
        assert_eq!(ClientSettings::default(), expected);
    }

    #[test]
    fn every_range_of_the_server_holds_at_both_ends() {
        let year = r#""365days""#;
        for (key, least, below, most, above) in [
            ("listen.backlog", "1", "0", "65535", "65536"),
            ("supervisor.workers", "0", "-1", "1024", "1025"),
            ("supervisor.max_connections", "1", "0", "1000000", "1000001"),
            ("supervisor.max_pending", "0", "-1", "1000000", "1000001"),
            ("supervisor.max_restarts", "0", "-1", "1000000", "1000001"),
            ("supervisor.restart_window", r#""1ns""#, r#""0s""#, year, r#""365days 1ns""#),
            ("supervisor.shutdown_timeout", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("connection.idle_timeout", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("connection.linger", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
        ] {
            check_range::<Settings>(key, least, below, most, above);
        }
    }

    #[test]
    fn every_range_of_the_client_holds_at_both_ends() {
        let year = r#""365days""#;
        for (key, least, below, most, above) in [
            ("server.connect_timeout", r#""1ns""#, r#""0s""#, year, r#""366days""#),
            ("traffic.connections", "1", "0", "1000000", "1000001"),
            ("traffic.messages", "0", "-1", "1000000000000", "1000000000001"),
            ("traffic.duration", r#""0s""#, r#""-1s""#, year, r#""366days""#),
            ("traffic.period", r#""0s""#, r#""-1s""#, year, r#""366days""#),
            ("traffic.timeout", r#""1ns""#, r#""0s""#, year, r#""366days""#),
        ] {
            check_range::<ClientSettings>(key, least, below, most, above);
        }
    }

    fn check_range<S: Layered>(key: &str, least: &str, below: &str, most: &str, above: &str) {
        for good in [least, most] {
            assert!(read::<S>(&format!("{key} = {good}")).is_ok(), "{key} = {good}");
        }
        for bad in [below, above] {
            assert!(read::<S>(&format!("{key} = {bad}")).is_err(), "{key} = {bad}");
        }
    }

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

    #[test]
    fn the_server_listens_on_literal_addresses_only() {
        for good in ["127.0.0.1:0", "[::]:12345", "[::1]:1"] {
            let settings = read::<Settings>(&format!("listen.address = {good:?}")).unwrap();
            assert_eq!(settings.listen.address, good.parse().unwrap());
        }
        for bad in ["localhost:12345", "0.0.0.0", ":12345", "::1:12345", "0.0.0.0:65536", ""] {
            let error = read::<Settings>(&format!("listen.address = {bad:?}")).unwrap_err();
            assert!(error.contains(r#""0.0.0.0:12345""#), "{bad}: {error}");
        }
    }

    #[test]
    fn the_client_connects_to_any_host_and_port() {
        for good in ["server:12345", "127.0.0.1:1", "[::1]:65535", "a.b-c_d:7"] {
            let settings = read::<ClientSettings>(&format!("server.address = {good:?}")).unwrap();
            assert_eq!(settings.server.address, good);
        }
        for bad in
            ["server", "server:", ":1", "server:0", "server:65536", "::1:7", "[1.2.3.4]:7", "tcp://a:1", "a b:1", ""]
        {
            let error = read::<ClientSettings>(&format!("server.address = {bad:?}")).unwrap_err();
            assert!(error.contains("expected host:port"), "{bad}: {error}");
        }
    }

    #[test]
    fn every_level_and_format_has_one_lower_case_name() {
        for (name, level) in [
            ("critical", slog::Level::Critical),
            ("error", slog::Level::Error),
            ("warn", slog::Level::Warning),
            ("info", slog::Level::Info),
            ("debug", slog::Level::Debug),
            ("trace", slog::Level::Trace),
        ] {
            assert_eq!(read::<Settings>(&format!("log.level = {name:?}")).unwrap().log.level, level);
        }
        for (name, format) in [("auto", LogFormat::Auto), ("compact", LogFormat::Compact), ("json", LogFormat::Json)] {
            assert_eq!(read::<Settings>(&format!("log.format = {name:?}")).unwrap().log.format, format);
        }
        for bad in ["INFO", "warning", "off", ""] {
            assert!(read::<Settings>(&format!("log.level = {bad:?}")).unwrap_err().contains("warn, info"), "{bad}");
            assert!(read::<Settings>(&format!("log.format = {bad:?}")).unwrap_err().contains("compact"), "{bad}");
        }
    }
}
