//! The built-in service: every byte comes back, in order, unchanged.
//!
//! It relies on the thread's one read buffer (see `buffer`), which it may use only between two waits.

use crate::{
    buffer::{READS_IN_A_ROW, with_buffer},
    server::{connection::socket::Socket, service::Service},
};
use std::io::{self, ErrorKind};
use tokio::io::AsyncWriteExt;

/// Sends back what it receives until the input ends.
///
/// An idle connection holds no buffer. What the client does not read back is held once, in at most one buffer. The service
/// reads no more until that is sent, so the client feels back-pressure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Service for Echo {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        loop {
            let pause = echo_what_is_there(socket)?;
            match pause {
                Pause::Quiet => socket.readable().await?,
                Pause::OthersTurn => tokio::task::yield_now().await,
                // Boxed, because it is rare: an idle connection keeps no room for it.
                Pause::Owing(bytes) => Box::pin(socket.write_all(&bytes)).await?,
                Pause::End => return Ok(()),
            }
        }
    }
}

/// Why echoing pauses.
enum Pause {
    /// Nothing more has come.
    Quiet,
    /// Many bytes have come, and the other connections on this thread have waited long enough.
    OthersTurn,
    /// The socket did not take these bytes. They are copied, because all connections of the thread share the buffer.
    Owing(Box<[u8]>),
    /// The input has ended.
    End,
}

fn echo_what_is_there(socket: &Socket) -> io::Result<Pause> {
    with_buffer(|buffer| {
        for _ in 0..READS_IN_A_ROW {
            let n = match socket.try_read(buffer) {
                Ok(0) => return Ok(Pause::End),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Pause::Quiet),
                read => read?,
            };
            let written = match socket.try_write(&buffer[..n]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                written => written?,
            };
            if written < n {
                return Ok(Pause::Owing(buffer[written..n].into()));
            }
            // A short read has emptied the socket, and a second one would find nothing.
            if n < buffer.len() {
                return Ok(Pause::Quiet);
            }
        }
        Ok(Pause::OthersTurn)
    })
}
