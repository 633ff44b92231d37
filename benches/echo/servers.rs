//! The servers, each in the form that a user would give it. They have in common: one worker thread, the same options on the
//! listening socket, and no log.

use actix_server::Server as ActixServer;
use actix_service::fn_service;
use rustix::process::{Signal, set_parent_process_death_signal};
use socket2::{Domain, Socket, Type};
use std::{
    env,
    io::{self, Write},
    net::{self, Ipv4Addr, SocketAddr},
    process, thread,
};
use supervised_echo::{Echo, Server, Settings, Signals};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
};

/// The variable that makes this program a server, and says which.
pub const SERVER: &str = "BENCH_SERVER";

/// The variable that tells this server how many Workers to have.
pub const WORKERS: &str = "BENCH_WORKERS";

const BUFFER: usize = 16 * 1024;

/// In the order in which figures are kept: ours first, as the others are what it is compared to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    SupervisedEcho,
    Tokio,
    ActixServer,
}

impl Contender {
    pub const ALL: [Self; 3] = [Self::SupervisedEcho, Self::Tokio, Self::ActixServer];

    pub fn name(self) -> &'static str {
        match self {
            Self::SupervisedEcho => "supervised-echo",
            Self::Tokio => "tokio",
            Self::ActixServer => "actix-server",
        }
    }

    /// The server that this process is to be, if it is to be one.
    pub fn asked_for() -> Option<Self> {
        let name = env::var(SERVER).ok()?;
        Self::ALL.into_iter().find(|contender| contender.name() == name)
    }

    /// Serves until a signal comes, in a process that does not outlive the benchmark.
    pub fn serve(self) {
        set_parent_process_death_signal(Some(Signal::KILL)).expect("it is a signal");
        match self {
            Self::SupervisedEcho => supervised_echo(),
            Self::Tokio => tokio(),
            Self::ActixServer => actix_server(),
        }
    }
}

/// The settings of this server.
pub fn settings(workers: usize) -> Settings {
    let mut settings = Settings::default();
    settings.listen.address = (Ipv4Addr::LOCALHOST, 0).into();
    settings.supervisor.workers = workers;
    settings.supervisor.max_connections = 12_000;
    settings
}

fn supervised_echo() {
    let workers = env::var(WORKERS).ok().and_then(|workers| workers.parse().ok());
    let settings = settings(workers.unwrap_or(1));
    let serve = async {
        let signals = Signals::register()?;
        let server = Server::bind(settings, Echo)?;
        signals.forward_to(server.handle());
        announce(server.address());
        server.run().await
    };
    let report = actix::System::new().block_on(serve).expect("it serves");
    process::exit(report.exit_code().into());
}

/// One thread accepts and echoes, as our worker does: with a second one to accept, each connection would cost a hop. It is
/// not the main thread, whose heap glibc clears where it need not, so that an idle buffer would count in full.
fn tokio() {
    let serve = async {
        let listener = TcpListener::from_std(listen()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    };
    let run = || -> io::Result<()> { runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve) };
    thread::spawn(run).join().expect("it does not panic").expect("it serves");
}

fn actix_server() {
    let serve = async { ActixServer::build().workers(1).listen("echo", listen()?, || fn_service(echo))?.run().await };
    actix::System::new().block_on(serve).expect("it serves");
}

/// What tokio's users write.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

/// Listens with what our own listener sets and the others leave to their user.
fn listen() -> io::Result<net::TcpListener> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1024)?;
    let listener = net::TcpListener::from(socket);
    announce(listener.local_addr()?);
    Ok(listener)
}

/// Tells the benchmark, which reads one line.
fn announce(address: SocketAddr) {
    let _ = writeln!(io::stdout(), "{address}");
}
