//! A logger that panics does no harm. Three servers live from start to end: with clients of all kinds, with a listener that breaks,
//! and with a Worker that is stuck. Each of their records in turn cannot be written, and the outcome is the same. (Under slog's usual
//! `fuse()` a drain that fails panics.)

mod common;

use common::*;
use slog::Record;
use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::Shutdown,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use supervised_echo::{Report, Service, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Panics on `!`, fails on `?`, and echoes each byte. After the echo of a `#` it blocks its thread for ever.
struct Moody;

impl Service for Moody {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut byte = [0];
        while socket.read(&mut byte).await? > 0 {
            match byte[0] {
                b'!' => panic!("told to"),
                b'?' => return Err(io::ErrorKind::InvalidData.into()),
                _ => socket.write_all(&byte).await?,
            }
            if byte[0] == b'#' {
                loop {
                    thread::park();
                }
            }
        }
        Ok(())
    }
}

/// Is called for each record before it is written. If it panics, the record is not written.
type OnRecord = Box<dyn Fn(&Record<'_>) + Send + Sync + RefUnwindSafe + UnwindSafe>;

/// What must not depend on a record: the exit code, and how many connections were acknowledged, forced, and crashed.
type Outcome = (u8, usize, usize, usize);

/// Plays the life of a server once for each of its records. Each time that record cannot be written, and the outcome is the same.
fn assert_no_record_matters(life: fn(OnRecord) -> Report, records: &[&str], outcome: Outcome) {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = seen.clone();
    life(Box::new(move |record| _ = notes.lock().unwrap().insert(record.msg().to_string())));
    let messages = seen.lock().unwrap().clone();
    assert!(records.iter().all(|record| messages.contains(*record)), "{messages:?}");
    for message in messages {
        let faulty = message.clone();
        let report = life(Box::new(move |record| assert!(record.msg().to_string() != faulty, "no log")));
        let Report { acknowledged, forced, crashed, .. } = report;
        assert_eq!((report.exit_code(), acknowledged, forced, crashed), outcome, "{message}");
    }
}

/// One client is served, one crashes, one waits, one fails, and two are there at the stop.
fn clients_of_all_kinds_and_a_stop(on_record: OnRecord) -> Report {
    let mut settings = settings();
    settings.supervisor.workers = 2;
    settings.supervisor.max_connections = 2;
    let server = InProcess::start_with(settings, Moody, on_record);
    let mut connected = [(); 2].map(|()| connect(server.address));
    connected.iter_mut().for_each(round_trip);
    let mut waits = connect(server.address);
    waits.write_all(b"owed").unwrap();
    let [mut crashes, stays] = connected;
    crashes.write_all(b"!").unwrap();
    assert!(crashes.read(&mut [0]).is_err());
    let mut fails = connect(server.address);
    let mut owed = [0; 4];
    waits.read_exact(&mut owed).unwrap();
    drop(waits);
    fails.write_all(b"?").unwrap();
    assert!(fails.read(&mut [0]).is_err());
    let mut last = connect(server.address);
    round_trip(&mut last); // in the slot of the one that failed
    server.handle.stop();
    for mut client in [stays, last] {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    server.report()
}

/// The listening socket breaks under an Acceptor, and again under its successor. A client is there at the stop that follows.
fn a_listener_that_breaks(on_record: OnRecord) -> Report {
    let mut settings = settings();
    settings.supervisor.workers = 1;
    settings.supervisor.max_restarts = 1;
    let server = InProcess::start_with(settings, Moody, on_record);
    let mut client = connect(server.address);
    round_trip(&mut client);
    server.listener().shutdown(Shutdown::Both).unwrap();
    assert!(read_to_eof(&mut client).is_empty());
    drop(client);
    server.report()
}

/// A service blocks its Worker's thread until after the deadline of the stop.
fn a_worker_that_is_stuck(on_record: OnRecord) -> Report {
    let mut settings = settings();
    settings.supervisor.workers = 1;
    settings.supervisor.shutdown_timeout = Duration::from_millis(100);
    let server = InProcess::start_with(settings, Moody, on_record);
    let mut client = connect(server.address);
    client.write_all(b"#").unwrap();
    client.read_exact(&mut [0]).unwrap();
    server.handle.stop();
    server.report()
}

#[test]
fn a_record_that_cannot_be_written_changes_nothing() {
    let records =
        ["connection opened", "connection waiting", "connection closed", "stopping", "worker stopped", "stopped"];
    assert_no_record_matters(clients_of_all_kinds_and_a_stop, &records, (0, 2, 0, 1));
    let records = ["acceptor restarted", "acceptor given up"];
    assert_no_record_matters(a_listener_that_breaks, &records, (1, 1, 0, 0));
    assert_no_record_matters(a_worker_that_is_stuck, &["worker stuck"], (3, 0, 1, 0));
}
