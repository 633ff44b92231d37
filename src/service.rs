//! The protocol spoken over one connection: the one thing that a user of this library writes.

use crate::link::Link;
use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A protocol: what is said over one connection, from its first byte to its last.
///
/// The service moves bytes and knows nothing of stops, caps or supervisors. When the server stops, or the connection has
/// been idle for too long, its input ends: reads give what had arrived by then and after it `Ok(0)`, as if the client had
/// finished. So a service that ends when its input ends drains by itself. Sending FIN, waiting for the client and closing
/// are done for it.
///
/// How it ends:
/// * `Ok(())`: all that was written is delivered, then the connection is closed cleanly;
/// * `Err(_)`: the connection is reset, so that the client does not take it for a clean end;
/// * a panic: likewise, and counted as a crash; no other connection notices.
///
/// It runs on the thread of its connection, among thousands of others: it must not block, and whoever may go on for long
/// without waiting should [yield](tokio::task::yield_now) now and then.
///
/// ```
/// use std::io;
/// use supervised_echo::{Service, Socket};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// Answers every byte with its successor.
/// struct Next;
///
/// impl Service for Next {
///     async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
///         let mut byte = [0];
///         while socket.read(&mut byte).await? > 0 {
///             socket.write_all(&[byte[0].wrapping_add(1)]).await?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Send + Sync + 'static {
    /// Serves one connection.
    ///
    /// # Errors
    /// Whatever keeps the conversation from its end; it is not logged, the connection closes with reason `reset`.
    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>>;
}

/// A service's side of one connection: bytes in, bytes out, with the end of the input where a stop puts it.
///
/// Read and write it with tokio's [`AsyncRead`] and [`AsyncWrite`] (both halves at once: [`tokio::io::split`]), or, to hold
/// no buffer while nothing comes, with [`readable`](Self::readable) and [`try_read`](Self::try_read).
pub struct Socket(pub(crate) Rc<Link>);

impl Socket {
    /// The number of this connection in the log.
    pub fn connection(&self) -> u64 {
        self.0.life.connection().get()
    }

    /// The client's address, IPv4 also where it came through a dual-stack socket.
    pub fn peer(&self) -> std::net::SocketAddr {
        self.0.life.peer
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
