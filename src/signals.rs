//! Turns SIGTERM and SIGINT into [`Shutdown`](crate::stop::Shutdown) messages.
//!
//! From their registration on the signals do nothing by themselves: a second one only ends a stop by force because it is
//! forwarded too.

use crate::{decisions::stop::StopReason, error::Error, stop::Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The process's SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    sigterm: Signal,
    sigint: Signal,
}

impl Signals {
    /// Takes both signals over; best before the listening socket is bound, so that none can hit a server half started.
    ///
    /// # Errors
    /// [`Error::Signals`] if the system does not allow it.
    pub fn register() -> Result<Self, Error> {
        let register = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self { sigterm: register(SignalKind::terminate())?, sigint: register(SignalKind::interrupt())? })
    }

    /// Forwards every signal to a server or a client, as long as the calling thread's [`System`](actix::System) runs.
    pub fn forward_to(mut self, handle: Handle) {
        actix_rt::spawn(async move {
            loop {
                let reason = tokio::select! {
                    Some(()) = self.sigterm.recv() => StopReason::Sigterm,
                    Some(()) = self.sigint.recv() => StopReason::Sigint,
                    else => return,
                };
                handle.shutdown(reason);
            }
        });
    }
}
