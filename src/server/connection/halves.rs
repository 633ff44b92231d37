//! The two directions of a connection, for tasks of their own.
//!
//! The halves hold the connection weakly. It lasts only as long as its service, even if a task keeps a half. Otherwise a
//! task that hangs would keep a slot.

use crate::server::connection::stream::Stream;
use std::{
    io::{self, ErrorKind},
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The reading half of a connection, from [`Socket::split_owned`](crate::Socket::split_owned).
pub struct OwnedReadHalf(Half);

/// The writing half of a connection, from [`Socket::split_owned`](crate::Socket::split_owned).
///
/// Dropping it sends nothing: a task that panics must not look to the client like a clean end. A shutdown sends FIN, and so
/// does the return of the service.
pub struct OwnedWriteHalf(Half);

pub(super) fn split(stream: &Rc<Stream>) -> (OwnedReadHalf, OwnedWriteHalf) {
    (OwnedReadHalf(Half::of(stream)), OwnedWriteHalf(Half::of(stream)))
}

struct Half {
    stream: Weak<Stream>,
    /// Resolves when the service is over. A half polls it only to leave its waker there.
    over: Pin<Box<dyn Future<Output = ()>>>,
}

impl Half {
    fn of(stream: &Rc<Stream>) -> Self {
        Self { stream: Rc::downgrade(stream), over: Box::pin(stream.until(|stream| !stream.is_in_service())) }
    }

    /// The stream, while its service runs. When the service ends, the task is woken.
    fn stream(&mut self, cx: &mut Context<'_>) -> io::Result<Rc<Stream>> {
        let stream = self.stream.upgrade().filter(|stream| stream.is_in_service()).ok_or(ErrorKind::NotConnected)?;
        let _ = self.over.as_mut().poll(cx);
        Ok(stream)
    }
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.stream(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.stream(cx)?.poll_write(cx, bytes)
    }

    /// No bytes are held back, so there is nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends FIN.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.stream(cx)?.send_fin())
    }
}
