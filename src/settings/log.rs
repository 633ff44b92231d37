//! The settings of the log, the same for both programs.
//!
//! They say what is logged and in which shape; `logging` carries that out.

use super::fields::parsed;
use serde::{Deserialize, Deserializer};

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of keys")]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum LogFormat {
    /// Colours on a terminal, else `Compact`.
    Auto,
    /// One line of text.
    Compact,
    /// One line that holds a JSON object.
    Json,
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

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::settings::{Settings, testing::read};

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
