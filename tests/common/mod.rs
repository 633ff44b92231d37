//! What the integration tests share: a server to talk to, its log to wait for, and clients that check every byte.
//!
//! Nothing here waits for a time. Whatever waits for an event gives up after `PATIENCE`, which turns a hang into a failure
//! and is asserted nowhere.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its part")]

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    ioctl,
    process::{
        Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, pidfd_getfd, pidfd_open, pidfd_send_signal, prlimit,
    },
};
use serde_json::Value;
use slog::{Drain, Logger, Never, OwnedKVList, Record, o};
use socket2::{Domain, Socket, Type};
use std::{
    env, fs,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};
use supervised_echo::{Error, Handle, Report, Service, Settings};

pub use rustix::process::Signal;

/// The longest that any wait lasts.
pub const PATIENCE: Duration = Duration::from_secs(30);

// The log.

/// A log as it is written.
pub struct Log {
    incoming: Receiver<Value>,
    heard: Records,
    /// For each record heard, whether somebody has waited for it.
    claimed: Vec<bool>,
}

impl Log {
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, incoming) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let record = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(record).is_err() {
                    break;
                }
            }
        });
        Self { incoming, heard: Records(Vec::new()), claimed: Vec::new() }
    }

    /// The first record with this `msg` that nobody has waited for yet.
    pub fn wait(&mut self, msg: &str) -> Value {
        self.wait_where(msg, |_| true)
    }

    /// As `wait`, of one connection.
    pub fn wait_of(&mut self, msg: &str, client: &impl Named) -> Value {
        let peer = client.name();
        self.wait_where(msg, |record| record["peer"] == *peer)
    }

    fn wait_where(&mut self, msg: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            while next == self.heard.0.len() {
                match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(record) => self.heard.0.push(record),
                    Err(error) => panic!("no `{msg}`: {error}\n{:#?}", self.heard),
                }
                self.claimed.push(false);
            }
            let record = &self.heard.0[next];
            if !self.claimed[next] && record["msg"] == msg && wanted(record) {
                self.claimed[next] = true;
                return record.clone();
            }
            next += 1;
        }
    }

    /// Everything, once its writer has ended.
    pub fn all(mut self) -> Records {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(record) = self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.heard.0.push(record);
        }
        assert!(Instant::now() < deadline, "the log does not end\n{:#?}", self.heard);
        self.heard
    }
}

/// A log to its end.
pub struct Records(pub Vec<Value>);

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}

impl Records {
    pub fn messages(&self) -> Vec<&str> {
        self.0.iter().map(|record| record["msg"].as_str().unwrap()).collect()
    }

    pub fn of(&self, msg: &str) -> Vec<&Value> {
        self.0.iter().filter(|record| record["msg"] == msg).collect()
    }

    /// The only record with this `msg`.
    pub fn one(&self, msg: &str) -> &Value {
        let [record] = self.of(msg)[..] else { panic!("not one `{msg}`\n{self:?}") };
        record
    }

    /// How this client's connection was closed, which the log tells once.
    pub fn close_of(&self, client: &impl Named) -> &Value {
        let peer = client.name();
        let closes = self.of("connection closed");
        let closes: Vec<_> = closes.into_iter().filter(|record| record["peer"] == *peer).collect();
        let [close] = closes[..] else { panic!("not one close of {peer}\n{self:?}") };
        close
    }

    /// Every connection that was alive at the stop or taken in by it was acknowledged or forced.
    pub fn assert_totals_add_up(&self) {
        let (stopping, listener, stopped) = (self.one("stopping"), self.one("listener closed"), self.one("stopped"));
        let alive = number(stopping, "connections") + number(stopping, "pending") + number(listener, "taken");
        assert_eq!(alive, number(stopped, "acknowledged") + number(stopped, "forced"), "{self:?}");
    }

    /// And each of them was closed once, and told so; for a server in which none has crashed before the stop.
    pub fn assert_all_accounted_for(&self) {
        self.assert_totals_add_up();
        let stopped = self.one("stopped");
        // Those that were closed before the stop are told at the level `debug`.
        let closes = self.of("connection closed").into_iter().filter(|close| close["level"] != "debug");
        let (forced, acknowledged): (Vec<_>, Vec<_>) = closes.partition(|close| close["reason"] == "forced");
        assert_eq!(acknowledged.len() as u64, number(stopped, "acknowledged"), "{self:?}");
        assert_eq!(forced.len() as u64, number(stopped, "forced"), "{self:?}");
        assert_eq!(self.messages().last(), Some(&"stopped"), "{self:?}");
    }
}

pub fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {record}"))
}

/// Whom the log knows as a peer.
pub trait Named {
    fn name(&self) -> String;
}

impl Named for TcpStream {
    fn name(&self) -> String {
        self.local_addr().unwrap().to_string()
    }
}

impl Named for SocketAddr {
    fn name(&self) -> String {
        self.to_string()
    }
}

// The built server.

/// The built program, with no `ECHO_` variable but those given. Each is named as in the settings file.
pub fn program(settings: &[(&str, &str)]) -> Command {
    with_settings(Command::new(env!("CARGO_BIN_EXE_echo-server")), settings)
}

pub fn with_settings(mut command: Command, settings: &[(&str, &str)]) -> Command {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ECHO_")) {
        command.env_remove(name);
    }
    let address = free_address().to_string();
    for (key, value) in [("listen.address", &*address), ("log.format", "json")].iter().chain(settings) {
        command.env(format!("ECHO_SERVER_{}", key.to_uppercase().replace('.', "__")), value);
    }
    command
}

/// Port 0 of a loopback address that no other server of this run has: a client that meets the TIME_WAIT of another test's
/// connection, same port and same port, would have to ask again a second later.
pub fn free_address() -> SocketAddr {
    // Some tests hold a thousand clients, and the usual soft limit is as many descriptors.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    ([127, (1 + process / 256 % 254) as u8, (process % 256) as u8, (1 + count % 254) as u8], 0).into()
}

/// A process of the built server. Killed if it is still there at the end of the test.
pub struct Process {
    child: Child,
    pub pidfd: OwnedFd,
}

impl Process {
    pub fn spawn(mut command: Command) -> (Self, ChildStdout) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (Self { child, pidfd }, stdout)
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// What it writes to standard error, for a test that wants it before its end.
    pub fn errors(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Its exit code and what it wrote to standard error, once it has ended by itself.
    pub fn exit(self) -> (Option<i32>, String) {
        let (status, errors) = self.status();
        (status.code(), errors)
    }

    /// As `exit`, for one that a signal may have killed.
    pub fn status(mut self) -> (ExitStatus, String) {
        let patience = Timespec::try_from(PATIENCE).unwrap();
        let ended = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&patience)).unwrap();
        assert_eq!(ended, 1, "the server does not end");
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).unwrap();
        }
        (self.child.wait().unwrap(), errors)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How many handles of a socket it has open.
    pub fn handles(&self, socket: &str) -> usize {
        descriptors(self.pid()).iter().filter(|(_, is)| is == socket).count()
    }

    /// The numbers of its open descriptors.
    pub fn descriptors(&self) -> Vec<i32> {
        descriptors(self.pid()).into_iter().map(|(fd, _)| fd).collect()
    }

    /// The processor time that it has used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // Counted behind the program's name, which may have blanks of its own; Linux tells all programs hundredths of a second.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Sets the soft limit of its descriptors; those that are open stay open. Gives what it was.
    pub fn limit_descriptors(&self, soft: u64) -> u64 {
        let maximum = rlimit::Resource::NOFILE.get_hard().unwrap();
        prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(maximum) })
            .unwrap()
            .current
            .unwrap()
    }

    /// The memory it occupies, in bytes. What the kernel keeps for its sockets is not in it.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// The numbers of a process's open descriptors, and what they are.
fn descriptors(pid: Pid) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    // One may be closed meanwhile.
    let entries = entries.filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?)));
    entries.map(|(fd, is)| (fd.to_str().unwrap().parse().unwrap(), is.to_str().unwrap().to_owned())).collect()
}

/// Duplicates the socket on which a process listens.
fn listener_of(pid: Pid, address: SocketAddr) -> (Socket, String) {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let sockets = descriptors(pid).into_iter().filter(|(_, is)| is.starts_with("socket:"));
    let mut handles = sockets.filter_map(|(fd, is)| {
        let handle = Socket::from(pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).ok()?);
        (handle.is_listener().ok()? && handle.local_addr().ok()?.as_socket() == Some(address)).then_some((handle, is))
    });
    handles.next().expect("it listens")
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server.
pub struct Server {
    pub process: Process,
    pub log: Log,
    pub listening: Value,
    pub address: SocketAddr,
}

/// A server that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub log: Records,
}

impl Server {
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::run(program(settings))
    }

    pub fn run(command: Command) -> Self {
        let (process, stdout) = Process::spawn(command);
        let mut log = Log::of(stdout);
        let listening = log.wait("listening");
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        Self { process, log, listening, address }
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// A client that has its slot.
    pub fn connect_served(&mut self) -> TcpStream {
        let client = self.connect();
        self.log.wait_of("connection opened", &client);
        client
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub fn end(self) -> Ended {
        let log = self.log.all();
        let (code, errors) = self.process.exit();
        assert_eq!(errors, "", "{log:?}");
        Ended { code, log }
    }

    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.end()
    }

    /// A handle of its listening socket, and what the socket is called among the descriptors.
    pub fn listener(&self) -> (Socket, String) {
        listener_of(self.process.pid(), self.address)
    }

    /// How many clients the kernel holds that have not been accepted.
    pub fn backlog(&self) -> u64 {
        receive_queue(self.address.port(), 0).expect("it listens")
    }
}

/// A server in this process, for a service that no program has.
pub struct InProcess {
    pub address: SocketAddr,
    pub handle: Handle,
    pub log: Log,
    report: Receiver<Result<Report, Error>>,
}

impl InProcess {
    pub fn start<S: Service>(settings: Settings, service: S) -> Self {
        Self::start_with(settings, service, |_| {})
    }

    /// With something that is called for each record, on the thread that logs it, before it is written.
    pub fn start_with<S: Service>(settings: Settings, service: S, before: fn(&Record<'_>)) -> Self {
        let (reader, writer) = io::pipe().unwrap();
        let (started, start) = channel();
        let (ended, report) = channel();
        thread::spawn(move || {
            actix::System::new().block_on(async {
                let drain = Before { before, drain: Mutex::new(slog_json::Json::default(writer)) };
                let server = supervised_echo::Server::bind(settings, service).unwrap();
                started.send((server.address(), server.handle())).unwrap();
                let _ = ended.send(server.with_log(Logger::root(drain, o!())).run().await);
            });
        });
        let (address, handle) = start.recv_timeout(PATIENCE).unwrap();
        Self { address, handle, log: Log::of(reader), report }
    }

    /// A handle of its listening socket.
    pub fn listener(&self) -> Socket {
        listener_of(getpid(), self.address).0
    }

    /// Waits for its end.
    pub fn end(mut self) -> (Report, Records) {
        let report = self.report.recv_timeout(PATIENCE).expect("the server ends").unwrap();
        // A thread that is left behind keeps the log open.
        self.log.wait("stopped");
        (report, self.log.heard)
    }
}

struct Before<D> {
    before: fn(&Record<'_>),
    drain: D,
}

impl<D: Drain> Drain for Before<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        (self.before)(record);
        let _ = self.drain.log(record, values);
        Ok(())
    }
}

/// The defaults, on a free address.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.listen.address = free_address();
    settings
}

/// What waits in a socket of this system: bytes that nobody has read yet, or, if it listens (and has no remote port), clients
/// that nobody has accepted yet.
fn receive_queue(local: u16, remote: u16) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&local) && row[2].ends_with(&remote))?;
    Some(u64::from_str_radix(row[4].split_once(':')?.1, 16).unwrap())
}

/// Waits until all that this client has sent has arrived in the server's kernel.
pub fn wait_until_arrived(client: &TcpStream) {
    type SendQueue = ioctl::Getter<{ libc::TIOCOUTQ as ioctl::Opcode }, libc::c_int>;
    wait_until("it has arrived", || {
        // SAFETY: TIOCOUTQ writes one int, which is what this getter reads.
        unsafe { ioctl::ioctl(client, SendQueue::new()) }.unwrap() == 0
    });
}

/// Asks until it is so: for what has no event.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        thread::yield_now();
    }
}

// Clients.

pub fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
}

/// A client whose kernel takes in little for it.
pub fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.connect(&address.into()).unwrap();
    patient(socket.into())
}

fn patient(client: TcpStream) -> TcpStream {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Sends a line and gets it back.
pub fn round_trip(client: &mut TcpStream) {
    client.write_all(b"round trip\n").unwrap();
    let mut echo = [0; 11];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"round trip\n");
}

/// All that comes until EOF.
pub fn read_to_eof(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("after {} bytes: {error}", bytes.len()));
    bytes
}

/// Closes a connection by a reset.
pub fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
}

/// From here on this client is as good as gone, and without a word: what comes for it is thrown away unseen, and so nothing is
/// acknowledged or answered. It takes no privilege, and can be undone.
pub fn vanish(client: &TcpStream) {
    require_hops_left(client, 255); // what comes from this machine has fewer
}

/// Undoes `vanish`.
pub fn come_back(client: &TcpStream) {
    require_hops_left(client, 0);
}

fn require_hops_left(client: &TcpStream, hops: libc::c_int) {
    let length = size_of_val(&hops) as libc::socklen_t;
    // SAFETY: IP_MINTTL reads one int, which is what it is given.
    let done = unsafe {
        libc::setsockopt(client.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, (&raw const hops).cast(), length)
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// How many bytes a client reads or writes at once: more than the server does, which so has the more to do.
const PIECE: usize = 256 * 1024;

/// What a client sends from this offset on: with a period that divides no buffer's size, a lost or doubled piece shows.
pub fn pattern(from: u64, length: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(251 + PIECE).collect());
    &PATTERN[(from % 251) as usize..][..length]
}

/// Reads the pattern from this offset on, and gives how much came before the end or the error.
pub fn read_pattern(client: &mut TcpStream, from: u64, mut progress: impl FnMut(usize)) -> (u64, io::Result<()>) {
    let (mut got, mut piece) = (0, vec![0; PIECE]);
    loop {
        match client.read(&mut piece) {
            Ok(0) => return (got, Ok(())),
            Ok(n) => {
                assert!(piece[..n] == *pattern(from + got, n), "wrong echo after {} bytes", from + got);
                got += n as u64;
                progress(n);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (got, Err(error)),
        }
    }
}

/// Sends the pattern, and reads nothing, until the server reads no more of it, or this much is sent. Gives how much it was.
/// `other` is a client on the same, the only, Worker: its round trips tell that the Worker has had its turn.
pub fn stuff(client: &mut TcpStream, other: &mut TcpStream, most: u64) -> u64 {
    let unread = |client: &TcpStream| {
        let (server, client) = (client.peer_addr().unwrap().port(), client.local_addr().unwrap().port());
        receive_queue(server, client).expect("it is connected")
    };
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut in_vain, deadline) = (0, 0, Instant::now() + PATIENCE);
    // A delayed acknowledgement, too, keeps a client from sending; but then the server has left nothing unread.
    while sent < most && (in_vain < 20 || unread(client) == 0) {
        assert!(Instant::now() < deadline, "neither taken nor left unread: {sent}");
        match client.write(pattern(sent, PIECE.min((most - sent) as usize))) {
            Ok(n) => (sent, in_vain) = (sent + n as u64, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                round_trip(other);
                in_vain += 1;
            }
        }
    }
    client.set_nonblocking(false).unwrap();
    sent
}

/// What a streaming client got back.
#[derive(Debug)]
pub struct Streamed {
    pub peer: SocketAddr,
    pub got: u64,
    pub end: io::Result<()>,
}

/// Sends without a pause and checks every byte that comes back until EOF; tells when the first has come.
pub fn stream(address: SocketAddr, flowing: Sender<()>, progress: impl Fn(usize)) -> Streamed {
    let mut client = connect(address);
    let mut out = client.try_clone().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            // An error, too, is for the reading side to tell.
            while !done.load(Ordering::Relaxed)
                && let Ok(n) = out.write(pattern(sent, PIECE))
            {
                sent += n as u64;
            }
        });
        let mut flowing = Some(flowing);
        let (got, end) = read_pattern(&mut client, 0, |n| {
            progress(n);
            flowing.take().into_iter().for_each(|flowing| flowing.send(()).unwrap());
        });
        done.store(true, Ordering::Relaxed);
        let peer = client.local_addr().unwrap();
        let _ = client.shutdown(Shutdown::Write);
        Streamed { peer, got, end }
    })
}
