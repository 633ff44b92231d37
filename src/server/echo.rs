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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decisions::admission::Place,
        server::{
            connection::ConnectionActor,
            testing::{connection, context, record},
        },
    };
    use std::{io::Write, pin::pin, thread, time::Duration};
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    const TURN: u64 = (READS_IN_A_ROW * BUFFER) as u64;

    /// Echoes for many turns, and then tells how many bytes came in the longest one.
    struct Turns(UnboundedSender<u64>);

    impl Service for Turns {
        async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
            let stream = socket.0.clone();
            let received = || stream.record.received.get();
            let (mut echoing, mut longest) = (pin!(Echo.serve(socket)), 0);
            poll_fn(|cx| {
                let before = received();
                let turn = echoing.as_mut().poll(cx);
                longest = longest.max(received() - before);
                if received() < 256 * TURN { turn } else { Poll::Ready(Ok(())) }
            })
            .await?;
            let _ = self.0.send(longest);
            Err(ErrorKind::Other.into())
        }
    }

    #[actix::test]
    async fn a_stream_that_never_pauses_lets_the_other_connections_have_their_turn() {
        let (server, client) = connection().await;
        let client = client.into_std().unwrap();
        client.set_nonblocking(false).unwrap();
        let mut input = client.try_clone().unwrap();
        // They end with the connection.
        thread::spawn(move || while (&client).write_all(&[1; 4 * BUFFER]).is_ok() {});
        thread::spawn(move || io::copy(&mut input, &mut io::sink()));
        let ((context, _stopped), (longest, mut told)) = (context(Duration::ZERO), unbounded_channel());
        ConnectionActor::start(server, record(context), Turns(longest).into(), Some(Place::Served));
        // What the socket takes only at a second try is echoed in the same turn, and more may have come by then.
        let longest = told.recv().await.unwrap();
        assert!((TURN..=8 * TURN).contains(&longest), "{longest}");
    }
}
