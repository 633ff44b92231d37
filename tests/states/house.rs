//! A server in this process. A test can look into its log at any time.
#![expect(unsafe_code, reason = "the listening socket belongs to the server, and is borrowed from it")]

use crate::kernel;
use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};
use std::{
    collections::BTreeMap,
    fmt::Arguments,
    net::SocketAddr,
    os::fd::{BorrowedFd, RawFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};
use supervised_echo::{Echo, Handle, Report, Server, Settings};

/// How much of an echo the kernel holds while its client takes nothing. Linux doubles it. By default it is 2.6 MB a connection.
const SEND_BUFFER: usize = 64 * 1024;

/// One record of the log.
#[derive(Debug, Clone)]
pub struct Told {
    pub level: Level,
    pub msg: String,
    fields: BTreeMap<String, String>,
}

impl Told {
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).unwrap_or_else(|| panic!("no `{field}` in {self:?}"))
    }

    pub fn number(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap_or_else(|_| panic!("no number `{field}` in {self:?}"))
    }
}

#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Told>>>);

impl Log {
    pub fn all(&self, msg: &str) -> Vec<Told> {
        self.0.lock().unwrap().iter().filter(|told| told.msg == msg).cloned().collect()
    }

    /// The first record with this `msg` of one client.
    pub fn of(&self, msg: &str, peer: SocketAddr) -> Option<Told> {
        let (log, peer) = (self.0.lock().unwrap(), peer.to_string());
        log.iter().find(|told| told.msg == msg && told.fields.get("peer") == Some(&peer)).cloned()
    }

    pub fn one(&self, msg: &str) -> Result<Told, String> {
        let mut all = self.all(msg);
        if all.len() == 1 { Ok(all.remove(0)) } else { Err(format!("{} records `{msg}`", all.len())) }
    }
}

impl Drain for Log {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        struct Fields(BTreeMap<String, String>);
        impl Serializer for Fields {
            fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
                self.0.insert(key.to_string(), value.to_string());
                Ok(())
            }
        }
        let mut fields = Fields(BTreeMap::new());
        let _ = record.kv().serialize(record, &mut fields);
        self.0.lock().unwrap().push(Told { level: record.level(), msg: record.msg().to_string(), fields: fields.0 });
        Ok(())
    }
}

pub struct House {
    pub address: SocketAddr,
    pub listener: RawFd,
    pub handle: Handle,
    pub log: Log,
    report: Receiver<Report>,
}

impl House {
    /// A server with a loopback address of its own. On a shared address a client could get the ports of an earlier connection in
    /// TIME_WAIT.
    pub fn start(mut settings: Settings) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        settings.listen.address =
            ([127, (100 + std::process::id() % 100) as u8, (count / 250) as u8, (1 + count % 250) as u8], 0).into();
        let (started, start) = channel();
        let (ended, report) = channel();
        let log = Log::default();
        let drain = log.clone();
        thread::spawn(move || {
            actix::System::new().block_on(async {
                let server = Server::bind(settings, Echo).unwrap().with_log(Logger::root(drain, o!()));
                let listener = kernel::listener(server.address());
                // SAFETY: the server is about to run, and keeps it open. Its connections inherit the size.
                let socket = unsafe { BorrowedFd::borrow_raw(listener) };
                socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER).unwrap();
                started.send((server.address(), listener, server.handle())).unwrap();
                let report = server.run().await.unwrap();
                let _ = ended.send(report);
            });
        });
        let (address, listener, handle) = start.recv().unwrap();
        Self { address, listener, handle, log, report }
    }

    /// The report of `run`, if it returns within this time.
    pub fn report(&self, within: Duration) -> Option<Report> {
        self.report.recv_timeout(within).ok()
    }

    /// Every connection that was alive at the stop or taken in by it was acknowledged or forced. Each has one record of its close.
    pub fn books(&self, report: &Report) -> Result<(), String> {
        let log = &self.log;
        let (stopping, listener, stopped) = (log.one("stopping")?, log.one("listener closed")?, log.one("stopped")?);
        let alive = stopping.number("connections") + stopping.number("pending") + listener.number("taken");
        let (acknowledged, forced) = (stopped.number("acknowledged"), stopped.number("forced"));
        if alive != acknowledged + forced {
            return Err(format!("{alive} alive at the stop, {acknowledged} acknowledged and {forced} forced"));
        }
        if (report.acknowledged as u64, report.forced as u64) != (acknowledged, forced) {
            return Err(format!("the report is not what `stopped` tells: {report:?}"));
        }
        // A close before the stop has the level `debug`.
        let closes = log.all("connection closed").into_iter().filter(|close| close.level != Level::Debug);
        let (by_force, by_themselves): (Vec<_>, Vec<_>) = closes.partition(|close| close.text("reason") == "forced");
        if (by_themselves.len() as u64, by_force.len() as u64) != (acknowledged, forced) {
            let (told, forced) = (by_themselves.len(), by_force.len());
            return Err(format!("{told} closes and {forced} forced ones in the log, but {report:?}"));
        }
        // On a busy machine a thread may take too long to end. Then it counts as stuck, though its Worker has acknowledged.
        let code = if forced > 0 { 3 } else { 0 };
        if report.stuck.is_empty() && report.exit_code() != code || report.crashed > 0 {
            return Err(format!("{report:?}"));
        }
        Ok(())
    }
}
