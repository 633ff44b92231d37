//! The two directions of a connection, for tasks of their own.
//!
//! They hold the connection weakly: it lasts as long as its service, however long a task keeps a half. Otherwise a task that
//! hangs would keep a slot.

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
/// Dropping it sends nothing, as a task that panics must not look to the client like a clean end: FIN is sent by a shutdown, or
/// when the service returns.
pub struct OwnedWriteHalf(Half);

pub(super) fn split(stream: &Rc<Stream>) -> (OwnedReadHalf, OwnedWriteHalf) {
    (OwnedReadHalf(Half::of(stream)), OwnedWriteHalf(Half::of(stream)))
}

struct Half {
    stream: Weak<Stream>,
    /// Resolves when the service is over. It is polled for its waker's sake.
    over: Pin<Box<dyn Future<Output = ()>>>,
}

impl Half {
    fn of(stream: &Rc<Stream>) -> Self {
        Self { stream: Rc::downgrade(stream), over: Box::pin(stream.until(|stream| !stream.is_in_service())) }
    }

    /// The stream, as long as its service is there. The task is woken when it is not any more.
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

    /// Nothing is held back, so there is nothing to do.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends FIN.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.stream(cx)?.send_fin())
    }
}
