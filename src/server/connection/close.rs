//! How a connection ends after its service: by the lingering close, or by the delivery of what a failed service has
//! written.
//!
//! A close while the client still sends is a reset, and a reset can destroy bytes that the client has not read. When a
//! process ends, and its container's network with it, undelivered bytes are lost. So the stream stays open until neither
//! can happen.

use crate::server::connection::stream::Stream;
use std::{io, time::Duration};
use tokio::time::{Instant, sleep};

/// The first and the longest pause between two looks at the send queue. The system has no event for it.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Sends FIN and returns when the connection may be closed: the client's system has acknowledged every byte and the FIN,
/// and the client has sent its own FIN. Once every byte is acknowledged, the client has `linger` (of the settings) for the
/// rest. What it sends meanwhile is read and discarded.
///
/// While bytes are owed this waits without a limit. The deadline, the idle timeout and the Worker's look for vanished
/// clients bound it from outside.
///
/// # Errors
/// If the client has reset the connection.
pub(crate) async fn lingering_close(stream: &Stream) -> io::Result<()> {
    stream.finish()?;
    // When all connections stop at once, the FIN of a client that is near comes while the others stop: no look is in vain.
    tokio::task::yield_now().await;
    let mut look = FIRST_LOOK;
    let mut delivered_at = None;
    loop {
        let client_done = stream.discard()?;
        // The FIN is acknowledged last, and counts as one byte. What is delivered stays delivered.
        let owed = stream.unacknowledged()?;
        if owed == 0 && client_done {
            break;
        }
        if owed <= 1 {
            delivered_at.get_or_insert_with(Instant::now);
        }
        let left = delivered_at.map(|at| stream.record.linger().saturating_sub(at.elapsed()));
        let pause = match (owed, left) {
            (0, Some(left)) => left,
            (_, Some(left)) => left.min(look),
            (_, None) => look,
        };
        if pause.is_zero() {
            break;
        }
        tokio::select! {
            () = sleep(pause) => look = LAST_LOOK.min(look * 2),
            more = stream.more_to_discard(), if !client_done => {
                more?;
                // A client that goes on sending must not keep the thread from its other connections.
                tokio::task::yield_now().await;
            }
        }
    }
    stream.earned_clean_end()
}

/// Returns when the client's system has acknowledged every byte, however long that takes. What the client sends meanwhile is
/// read and discarded: a client that sends everything before it reads would otherwise wait for the server for ever.
///
/// # Errors
/// If the client has reset the connection.
pub(crate) async fn deliver(stream: &Stream) -> io::Result<()> {
    let mut look = FIRST_LOOK;
    loop {
        let client_done = stream.discard()?;
        if stream.unacknowledged()? == 0 {
            return Ok(());
        }
        tokio::select! {
            () = sleep(look) => look = LAST_LOOK.min(look * 2),
            more = stream.more_to_discard(), if !client_done => {
                more?;
                tokio::task::yield_now().await;
            }
        }
    }
}
