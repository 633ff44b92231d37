//! A logger that panics does no harm. One after the other, every record that a server writes from start to end is the one that
//! cannot be written, and the stop is the same. (A drain that fails is one that panics under slog's usual `fuse()`.)

mod common;

use common::*;
use slog::Record;
use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, Mutex},
};
use supervised_echo::{Report, Service, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Panics on `!`, fails on `?`, and otherwise echoes byte for byte.
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
        }
        Ok(())
    }
}

/// Runs a server from start to end: one client is served, one crashes, one waits, one fails, and two are there at the stop. Each record is
/// written unless `write` panics.
fn live(write: impl Fn(&Record<'_>) + Send + Sync + RefUnwindSafe + UnwindSafe + 'static) -> Report {
    let mut settings = settings();
    settings.supervisor.workers = 2;
    settings.supervisor.max_connections = 2;
    let server = InProcess::start_with(settings, Moody, write);
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

#[test]
fn a_record_that_cannot_be_written_changes_nothing() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = seen.clone();
    live(move |record| _ = notes.lock().unwrap().insert(record.msg().to_string()));
    let messages = seen.lock().unwrap().clone();
    assert!(messages.len() >= 9, "{messages:?}");
    for message in messages {
        let faulty = message.clone();
        let report = live(move |record| assert!(record.msg().to_string() != faulty, "no log"));
        assert_eq!((report.exit_code(), report.acknowledged), (0, 2), "{message}");
        assert_eq!((report.crashed, report.forced), (1, 0), "{message}");
    }
}
