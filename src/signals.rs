//! Turns the signals that stop a program into [`Shutdown`](crate::stop::Shutdown) messages, and logs those that it ignores.
//!
//! Once registered, the signals do nothing by themselves. A second one ends a stop by force only because it is forwarded
//! too. SIGPIPE is ignored by Rust itself.

use crate::{decisions::stop::StopReason, error::Error, logging::contained, stop::StopHandle};
use slog::{Discard, Logger, o};
use std::{
    fmt,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal means to a server and to a client.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Stop(StopReason),
    /// It does nothing but log this name. By default the signal would kill the process.
    Ignored(&'static str),
    /// Nothing, and no record: it is the log's own file that has come to its limit.
    Unheard,
}

/// The process's signals: SIGTERM, SIGINT, SIGQUIT and SIGHUP stop it, SIGUSR1 and SIGUSR2 are ignored.
#[derive(Debug)]
pub struct Signals {
    signals: Vec<(Signal, Meaning)>,
    reload: Option<Reload>,
    log: Logger,
}

/// What a SIGHUP does instead of stopping.
struct Reload(Box<dyn FnMut() + Send>);

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

impl Signals {
    /// Takes the signals over. Call it before the listening socket is bound, so that no signal can hit a server half
    /// started.
    ///
    /// A SIGHUP that was ignored when the process began stays ignored, as `nohup` wants it.
    ///
    /// # Errors
    /// [`Error::Signals`] if the system does not allow it.
    pub fn register() -> Result<Self, Error> {
        let mut meanings = vec![
            (SignalKind::terminate(), Meaning::Stop(StopReason::Sigterm)),
            (SignalKind::interrupt(), Meaning::Stop(StopReason::Sigint)),
            (SignalKind::quit(), Meaning::Stop(StopReason::Sigquit)),
            (SignalKind::user_defined1(), Meaning::Ignored("SIGUSR1")),
            (SignalKind::user_defined2(), Meaning::Ignored("SIGUSR2")),
            (SignalKind::from_raw(libc::SIGXFSZ), Meaning::Unheard),
        ];
        if !hangup_is_ignored() {
            meanings.push((SignalKind::hangup(), Meaning::Stop(StopReason::Sighup)));
        }
        let registered = meanings.into_iter().map(|(kind, meaning)| Ok((signal(kind)?, meaning)));
        let signals = registered.collect::<io::Result<_>>().map_err(Error::Signals)?;
        Ok(Self { signals, reload: None, log: Logger::root(Discard, o!()) })
    }

    /// Logs the ignored signals to `log`.
    #[must_use]
    pub fn with_log(self, log: Logger) -> Self {
        Self { log: contained(log), ..self }
    }

    /// Makes SIGHUP reload the settings instead of stopping: `reload` is called for each one, on the calling thread.
    #[must_use]
    pub fn with_reload(self, reload: impl FnMut() + Send + 'static) -> Self {
        Self { reload: Some(Reload(Box::new(reload))), ..self }
    }

    /// Forwards every signal that stops to the handle of a server or a client, as long as the calling thread's runtime runs.
    pub fn forward_to(mut self, handle: impl Into<StopHandle>) {
        let handle = handle.into();
        // Not `actix_rt::spawn`, which panics without a `System`. `Server::run` has an error for that case.
        tokio::spawn(async move {
            loop {
                match poll_fn(|cx| self.poll_heard(cx)).await {
                    Meaning::Stop(StopReason::Sighup) if let Some(Reload(reload)) = &mut self.reload => {
                        // If it ended this task, no signal would do anything any more.
                        if catch_unwind(AssertUnwindSafe(reload)).is_err() {
                            slog::error!(self.log, "settings not reloaded"; "reason" => "the reload panicked");
                        }
                    }
                    Meaning::Stop(reason) => handle.shutdown(reason),
                    Meaning::Unheard => {}
                    Meaning::Ignored(name) => slog::info!(self.log, "signal ignored"; "signal" => name),
                }
            }
        });
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Meaning> {
        let mut signals = self.signals.iter_mut();
        let heard = signals.find_map(|(signal, meaning)| signal.poll_recv(cx).is_ready().then_some(*meaning));
        heard.map_or(Poll::Pending, Poll::Ready)
    }
}

#[expect(unsafe_code, reason = "no library tells a disposition")]
fn hangup_is_ignored() -> bool {
    // SAFETY: without a new action `sigaction` only writes the present one, and there is room for it.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use rustix::process::{Signal, getpid, kill_process};

    #[actix::test]
    async fn a_reload_that_panics_leaves_the_other_signals_heard() {
        let (log, mut logged) = testing::log();
        // Who runs the tests may have SIGHUP ignored.
        let of = |kind, meaning| (signal(kind).unwrap(), meaning);
        let signals = vec![
            of(SignalKind::user_defined2(), Meaning::Stop(StopReason::Sighup)),
            of(SignalKind::user_defined1(), Meaning::Ignored("SIGUSR1")),
        ];
        let signals = Signals { signals, reload: None, log }.with_reload(|| panic!("told to"));
        let (handle, _orders) = StopHandle::new();
        signals.forward_to(handle);
        for (sent, message) in [(Signal::USR2, "settings not reloaded"), (Signal::USR1, "signal ignored")] {
            kill_process(getpid(), sent).unwrap();
            assert_eq!(logged.recv().await.as_deref(), Some(message));
        }
    }
}
