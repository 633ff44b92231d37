//! What the loggers' unit tests share: a log that is read to its end.

use super::{program::plain, status_line::StatusLine};
use crate::settings::{LogFormat, LogSettings};
use slog::{Level, Logger};
use std::io::{self, Read};

pub fn settings(format: LogFormat) -> LogSettings {
    LogSettings { level: Level::Info, format }
}

/// Everything that `write` logs, from the first byte to the end.
pub fn logged(format: LogFormat, write: impl FnOnce(&Logger)) -> String {
    let (mut reader, writer) = io::pipe().expect("a pipe is to be had");
    let (log, guard) = plain(&settings(format), writer, &StatusLine::default()).expect("a thread is to be had");
    write(&log);
    drop((log, guard));
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("it is text");
    text
}
