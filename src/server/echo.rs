//! The built-in service: every byte comes back, in order, unchanged.
//!
//! It relies on the thread's one read buffer (see `buffer`), which it may use only between two waits.

use crate::{
    buffer::{READS_IN_A_ROW, with_buffer},
    server::{connection::socket::Socket, service::Service},
};
use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWriteExt;

/// Sends back what it receives until the input ends.
///
/// An idle connection holds no buffer. What the client does not read back is held once, in at most one buffer. The service
/// reads no more until that is sent, so the client feels back-pressure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Service for Echo {
    #[expect(
        clippy::manual_async_fn,
        reason = "it would keep its arguments twice, and a connection's task has no room for that"
    )]
    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>> {
        async move {
            loop {
                // Bound, as in a `match` the future would keep its place until the end of the arms: 128 bytes per connection.
                let pause = poll_fn(|cx| poll_echo(socket, cx)).await?;
                match pause {
                    Pause::OthersTurn => tokio::task::yield_now().await,
                    // Boxed, because it is rare: an idle connection keeps no room for it.
                    Pause::Owing(bytes) => Box::pin(socket.write_all(&bytes)).await?,
                    Pause::End => return Ok(()),
                }
            }
        }
    }
}

/// Why echoing pauses.
enum Pause {
    /// Many bytes have come, and the other connections on this thread have waited long enough.
    OthersTurn,
    /// The socket did not take these bytes. They are copied, because all connections of the thread share the buffer.
    Owing(Box<[u8]>),
    /// The input has ended.
    End,
}

/// Echoes until there is a reason to pause. A wake-up reads at once: the read itself finds out, without a system call,
/// whether the wake-up was for something else.
fn poll_echo(socket: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<Pause>> {
    loop {
        match echo_what_is_there(socket)? {
            Some(pause) => return Poll::Ready(Ok(pause)),
            None => ready!(socket.0.poll_readable(cx))?,
        }
    }
}

/// Gives no reason to pause if nothing more has come.
fn echo_what_is_there(socket: &Socket) -> io::Result<Option<Pause>> {
    with_buffer(|buffer| {
        for _ in 0..READS_IN_A_ROW {
            let n = match socket.try_read(buffer) {
                Ok(0) => return Ok(Some(Pause::End)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                read => read?,
            };
            let written = match socket.try_write(&buffer[..n]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                written => written?,
            };
            if written < n {
                return Ok(Some(Pause::Owing(buffer[written..n].into())));
            }
            // A short read has emptied the socket, and a second one would find nothing.
            if n < buffer.len() {
                return Ok(None);
            }
        }
        Ok(Some(Pause::OthersTurn))
    })
}
