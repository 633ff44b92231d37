//! One message and its echo over one stream, and what may come over it unasked.
//!
//! Relies on being the stream's only reader. It uses no clock: the data plane in `session` decides how long to wait.

use crate::{
    buffer::with_buffer,
    client::{
        record::Lost,
        verify::{Difference, Verifier},
    },
};
use std::{
    future::poll_fn,
    io::ErrorKind,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What came instead of an echo.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The bytes that came are not those that were sent.
    Wrong(Difference),
    /// No more bytes come.
    Lost(Lost),
}

impl Failure {
    fn of(error: ErrorKind) -> Self {
        // The system gives this error to a write if the other side had ended the connection before it was reset.
        Self::Lost(if error == ErrorKind::BrokenPipe { Lost::Closed } else { Lost::Reset })
    }
}

/// Sends a message and verifies its echo at the same time. A server may take no more of a large message before some of its
/// echo is read.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), Failure> {
    let (mut sent, mut write_error) = (0, None);
    let mut verifier = Verifier::default();
    poll_fn(|cx| {
        while sent < message.len() && write_error.is_none() {
            match Pin::new(&mut *stream).poll_write(cx, &message[sent..]) {
                Poll::Ready(Ok(n)) => sent += n,
                // Bytes that the server sent before may still be read, and may be wrong.
                Poll::Ready(Err(error)) => write_error = Some(error.kind()),
                Poll::Pending => break,
            }
        }
        while verifier.verified() < message.len() {
            let received = ready!(poll_read(stream, cx, |piece| match piece {
                [] => Err(write_error.map_or(Failure::Lost(Lost::Closed), Failure::of)),
                piece => verifier.receive(&message[..sent], piece).map_err(Failure::Wrong),
            }));
            received?;
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Resolves when bytes or an end come while no message is out. The last echo had this many bytes.
pub(crate) async fn unasked<S: AsyncRead + Unpin>(stream: &mut S, echoed: u64) -> Failure {
    let failure = poll_fn(|cx| {
        poll_read(stream, cx, |piece| match piece {
            [] => Err(Failure::Lost(Lost::Closed)),
            piece => Ok(Failure::Wrong(Difference::surplus(echoed, piece))),
        })
    });
    failure.await.unwrap_or_else(|failure| failure)
}

/// Reads into the thread's buffer, so a connection that waits holds none.
fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> Result<T, Failure>,
) -> Poll<Result<T, Failure>> {
    with_buffer(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer));
        Poll::Ready(read.map_err(|error| Failure::of(error.kind())).and_then(|()| take(buffer.filled())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn a_connection_that_ends_while_it_takes_the_message_is_an_early_close() {
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        assert_eq!(echo(&mut ours, &[0; 1000]).await, Err(Failure::Lost(Lost::Closed)));
    }

    #[test]
    fn only_a_connection_that_had_been_ended_before_it_failed_was_closed() {
        assert_eq!(Failure::of(ErrorKind::BrokenPipe), Failure::Lost(Lost::Closed));
        assert_eq!(Failure::of(ErrorKind::ConnectionReset), Failure::Lost(Lost::Reset));
        assert_eq!(Failure::of(ErrorKind::TimedOut), Failure::Lost(Lost::Reset));
    }

    #[tokio::test]
    async fn what_comes_before_the_message_is_out_is_wrong_though_it_is_the_same() {
        let (mut ours, mut theirs) = duplex(64);
        theirs.write_all(&[0; 64]).await.unwrap();
        let wrong = Difference { offset: 64, expected: String::new(), got: "\\x00".repeat(16) };
        let psychic = async {
            theirs.write_all(&[0; 64]).await.unwrap();
            std::future::pending().await
        };
        tokio::select! {
            echoed = echo(&mut ours, &[0; 1000]) => assert_eq!(echoed, Err(Failure::Wrong(wrong))),
            () = psychic => {}
        }
    }

    #[tokio::test]
    async fn the_end_of_a_stream_is_not_taken_for_bytes() {
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        assert_eq!(unasked(&mut ours, 5).await, Failure::Lost(Lost::Closed));
    }
}
