//! The protocol spoken over one connection. It is the one thing that a user of this library writes.
//!
//! Relies on the connection to send FIN, to linger and to close; a service only reads, writes and returns.

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
///   With `connection.last_word` the input ends after the client's next bytes, if nothing was due: see
///   [`ConnectionSettings::last_word`](crate::settings::ConnectionSettings::last_word).
/// * [`AtStop::Notify`] is right for requests, frames and TLS: the input stays open, [`Socket::stopping`] resolves, and the
///   service finishes what it is at and returns. One that prefers to read gets what had arrived by then before it sees the stop,
///   and sees it also if its client sends on without a pause.
///
/// The server sends FIN, waits for the client and closes. At the deadline of the stop it resets what is left.
///
/// How it ends:
/// * `Ok(())`: all that was written is delivered, then the connection is closed cleanly;
/// * `Err(_)`: all that was written is delivered, then the connection is reset, so that the client does not take it for a
///   clean end. The close reason is `failed`, and the error is logged;
/// * a panic: the connection is reset at once, and counted as a crash. No other connection notices.
///
/// Its future may be dropped at any `await`: when the deadline of a stop comes, or when the client has vanished.
///
/// A connection is idle while its service waits for the client, to send or to read, and no byte moves. While the service is
/// at work or waits for something else, `connection.idle_timeout` does not count.
///
/// It runs on the thread of its connection, which it shares with thousands of others. It must not block. If it works for
/// long without waiting, it should [yield](tokio::task::yield_now) now and then.
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
    /// An error that keeps the conversation from its end. The connection closes with reason `failed`, or with `reset` if
    /// the client had reset it.
    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>>;
}

/// Lets a program serve a service and keep it at hand.
impl<S: Service> Service for Arc<S> {
    const AT_STOP: AtStop = S::AT_STOP;

    fn serve(&self, socket: &mut Socket) -> impl Future<Output = io::Result<()>> {
        S::serve(self, socket)
    }
}
