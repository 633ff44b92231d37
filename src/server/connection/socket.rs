//! A connection as its service sees it.

use crate::server::connection::stream::Stream;
use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A service's side of one connection: bytes in, bytes out, with the end of the input where a stop puts it.
///
/// Read and write it with tokio's [`AsyncRead`] and [`AsyncWrite`] (both halves at once: [`tokio::io::split`]), or, to hold
/// no buffer while nothing comes, with [`readable`](Self::readable) and [`try_read`](Self::try_read).
pub struct Socket(pub(crate) Rc<Stream>);

impl Socket {
    /// The number of this connection in the log.
    pub fn connection(&self) -> u64 {
        self.0.record.connection().get()
    }

    /// The client's address, IPv4 also where it came through a dual-stack socket.
    pub fn peer(&self) -> std::net::SocketAddr {
        self.0.record.peer
    }

    /// Waits until [`try_read`](Self::try_read) may bring something, the end of the input included. One task at a time can
    /// wait: of several only the last is woken.
    ///
    /// # Errors
    /// If the thread's reactor is gone.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_readable(cx)).await
    }

    /// Reads what is there into `buffer`, at once; `Ok(0)` is the end of the input.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; otherwise what the socket says.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }

    /// Writes as much of `bytes` as the socket takes at once.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing; otherwise what the socket says.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_readable(cx))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                read => return Poll::Ready(read.map(|n| buffer.advance(n))),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_writable(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                written => return Poll::Ready(written),
            }
        }
    }

    /// Nothing is held back, so there is nothing to do.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing to do: FIN is sent when the service returns.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
