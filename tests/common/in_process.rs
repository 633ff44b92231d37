//! A server in this process, for a service or a log that the programs do not have.

use super::{Log, PATIENCE, Records, free_address, kernel};
use rustix::process::getpid;
use slog::{Drain, Logger, Never, OwnedKVList, Record, o};
use socket2::Socket;
use std::{
    io,
    net::SocketAddr,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
};
use supervised_echo::{Admin, Error, Handle, Report, Service, Settings};

/// The defaults, on a free address.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.listen.address = free_address();
    settings
}

pub struct InProcess {
    pub address: SocketAddr,
    /// Where it may be asked over HTTP, if the settings have that.
    pub admin: Option<SocketAddr>,
    pub handle: Handle,
    pub log: Log,
    report: Receiver<Result<Report, Error>>,
}

impl InProcess {
    pub fn start<S: Service>(settings: Settings, service: S) -> Self {
        Self::start_with(settings, service, |_| {})
    }

    /// As `start`. `before` is called for each record before it is written, on the thread that logs it.
    pub fn start_with<S: Service, F>(settings: Settings, service: S, before: F) -> Self
    where
        F: Fn(&Record<'_>) + Send + Sync + RefUnwindSafe + UnwindSafe + 'static,
    {
        let (reader, writer) = io::pipe().unwrap();
        let (started, start) = channel();
        let (ended, report) = channel();
        thread::spawn(move || {
            actix::System::new().block_on(async {
                let drain = Before { before, drain: Mutex::new(slog_json::Json::default(writer)) };
                let (admin, log) = (settings.admin.clone(), Logger::root(drain, o!()));
                let server = supervised_echo::Server::bind(settings, service).unwrap().with_log(log.clone());
                let admin = Admin::bind(&admin, server.watch()).unwrap().with_log(log);
                started.send((server.address(), admin.address(), server.handle())).unwrap();
                let _ = ended.send(admin.during(server.run()).await);
            });
        });
        let (address, admin, handle) = start.recv_timeout(PATIENCE).unwrap();
        Self { address, admin, handle, log: Log::of(reader), report }
    }

    /// A handle of its listening socket.
    pub fn listener(&self) -> Socket {
        kernel::listener_of(getpid(), self.address).0
    }

    /// Waits for its report.
    pub fn report(&self) -> Report {
        self.report.recv_timeout(PATIENCE).expect("the server ends").unwrap()
    }

    /// Waits for its end.
    pub fn end(mut self) -> (Report, Records) {
        let report = self.report();
        // A thread that is left behind keeps the log open, so this does not wait for the log's end.
        self.log.wait("stopped");
        (report, self.log.heard())
    }
}

struct Before<F, D> {
    before: F,
    drain: D,
}

impl<F: Fn(&Record<'_>), D: Drain> Drain for Before<F, D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        (self.before)(record);
        let _ = self.drain.log(record, values);
        Ok(())
    }
}
