//! The idle timeout.

use crate::{
    decisions::connection::{ConnectionState, Ending},
    server::connection::stream::Stream,
};
use std::{future::pending, rc::Rc, time::Duration};
use tokio::time::sleep;

/// Ends the input of a connection on which nothing has moved for `timeout`, while its service waits for the client; resolves
/// if after that nothing moves either.
pub(super) async fn watch_idle(stream: Rc<Stream>, timeout: Duration) {
    let mut owed = 0;
    loop {
        let quiet = stream.active().elapsed();
        if quiet < timeout {
            sleep(timeout - quiet).await;
            continue;
        }
        // What the client takes out of the system's send queue moves too, and only this tells: it is given another
        // `timeout` as long as the queue is not at a standstill.
        let still_owed = stream.unacknowledged().unwrap_or(0);
        if still_owed > 0 && still_owed != std::mem::replace(&mut owed, still_owed) {
            stream.touch();
            continue;
        }
        let in_service = matches!(stream.state(), ConnectionState::Serving | ConnectionState::Draining(Ending::Idle));
        if in_service && !stream.waits_for_client().await {
            // The service is at work: it is not the client that is idle.
            stream.touch();
            continue;
        }
        match stream.state() {
            ConnectionState::Waiting => {}
            ConnectionState::Serving | ConnectionState::Closing(None) => stream.end_input(Ending::Idle),
            ConnectionState::Draining(Ending::Idle) | ConnectionState::Closing(Some(Ending::Idle)) => {
                // A client that has everything is waited for by `linger`.
                if !stream.is_lingering() {
                    return;
                }
            }
            ConnectionState::Failing => return,
            // From here on the deadline of the stop is what counts.
            ConnectionState::Draining(Ending::Stopped) | ConnectionState::Closing(Some(Ending::Stopped)) => {
                pending().await
            }
        }
        stream.touch();
    }
}
