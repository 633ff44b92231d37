//! How a connection comes to a clean end: FIN, and then no close before the client has everything.
//!
//! A close while the client still sends is a reset, and a reset can destroy what it has not read; a process that ends, and
//! with it a container's network, takes along what was not delivered. So the stream stays open until neither can happen.

use crate::server::connection::stream::Stream;
use std::{io, time::Duration};
use tokio::time::{Instant, sleep};

/// Looks at the send queue, for which the system has no event, are this far apart at first, and at last.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Sends FIN and returns when the connection may be closed: the client's system has acknowledged every byte, and the client
/// has sent its FIN, or has had `linger` (of the settings) for it. What it sends meanwhile is read and discarded.
///
/// While bytes are owed it stays, however long: it is the caller who knows a deadline.
pub(crate) async fn lingering_close(stream: &Stream) -> io::Result<()> {
    stream.finish()?;
    let mut look = FIRST_LOOK;
    let mut delivered_at = None;
    loop {
        let client_done = stream.discard()?;
        // The FIN is the last to be acknowledged, and what is delivered stays delivered.
        let delivered = delivered_at.is_some() || stream.unacknowledged()? <= 1;
        let pause = match (delivered, client_done) {
            (true, true) => break,
            (true, false) => {
                let delivered_at = delivered_at.get_or_insert_with(Instant::now);
                stream.record.linger().saturating_sub(delivered_at.elapsed())
            }
            (false, _) => look,
        };
        if pause.is_zero() {
            break;
        }
        tokio::select! {
            () = sleep(pause) => look = LAST_LOOK.min(look * 2),
            more = stream.more_to_discard(), if !client_done => {
                more?;
                // A client that goes on sending must not keep the others on this thread from their turn.
                tokio::task::yield_now().await;
            }
        }
    }
    stream.earned_clean_end()
}
