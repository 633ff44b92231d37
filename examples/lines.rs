//! Another protocol on the same supervision: a service that speaks in lines.
//!
//! Run it with `cargo run --example lines`, talk to it with `nc 127.0.0.1 12345`, stop it with Ctrl-C: what you had typed by
//! then is answered, and every connection is accounted for, without a line about it here.

use std::{io, process::ExitCode};
use supervised_echo::{Error, Server, Service, Settings, Signals, Socket, logging, settings::layers};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// The longest line that is answered; without a bound one client could take all the memory.
const LONGEST: u64 = 4096;

/// Answers each line in capitals; `quit` ends the conversation.
struct Shout;

impl Service for Shout {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut socket = BufReader::new(socket);
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut socket).take(LONGEST).read_until(b'\n', &mut line).await?;
            match line.trim_ascii() {
                _ if line.is_empty() => return Ok(()), // the client, or the server, has ended the input
                b"quit" => return socket.write_all(b"BYE\n").await,
                _ => socket.write_all(&line.to_ascii_uppercase()).await?,
            }
        }
    }
}

#[actix::main]
async fn main() -> Result<ExitCode, Error> {
    let settings = layers::load::<Settings>(None, std::env::vars_os(), [])?.settings;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Shout)?.with_log(log);
    signals.forward_to(server.handle());
    Ok(server.run().await?.exit_code().into())
}
