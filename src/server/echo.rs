//! The built-in service: every byte comes back, in order, unchanged.
//!
//! It relies on the thread's one read buffer and its one pipe (see `buffer` and `pipe`), which it may use only between two waits.

use crate::{
    buffer::{BUFFER, READS_IN_A_ROW, with_buffer},
    server::{connection::socket::Socket, pipe::with_pipe, service::Service},
};
use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWriteExt;

/// Less than this at once is cheaper to read than to move through the pipe.
const BULK: usize = BUFFER / 2;

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
            let mut bulk = false;
            loop {
                // Bound, as in a `match` the future would keep its place until the end of the arms: 128 bytes per connection.
                let pause = poll_fn(|cx| poll_echo(socket, &mut bulk, cx)).await?;
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
fn poll_echo(socket: &Socket, bulk: &mut bool, cx: &mut Context<'_>) -> Poll<io::Result<Pause>> {
    loop {
        match echo_what_is_there(socket, bulk)? {
            Some(pause) => return Poll::Ready(Ok(pause)),
            None => ready!(socket.0.poll_readable(cx))?,
        }
    }
}

/// Gives no reason to pause if nothing more has come. A stream that fills the buffer is in bulk from then on, and goes through the
/// pipe.
fn echo_what_is_there(socket: &Socket, bulk: &mut bool) -> io::Result<Option<Pause>> {
    with_buffer(|buffer| {
        for _ in 0..READS_IN_A_ROW {
            if *bulk {
                let (n, owing) = echo_through_pipe(socket)?;
                if !owing.is_empty() {
                    return Ok(Some(Pause::Owing(owing)));
                }
                if n >= BULK {
                    continue;
                }
                // Between two messages nothing comes. But a pipe holds few pieces, and if they are small a read takes more.
                *bulk = n == 0;
            }
            let n = match socket.try_read(buffer) {
                Ok(0) => return Ok(Some(Pause::End)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                read => read?,
            };
            let written = taken(socket.try_write(&buffer[..n]))?;
            if written < n {
                return Ok(Some(Pause::Owing(buffer[written..n].into())));
            }
            // A short read has emptied the socket, and a second one would find nothing.
            if n < buffer.len() {
                return Ok(None);
            }
            *bulk = true;
        }
        Ok(Some(Pause::OthersTurn))
    })
}

/// Echoes what is there, at most one buffer, through the thread's pipe. Gives how many bytes have come, and a copy of those that
/// the socket did not take.
fn echo_through_pipe(socket: &Socket) -> io::Result<(usize, Box<[u8]>)> {
    let moved = with_pipe(|pipe| {
        let n = socket.0.try_move_in(pipe)?;
        let left = if n > 0 { n - taken(socket.0.try_move_out(pipe, n))? } else { 0 };
        Ok((n, pipe.copy_out(left)?))
    })?;
    Ok(moved.unwrap_or_default())
}

/// How many bytes a socket took.
fn taken(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
