//! The settings of the server.
//!
//! Relies on `fields` to refuse a value of the wrong kind, and on `server.toml` beside this file for the defaults.

use super::{
    fields::*,
    log::{LogFormat, LogSettings},
    network::Network,
};
use crate::decisions::stop::HANDSHAKES;
use humantime::format_duration;
use serde::{Deserialize, Deserializer};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The settings of the server. `Settings::default()` is the built-in `server.toml`.
///
/// ```
/// let settings = supervised_echo::settings::Settings::default();
/// assert_eq!(settings.listen.address.port(), 12345);
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a document of sections")]
#[non_exhaustive]
pub struct Settings {
    /// Where the server listens.
    pub listen: ListenSettings,
    /// How many clients it serves, and how it restarts and stops.
    pub supervisor: SupervisorSettings,
    /// What holds for each connection.
    pub connection: ConnectionSettings,
    /// The page, health and metrics over HTTP.
    pub admin: AdminSettings,
    /// The faults of an echo that lies on purpose.
    pub fault: FaultSettings,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// The listening socket.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct ListenSettings {
    /// A literal address and a port; `[::]` takes IPv4 as well, port 0 takes a free one.
    #[serde(deserialize_with = "socket_address")]
    pub address: SocketAddr,
    /// Connections that the kernel holds before they are accepted, 1 to 65535. Linux caps it at `net.core.somaxconn`.
    #[serde(deserialize_with = "integer::<1, 65_535, _, _>")]
    pub backlog: u32,
    /// Whether a balancer tells the client's address in a PROXY header.
    #[serde(deserialize_with = "proxy_protocol")]
    pub proxy_protocol: ProxyProtocol,
    /// From where a PROXY header is believed; empty means from everywhere.
    #[serde(deserialize_with = "networks")]
    pub proxy_trusted: Vec<Network>,
}

/// Whether a connection begins with a header of the PROXY protocol, version 1 or 2, which tells the client's address. The bytes
/// of the header are taken away and counted nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// None does. What looks like a header is data.
    Off,
    /// One may. A connection without it is served as it is, and so is one that comes from no network that is trusted. The
    /// service begins when the client's first bytes have come, or after five seconds.
    Optional,
    /// Each does. A connection without it, or from no network that is trusted, is reset.
    Required,
}

fn proxy_protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ProxyProtocol, D::Error> {
    parsed(deserializer, "off, optional or required", |text| {
        Some(match text {
            "off" => ProxyProtocol::Off,
            "optional" => ProxyProtocol::Optional,
            "required" => ProxyProtocol::Required,
            _ => return None,
        })
    })
}

impl ListenSettings {
    /// Whether a PROXY header from this address is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.proxy_trusted.is_empty() || self.proxy_trusted.iter().any(|network| network.contains(address))
    }
}

/// The supervision of Workers and connections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct SupervisorSettings {
    /// Threads, 0 to 1024; 0 means one per core. The first two accept.
    #[serde(deserialize_with = "integer::<0, 1_024, _, _>")]
    pub workers: usize,
    /// Connections that are served at once, over all Workers, 1 to 1,000,000.
    #[serde(deserialize_with = "integer::<1, 1_000_000, _, _>")]
    pub max_connections: usize,
    /// Connections beyond `max_connections` that are accepted and wait for a free slot, 0 to 1,000,000.
    #[serde(deserialize_with = "integer::<0, 1_000_000, _, _>")]
    pub max_pending: usize,
    /// Restarts of one Worker's Acceptor within `restart_window` before the server gives up, 0 to 1,000,000.
    #[serde(deserialize_with = "integer::<0, 1_000_000, _, _>")]
    pub max_restarts: usize,
    /// How long a restart counts, above zero.
    #[serde(deserialize_with = "positive_duration")]
    pub restart_window: Duration,
    /// How long the server goes on accepting and serving after the first order to stop, and says that it is not ready any more;
    /// zero stops at once.
    #[serde(deserialize_with = "duration")]
    pub lame_duck: Duration,
    /// How long connections may drain at a stop before they are forced; zero forces them at once.
    #[serde(deserialize_with = "duration")]
    pub shutdown_timeout: Duration,
}

/// What holds for each connection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// A connection that is silent for this long is closed; zero means never.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// How long a stopped connection waits for the client's FIN once the client's kernel has everything echoed.
    #[serde(deserialize_with = "duration")]
    pub linger: Duration,
    /// How long a stop waits for the next bytes of a client to whom nothing is due. They are answered, and FIN follows in the
    /// same segment. Without them FIN is sent when the time is over. Zero sends FIN at once. It is for services whose input
    /// ends: see [`AtStop::EndOfInput`](crate::AtStop::EndOfInput).
    #[serde(deserialize_with = "duration")]
    pub last_word: Duration,
}

/// What is asked over HTTP: the live page, health, metrics. [`Admin`](crate::Admin) answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct AdminSettings {
    /// A literal address and a port; `None`, written as an empty string, means off.
    #[serde(deserialize_with = "socket_address_or_none")]
    pub address: Option<SocketAddr>,
    /// The names by which it may be asked, besides `localhost` and IP addresses. A page of another name that was made to
    /// lead here (DNS rebinding) learns nothing.
    #[serde(deserialize_with = "host_names")]
    pub hosts: Vec<String>,
}

/// Faults on purpose, so that one can watch what they do. [`FaultyEcho`](crate::FaultyEcho) makes them, and no other service.
/// The default is none.
///
/// A share is the part of all messages that meet the fault, from 0 to 1. With 0.25 it is every fourth one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
pub struct FaultSettings {
    /// How long each echo is held back; zero means not at all.
    #[serde(deserialize_with = "duration")]
    pub delay: Duration,
    /// The share of messages whose echo has a wrong byte.
    #[serde(deserialize_with = "share")]
    pub wrong: f64,
    /// The share of messages at which the connection ends without their echo.
    #[serde(deserialize_with = "share")]
    pub close: f64,
    /// The share of messages at which the connection panics.
    #[serde(deserialize_with = "share")]
    pub crash: f64,
    /// Whether a message may ask for a fault.
    #[serde(deserialize_with = "boolean")]
    pub ask: bool,
}

impl Settings {
    /// Warnings about settings that are allowed but hardly meant, one line each, with the consequence.
    pub fn warnings(&self) -> Vec<String> {
        let ConnectionSettings { linger, last_word, .. } = self.connection;
        let (timeout, wait) = (self.supervisor.shutdown_timeout, last_word.saturating_add(linger));
        let told = format!("supervisor.shutdown_timeout, {}, is shorter than", format_duration(timeout));
        if timeout < HANDSHAKES {
            let handshakes = format_duration(HANDSHAKES);
            vec![format!(
                "{told} the {handshakes} that a stop may wait for handshakes: a stop resets clients that come last or do not end their connections by then, and exits with 3"
            )]
        } else if timeout < wait {
            let of = if last_word.is_zero() { "" } else { "connection.last_word and " };
            let wait = format_duration(wait);
            vec![format!(
                "{told} {of}connection.linger, {wait}: a stop resets clients that do not end their connections by then, and exits with 3"
            )]
        } else {
            Vec::new()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: ListenSettings {
                address: ([0, 0, 0, 0], 12345).into(),
                backlog: 4096,
                proxy_protocol: ProxyProtocol::Off,
                proxy_trusted: Vec::new(),
            },
            supervisor: SupervisorSettings {
                workers: 0,
                max_connections: 1024,
                max_pending: 128,
                max_restarts: 5,
                restart_window: Duration::from_secs(10),
                lame_duck: Duration::ZERO,
                shutdown_timeout: Duration::from_secs(8),
            },
            connection: ConnectionSettings {
                idle_timeout: Duration::ZERO,
                linger: Duration::from_secs(1),
                last_word: Duration::ZERO,
            },
            admin: AdminSettings { address: None, hosts: Vec::new() },
            fault: FaultSettings::default(),
            log: LogSettings { level: slog::Level::Info, format: LogFormat::Auto },
        }
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::settings::testing::{check_range, read};

    #[test]
    fn times_that_are_as_long_as_can_be_are_warned_of_and_no_more() {
        let mut settings = Settings::default();
        settings.connection.last_word = Duration::MAX;
        assert_eq!(settings.warnings().len(), 1);
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
            ("supervisor.lame_duck", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("supervisor.shutdown_timeout", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("connection.idle_timeout", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("connection.linger", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("fault.delay", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
            ("fault.wrong", "0.0", "-0.1", "1.0", "1.1"),
            ("fault.close", "0.0", "-inf", "1.0", "inf"),
            ("fault.crash", "0", "-1", "1", "2"),
            ("connection.last_word", r#""0s""#, r#""-1s""#, year, r#""365days 1ns""#),
        ] {
            check_range::<Settings>(key, least, below, most, above);
        }
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
    fn a_proxy_header_is_off_optional_or_required_and_believed_from_networks() {
        for (name, is) in
            [("off", ProxyProtocol::Off), ("optional", ProxyProtocol::Optional), ("required", ProxyProtocol::Required)]
        {
            let settings = read::<Settings>(&format!("listen.proxy_protocol = {name:?}")).unwrap();
            assert_eq!(settings.listen.proxy_protocol, is);
        }
        for bad in ["\"on\"", "true", "\"\""] {
            let error = read::<Settings>(&format!("listen.proxy_protocol = {bad}")).unwrap_err();
            assert!(error.ends_with("expected off, optional or required"), "{bad}: {error}");
        }
        let [anyone, trusted] = ["[]", r#"["10.0.0.0/8", "::1"]"#]
            .map(|networks| read::<Settings>(&format!("listen.proxy_trusted = {networks}")).unwrap().listen);
        let [ours, other] = ["10.1.2.3", "192.0.2.1"].map(|address| address.parse().unwrap());
        assert!(anyone.trusts(other) && trusted.trusts(ours) && !trusted.trusts(other));
        for bad in [r#""10.0.0.0/8""#, "[1]", r#"["10.0.0.0/33"]"#, r#"["host"]"#] {
            let error = read::<Settings>(&format!("listen.proxy_trusted = {bad}")).unwrap_err();
            assert!(error.ends_with(r#"expected a list of networks such as ["10.0.0.0/8", "::1"]"#), "{bad}: {error}");
        }
    }

    #[test]
    fn the_admin_has_a_literal_address_or_none_and_any_number_of_host_names() {
        let off = read::<Settings>(r#"admin.address = """#).unwrap();
        assert_eq!(off.admin.address, None);
        let on = read::<Settings>(r#"admin.address = "127.0.0.1:0""#).unwrap();
        assert_eq!(on.admin.address, Some(([127, 0, 0, 1], 0).into()));
        let asked = read::<Settings>(r#"admin.hosts = ["echo.example", "a_b"]"#).unwrap();
        assert_eq!(asked.admin.hosts, ["echo.example", "a_b"]);
        for bad in ["localhost:8080", "127.0.0.1", ":8080", " "] {
            let error = read::<Settings>(&format!("admin.address = {bad:?}")).unwrap_err();
            assert!(error.contains("or \"\" for none"), "{bad}: {error}");
        }
        for bad in [r#""a.example""#, "[1]", r#"["a:80"]"#, r#"[""]"#, r#"["a b"]"#, "true"] {
            let error = read::<Settings>(&format!("admin.hosts = {bad}")).unwrap_err();
            assert!(error.ends_with(r#"expected a list of host names such as ["echo.example"]"#), "{bad}: {error}");
        }
    }
}
