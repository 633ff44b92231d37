//! The whole story in one terminal: `cargo run --example tour`.
//!
//! A server with two slots is started on a free port. Clients come, wait, crash a connection, and are there when a real
//! SIGTERM arrives. Lines with a bar are the server's log; all others say what the clients see.

use slog::{Drain, KV, Key, Logger, Never, OwnedKVList, Record, Serializer, o};
use std::{
    fmt::Arguments,
    io::{self, IsTerminal},
    net::SocketAddr,
    time::Duration,
};
use supervised_echo::{Server, Service, Settings, Signals, Socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Echoes, and panics on the word `panic`.
struct Fragile;

impl Service for Fragile {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            match socket.read(&mut buffer).await? {
                0 => return Ok(()),
                n if &buffer[..n] == b"panic" => panic!("the service stumbles over this word"),
                n => socket.write_all(&buffer[..n]).await?,
            }
        }
    }
}

/// Prints the server's log, and passes it on, so that the story can wait for what it tells of.
struct Narrated(UnboundedSender<String>);

impl Drain for Narrated {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let mut fields = Fields(Vec::new());
        let _ = record.kv().serialize(record, &mut fields);
        fields.0.reverse(); // slog serializes the last field first
        println!("  | {:<18}  {}", record.msg().to_string(), fields.0.join("  "));
        let _ = self.0.send(record.msg().to_string());
        Ok(())
    }
}

struct Fields(Vec<String>);

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        self.0.push(format!("{key}={value}"));
        Ok(())
    }
}

struct Client {
    name: &'static str,
    stream: TcpStream,
}

impl Client {
    async fn connect(name: &'static str, address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        println!("  {name} connects from {}", stream.local_addr()?);
        Ok(Self { name, stream })
    }

    async fn say(&mut self, word: &str) -> io::Result<()> {
        println!("  {} says {word:?}", self.name);
        self.stream.write_all(word.as_bytes()).await
    }

    async fn hear(&mut self, length: usize) -> io::Result<()> {
        let mut echo = vec![0; length];
        self.stream.read_exact(&mut echo).await?;
        println!("  {} hears {:?}", self.name, String::from_utf8_lossy(&echo));
        Ok(())
    }

    /// Hears whatever comes until the connection is over, and how that looks from here.
    async fn hear_the_end(mut self) {
        let mut rest = String::new();
        let end = match self.stream.read_to_string(&mut rest).await {
            Ok(_) => "a clean end".to_owned(),
            Err(error) => error.to_string().to_lowercase(),
        };
        let rest = if rest.is_empty() { String::new() } else { format!("{rest:?}, then ") };
        println!("  {} hears {rest}{end}", self.name);
    }
}

/// Starts a chapter; gives a person time to read the last one.
async fn chapter(title: &str) {
    if io::stdout().is_terminal() {
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    println!("\n{title}");
}

/// Waits until the server has logged `event`.
async fn logged(log: &mut UnboundedReceiver<String>, event: &str) {
    while log.recv().await.is_some_and(|logged| logged != event) {}
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::panic::set_hook(Box::new(|panic| println!("  ! panic: {}", panic.payload_as_str().unwrap_or("?"))));
    let (sender, mut log) = unbounded_channel();

    chapter("1. The tree starts: a Supervisor, two Workers, an Acceptor on each. Two slots, and two places to wait.")
        .await;
    let mut settings = Settings::default();
    settings.listen.address = ([127, 0, 0, 1], 0).into();
    settings.supervisor.workers = 2;
    settings.supervisor.max_connections = 2;
    settings.supervisor.max_pending = 2;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Fragile)?.with_log(Logger::root(Narrated(sender).fuse(), o!()));
    signals.forward_to(server.handle());
    let address = server.address();
    let server = actix_rt::spawn(server.run());
    logged(&mut log, "listening").await;

    chapter("2. Two clients come. Each gets an actor of its own, and takes a slot.").await;
    let mut ann = Client::connect("Ann", address).await?;
    logged(&mut log, "connection opened").await;
    let mut bob = Client::connect("Bob", address).await?;
    logged(&mut log, "connection opened").await;
    ann.say("hello").await?;
    ann.hear(5).await?;

    chapter("3. The house is full: the third one waits. What she says meanwhile is kept for her.").await;
    let mut cid = Client::connect("Cid", address).await?;
    logged(&mut log, "connection waiting").await;
    cid.say("anybody there?").await?;
    println!("  Ann leaves");
    drop(ann);
    logged(&mut log, "connection opened").await;
    cid.hear(14).await?;

    chapter("4. One connection crashes. Its client sees a reset, its slot is free again, and nobody else notices.")
        .await;
    let mut dan = Client::connect("Dan", address).await?;
    logged(&mut log, "connection waiting").await;
    bob.say("panic").await?;
    bob.hear_the_end().await;
    logged(&mut log, "connection opened").await;
    cid.say("still here").await?;
    cid.hear(10).await?;

    chapter("5. SIGTERM, with two clients served and one who waits. Everyone is owed an answer.").await;
    let mut eve = Client::connect("Eve", address).await?;
    logged(&mut log, "connection waiting").await;
    for client in [&mut cid, &mut dan, &mut eve] {
        client.say("last words").await?;
    }
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
    for client in [cid, dan, eve] {
        client.hear_the_end().await;
    }
    let report = server.await??;

    chapter("6. The report: every client that was there at the stop has acknowledged it.").await;
    println!("  stopped by {} in {} ms", report.reason, report.elapsed.as_millis());
    println!("  acknowledged {}, forced {}, crashed {}", report.acknowledged, report.forced, report.crashed);
    println!("  exit code {}", report.exit_code());
    Ok(())
}
