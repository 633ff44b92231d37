//! What a program may do with a server from outside: stop it, abort it, and ask where it stands.
//!
//! Asks no actor. So the answer comes also while a Worker is stuck, and after the server has ended.

use crate::{
    server::{
        messages::Reload,
        watch::{Watched, tree::Phase},
    },
    settings::Settings,
    stop::StopHandle,
};
use std::{convert::Infallible, fmt, sync::Arc};
use tokio::sync::mpsc;

/// Stops a [`Server`](crate::Server), and tells where it stands; can be cloned and sent to any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    stop: StopHandle,
    reload: mpsc::UnboundedSender<Reload>,
    watched: Arc<Watched>,
}

/// Where a server stands, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// How far it has come.
    pub phase: Phase,
    /// Connections that have a slot. During a stop also clients that it has taken in from the backlog.
    pub served: usize,
    /// Connections that wait for a slot. During a stop those that waited when it began and still drain.
    pub waiting: usize,
}

impl Handle {
    pub(super) fn new(stop: StopHandle, reload: mpsc::UnboundedSender<Reload>, watched: Arc<Watched>) -> Self {
        Self { stop, reload, watched }
    }

    /// Begins the graceful stop, with what `shutdown_timeout` allows; with a `lame_duck`, the server first serves on for that time.
    /// Repeating it changes nothing: only a signal or an [`abort`](Self::abort) ends a lame duck early.
    ///
    /// [`Server::run`](crate::Server::run) returns when it is done.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Ends the stop by force now, as a second signal does. If no stop is under way, it begins one and forces it at once.
    /// Each connection that is still open is reset and counts as forced, and so does each client that waits in the backlog.
    /// Repeating it changes nothing.
    ///
    /// [`Server::run`](crate::Server::run) returns when it is done: within a second, also if a Worker is stuck.
    pub fn abort(&self) {
        self.stop.abort();
    }

    /// Changes the settings while the server runs.
    ///
    /// The caps change at once: slots that are new go to the clients that wait longest, and a lowered cap throws no client out.
    /// `idle_timeout`, `linger` and `last_word` hold for connections from then on; `lame_duck`, `shutdown_timeout`, `max_restarts` and
    /// `restart_window` from their next use on. The rest waits for a restart. The log tells what has changed (`settings
    /// reloaded`), and names what waits (`restart needed`). `log.level` and `fault` are for the program to change, as the log and the
    /// service are its own.
    /// A lame duck still serves, and reloads. During a stop nothing changes.
    pub fn reload(&self, settings: Settings) {
        self.reload_with(|| Ok::<_, Infallible>(settings));
    }

    /// As [`reload`](Self::reload), with the settings that `read` gives. If it gives an error or panics, nothing changes, and the log says
    /// why (`settings not reloaded`).
    ///
    /// The server calls `read` on its main thread when it is about to take the settings over. It does not call it during a stop. So
    /// this is the place to change what is the program's own, such as its log's level. A task that it spawns there (`actix::spawn`)
    /// runs when the settings are in force.
    ///
    /// ```
    /// use supervised_echo::{Echo, Server, Settings};
    ///
    /// # let mut settings = Settings::default();
    /// # settings.listen.address = ([127, 0, 0, 1], 0).into();
    /// # actix::System::new().block_on(async {
    /// let server = Server::bind(settings.clone(), Echo)?;
    /// let handle = server.handle();
    /// handle.reload_with(move || {
    ///     let slots = "16".parse()?; // usually out of a file
    ///     settings.supervisor.max_connections = slots;
    ///     Ok::<_, std::num::ParseIntError>(settings)
    /// });
    /// # handle.stop();
    /// # server.run().await?;
    /// # Ok::<(), supervised_echo::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn reload_with<E: fmt::Display>(&self, read: impl FnOnce() -> Result<Settings, E> + Send + 'static) {
        let read = || read().map_err(|error| error.to_string());
        // If the other end is gone, the server has ended.
        let _ = self.reload.send(Reload(Box::new(read)));
    }

    /// Where the server stands. The answer comes at once.
    pub fn status(&self) -> Status {
        let (served, waiting) = self.watched.gate.occupancy();
        Status { phase: self.watched.phase(), served, waiting }
    }
}

impl From<Handle> for StopHandle {
    fn from(handle: Handle) -> Self {
        handle.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Echo, Server, Settings,
        testing::{log, logged},
    };
    use slog::Logger;
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    fn server(log: Logger) -> Server<Echo> {
        let mut settings = Settings::default();
        settings.listen.address = ([127, 0, 0, 1], 0).into();
        settings.supervisor.workers = 1;
        settings.supervisor.max_connections = 1;
        settings.supervisor.shutdown_timeout = Duration::from_secs(3600);
        settings.connection.linger = Duration::from_secs(3600);
        Server::bind(settings, Echo).unwrap().with_log(log)
    }

    fn status(phase: Phase, served: usize, waiting: usize) -> Status {
        Status { phase, served, waiting }
    }

    #[actix::test]
    async fn a_handle_tells_where_its_server_stands_from_the_bind_to_the_end() {
        let (log, mut told) = log();
        let server = server(log);
        let (address, handle) = (server.address(), server.handle());
        let mut first = TcpStream::connect(address).await.unwrap();
        assert_eq!(handle.status(), status(Phase::Bound, 0, 0), "it is in the backlog");
        let running = actix_rt::spawn(server.run());
        first.write_all(b"a").await.unwrap();
        first.read_u8().await.unwrap();
        assert_eq!(handle.status(), status(Phase::Running, 1, 0));
        let second = TcpStream::connect(address).await.unwrap();
        logged(&mut told, "connection waiting").await;
        assert_eq!(handle.status(), status(Phase::Running, 1, 1));
        handle.stop();
        // Its end comes, but the client keeps its own.
        assert!(first.read_u8().await.is_err());
        assert_eq!(handle.status().phase, Phase::Stopping);
        drop((first, second));
        assert_eq!(running.await.unwrap().unwrap().acknowledged, 2);
        assert_eq!(handle.status(), status(Phase::Stopped, 0, 0));
    }

    #[actix::test]
    async fn a_reload_behind_the_order_to_stop_reads_nothing() {
        for stops_first in [false, true] {
            let (log, mut told) = log();
            let server = server(log);
            let (handle, (read, was_read)) = (server.handle(), oneshot::channel());
            // Both orders wait when the Supervisor starts.
            if stops_first {
                handle.stop();
            }
            handle.reload_with(move || {
                let _ = read.send(());
                Err("told to")
            });
            let running = actix_rt::spawn(server.run());
            logged(&mut told, "settings not reloaded").await;
            assert_eq!(was_read.await.is_err(), stops_first);
            handle.stop();
            assert_eq!(running.await.unwrap().unwrap().forced, 0);
        }
    }

    #[actix::test]
    async fn a_task_that_the_reading_spawns_runs_when_the_settings_are_in_force() {
        let server = server(log().0);
        let (handle, watch, (seen, sees)) = (server.handle(), server.watch(), oneshot::channel());
        let running = actix_rt::spawn(server.run());
        let mut settings = Settings::default();
        settings.supervisor.max_connections = 7;
        handle.reload_with(move || {
            actix_rt::spawn(async move { seen.send(watch.occupancy().max_connections) });
            Ok::<_, Infallible>(settings)
        });
        assert_eq!(sees.await.unwrap(), 7);
        handle.stop();
        running.await.unwrap().unwrap();
    }

    #[test]
    fn a_server_that_cannot_run_or_never_does_has_stopped() {
        for runs in [false, true] {
            let server = server(log().0);
            let handle = server.handle();
            assert_eq!(handle.status().phase, Phase::Bound);
            if runs {
                // There is no actix System here.
                assert!(futures_util::FutureExt::now_or_never(server.run()).unwrap().is_err());
            } else {
                drop(server);
            }
            assert_eq!(handle.status(), status(Phase::Stopped, 0, 0));
        }
    }
}
