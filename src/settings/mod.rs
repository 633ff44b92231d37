//! The settings of both programs, as types.
//!
//! The files `server.toml` and `client.toml` beside this one are compiled in and *are* the defaults; those in `settings/`,
//! for users to edit, begin as the same. Each field reads its own value and refuses any other with what would be right;
//! `layers` adds where the value came from.

mod client;
mod fields;
pub mod layers;
mod log;
mod server;

pub use client::{ClientSettings, IdentitySettings, ServerSettings, TrafficSettings};
pub use log::{LogFormat, LogSettings};
pub use server::{ConnectionSettings, ListenSettings, Settings, SupervisorSettings};

#[cfg(test)]
mod tests {
    use super::{
        layers::{Layered, defaults},
        *,
    };
    use std::time::Duration;

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
        assert_eq!(Settings::DEFAULTS, include_str!("../../settings/server.toml"));
        assert_eq!(ClientSettings::DEFAULTS, include_str!("../../settings/client.toml"));
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
