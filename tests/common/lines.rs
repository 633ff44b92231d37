//! The lines of a stream, as they come. A thread of their own reads them, so the writer is never held up by a test.

use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

pub struct Lines(Receiver<String>);

impl Lines {
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self(lines)
    }

    /// The next line. `Disconnected` is the end of the stream; `Timeout` says that the deadline came first.
    pub fn next(&self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        self.0.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    }
}
