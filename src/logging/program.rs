//! The loggers of both programs.
//!
//! A record goes through a bounded queue to the log's own thread, which formats and writes it. A full queue makes the
//! writer wait, so no record is dropped. It relies on the guard being dropped last, which writes out what is left. A
//! failure of the stream stays on that thread.

use super::{
    in_order::{InOrder, Whole},
    queue::{self, Guard},
    status_line::StatusLine,
    threshold::Threshold,
};
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use slog::{Drain, FnValue, Level, Logger, PushFnValue, Record, o};
use slog_term::{Decorator, FullFormat, PlainDecorator, TermDecorator};

use crate::{
    error::Error,
    settings::{LogFormat, LogSettings},
};

/// Records that may wait to be written before the next one has to wait.
const QUEUE: usize = 8192;

/// Where a log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output: a server's log.
    Stdout,
    /// Standard error: a client's log, whose standard output is its report.
    Stderr,
}

/// A logger to one of the standard streams.
///
/// If the stream is closed, its records are lost and the program goes on.
///
/// # Errors
/// [`Error::Thread`] or [`Error::Memory`] if the log's thread cannot be started.
///
/// ```
/// use supervised_echo::{logging::{Stream, logger}, settings::Settings};
///
/// let (log, _guard) = logger(&Settings::default().log, Stream::Stderr)?;
/// slog::info!(log, "listening"; "workers" => 2);
/// # Ok::<(), supervised_echo::Error>(())
/// ```
pub fn logger(settings: &LogSettings, stream: Stream) -> Result<(Logger, Guard), Error> {
    logger_above(settings, stream, &StatusLine::default())
}

/// As [`logger`]. If both are on one terminal, each record comes above the line.
///
/// # Errors
/// As [`logger`].
pub fn logger_above(settings: &LogSettings, stream: Stream, line: &StatusLine) -> Result<(Logger, Guard), Error> {
    let terminal = match stream {
        Stream::Stdout => io::stdout().is_terminal(),
        Stream::Stderr => io::stderr().is_terminal(),
    };
    if settings.format == LogFormat::Auto && terminal {
        // The decorator leaves the colours out by itself if NO_COLOR is set.
        let decorator = TermDecorator::new();
        let decorator = if stream == Stream::Stdout { decorator.stdout() } else { decorator.stderr() };
        return queued(settings.level, line.below(text(decorator.build())));
    }
    match stream {
        Stream::Stdout => plain(settings, io::stdout(), line),
        Stream::Stderr => plain(settings, io::stderr(), line),
    }
}

/// A logger without colours.
pub(super) fn plain(
    settings: &LogSettings,
    out: impl Write + Send + 'static,
    line: &StatusLine,
) -> Result<(Logger, Guard), Error> {
    let out = Whole { out, record: Vec::new() };
    match settings.format {
        LogFormat::Json => queued(settings.level, line.below(json(out))),
        LogFormat::Auto | LogFormat::Compact => queued(settings.level, line.below(text(PlainDecorator::new(out)))),
    }
}

/// Puts the queue before `drain`, and the level before the queue. So a record that is filtered out costs one comparison.
fn queued(level: Level, drain: impl Drain + Send + 'static) -> Result<(Logger, Guard), Error> {
    let threshold = Threshold::new(level);
    let (queue, guard) = queue::queue(QUEUE, threshold.clone(), drain.ignore_res())?;
    Ok((Logger::root(threshold.before(queue), o!()), guard))
}

fn text<D: Decorator>(decorator: D) -> InOrder<FullFormat<D>> {
    let format = FullFormat::new(decorator).use_custom_timestamp(|out: &mut dyn Write| write!(out, "{}", now()));
    InOrder { drain: format.build(), escape: true }
}

fn json<W: Write>(out: W) -> InOrder<slog_json::Json<W>> {
    // One call for each field: within a call, too, slog's order is the reverse.
    let drain = slog_json::Json::new(out)
        .add_key_value(o!("ts" => FnValue(|_: &Record<'_>| now())))
        .add_key_value(o!("level" => FnValue(|record: &Record<'_>| name(record.level()))))
        .add_key_value(o!("msg" => PushFnValue(|record: &Record<'_>, value| value.emit(record.msg()))));
    InOrder { drain: drain.set_flush(true).build(), escape: false }
}

fn now() -> String {
    rfc3339(SystemTime::now())
}

/// RFC 3339, in UTC, to the millisecond. If `humantime` cannot write the time, this writes the nearest one that it can: a
/// clock may be wrong, and the record must not be lost for it.
fn rfc3339(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);
    humantime::format_rfc3339_millis(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)).to_string()
}

/// The name of the level in the settings.
fn name(level: Level) -> &'static str {
    match level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{logged, settings},
        *,
    };
    use slog::{debug, info};
    use std::io::{BufRead, BufReader};

    #[test]
    fn a_clock_that_is_wrong_by_ages_silences_no_record() {
        let year = Duration::from_secs(366 * 24 * 60 * 60);
        for (time, expected) in [
            (UNIX_EPOCH - year, "1970-01-01T00:00:00.000Z"),
            (UNIX_EPOCH, "1970-01-01T00:00:00.000Z"),
            (UNIX_EPOCH + Duration::from_millis(1), "1970-01-01T00:00:00.001Z"),
            (UNIX_EPOCH + 9000 * year, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(time), expected);
        }
    }

    #[test]
    fn each_level_is_called_as_in_the_settings() {
        for (level, expected) in [
            (Level::Critical, "critical"),
            (Level::Error, "error"),
            (Level::Warning, "warn"),
            (Level::Info, "info"),
            (Level::Debug, "debug"),
            (Level::Trace, "trace"),
        ] {
            assert_eq!(name(level), expected);
        }
    }

    #[test]
    fn a_filtered_record_is_neither_written_nor_made() {
        let text = logged(LogFormat::Compact, |log| {
            debug!(log, "never"; "value" => FnValue(|_| -> bool { panic!("was made") }));
        });
        assert_eq!(text, "");
    }

    #[test]
    fn a_record_reaches_the_stream_before_the_end() {
        let (reader, writer) = io::pipe().unwrap();
        let (log, _guard) = plain(&settings(LogFormat::Compact), writer, &StatusLine::default()).unwrap();
        info!(log, "listening");
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert!(line.ends_with("listening\n"), "{line}");
    }

    #[test]
    fn every_record_is_written_though_many_more_come_than_the_queue_holds() {
        let (reader, writer) = io::pipe().unwrap();
        let (log, guard) = plain(&settings(LogFormat::Compact), writer, &StatusLine::default()).unwrap();
        let lines = std::thread::spawn(move || BufReader::new(reader).lines().count());
        for n in 0..3 * QUEUE {
            info!(log, "record"; "n" => n);
        }
        drop((log, guard));
        assert_eq!(lines.join().unwrap(), 3 * QUEUE);
    }

    #[test]
    fn a_closed_stream_does_no_harm() {
        for format in [LogFormat::Compact, LogFormat::Json] {
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            let (log, guard) = plain(&settings(format), writer, &StatusLine::default()).unwrap();
            for n in 0..3 * QUEUE {
                info!(log, "record"; "n" => n);
            }
            drop(guard);
            info!(log, "after the end");
        }
    }
}
