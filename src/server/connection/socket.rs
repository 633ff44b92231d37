//! A connection as its service sees it.
//!
//! Relies on its `Stream` to end the input at a stop and to count the bytes; this type gives it tokio's traits.

use crate::{
    decisions::connection::Ending,
    server::connection::{
        halves::{self, OwnedReadHalf, OwnedWriteHalf},
        stream::Stream,
    },
};
use slog::{Logger, o};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A service's side of one connection: bytes in, bytes out, with the end of the input where a stop puts it.
///
/// Read and write it with tokio's [`AsyncRead`] and [`AsyncWrite`] (both halves at once: [`tokio::io::split`], or in tasks of
/// their own: [`split_owned`](Self::split_owned)), or, to hold no buffer while nothing comes, with [`readable`](Self::readable)
/// and [`try_read`](Self::try_read).
pub struct Socket(pub(crate) Rc<Stream>);

impl Socket {
    /// The number of this connection in the log.
    pub fn connection(&self) -> u64 {
        self.0.record.connection().get()
    }

    /// The client's address, IPv4 also where it came through a dual-stack socket. Where a balancer tells of its client in a PROXY
    /// header, it is that client's.
    pub fn peer(&self) -> SocketAddr {
        self.0.record.peer()
    }

    /// The address at which the client has reached the server, IPv4 also where it came through a dual-stack socket.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// A logger of the server's log whose records carry this connection's number and its client's address, as the server's own
    /// do. Each call makes a new one.
    ///
    /// ```
    /// # use supervised_echo::Socket;
    /// use supervised_echo::slog;
    ///
    /// async fn order(socket: &mut Socket, item: u32) {
    ///     slog::info!(socket.log(), "ordered"; "item" => item);
    /// }
    /// ```
    pub fn log(&self) -> Logger {
        let record = &self.0.record;
        record.context.log.new(o!("connection" => record.connection().get(), "peer" => record.peer().to_string()))
    }

    /// Why the server wants the service to end, as soon as it does. If the input ends and this is `None`, the client ended
    /// it.
    pub fn ending(&self) -> Option<Ending> {
        self.0.state().ending()
    }

    /// Resolves when the server wants the service to end ([`ending`](Self::ending) gives the reason), or when the
    /// connection is over.
    ///
    /// It borrows nothing, so it can be waited for beside a read or a write, and in another task. A service that is a function
    /// over any stream takes it as a second argument. A test gives it [`pending()`](std::future::pending) for no stop and
    /// [`ready(())`](std::future::ready) for a stop that has come already. In that case it writes the requests beforehand:
    /// a service ends when it is to stop and finds nothing to read.
    ///
    /// ```
    /// use std::{future::{pending, ready}, io, pin::pin};
    /// use supervised_echo::{AtStop, Service, Socket};
    /// use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    ///
    /// /// Answers every byte with its successor, and ends between two of them.
    /// struct Next;
    ///
    /// impl Service for Next {
    ///     const AT_STOP: AtStop = AtStop::Notify;
    ///
    ///     async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
    ///         let stopping = socket.stopping();
    ///         next(socket, stopping).await
    ///     }
    /// }
    ///
    /// async fn next(mut stream: impl AsyncRead + AsyncWrite + Unpin, stopping: impl Future<Output = ()>) -> io::Result<()> {
    ///     let (mut byte, mut stopping) = ([0], pin!(stopping));
    ///     loop {
    ///         let read = tokio::select! {
    ///             biased; // what has arrived is answered first
    ///             read = stream.read(&mut byte) => read?,
    ///             () = &mut stopping => 0,
    ///         };
    ///         if read == 0 {
    ///             return Ok(()); // the client has ended its input, or the server stops
    ///         }
    ///         stream.write_all(&[byte[0].wrapping_add(1)]).await?;
    ///     }
    /// }
    ///
    /// #[tokio::main(flavor = "current_thread")] // in your tests: #[tokio::test]
    /// async fn main() -> io::Result<()> {
    ///     let (mut client, server) = tokio::io::duplex(64);
    ///     client.write_all(b"HAL").await?;
    ///     next(server, ready(())).await?;
    ///     let mut heard = String::new();
    ///     client.read_to_string(&mut heard).await?;
    ///     assert_eq!(heard, "IBM");
    ///
    ///     let (mut client, server) = tokio::io::duplex(64);
    ///     client.shutdown().await?;
    ///     next(server, pending()).await // it ends with its client
    /// }
    /// ```
    pub fn stopping(&self) -> impl Future<Output = ()> + use<> {
        self.0.until(|stream| stream.state().ending().is_some())
    }

    /// The two directions, for tasks of their own on this thread (`actix_rt::spawn`, `tokio::task::spawn_local`). Use each
    /// direction in one place at a time: while a half is in use, do not use the `Socket`.
    ///
    /// The connection lasts as long as its service. When the service has returned, its halves give
    /// [`NotConnected`](io::ErrorKind::NotConnected), also to a task that waits for them. So a service waits for its tasks.
    ///
    /// ```
    /// # use std::io;
    /// # use supervised_echo::{Service, Socket};
    /// /// Echoes from a task of its own.
    /// struct InATask;
    ///
    /// impl Service for InATask {
    ///     async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
    ///         let (mut from, mut to) = socket.split_owned();
    ///         let copying = actix_rt::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
    ///         copying.await?.map(drop) // a task that panics is an error here
    ///     }
    /// }
    /// ```
    pub fn split_owned(&mut self) -> (OwnedReadHalf, OwnedWriteHalf) {
        halves::split(&self.0)
    }

    /// Waits until [`try_read`](Self::try_read) may give bytes or the end of the input. Only one task at a time can wait:
    /// of several, only the last is woken.
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
        self.0.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    /// No bytes are held back, so there is nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends FIN. The client sees the end, and may go on sending. Without this call FIN is sent when the service returns.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.send_fin())
    }
}
