//! The client: one supervisor over its connections, with the server's orders, acknowledgements and roster.
//!
//! All of it runs on the thread that calls it. Each connection is a [`ConnectionActor`]. This module starts it, tells it to
//! stop, waits for it and counts its end.

mod alarm;
mod connect;
mod connection;
mod exchange;
pub mod healthcheck;
mod message;
mod order;
mod outage;
mod progress;
mod record;
pub mod report;
mod run;
mod session;
mod supervisor;
mod tally;
#[cfg(test)]
mod testing;
mod timeline;
mod times;
mod timetable;
mod usage;
mod verify;

use crate::{
    client::{connect::TcpServer, report::ClientReport, run::Run, session::Plan},
    error::Error,
    logging::contained,
    resources,
    settings::{ClientSettings, LogSettings},
    stop::{Shutdown, StopHandle},
};
use actix::prelude::*;
pub use progress::Progress;
use slog::{Discard, Logger, o};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    rc::Rc,
};
use supervisor::{ClientSupervisor, Watcher};
use tokio::sync::{mpsc, oneshot};

/// A client that verifies every byte of every echo.
///
/// ```
/// use supervised_echo::{Client, Echo, Server, Settings, settings::ClientSettings};
///
/// #[actix::main]
/// async fn main() -> Result<(), supervised_echo::Error> {
///     let mut settings = Settings::default();
///     settings.listen.address = ([127, 0, 0, 1], 0).into();
///     let server = Server::bind(settings, Echo)?;
///
///     let mut settings = ClientSettings::default();
///     settings.server.address = server.address().to_string();
///     settings.traffic.messages = 1;
///     let handle = server.handle();
///     let client = async {
///         let report = Client::new(settings).run().await;
///         handle.stop();
///         report
///     };
///     let (served, report) = tokio::join!(server.run(), client);
///     assert_eq!((served?.exit_code(), report?.verified), (0, 1));
///     Ok(())
/// }
/// ```
pub struct Client {
    settings: ClientSettings,
    baseline: Option<ClientReport>,
    watcher: Option<Watcher>,
    orders: (StopHandle, mpsc::UnboundedReceiver<Shutdown>),
    log: Logger,
}

impl Client {
    /// A client that has not started yet.
    pub fn new(settings: ClientSettings) -> Self {
        Self { settings, baseline: None, watcher: None, orders: StopHandle::new(), log: Logger::root(Discard, o!()) }
    }

    /// Logs to `log`; without it nothing is logged.
    #[must_use]
    pub fn with_log(self, log: Logger) -> Self {
        Self { log: contained(log), ..self }
    }

    /// Puts the figures of an earlier report beside those of this run, and holds limits such as `p99 > 1.2x` against them.
    /// Without it such limits are broken.
    #[must_use]
    pub fn with_baseline(self, baseline: ClientReport) -> Self {
        Self { baseline: Some(baseline), ..self }
    }

    /// Tells `watcher` once a second how far the run is, from its third second on. It is called on the thread of the client,
    /// and is to return at once.
    #[must_use]
    pub fn with_progress(self, watcher: impl FnMut(&Progress) + 'static) -> Self {
        Self { watcher: Some(Box::new(watcher)), ..self }
    }

    /// Gives a handle that stops the client from any thread, also before it runs. The client waits for an outstanding echo
    /// for one second at most. Closing the connections may take another second.
    pub fn handle(&self) -> StopHandle {
        self.orders.0.clone()
    }

    /// Sends and verifies until everything is sent or it is stopped. It returns when every connection is closed and has
    /// acknowledged. It needs an actix [`System`], which goes on.
    ///
    /// The report tells what was wrong, lost or unreachable.
    ///
    /// # Errors
    /// [`Error::NoSystem`] where there is no actix [`System`]; [`Error::Supervisor`] if the root of the tree itself crashed.
    pub async fn run(self) -> Result<ClientReport, Error> {
        System::try_current().ok_or(Error::NoSystem)?;
        let ClientSettings { server, client, traffic, verdict, log: LogSettings { level, .. }, .. } = self.settings;
        let id = if client.id.is_empty() { host_name() } else { client.id };
        let log = self.log.new(o!("client" => id.clone()));
        if !traffic.rate.is_empty() && slog::Level::Info.is_at_least(level) {
            // A log that is slower than the rate holds the client up.
            slog::warn!(log, "every echo is logged"; "logged" => level.as_str());
        }
        // Each connection takes a descriptor. If raising the limit fails, the system reports the lack when none is left.
        resources::raise_descriptors();

        let run = Run::new(&traffic).map_err(Error::Runtime)?;
        let tcp = Rc::new(TcpServer::new(server.address.clone()));
        let plan = Plan { id, server: server.address, traffic, connect_timeout: server.connect_timeout };
        let (report_to, report) = oneshot::channel();
        let mut orders = self.orders.1;
        ClientSupervisor::create(|ctx| {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| orders.poll_recv(cx)));
            ClientSupervisor::new(plan, tcp, run, report_to, log.clone()).with_watcher(self.watcher)
        });
        let report = report.await.map_err(|_| Error::Supervisor)?;
        slog::info!(log, "finished"; "sent" => report.sent, "verified" => report.verified, "wrong" => report.wrong,
            "lost" => report.lost);
        let report = ClientReport { run: run_name(), version: env!("CARGO_PKG_VERSION").into(), ..report };
        Ok(report.judged(&verdict.fail_if, self.baseline.as_ref()))
    }
}

/// A name that no other run has, as far as chance goes.
fn run_name() -> String {
    // Each has keys of its own, and their beginning is random.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::testing::{Clients, Scripted, expect_end, plan, receive, scripted, traffic},
        decisions::stop::StopReason,
        settings::TrafficSettings,
        testing::{log, logged},
    };
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc::UnboundedReceiver,
        time::pause as pause_clock,
    };

    struct Bench {
        server: Rc<Scripted>,
        clients: Clients,
        handle: StopHandle,
        log: UnboundedReceiver<String>,
        report: oneshot::Receiver<ClientReport>,
    }

    impl Bench {
        async fn report(self) -> ClientReport {
            self.report.await.expect("it reports")
        }
    }

    fn start(traffic: TrafficSettings) -> Bench {
        pause_clock();
        let ((server, clients), (log, logged)) = (scripted(), log());
        let ((handle, mut orders), (report_to, report)) = (StopHandle::new(), oneshot::channel());
        let run = Run::new(&traffic).unwrap();
        ClientSupervisor::create(|ctx| {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| orders.poll_recv(cx)));
            ClientSupervisor::new(plan(traffic), server.clone(), run, report_to, log)
        });
        Bench { server, clients, handle, log: logged, report }
    }

    fn counts(report: &ClientReport) -> [u64; 5] {
        [report.sent, report.verified, report.wrong, report.lost, report.given_up]
    }

    #[actix::test]
    async fn it_reports_when_every_connection_has_acknowledged() {
        let mut bench = start(TrafficSettings { connections: 3, ..traffic(2) });
        for _ in 0..3 {
            drop(bench.clients.echo(2).await);
        }
        let report = bench.report().await;
        assert_eq!(counts(&report), [6, 6, 0, 0, 0]);
        assert_eq!((report.exit_code(), report.stopped, report.problem()), (0, None, None));
    }

    #[actix::test]
    async fn a_signal_stops_every_connection_and_is_no_failure() {
        let mut bench = start(TrafficSettings { connections: 2, ..traffic(0) });
        let (mut first, mut second) = (bench.clients.accept().await, bench.clients.accept().await);
        receive(&mut first).await;
        receive(&mut second).await;
        bench.handle.shutdown(StopReason::Sigterm);
        logged(&mut bench.log, "stopping").await;
        first.write_all(b"1\n").await.unwrap();
        expect_end(first).await;
        let report = bench.report().await;
        assert_eq!(counts(&report), [1, 1, 0, 0, 1]);
        assert_eq!((report.exit_code(), report.stopped, report.forced), (0, Some(StopReason::Sigterm), false));
        drop(second);
    }

    #[actix::test]
    async fn a_second_signal_gives_up_at_once_with_an_exit_code_of_its_own() {
        let mut bench = start(traffic(0));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        bench.handle.shutdown(StopReason::Sigterm);
        tokio::time::sleep(Duration::from_millis(250)).await;
        let started = tokio::time::Instant::now();
        bench.handle.shutdown(StopReason::Sigint);
        let report = bench.report().await;
        assert!(started.elapsed() < Duration::from_millis(10), "{:?}", started.elapsed());
        assert_eq!(counts(&report), [0, 0, 0, 0, 1]);
        assert_eq!((report.exit_code(), report.stopped, report.forced), (3, Some(StopReason::Sigterm), true));
    }

    #[actix::test]
    async fn an_abort_gives_up_at_once_whether_or_not_a_stop_is_under_way() {
        for stops in [false, true] {
            let mut bench = start(traffic(0));
            let mut stream = bench.clients.accept().await;
            receive(&mut stream).await;
            if stops {
                bench.handle.stop();
            }
            let started = tokio::time::Instant::now();
            bench.handle.abort();
            bench.handle.abort();
            let report = bench.report().await;
            assert!(started.elapsed() < Duration::from_millis(10), "{:?}", started.elapsed());
            assert_eq!(counts(&report), [0, 0, 0, 0, 1]);
            assert_eq!((report.exit_code(), report.stopped, report.forced), (3, Some(StopReason::Handle), true));
            tokio::time::resume(); // the next round stops the clock itself
        }
    }

    #[actix::test]
    async fn the_echo_of_a_signal_forces_nothing() {
        let mut bench = start(traffic(0));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        bench.handle.shutdown(StopReason::Sigterm);
        bench.handle.shutdown(StopReason::Sigterm);
        tokio::time::sleep(Duration::from_millis(240)).await;
        bench.handle.shutdown(StopReason::Sighup);
        logged(&mut bench.log, "stopping").await;
        stream.write_all(b"1\n").await.unwrap();
        expect_end(stream).await;
        let report = bench.report().await;
        assert_eq!((report.verified, report.forced, report.exit_code()), (1, false, 0));
    }

    #[actix::test]
    async fn a_handle_that_stops_twice_forces_nothing() {
        let mut bench = start(traffic(0));
        let mut stream = bench.clients.accept().await;
        receive(&mut stream).await;
        bench.handle.stop();
        bench.handle.stop();
        bench.handle.shutdown(StopReason::Sigterm);
        stream.write_all(b"1\n").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        drop(stream);
        let report = bench.report().await;
        assert_eq!((report.verified, report.forced, report.exit_code()), (1, false, 0));
    }

    #[actix::test]
    async fn a_client_whose_handles_are_gone_goes_on() {
        let Bench { mut clients, handle, report, .. } = start(traffic(2));
        let mut stream = clients.echo(1).await;
        drop(handle);
        tokio::task::yield_now().await;
        assert_eq!(receive(&mut stream).await, "2\n");
        stream.write_all(b"2\n").await.unwrap();
        drop(stream);
        assert_eq!(counts(&report.await.unwrap()), [2, 2, 0, 0, 0]);
    }

    #[actix::test]
    async fn a_server_out_of_reach_is_named_in_the_one_line_that_tells_of_it() {
        let bench = start(TrafficSettings { connections: 3, ..traffic(1) });
        bench.server.refusals.set(u32::MAX);
        let report = bench.report().await;
        assert_eq!((report.unreachable, report.sent, report.exit_code()), (3, 0, 1));
        assert_eq!(report.problem().unwrap(), "cannot connect to server:1 within 10s: connection refused");
    }

    #[actix::test]
    async fn the_rate_of_a_run_is_no_higher_than_its_timetables() {
        // The only message goes out at once.
        for (messages, duration) in [(1, 0), (0, 1)] {
            let duration = Duration::from_secs(duration);
            let mut bench = start(TrafficSettings { rate: vec![1.0], duration, ..traffic(messages) });
            drop(bench.clients.echo(1).await);
            let report = bench.report().await;
            assert_eq!((report.verified, report.rate()), (1, Some(1.0)));
            tokio::time::resume();
        }
    }

    #[actix::test]
    async fn progress_is_told_each_second_from_the_third_on() {
        let Bench { server, mut clients, handle, report, .. } = start(traffic(0));
        drop((report, handle));
        let (told, mut heard) = mpsc::unbounded_channel();
        let (report_to, report) = oneshot::channel();
        let (orders, mut received) = StopHandle::new();
        let traffic =
            TrafficSettings { period: Duration::from_millis(100), duration: Duration::from_secs(60), ..traffic(0) };
        let run = Run::new(&traffic).unwrap();
        ClientSupervisor::create(|ctx| {
            ctx.add_stream(futures_util::stream::poll_fn(move |cx| received.poll_recv(cx)));
            ClientSupervisor::new(plan(traffic), server.clone(), run, report_to, log().0)
                .with_watcher(Some(Box::new(move |progress| drop(told.send(progress.clone())))))
        });
        let _first = clients.accept().await;
        let _second = clients.accept().await;
        let progress = heard.recv().await.unwrap();
        let left = progress.left.unwrap().as_secs_f64().round();
        assert_eq!((progress.elapsed.as_secs(), progress.verified, left), (2, 0, 58.0));
        assert_eq!(heard.recv().await.unwrap().elapsed.as_secs(), 3);
        orders.abort();
        report.await.unwrap();
        assert_eq!(heard.recv().await, None);
    }

    #[actix::test]
    async fn a_client_without_a_connection_reports_that_nothing_was_sent() {
        let report = start(TrafficSettings { connections: 0, ..traffic(1) }).report().await;
        assert_eq!((report.exit_code(), report.problem()), (1, Some("nothing was sent".into())));
    }

    #[actix::test]
    async fn a_connection_that_crashes_is_a_failure() {
        // The receiving end is gone, so the scripted server panics at the second connect.
        let mut bench = start(TrafficSettings { reconnect: true, ..traffic(2) });
        let stream = bench.clients.echo(1).await;
        let Bench { clients, report, .. } = bench;
        drop(clients);
        expect_end(stream).await;
        let report = report.await.unwrap();
        assert_eq!((report.verified, report.crashed, report.exit_code()), (1, 1, 1));
        assert_eq!(report.problem().unwrap(), "crashed connections: 1");
    }

    #[tokio::test]
    async fn without_an_actix_system_it_says_what_to_do() {
        let error = Client::new(ClientSettings::default()).run().await.unwrap_err();
        assert!(error.to_string().contains("#[actix::main]"), "{error}");
    }

    #[test]
    fn a_host_has_a_name() {
        assert!(!host_name().is_empty());
    }
}
