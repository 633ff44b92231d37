//! Answers over HTTP what a server lets be seen: the live page, health, metrics, events.
//!
//! The Admin is a sibling of the Supervisor on a thread of its own, first up and last down. No actor knows of it. If it
//! crashes, the echo goes on. Relies on a [`Watch`] alone, which asks and changes nothing of its server.

mod answer;
mod ending;
mod events;
mod health;
mod host;
mod in_force;
mod metrics;
mod page;
mod process;
mod query;
mod routes;
mod samples;
mod serve;

pub use in_force::InForce;

use crate::{
    admin::{ending::ending, routes::Site},
    decisions::restart_limit::RestartLimit,
    error::Error,
    logging::contained,
    resources,
    server::watch::Watch,
    settings::AdminSettings,
};
use actix::{Arbiter, ArbiterHandle, System};
use slog::{Discard, Logger, o};
use socket2::SockRef;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

/// A client of the Admin that takes in nothing for so long is let go.
const SILENCE: Duration = Duration::from_secs(30);
/// What the kernel keeps for a client that is slow to take it in. By itself it would keep megabytes.
const UNSENT: usize = 128 * 1024;
/// How long the Admin waits for its clients to take in the report.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long after an abort the Admin goes at the latest, so that the process ends within a second of it.
const AFTER_ABORT: Duration = Duration::from_millis(950);
/// The Admin is given up at more crashes than this…
const MAX_RESTARTS: usize = 5;
/// …within this time.
const RESTART_WINDOW: Duration = Duration::from_secs(10);
/// How long the first restart of several waits. Each one more waits longer by as much.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Shows a server over HTTP while it runs. Any [`Service`](crate::Service) gets page, health and metrics by two lines:
///
/// ```
/// use supervised_echo::{Admin, Echo, Server, Settings};
///
/// # actix::System::new().block_on(async {
/// let mut settings = Settings::default();
/// settings.listen.address = ([127, 0, 0, 1], 0).into();
/// settings.admin.address = Some(([127, 0, 0, 1], 0).into());
/// let server = Server::bind(settings.clone(), Echo)?;
/// let admin = Admin::bind(&settings.admin, server.watch())?;
/// println!("http://{}/", admin.address().expect("it is on"));
/// # server.handle().stop();
/// let report = admin.during(server.run()).await?;
/// assert_eq!(report.forced, 0);
/// # Ok::<(), supervised_echo::Error>(())
/// # })?;
/// # Ok::<(), supervised_echo::Error>(())
/// ```
#[derive(Debug)]
pub struct Admin {
    /// `None` if it is off.
    bound: Option<Bound>,
    hosts: Vec<String>,
    watch: Watch,
    in_force: InForce,
    log: Logger,
}

#[derive(Debug)]
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    arbiter: Arbiter,
    end: EndOfThread,
}

/// Ends the thread also where the Admin is dropped before its end.
#[derive(Debug)]
struct EndOfThread(ArbiterHandle);

impl Drop for EndOfThread {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Admin {
    /// Binds the address and starts the thread. Without an address in the settings the Admin is off and does nothing.
    ///
    /// Its socket has none of the options of the server's.
    ///
    /// # Errors
    /// [`Error::Bind`] if the address cannot be had; [`Error::NoSystem`] where there is no actix [`System`];
    /// [`Error::Thread`], [`Error::Memory`] or [`Error::Runtime`] if the thread cannot be started.
    pub fn bind(settings: &AdminSettings, watch: Watch) -> Result<Self, Error> {
        let bound = settings.address.map(Bound::at).transpose()?;
        let (hosts, log) = (settings.hosts.clone(), Logger::root(Discard, o!()));
        Ok(Self { bound, hosts, watch, in_force: InForce::default(), log })
    }

    /// Logs to `log`; without it nothing is logged.
    #[must_use]
    pub fn with_log(self, log: Logger) -> Self {
        Self { log: contained(log), ..self }
    }

    /// Shows these settings too.
    #[must_use]
    pub fn with_settings(self, in_force: InForce) -> Self {
        Self { in_force, ..self }
    }

    /// The address it listens on; `None` if it is off.
    pub fn address(&self) -> Option<SocketAddr> {
        self.bound.as_ref().map(|bound| bound.address)
    }

    /// Answers while `server` runs, which is the future of [`Server::run`](crate::Server::run). When that is over, those
    /// that watch hear the report, and only then the Admin goes.
    pub async fn during<T>(self, server: impl Future<Output = T>) -> T {
        self.serve_during(server, serve::serve).await
    }

    async fn serve_during<T, F: Future<Output = ()> + 'static>(
        self,
        server: impl Future<Output = T>,
        serve: impl Fn(Rc<tokio::net::TcpListener>, Arc<Site>, Logger) -> F + Send + 'static,
    ) -> T {
        let watch = self.watch.clone();
        let Some(Bound { listener, address, arbiter, end }) = self.bound else { return server.await };
        slog::info!(self.log, "admin listening"; "address" => %address);
        let ((ends, ending), (ended, has_ended)) = (ending(), oneshot::channel::<()>());
        let site = Arc::new(Site::new(self.watch, self.hosts, self.in_force, ending));
        arbiter.spawn_fn(move || {
            actix_rt::spawn(async move {
                match tokio::net::TcpListener::from_std(listener).map(Rc::new) {
                    Ok(listener) => {
                        supervise(|| serve(listener.clone(), site.clone(), self.log.clone()), &self.log).await;
                    }
                    Err(error) => slog::error!(self.log, "admin given up"; "reason" => %error),
                }
                drop(ended);
            });
        });
        let result = server.await;
        drop(ends);
        let patience = watch.aborting_for().map_or(FAREWELL, |time| AFTER_ABORT.saturating_sub(time));
        let in_time = timeout(patience, has_ended).await.is_ok();
        drop(end);
        if in_time {
            let _ = arbiter.join();
        }
        result
    }
}

impl Bound {
    fn at(address: SocketAddr) -> Result<Self, Error> {
        System::try_current().ok_or(Error::NoSystem)?;
        let listen = || -> io::Result<_> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            // A client takes these over from the listener.
            let socket = SockRef::from(&listener);
            socket.set_tcp_user_timeout(Some(SILENCE))?;
            socket.set_send_buffer_size(UNSENT)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = listen().map_err(|source| Error::Bind { address, source })?;
        resources::memory()?;
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let arbiter = Arbiter::try_with_tokio_rt(runtime).map_err(resources::no_thread)?;
        Ok(Self { listener, address, end: EndOfThread(arbiter.handle()), arbiter })
    }
}

/// Runs what `serve` gives, and again when it crashes, until it ends by itself or has crashed too often.
async fn supervise<F: Future<Output = ()> + 'static>(serve: impl Fn() -> F, log: &Logger) {
    let (started, mut limit) = (Instant::now(), RestartLimit::new(MAX_RESTARTS, RESTART_WINDOW));
    while actix_rt::spawn(serve()).await.is_err() {
        let Some(restarts) = limit.restart(started.elapsed()) else {
            return slog::error!(log, "admin given up"; "reason" => "panic");
        };
        sleep(BACK_OFF * restarts as u32).await;
        slog::warn!(log, "admin restarted"; "reason" => "panic", "restarts" => restarts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Echo, Server, Settings,
        decisions::{
            admission::Census,
            stop::{Stop, StopReason},
        },
        server::testing::watched,
        testing::{self, logged},
    };
    use std::{cell::Cell, future::pending};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    const ANYWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    fn settings() -> AdminSettings {
        AdminSettings { address: Some(ANYWHERE.into()), ..Settings::default().admin }
    }

    #[actix::test]
    async fn clients_that_never_end_get_a_second_and_after_an_abort_what_is_left_of_it() {
        for aborted in [false, true] {
            let watched = watched();
            watched.begin(StopReason::Handle, Census { connections: 0, pending: 0 }, Duration::ZERO, true);
            let admin = Admin::bind(&settings(), Watch::new(watched.watched())).unwrap();
            tokio::time::pause();
            if aborted {
                watched.step(Stop::Abort);
            }
            let stop = tokio::time::Instant::now();
            let server = sleep(Duration::from_millis(600));
            admin.serve_during(server, |_, _, _| pending()).await;
            // Timers are exact to a few milliseconds.
            assert_eq!(stop.elapsed().as_millis() / 50 * 50, if aborted { 950 } else { 1600 });
            tokio::time::resume();
        }
    }

    #[actix::test]
    async fn while_the_admin_crashes_and_is_given_up_the_echo_goes_on_and_ends_as_ever() {
        let ((log, mut told), mut settings) = (testing::log(), Settings::default());
        settings.listen.address = ANYWHERE.into();
        let server = Server::bind(settings, Echo).unwrap();
        let (address, handle) = (server.address(), server.handle());
        let admin = Admin::bind(&self::settings(), server.watch()).unwrap().with_log(log);
        let asked = admin.address().unwrap();
        // Each client of this Admin makes it panic.
        let serve = |listener: Rc<tokio::net::TcpListener>, _, _| async move {
            let _client = listener.accept().await.unwrap();
            panic!("told to");
        };
        let running = actix_rt::spawn(admin.serve_during(server.run(), serve));
        let mut client = TcpStream::connect(address).await.unwrap();
        for outcome in [["admin restarted"; MAX_RESTARTS].as_slice(), &["admin given up"]].concat() {
            let _crashes = TcpStream::connect(asked).await.unwrap();
            logged(&mut told, outcome).await;
            client.write_all(b"a").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'a');
        }
        handle.stop();
        assert!(client.read_u8().await.is_err());
        drop(client);
        let report = running.await.unwrap().unwrap();
        assert_eq!((report.acknowledged, report.exit_code()), (1, 0));
    }

    #[actix::test]
    async fn an_admin_that_crashes_is_restarted_until_that_is_too_often() {
        tokio::time::pause();
        for (crashes, told) in [
            (0, vec![]),
            (MAX_RESTARTS, vec!["admin restarted"; MAX_RESTARTS]),
            (usize::MAX, [vec!["admin restarted"; MAX_RESTARTS], vec!["admin given up"]].concat()),
        ] {
            let (tries, (log, mut heard)) = (Rc::new(Cell::new(0)), testing::log());
            supervise(
                || {
                    let tries = tries.clone();
                    async move {
                        tries.set(tries.get() + 1);
                        assert!(tries.get() > crashes, "told to");
                    }
                },
                &log,
            )
            .await;
            assert_eq!(std::iter::from_fn(|| heard.try_recv().ok()).collect::<Vec<_>>(), told);
        }
    }
}
