//! The settings of the client.
//!
//! Relies on `fields` to refuse a value of the wrong kind, and on `client.toml` beside this file for the defaults.

use super::{
    fields::*,
    limits::{Limits, limits},
    log::{LogFormat, LogSettings},
};
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The settings of the client. `ClientSettings::default()` is the built-in `client.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document of sections")]
#[non_exhaustive]
pub struct ClientSettings {
    /// The server that it talks to.
    pub server: ServerSettings,
    /// The name that it gives itself.
    pub client: IdentitySettings,
    /// What it sends.
    pub traffic: TrafficSettings,
    /// What makes a run fail besides its echoes.
    pub verdict: VerdictSettings,
    /// How the report is shown.
    pub report: ReportSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// The server, as the client knows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct ServerSettings {
    /// `host:port`; the host may be a name, and an IPv6 address stands in brackets.
    #[serde(deserialize_with = "host_and_port")]
    pub address: String,
    /// How long the client keeps trying to connect, above zero. With a rate and a duration or a count of messages the timetable
    /// has an end, and the client tries until then: what it could not send in time is lost, reason `unsent`.
    #[serde(deserialize_with = "positive_duration")]
    pub connect_timeout: Duration,
}

/// The client's own identity.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct IdentitySettings {
    /// The text for `{id}` in a message and for `client` in the logs. Empty means the host name.
    #[serde(deserialize_with = "text")]
    pub id: String,
}

/// The client's traffic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct TrafficSettings {
    /// Connections at the same time, 1 to 1,000,000.
    #[serde(deserialize_with = "integer::<1, 1_000_000, _, _>")]
    pub connections: usize,
    /// Messages per connection, 0 to 10^12; 0 means no end.
    #[serde(deserialize_with = "integer::<0, 1_000_000_000_000, _, _>")]
    pub messages: u64,
    /// How long each connection sends, from its first connect on; zero means no end. With a rate all begin together, when each
    /// connection is made or has failed once.
    #[serde(deserialize_with = "duration")]
    pub duration: Duration,
    /// The pause between two messages of one connection.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// Whether every message gets a connection of its own.
    #[serde(deserialize_with = "boolean")]
    pub reconnect: bool,
    /// The text that is sent, without its newline. `{id}` and `{n}` (counted from 1) are filled in.
    #[serde(deserialize_with = "text")]
    pub message: String,
    /// How long one echo may take, above zero. With a rate it counts from when the message was due.
    #[serde(deserialize_with = "positive_duration")]
    pub timeout: Duration,
    /// Messages a second over all connections, on time, also when the server is slow; several are steps that share `duration`
    /// evenly. Empty: each connection sends at its own pace. With a rate `period` is not used.
    #[serde(deserialize_with = "rates")]
    pub rate: Vec<f64>,
    /// Messages of one connection that may be out at once, 1 to 10,000.
    #[serde(deserialize_with = "integer::<1, 10_000, _, _>")]
    pub pipeline: usize,
    /// Messages that are due so soon after the beginning are verified and counted, but not timed.
    #[serde(deserialize_with = "duration")]
    pub warmup: Duration,
    /// The bytes of a message, 0 to 16 MiB, each a function of its connection, message and place; 0: `message` is sent.
    #[serde(deserialize_with = "integer::<0, 16_777_216, _, _>")]
    pub size: usize,
    /// The age at which a connection is replaced between two messages, or up to a quarter before; zero: never.
    #[serde(deserialize_with = "duration")]
    pub renew: Duration,
    /// How often a message is sent again if its connection was closed before a byte of its echo came, 0 to 1,000. A balancer
    /// that turns resets into such closes makes this unsafe.
    #[serde(deserialize_with = "integer::<0, 1_000, _, _>")]
    pub resend: u32,
}

impl ClientSettings {
    /// Warnings about settings that are allowed but hardly meant, one line each, with the consequence.
    pub fn warnings(&self) -> Vec<String> {
        let TrafficSettings { rate, duration, warmup, pipeline, reconnect, .. } = &self.traffic;
        let mut warnings = Vec::new();
        if !rate.is_empty() && slog::Level::Info.is_at_least(self.log.level) {
            let level = self.log.level.as_str().to_lowercase();
            warnings.push(format!(
                "traffic.rate with log.level {level}: each echo is a line of the log, and the client waits for the log: use warn to measure"
            ));
        }
        if rate.len() > 1 && duration.is_zero() {
            warnings.push(
                "traffic.rate has steps, but there is no traffic.duration to share: only the first is used".into(),
            );
        }
        if !duration.is_zero() && warmup >= duration {
            warnings.push("traffic.warmup is not shorter than traffic.duration: no echo is timed".into());
        }
        if *reconnect && *pipeline > 1 {
            warnings.push(
                "traffic.pipeline with traffic.reconnect: a connection has one message, and never more of them out"
                    .into(),
            );
        }
        warnings
    }
}

/// What makes a run fail besides its echoes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct VerdictSettings {
    /// Limits, separated by commas, that must not be so at the end: `p99 > 5ms, outage > 1s`.
    #[serde(deserialize_with = "limits")]
    pub fail_if: Limits,
}

/// How the report is shown.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct ReportSettings {
    /// The shape of the report on standard output.
    #[serde(deserialize_with = "format")]
    pub format: ReportFormat,
}

/// The shape of the report on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportFormat {
    /// Lines for people.
    Table,
    /// The lines, and bars of the times.
    Chart,
    /// One line that holds a JSON object.
    Json,
    /// A page for a browser.
    Html,
}

fn format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReportFormat, D::Error> {
    parsed(deserializer, "table, chart, json or html", |text| {
        Some(match text {
            "table" => ReportFormat::Table,
            "chart" => ReportFormat::Chart,
            "json" => ReportFormat::Json,
            "html" => ReportFormat::Html,
            _ => return None,
        })
    })
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            server: ServerSettings { address: "127.0.0.1:12345".into(), connect_timeout: Duration::from_secs(10) },
            client: IdentitySettings { id: String::new() },
            traffic: TrafficSettings {
                connections: 1,
                messages: 5,
                duration: Duration::ZERO,
                period: Duration::from_secs(1),
                reconnect: false,
                message: "[CLIENT {id}] Message N°{n}".into(),
                timeout: Duration::from_secs(5),
                rate: Vec::new(),
                pipeline: 1,
                warmup: Duration::ZERO,
                size: 0,
                renew: Duration::ZERO,
                resend: 0,
            },
            verdict: VerdictSettings { fail_if: Limits::default() },
            report: ReportSettings { format: ReportFormat::Table },
            log: LogSettings { level: slog::Level::Info, format: LogFormat::Auto },
        }
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::settings::testing::{check_range, read};

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
            ("traffic.rate", r#""0/s""#, r#""-1/s""#, r#""1000000000/s""#, r#""1000000001/s""#),
            ("traffic.pipeline", "1", "0", "10000", "10001"),
            ("traffic.warmup", r#""0s""#, r#""-1s""#, year, r#""366days""#),
            ("traffic.size", "0", "-1", "16777216", "16777217"),
            ("traffic.renew", r#""0s""#, r#""-1s""#, year, r#""366days""#),
            ("traffic.resend", "0", "-1", "1000", "1001"),
        ] {
            check_range::<ClientSettings>(key, least, below, most, above);
        }
    }

    #[test]
    fn a_wrong_limit_is_refused_with_what_is_expected_at_which_character() {
        let settings = read::<ClientSettings>(r#"verdict.fail_if = "p99 > 5ms, lost>0.1%""#).unwrap();
        assert_eq!(settings.verdict.fail_if.to_string(), "p99 > 5ms, lost > 0.1%");
        let error = read::<ClientSettings>(r#"verdict.fail_if = "p99 > 5ms, lost > 5ms""#).unwrap_err();
        assert!(error.contains("expected a count such as 10, or a share of what was due such as 0.1%, or"), "{error}");
        assert!(error.ends_with("at character 19"), "{error}");
    }

    #[test]
    fn the_report_has_four_shapes() {
        use ReportFormat::*;
        for (name, format) in [("table", Table), ("chart", Chart), ("json", Json), ("html", Html)] {
            let settings = read::<ClientSettings>(&format!("report.format = {name:?}")).unwrap();
            assert_eq!(settings.report.format, format);
        }
        let error = read::<ClientSettings>(r#"report.format = "yaml""#).unwrap_err();
        assert!(error.ends_with("expected table, chart, json or html"), "{error}");
    }

    #[test]
    fn a_rate_is_messages_a_second_or_steps_of_them() {
        for (text, expected) in [("0/s", &[][..]), ("0.5/s", &[0.5]), ("500/s, 1000/s,2e3/s", &[500.0, 1000.0, 2000.0])]
        {
            let settings = read::<ClientSettings>(&format!("traffic.rate = {text:?}")).unwrap();
            assert_eq!(settings.traffic.rate, expected, "{text}");
        }
        for bad in ["", "500", "500/m", "/s", "1/s,", "0/s, 1/s", "inf/s", "NaN/s", "0.0001/s"] {
            let error = read::<ClientSettings>(&format!("traffic.rate = {bad:?}")).unwrap_err();
            assert!(error.contains(r#"expected messages a second such as "500/s""#), "{bad}: {error}");
        }
    }

    #[test]
    fn a_rate_whose_echoes_are_all_logged_is_warned_of_and_so_are_steps_of_nothing() {
        let warned = |rate: &[f64], level| {
            let mut settings = ClientSettings::default();
            (settings.traffic.rate, settings.log.level) = (rate.to_vec(), level);
            settings.warnings()
        };
        assert!(warned(&[], slog::Level::Info).is_empty());
        assert!(warned(&[1.0], slog::Level::Warning).is_empty());
        let [warning] = &warned(&[1.0], slog::Level::Debug)[..] else { panic!() };
        assert!(warning.starts_with("traffic.rate with log.level debug: each echo is a line of the log"), "{warning}");
        let [warning] = &warned(&[1.0, 2.0], slog::Level::Warning)[..] else { panic!() };
        assert!(warning.contains("only the first is used"), "{warning}");
    }

    #[test]
    fn a_run_that_is_all_warm_up_is_warned_of_and_so_is_a_pipeline_of_connections_for_one_message() {
        let s = Duration::from_secs;
        let warned = |warmup, duration, pipeline, reconnect| {
            let settings = ClientSettings::default();
            let (warmup, duration) = (s(warmup), s(duration));
            let traffic = TrafficSettings { warmup, duration, pipeline, reconnect, ..settings.traffic };
            ClientSettings { traffic, ..settings }.warnings()
        };
        for (warmup, duration, pipeline, reconnect) in
            [(0, 0, 1, false), (1, 0, 1, false), (0, 1, 1, true), (1, 2, 2, false)]
        {
            assert_eq!(warned(warmup, duration, pipeline, reconnect), [""; 0]);
        }
        for warmup in [2, 3] {
            let expected = "traffic.warmup is not shorter than traffic.duration: no echo is timed";
            assert_eq!(warned(warmup, 2, 1, false), [expected]);
        }
        let expected =
            "traffic.pipeline with traffic.reconnect: a connection has one message, and never more of them out";
        assert_eq!(warned(0, 0, 2, true), [expected]);
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
}
