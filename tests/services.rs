//! Services of other protocols, as a user of the library writes them. Each test shows what a stop, an idle timeout, a failure or a
//! client that has gone means for one kind. The built programs have no such services, so each server runs in this process.

mod common;

use common::*;
use futures_util::{SinkExt, StreamExt};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};
use supervised_echo::{AtStop, Report, Service, Settings, Socket, slog};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Settings with which clients have plenty of time to end after the server, also on a busy machine.
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
fn a_notified_service_answers_whole_requests_of_clients_served_waiting_or_in_the_backlog_at_a_stop() {
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
    // A service in an `Arc` is notified, too.
    assert_eq!(<Arc<Requests> as Service>::AT_STOP, AtStop::Notify);
    let server = InProcess::start(patient_settings(), Arc::new(Requests));
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

/// Answers each frame with the same one. An input that ends in the midst of a frame is an error of the codec.
struct Frames<const NOTIFY: bool>;

impl<const NOTIFY: bool> Service for Frames<NOTIFY> {
    const AT_STOP: AtStop = if NOTIFY { AtStop::Notify } else { AtStop::EndOfInput };

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut stopping = pin!(socket.stopping());
        let mut frames = Framed::new(socket, LengthDelimitedCodec::new());
        loop {
            let frame = tokio::select! {
                biased;
                frame = frames.next() => frame,
                () = &mut stopping, if NOTIFY => None,
            };
            let Some(frame) = frame.transpose()? else { return Ok(()) };
            frames.send(frame.freeze()).await?;
        }
    }
}

/// A client reads slowly. When the stop comes, forty whole frames of it and half of another have arrived. Gives the frames, what
/// the client hears of them, how that ends, and the server's report and log.
fn forty_frames_and_a_half<const NOTIFY: bool>() -> ([Vec<u8>; 2], io::Result<()>, Report, Records) {
    let mut settings = patient_settings();
    settings.supervisor.workers = 1;
    let mut server = InProcess::start(settings, Frames::<NOTIFY>);
    // Connections inherit the small buffers. So most of the answers are not written yet when the stop comes.
    server.listener().set_send_buffer_size(16 * 1024).unwrap();
    let mut client = connect_with_small_buffer(server.address);
    let mut other = connect(server.address);
    let frames: Vec<u8> = (0..40).flat_map(|at| [&2000_u32.to_be_bytes(), pattern(at, 2000)].concat()).collect();
    let mut out = client.try_clone().unwrap();
    let half = [&frames[..], &frames[..1000]].concat();
    let sending = thread::spawn(move || out.write_all(&half).unwrap());
    server.log.wait_of("connection opened", &client);
    let mut heard = vec![0; frames.len() - 20_000];
    client.read_exact(&mut heard).unwrap();
    sending.join().unwrap();
    wait_until_arrived(&client);
    server.handle.stop();
    server.log.wait("stopping");
    other.read_to_end(&mut Vec::new()).unwrap();
    drop(other);
    let end = client.read_to_end(&mut heard);
    let name = client.local_addr().unwrap();
    drop(client);
    let (report, log) = server.end();
    assert_eq!(number(log.close_of(&name), "echoed"), frames.len() as u64);
    ([frames, heard], end.map(drop), report, log)
}

#[test]
fn a_service_whose_input_ends_in_the_midst_of_a_frame_fails_after_its_answers_are_delivered() {
    let ([frames, heard], end, report, log) = forty_frames_and_a_half::<false>();
    assert!(heard == frames, "{} of {} bytes", heard.len(), frames.len());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((report.acknowledged, report.failed, report.reset, report.forced), (2, 1, 0, 0));
    assert_eq!((report.exit_code(), number(log.one("stopped"), "failed")), (0, 1));
    let closes = log.of("connection closed");
    let failed = closes.iter().find(|close| close["reason"] == "failed").unwrap();
    assert_eq!((&failed["level"], &failed["error"]), (&"WARN".into(), &"bytes remaining on stream".into()));
    log.assert_all_accounted_for();
}

#[test]
fn a_notified_service_answers_the_whole_frames_at_a_stop_and_its_client_has_a_clean_end() {
    let ([frames, heard], end, report, log) = forty_frames_and_a_half::<true>();
    assert!(heard == frames, "{} of {} bytes", heard.len(), frames.len());
    assert!(end.is_ok(), "{end:?}");
    assert_eq!((report.acknowledged, report.failed, report.reset, report.forced), (2, 0, 0, 0));
    assert!(log.of("connection closed").iter().all(|close| close["reason"] == "stopped"), "{log:?}");
    log.assert_all_accounted_for();
}

/// Speaks TLS. It answers each byte with a long answer, when the test lets it.
struct Tls {
    acceptor: TlsAcceptor,
    asked: Sender<()>,
    answer: Arc<Notify>,
}

const ANSWER: usize = 200_000;

impl Service for Tls {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut stopping = pin!(socket.stopping());
        let mut stream = self.acceptor.accept(socket).await?;
        let mut byte = [0];
        loop {
            let asked = tokio::select! {
                biased;
                read = stream.read(&mut byte) => read? > 0,
                () = &mut stopping => false,
            };
            if !asked {
                return stream.shutdown().await;
            }
            let _ = self.asked.send(());
            self.answer.notified().await;
            stream.write_all(pattern(0, ANSWER)).await?;
            stream.flush().await?;
        }
    }
}

#[test]
fn at_a_stop_an_idle_tls_client_gets_close_notify_and_one_that_has_asked_gets_its_answer_first() {
    let made = certificate();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], made.signing_key.into()).unwrap();
    let (asked, asks) = channel();
    let answer = Arc::new(Notify::new());
    let service = Tls { acceptor: TlsAcceptor::from(Arc::new(config)), asked, answer: answer.clone() };
    let mut server = InProcess::start(patient_settings(), service);
    let [mut idle, mut waits] = [(); 2].map(|()| {
        let mut client = connect_tls(server.address, made.cert.der());
        client.conn.complete_io(&mut client.sock).unwrap();
        client
    });
    waits.write_all(b"?").unwrap();
    asks.recv_timeout(PATIENCE).unwrap();
    server.handle.stop();
    // Reading gives an error if the end comes without `close_notify`.
    let [idles, waiters] = [&idle, &waits].map(|client| client.sock.local_addr().unwrap());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    drop(idle);
    server.log.wait_of("connection closed", &idles);
    answer.notify_one();
    let mut heard = Vec::new();
    waits.read_to_end(&mut heard).unwrap();
    assert!(heard == pattern(0, ANSWER), "{} bytes", heard.len());
    drop(waits);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.failed, report.reset, report.forced), (2, 0, 0, 0));
    for name in [idles, waiters] {
        assert_eq!(log.close_of(&name)["reason"], "stopped");
    }
}

// Services that do not read.

/// Only writes.
struct Ticker;

impl Service for Ticker {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut stopping = pin!(socket.stopping());
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        loop {
            tokio::select! {
                () = &mut stopping => return Ok(()),
                _ = ticks.tick() => socket.write_all(b"tick\n").await?,
            }
        }
    }
}

#[test]
fn a_service_that_only_writes_ends_at_a_stop_between_two_words() {
    let server = InProcess::start(patient_settings(), Ticker);
    let mut client = connect(server.address);
    client.write_all(b"nothing reads this").unwrap();
    client.read_exact(&mut [0; 50]).unwrap();
    server.handle.stop();
    let heard = String::from_utf8(read_to_eof(&mut client)).unwrap();
    assert!(heard.is_empty() || heard.ends_with("tick\n"), "{heard}");
    drop(client);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced, report.exit_code()), (1, 0, 0));
    assert_eq!(log.one("connection closed")["reason"], "stopped");
}

/// Says that it is done, sends FIN, and goes on reading to the end. Passes on what it has read.
struct HalfCloses(Sender<Vec<u8>>);

impl Service for HalfCloses {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        socket.write_all(b"done").await?;
        socket.shutdown().await?;
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await?;
        let _ = self.0.send(rest);
        Ok(())
    }
}

#[test]
fn a_service_that_has_sent_fin_goes_on_reading_to_the_clients_end_or_the_stop() {
    for stops in [false, true] {
        let (read, reads) = channel();
        let mut server = InProcess::start(patient_settings(), HalfCloses(read));
        let mut client = connect(server.address);
        assert_eq!(read_to_eof(&mut client), b"done");
        client.write_all(pattern(0, 100_000)).unwrap();
        if stops {
            wait_until_arrived(&client);
            server.handle.stop();
        } else {
            client.shutdown(Shutdown::Write).unwrap();
        }
        assert!(reads.recv_timeout(PATIENCE).unwrap() == pattern(0, 100_000));
        let name = client.local_addr().unwrap();
        drop(client);
        let close = server.log.wait_of("connection closed", &name);
        assert_eq!(close["reason"], if stops { "stopped" } else { "client" });
        server.handle.stop();
        assert_eq!(server.end().0.exit_code(), 0);
    }
}

// Services at work.

/// Echoes. When work begins, it waits until the work is done, and tells its client so.
struct Working {
    work: Arc<Work>,
    /// Whether it does all that in a task of its own.
    in_a_task: bool,
}

struct Work {
    begin: Notify,
    begun: Sender<()>,
    done: Notify,
}

impl Service for Working {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let (work, stopping) = (self.work.clone(), socket.stopping());
        if self.in_a_task {
            let (from, to) = socket.split_owned();
            actix::spawn(work.on_demand(tokio::io::join(from, to), stopping)).await?
        } else {
            work.on_demand(socket, stopping).await
        }
    }
}

impl Work {
    async fn on_demand(
        self: Arc<Self>,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        stopping: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut stopping = pin!(stopping);
        let mut byte = [0];
        loop {
            tokio::select! {
                biased;
                read = stream.read(&mut byte) => match read? {
                    0 => return Ok(()),
                    _ => stream.write_all(&byte).await?,
                },
                () = self.begin.notified() => {
                    let _ = self.begun.send(());
                    self.done.notified().await;
                    stream.write_all(b"done").await?;
                }
                () = &mut stopping => return Ok(()),
            }
        }
    }
}

#[test]
fn an_idle_timeout_ends_a_notified_service_that_waits_for_its_client_and_none_that_is_at_work() {
    for in_a_task in [false, true] {
        let (begun, begins) = channel();
        let mut settings = patient_settings();
        settings.connection.idle_timeout = Duration::from_millis(200);
        let work = Arc::new(Work { begin: Notify::new(), begun, done: Notify::new() });
        let mut server = InProcess::start(settings, Working { work: work.clone(), in_a_task });
        let mut at_work = connect(server.address);
        at_work.write_all(b"a").unwrap();
        at_work.read_exact(&mut [0]).unwrap();
        // The service waits for its client when the work begins.
        work.begin.notify_one();
        begins.recv_timeout(PATIENCE).unwrap();
        // Meanwhile other clients are idle, one after another. Each of them takes a whole timeout.
        for _ in 0..4 {
            let mut idle = connect(server.address);
            assert!(read_to_eof(&mut idle).is_empty());
            let name = idle.local_addr().unwrap();
            drop(idle);
            assert_eq!(server.log.wait_of("connection closed", &name)["reason"], "idle");
        }
        work.done.notify_one();
        assert_eq!(read_to_eof(&mut at_work), b"done", "and from then on it was idle");
        let name = at_work.local_addr().unwrap();
        drop(at_work);
        assert_eq!(server.log.wait_of("connection closed", &name)["reason"], "idle");
        server.handle.stop();
        assert_eq!(server.end().0.exit_code(), 0);
    }
}

/// Writes without an end, in a task of its own.
struct WritesWithoutEnd;

impl Service for WritesWithoutEnd {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let (_, mut to) = socket.split_owned();
        let mut zeros = tokio::io::repeat(0);
        actix::spawn(async move { tokio::io::copy(&mut zeros, &mut to).await }).await?.map(drop)
    }
}

#[test]
fn an_idle_timeout_ends_a_service_whose_task_waits_in_vain_to_write() {
    let mut settings = patient_settings();
    settings.connection.idle_timeout = Duration::from_millis(100);
    let mut server = InProcess::start(settings, WritesWithoutEnd);
    let client = connect_with_small_buffer(server.address);
    assert_eq!(server.log.wait_of("connection closed", &client)["reason"], "idle");
    server.handle.stop();
    assert_eq!(server.end().0.exit_code(), 0);
}

// Clients that have gone.

/// Waits for ever for something other than its client. The first byte says from which point on.
struct WaitsForSomethingElse;

impl Service for WaitsForSomethingElse {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        match socket.read_u8().await? {
            b'w' => socket.write_all(b"!").await?,
            b'r' => {
                let _ = timeout(Duration::from_millis(1), socket.read_u8()).await;
                socket.write_all(b"!").await?;
            }
            b'f' => socket.shutdown().await?,
            b'i' => {
                let stopping = socket.stopping();
                tokio::select! {
                    _ = socket.read_u8() => {}
                    () = stopping => {}
                }
                socket.write_all(b"!").await?;
            }
            _ => {
                socket.write_all(b"!").await?;
                let _ = socket.read_u8().await;
            }
        }
        std::future::pending().await
    }
}

#[test]
fn a_slot_comes_back_when_a_client_resets_whose_service_waits_for_something_else() {
    let resets = [
        (b'w', "it has written last"),
        (b'r', "it has given up to read"),
        (b'f', "it has sent FIN"),
        (b'i', "it was told that it is idle"),
        (b'e', "it goes on after the error"),
    ]
    .map(|(point, what)| {
        let mut settings = patient_settings();
        settings.supervisor.max_connections = 1;
        if point == b'i' {
            settings.connection.idle_timeout = Duration::from_millis(100);
        }
        let server = InProcess::start(settings, WaitsForSomethingElse);
        let mut client = connect(server.address);
        client.write_all(&[point]).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), usize::from(point != b'f'), "{what}");
        let name = client.local_addr().unwrap();
        reset(client);
        (server, name, what)
    });
    for (mut server, name, what) in resets {
        assert_eq!(server.log.wait_of("connection closed", &name)["reason"], "reset", "{what}");
        server.handle.stop();
        assert_eq!(server.end().0.exit_code(), 0);
    }
}

// Services that fail.

/// Writes a long answer and sends FIN. Then it writes once more, which fails.
struct WritesAfterFin;

impl Service for WritesAfterFin {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        socket.read_u8().await?;
        socket.write_all(pattern(0, 200_000)).await?;
        socket.shutdown().await?;
        socket.write_all(b"one more thing").await
    }
}

#[test]
fn a_service_that_writes_after_its_fin_fails_by_itself_and_its_client_gets_what_came_before() {
    let mut server = InProcess::start(patient_settings(), WritesAfterFin);
    let mut client = connect_with_small_buffer(server.address);
    client.write_all(b"?").unwrap();
    let (got, end) = read_pattern(&mut client, 0, |_| {});
    assert_eq!((got, end.is_ok()), (200_000, true));
    assert_eq!(server.log.wait_of("connection closed", &client)["reason"], "failed");
    server.handle.stop();
    assert_eq!(server.end().0.exit_code(), 0);
}

// What a service knows of its connection.

/// Logs what it hears, and tells its client at which address it was reached.
struct NamesItsConnection;

impl Service for NamesItsConnection {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let word = socket.read_u8().await?;
        slog::warn!(socket.log(), "heard"; "word" => word);
        let address = socket.local_addr()?.to_string();
        socket.write_all(address.as_bytes()).await
    }
}

#[test]
fn a_service_knows_where_it_was_reached_and_its_log_names_its_connection() {
    let mut server = InProcess::start(patient_settings(), NamesItsConnection);
    let mut clients = [(); 2].map(|()| connect(server.address));
    clients.iter_mut().for_each(|client| client.write_all(b"?").unwrap());
    for client in &mut clients {
        assert_eq!(read_to_eof(client), server.address.to_string().as_bytes());
        let heard = server.log.wait_of("heard", client);
        let opened = server.log.wait_of("connection opened", client);
        assert_eq!((number(&heard, "word"), &heard["connection"]), (b'?'.into(), &opened["connection"]));
    }
    drop(clients);
    server.handle.stop();
    assert_eq!(server.end().0.exit_code(), 0);
}

/// Writes a long answer, and fails.
struct Fails;

impl Service for Fails {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        socket.write_all(pattern(0, 200_000)).await?;
        Err(io::Error::other("the well is dry"))
    }
}

#[test]
fn a_service_that_has_failed_is_waited_for_until_its_client_has_everything_or_the_deadline_comes() {
    let mut settings = patient_settings();
    settings.supervisor.shutdown_timeout = Duration::from_secs(2);
    let mut server = InProcess::start(settings, Fails);
    let [mut reads, never_reads] = [(); 2].map(|()| connect_with_small_buffer(server.address));
    [&reads, &never_reads].into_iter().for_each(|client| drop(server.log.wait_of("connection opened", client)));
    let mut first = [0; 1000];
    reads.read_exact(&mut first).unwrap();
    server.handle.stop();
    server.log.wait("stopping");
    let (got, end) = read_pattern(&mut reads, 1000, |_| {});
    assert_eq!((got, end.map_err(|error| error.kind())), (199_000, Err(ErrorKind::ConnectionReset)));
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.failed, report.forced, report.exit_code()), (1, 1, 1, 3));
    let failed = log.close_of(&reads);
    assert_eq!((failed["reason"].as_str(), failed["error"].as_str()), (Some("failed"), Some("the well is dry")));
    assert_eq!(log.close_of(&never_reads)["reason"], "forced");
    log.assert_all_accounted_for();
}

// Halves in tasks of their own.

/// Echoes by two tasks.
struct TwoTasks;

impl Service for TwoTasks {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let (mut from, mut to) = socket.split_owned();
        let (pieces, mut received) = tokio::sync::mpsc::channel(1);
        let reading = actix::spawn(async move {
            loop {
                let mut piece = vec![0; 1000];
                let n = from.read(&mut piece).await?;
                piece.truncate(n);
                if n == 0 || pieces.send(piece).await.is_err() {
                    return io::Result::Ok(());
                }
            }
        });
        let writing = actix::spawn(async move {
            while let Some(piece) = received.recv().await {
                to.write_all(&piece).await?;
            }
            io::Result::Ok(())
        });
        reading.await??;
        writing.await?
    }
}

#[test]
fn halves_in_tasks_of_their_own_drain_as_their_socket_does() {
    let server = InProcess::start(patient_settings(), TwoTasks);
    let mut client = connect(server.address);
    client.write_all(pattern(0, 50_000)).unwrap();
    wait_until_arrived(&client);
    server.handle.stop();
    let (got, end) = read_pattern(&mut client, 0, |_| {});
    assert_eq!((got, end.is_ok()), (50_000, true));
    let name = client.local_addr().unwrap();
    drop(client);
    let (report, log) = server.end();
    assert_eq!((report.acknowledged, report.forced), (1, 0));
    assert_eq!(log.close_of(&name)["reason"], "stopped");
}

/// Gives its halves to tasks that never end. When both tasks wait, it ends in the way that the first byte says.
struct OutlivedByItsHalves {
    /// The last error of each task.
    heard: Sender<ErrorKind>,
}

impl Service for OutlivedByItsHalves {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let how = socket.read_u8().await?;
        let (mut from, mut to) = socket.split_owned();
        let (heard, written) = (self.heard.clone(), Arc::new(AtomicUsize::new(0)));
        actix::spawn(async move {
            let _ = heard.send(from.read_u8().await.unwrap_err().kind());
            std::future::pending::<()>().await;
            drop(from);
        });
        let (heard, count) = (self.heard.clone(), written.clone());
        actix::spawn(async move {
            let error = loop {
                match to.write(pattern(0, 10_000)).await {
                    Ok(n) => count.fetch_add(n, Ordering::Relaxed),
                    Err(error) => break error,
                };
            };
            let _ = heard.send(error.kind());
            std::future::pending::<()>().await;
            drop(to);
        });
        let mut before = usize::MAX;
        while before != written.load(Ordering::Relaxed) {
            before = written.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
        match how {
            b'.' => Ok(()),
            b'?' => Err(ErrorKind::InvalidData.into()),
            _ => panic!("told to"),
        }
    }
}

#[test]
fn halves_that_outlive_their_service_keep_no_slot_and_their_tasks_hear_that_it_is_over() {
    for (how, reason) in [(b'.', "client"), (b'?', "failed"), (b'!', "crashed")] {
        let (heard, hears) = channel();
        let mut settings = patient_settings();
        settings.supervisor.max_connections = 1;
        let mut server = InProcess::start(settings, OutlivedByItsHalves { heard });
        let mut client = connect_with_small_buffer(server.address);
        client.write_all(&[how]).unwrap();
        for _ in 0..2 {
            assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), ErrorKind::NotConnected, "{reason}");
        }
        let mut bytes = Vec::new();
        assert_eq!(client.read_to_end(&mut bytes).is_ok(), how == b'.', "{reason}");
        let name = client.local_addr().unwrap();
        drop(client);
        assert_eq!(server.log.wait_of("connection closed", &name)["reason"], reason);
        let next = connect(server.address);
        server.log.wait_of("connection opened", &next);
        drop(next);
        server.handle.stop();
        assert_eq!(server.end().0.exit_code(), 0);
    }
}
