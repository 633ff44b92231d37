//! The last line of a terminal, which stays below the records of a log.
//!
//! Relies on the terminal for the escape sequence that erases the rest of a line, and for its width.

use rustix::termios::tcgetwinsize;
use slog::{Drain, OwnedKVList, Record};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The width of a terminal that does not tell it.
const COLUMNS: usize = 80;

/// A line at the end of standard error, which is to be a terminal. All clones are the same line.
#[derive(Debug, Clone, Default)]
pub struct StatusLine(Arc<Mutex<String>>);

impl StatusLine {
    /// Shows a text in place of the last one, as much of it as the terminal has room for. An empty text leaves no trace.
    pub fn show(&self, text: &str) {
        let mut shown = self.lock();
        if !(shown.is_empty() && text.is_empty()) {
            *shown = fitted(text, columns());
            draw(&shown);
        }
    }

    /// Has the records of `drain` come above the line.
    pub(super) fn below<D>(&self, drain: D) -> Above<D> {
        Above { line: self.clone(), drain }
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        // A text is whole also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A drain whose records come above a [`StatusLine`].
pub(super) struct Above<D> {
    line: StatusLine,
    drain: D,
}

impl<D: Drain> Drain for Above<D> {
    type Ok = D::Ok;
    type Err = D::Err;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<D::Ok, D::Err> {
        let shown = self.line.lock();
        if shown.is_empty() {
            return self.drain.log(record, values);
        }
        draw("");
        let logged = self.drain.log(record, values);
        draw(&shown);
        logged
    }
}

/// Puts a text in the place of the terminal's last line.
fn draw(text: &str) {
    let _ = io::stderr().write_all(format!("\r{text}\x1b[K").as_bytes());
}

fn columns() -> usize {
    let told = tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col.into());
    if told == 0 { COLUMNS } else { told }
}

/// The part of a text that fits. The last column stays free: a terminal may break the line behind it.
fn fitted(text: &str, columns: usize) -> String {
    text.chars().take(columns - 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_before_the_last_column() {
        for (columns, expected) in [(1, ""), (4, "näh"), (6, "näher"), (7, "näher"), (80, "näher")] {
            assert_eq!(fitted("näher", columns), expected, "{columns}");
        }
    }
}
