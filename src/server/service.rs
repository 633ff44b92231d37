//! The protocol spoken over one connection: the one thing that a user of this library writes.

use crate::server::connection::socket::Socket;
use std::io;

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
