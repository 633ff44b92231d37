//! The PROXY header of a connection: it is taken away before the service begins, and tells the client's address.
//!
//! Until it is whole its bytes stay in the kernel, so a connection holds no buffer for them. The connection's own task awaits it,
//! so a slow client holds up no other.

use crate::{
    decisions::{connection::CloseReason, proxy_header::More},
    server::connection::stream::Stream,
};
use std::{io, time::Duration};
use tokio::time::timeout;

/// How long a client may take for its header.
const LIMIT: Duration = Duration::from_secs(5);

/// Awaits the header and takes it away. Gives the close reason if the connection is to be reset.
pub(super) async fn take_header(stream: &Stream) -> Option<CloseReason> {
    let taken = match timeout(LIMIT, stream.take_header()).await {
        Ok(taken) => taken,
        Err(_) => stream.try_header(More::Late).map(|taken| taken.map(drop)),
    };
    match taken {
        Ok(Ok(())) => None,
        Ok(Err(refusal)) => {
            stream.record.error.set(Some(io::Error::other(refusal)));
            Some(CloseReason::Header)
        }
        Err(_) => Some(CloseReason::Reset),
    }
}
