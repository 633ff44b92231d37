//! Services of other protocols, as a user of the library writes them: what a stop, an idle timeout, a failure and a client that
//! has gone mean for each kind. The built programs have no such services, so each server runs in this process.

mod common;

use common::*;
use std::{
    io::{self, ErrorKind, Write},
    pin::pin,
    sync::mpsc::channel,
    thread,
    time::Duration,
};
use supervised_echo::{AtStop, Service, Settings, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Clients that end when the server does have plenty of time for it on a busy machine.
fn patient_settings() -> Settings {
    let mut settings = settings();
    settings.connection.linger = Duration::from_secs(20);
    settings.supervisor.shutdown_timeout = Duration::from_secs(25);
    settings
}

// Services that are notified.

/// Answers each request of four bytes with the same four, and ends between two of them.
struct Requests;

impl Service for Requests {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut stopping = pin!(socket.stopping());
        let mut request = [0; 4];
        loop {
            tokio::select! {
                biased;
                read = socket.read_exact(&mut request) => match read {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                    read => drop(read?),
                },
                () = &mut stopping => return Ok(()),
            }
            socket.write_all(&request).await?;
        }
    }
}

#[test]
fn a_notified_service_answers_every_whole_request_that_had_arrived_wherever_its_client_is_at_the_stop() {
    let mut settings = patient_settings();
    settings.supervisor.workers = 1;
    settings.supervisor.max_connections = 1;
    settings.supervisor.max_pending = 1;
    let mut server = InProcess::start(settings, Requests);
    let served = connect(server.address);
    server.log.wait_of("connection opened", &served);
    let waits = connect(server.address);
    server.log.wait_of("connection waiting", &waits);
    let mut clients = [served, waits, connect(server.address), connect(server.address)];
    for client in &mut clients {
        client.write_all(b"whole1whole2ha").unwrap();
        wait_until_arrived(client);
    }
    server.handle.stop();
    clients.iter_mut().for_each(|client| assert_eq!(read_to_eof(client), b"whole1whole2"));
    let names = clients.each_ref().map(Named::name);
    drop(clients);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.failed, report.exit_code()), (4, 0, 0));
    assert_eq!(log.of("connection closed").iter().filter(|close| close["reason"] == "stopped").count(), names.len());
    log.assert_all_accounted_for();
}

#[test]
fn a_client_that_sends_without_a_pause_does_not_hold_up_the_stop_of_a_notified_service() {
    let server = InProcess::start(patient_settings(), Requests);
    let (flowing, flows) = channel();
    let address = server.address;
    let streaming = thread::spawn(move || stream(address, flowing, |_| {}));
    flows.recv_timeout(PATIENCE).unwrap();
    server.handle.stop();
    let client = streaming.join().unwrap();
    assert!(client.end.is_ok(), "{client:?}");
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced), (1, 0));
    assert_eq!(number(log.close_of(&client.peer), "echoed"), client.got);
}
