//! The idle timeout.

use crate::{
    decisions::connection::{ConnectionState, Ending},
    server::connection::stream::Link,
};
use std::{future::pending, rc::Rc, time::Duration};
use tokio::time::sleep;

/// Ends the input of a connection on which nothing has moved for `timeout`; resolves if after that nothing moves either.
pub(super) async fn watch_idle(link: Rc<Link>, timeout: Duration) {
    let mut owed = 0;
    loop {
        let quiet = link.active().elapsed();
        if quiet < timeout {
            sleep(timeout - quiet).await;
            continue;
        }
        // What the client takes out of the system's send queue moves too, and only this tells: it is given another
        // `timeout` as long as the queue is not at a standstill.
        let still_owed = link.unacknowledged().unwrap_or(0);
        if still_owed > 0 && still_owed != std::mem::replace(&mut owed, still_owed) {
            link.touch();
            continue;
        }
        match link.state() {
            ConnectionState::Waiting => {}
            ConnectionState::Serving | ConnectionState::Farewell(None) => link.end_input(Ending::Idle),
            ConnectionState::Draining(Ending::Idle) | ConnectionState::Farewell(Some(Ending::Idle)) => {
                // Who has everything is waited for by `linger`.
                if !link.is_lingering() {
                    return;
                }
            }
            // From here on the deadline of the stop is what counts.
            ConnectionState::Draining(Ending::Stopped) | ConnectionState::Farewell(Some(Ending::Stopped)) => {
                pending().await
            }
        }
        link.touch();
    }
}
