//! One message and its echo over one stream, and what may come over it unasked.
//!
//! Relies on nobody else reading from the stream, and knows no clock: whoever calls decides how long to wait.

use crate::{
    journal::Lost,
    link::with_buffer,
    verify::{Difference, Verifier},
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
    /// What came is not what was sent.
    Wrong(Difference),
    /// Nothing more comes.
    Lost(Lost),
}

impl Failure {
    fn of(error: ErrorKind) -> Self {
        // The system says so of a write to a connection that the other side had ended before it was reset.
        Self::Lost(if error == ErrorKind::BrokenPipe { Lost::Closed } else { Lost::Reset })
    }
}

/// Sends a message and verifies what comes back, both at once: a server may take no more of a large message before it has
/// got rid of some of its echo.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), Failure> {
    let (mut sent, mut write_error) = (0, None);
    let mut verifier = Verifier::default();
    poll_fn(|cx| {
        while sent < message.len() && write_error.is_none() {
            match Pin::new(&mut *stream).poll_write(cx, &message[sent..]) {
                Poll::Ready(Ok(n)) => sent += n,
                // What the server has sent before may still be read, and be wrong.
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

/// Resolves when something comes though no message is out, behind an echo of so many bytes.
pub(crate) async fn unasked<S: AsyncRead + Unpin>(stream: &mut S, echoed: u64) -> Failure {
    let failure = poll_fn(|cx| {
        poll_read(stream, cx, |piece| match piece {
            [] => Err(Failure::Lost(Lost::Closed)),
            piece => Ok(Failure::Wrong(Difference::surplus(echoed, piece))),
        })
    });
    failure.await.unwrap_or_else(|failure| failure)
}

/// Reads into the thread's buffer: a connection that waits holds none.
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
