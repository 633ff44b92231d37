//! The loggers of both programs.
//!
//! A record goes through a bounded queue to the log's own thread, which formats and writes it. A full queue makes the
//! writer wait: nothing is dropped. It relies on the guard being dropped last; that writes out what is left. Whatever
//! happens to the stream stays on that thread.
mod in_order;
mod queue;

use in_order::{InOrder, Whole};
pub use queue::Guard;
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use slog::{Drain, FnValue, Level, LevelFilter, Logger, PushFnValue, Record, o};
use slog_term::{Decorator, FullFormat, PlainDecorator, TermDecorator};

use crate::{
    error::Error,
    settings::{LogFormat, LogSettings},
};

/// Records that may wait to be written, before the next one has to.
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
/// A closed stream harms nobody: the records are lost, and that is all.
///
/// # Errors
/// [`Error::Thread`] or [`Error::Memory`] if there is no thread to write it.
///
/// ```
/// use supervised_echo::{logging::{Stream, logger}, settings::Settings};
///
/// let (log, _guard) = logger(&Settings::default().log, Stream::Stderr)?;
/// slog::info!(log, "listening"; "workers" => 2);
/// # Ok::<(), supervised_echo::Error>(())
/// ```
pub fn logger(settings: &LogSettings, stream: Stream) -> Result<(Logger, Guard), Error> {
    let terminal = match stream {
        Stream::Stdout => io::stdout().is_terminal(),
        Stream::Stderr => io::stderr().is_terminal(),
    };
    if settings.format == LogFormat::Auto && terminal {
        // It leaves the colours out by itself if NO_COLOR is set.
        let decorator = TermDecorator::new();
        let decorator = if stream == Stream::Stdout { decorator.stdout() } else { decorator.stderr() };
        return queued(settings.level, text(decorator.build()));
    }
    match stream {
        Stream::Stdout => plain(settings, io::stdout()),
        Stream::Stderr => plain(settings, io::stderr()),
    }
}

/// A logger without colours.
fn plain(settings: &LogSettings, out: impl Write + Send + 'static) -> Result<(Logger, Guard), Error> {
    let out = Whole { out, record: Vec::new() };
    match settings.format {
        LogFormat::Json => queued(settings.level, json(out)),
        LogFormat::Auto | LogFormat::Compact => queued(settings.level, text(PlainDecorator::new(out))),
    }
}

/// Puts the queue before `drain`, and the level before the queue: a record that is filtered out costs a comparison.
fn queued(level: Level, drain: impl Drain + Send + 'static) -> Result<(Logger, Guard), Error> {
    let (queue, guard) = queue::queue(QUEUE, drain.ignore_res())?;
    Ok((Logger::root(LevelFilter::new(queue, level).ignore_res(), o!()), guard))
}

fn text<D: Decorator>(decorator: D) -> InOrder<FullFormat<D>> {
    let format = FullFormat::new(decorator).use_custom_timestamp(|out: &mut dyn Write| write!(out, "{}", now()));
    InOrder { drain: format.build(), escape: true }
}

fn json<W: Write>(out: W) -> InOrder<slog_json::Json<W>> {
    // One call for each: within a call, too, slog's order is the reverse.
    let drain = slog_json::Json::new(out)
        .add_key_value(o!("ts" => FnValue(|_: &Record<'_>| now())))
        .add_key_value(o!("level" => FnValue(|record: &Record<'_>| name(record.level()))))
        .add_key_value(o!("msg" => PushFnValue(|record: &Record<'_>, value| value.emit(record.msg()))));
    InOrder { drain: drain.set_flush(true).build(), escape: false }
}

fn now() -> String {
    rfc3339(SystemTime::now())
}

/// RFC 3339, in UTC, to the millisecond. Of a time that `humantime` does not write the nearest one that it does: a clock may be
/// wrong, and the record must not be lost for it.
fn rfc3339(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);
    humantime::format_rfc3339_millis(time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)).to_string()
}

/// The name that the settings know the level by.
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
    use std::io::{BufRead, BufReader, PipeWriter, Read};

    use slog::{debug, info, warn};

    use super::*;

    fn settings(format: LogFormat) -> LogSettings {
        LogSettings { level: Level::Info, format }
    }

    /// What `write` logs, from the first byte to the end.
    fn logged(format: LogFormat, write: impl FnOnce(&Logger)) -> String {
        let (mut reader, writer) = io::pipe().unwrap();
        let (log, guard) = plain(&settings(format), writer).unwrap();
        write(&log);
        drop((log, guard));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_compact_record_is_one_line_with_its_fields_in_the_order_written() {
        let text = logged(LogFormat::Compact, |log| {
            let log = log.new(o!("client" => "c", "worker" => 1));
            info!(log, "connection closed"; "peer" => %"127.0.0.1:7", "received" => 12, "reason" => "client");
        });
        let (time, rest) = text.split_at(24);
        assert!(humantime::parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
        let expected =
            " INFO connection closed, client: c, worker: 1, peer: 127.0.0.1:7, received: 12, reason: client\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_compact_record_stays_one_line_whatever_its_fields_hold() {
        let text = logged(LogFormat::Auto, |log| info!(log, "a"; "b" => "1\n2\u{1b}[31m", "c" => ?"x"));
        assert!(text.ends_with(" a, b: 1\\n2\\u{1b}[31m, c: \"x\"\n"), "{text}");
    }

    #[test]
    fn a_json_record_is_one_object_with_its_fields_in_the_order_written() {
        let text = logged(LogFormat::Json, |log| {
            let log = log.new(o!("client" => "c", "worker" => 1));
            warn!(log, "echo \"lost\""; "n" => 3_u64, "reason" => "a\nb", "elapsed_s" => 0.5, "late" => true);
        });
        let (time, rest) = text.strip_prefix(r#"{"ts":""#).unwrap().split_at(24);
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        let expected = r#"","level":"warn","msg":"echo \"lost\"","client":"c","worker":1,"n":3,"reason":"a\nb","elapsed_s":0.5,"late":true}"#;
        assert_eq!(rest, format!("{expected}\n"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["reason"], "a\nb");
    }

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
        let (log, _guard) = plain(&settings(LogFormat::Compact), writer).unwrap();
        info!(log, "listening");
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert!(line.ends_with("listening\n"), "{line}");
    }

    #[test]
    fn every_record_is_written_though_many_more_come_than_the_queue_holds() {
        let (reader, writer) = io::pipe().unwrap();
        let (log, guard) = plain(&settings(LogFormat::Compact), writer).unwrap();
        let lines = std::thread::spawn(move || BufReader::new(reader).lines().count());
        for n in 0..3 * QUEUE {
            info!(log, "record"; "n" => n);
        }
        drop((log, guard));
        assert_eq!(lines.join().unwrap(), 3 * QUEUE);
    }

    #[test]
    fn a_closed_stream_harms_nobody() {
        for format in [LogFormat::Compact, LogFormat::Json] {
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            let (log, guard) = plain(&settings(format), writer).unwrap();
            for n in 0..3 * QUEUE {
                info!(log, "record"; "n" => n);
            }
            drop(guard);
            info!(log, "after the end");
        }
    }

    /// Fails at its second record.
    struct Faulty(PipeWriter, usize);

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1 == 2 { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(bytes) }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn a_record_that_cannot_be_written_costs_no_other() {
        for format in [LogFormat::Compact, LogFormat::Json] {
            let (reader, writer) = io::pipe().unwrap();
            let (log, guard) = plain(&settings(format), Faulty(writer, 0)).unwrap();
            for n in 1..=3 {
                info!(log, "record"; "n" => n, "m" => n);
            }
            drop((log, guard));
            let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[0].contains('1') && lines[1].trim_end_matches('}').ends_with('3'), "{lines:?}");
        }
    }
}
