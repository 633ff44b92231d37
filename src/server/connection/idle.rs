//! The idle timeout.
//!
//! It ends the input of a silent connection, as a stop does, and relies on the stream to note when a byte moves.

use crate::{
    decisions::connection::{ConnectionState, Ending},
    server::connection::stream::Stream,
};
use std::{future::pending, rc::Rc, time::Duration};
use tokio::time::sleep;

/// Ends the input of a connection when no byte moves for `timeout` while its service waits for the client. Resolves if no
/// byte moves after that either.
pub(super) async fn watch_idle(stream: Rc<Stream>, timeout: Duration) {
    // A timer counts in milliseconds. With less this could go round and round without a wait.
    let timeout = timeout.max(Duration::from_millis(1));
    let mut owed = 0;
    loop {
        let quiet = stream.active().elapsed();
        if quiet < timeout {
            sleep(timeout - quiet).await;
            continue;
        }
        // Bytes that the client takes out of the system's send queue move too, and only the queue tells of them. While the
        // queue shrinks, the connection gets another `timeout`.
        let still_owed = stream.unacknowledged().unwrap_or(0);
        if still_owed > 0 && still_owed != std::mem::replace(&mut owed, still_owed) {
            stream.touch();
            continue;
        }
        let in_service = matches!(stream.state(), ConnectionState::Serving | ConnectionState::Draining(Ending::Idle));
        if in_service && !stream.waits_for_client().await {
            // The service is at work, so the client is not idle.
            stream.touch();
            continue;
        }
        match stream.state() {
            ConnectionState::Waiting => {}
            ConnectionState::Serving | ConnectionState::Closing(None) => stream.end_input(Ending::Idle),
            ConnectionState::Draining(Ending::Idle) | ConnectionState::Closing(Some(Ending::Idle)) => {
                // Everything is delivered, so `linger` bounds the wait for the client.
                if !stream.is_lingering() {
                    return;
                }
            }
            ConnectionState::Failing => return,
            // From here on the deadline of the stop counts.
            ConnectionState::LastWord
            | ConnectionState::Draining(Ending::Stopped)
            | ConnectionState::Closing(Some(Ending::Stopped)) => pending().await,
        }
        stream.touch();
    }
}
