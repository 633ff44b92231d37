//! The protocol spoken over one connection: the one thing that a user of this library writes.

use crate::server::connection::socket::Socket;
use std::{io, sync::Arc};

/// How a service learns that the server wants it to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// Its input ends after what has arrived.
    EndOfInput,
    /// Its input stays open, and [`Socket::stopping`] resolves.
    Notify,
}

/// A protocol: what is said over one connection, from its first byte to its last.
///
/// The service moves bytes and knows nothing of caps or supervisors. When the server stops, or the connection has been idle
/// for too long, it is to end. [`AT_STOP`](Self::AT_STOP) chooses how it learns of that:
/// * [`AtStop::EndOfInput`], the default, is right for streams of bytes: reads give what had arrived by then and after it
///   `Ok(0)`, as if the client had finished. A service that ends when its input ends drains by itself.
///   [`Socket::ending`] tells the server's end of the input from the client's.
/// * [`AtStop::Notify`] is right for requests, frames and TLS: the input stays open, [`Socket::stopping`] resolves, and the
///   service finishes what it is at and returns. One that prefers to read gets what had arrived by then before it sees the stop,
///   and sees it also if its client sends on without a pause.
///
/// Sending FIN, waiting for the client and closing are done for it. At the deadline of the stop what is left is reset.
///
/// How it ends:
/// * `Ok(())`: all that was written is delivered, then the connection is closed cleanly;
/// * `Err(_)`: all that was written is delivered, then the connection is reset, so that the client does not take it for a
///   clean end. The close reason is `failed`, and the error is logged;
/// * a panic: the connection is reset at once, and counted as a crash. No other connection notices.
///
/// Its future is dropped at whatever it waits for if the deadline of a stop comes, or if the client has gone without a word.
///
/// It is idle while it waits for its client, to send or to read, and nothing moves. While it is at work, or waits for
/// something else, `connection.idle_timeout` does not count.
///
/// It runs on the thread of its connection, among thousands of others. It must not block, and if it goes on for long without
/// waiting, it should [yield](tokio::task::yield_now) now and then.
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
    /// How the service learns that it is to end.
    const AT_STOP: AtStop = AtStop::EndOfInput;

    /// Serves one connection.
    ///
    /// # Errors
    /// What keeps the conversation from its end. The connection closes with reason `failed`, or with `reset` if it was the
    /// client that had reset it.
    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>>;
}

/// For a service that the program keeps at hand while it is served.
impl<S: Service> Service for Arc<S> {
    const AT_STOP: AtStop = S::AT_STOP;

    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>> {
        S::serve(self, socket)
    }
}
