//! A service that speaks in lines. It is notified of a stop: whole lines that have arrived are answered, half a line is not.
//!
//! Run it with `cargo run --example lines`, talk to it with `nc 127.0.0.1 12345`, and stop it with Ctrl-C: every connection is
//! accounted for, without a line about it here. `ECHO_SERVER_LISTEN__ADDRESS` chooses another address.

use std::{
    error::Error,
    io::{self, ErrorKind},
    pin::pin,
    process::ExitCode,
};
use supervised_echo::{AtStop, Server, Service, Settings, Signals, Socket, logging, settings::layers};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// The longest line that is answered; without a bound one client could take all the memory.
const LONGEST: u64 = 4096;

struct Shout;

impl Service for Shout {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let stopping = socket.stopping();
        shout(socket, stopping).await
    }
}

/// The protocol: answers each line in capitals; `quit` ends the conversation. It needs no socket, so it is tested without one.
async fn shout(stream: impl AsyncRead + AsyncWrite + Unpin, stopping: impl Future<Output = ()>) -> io::Result<()> {
    let (mut stream, mut stopping) = (BufReader::new(stream), pin!(stopping));
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(LONGEST);
        tokio::select! {
            biased; // lines that have arrived are answered first
            read = limited.read_until(b'\n', &mut line) => drop(read?),
            () = &mut stopping => return Ok(()),
        }
        if line.last() != Some(&b'\n') {
            // The client has ended, maybe in the midst of a line, or its line has no end.
            let too_long = line.len() as u64 == LONGEST;
            return if too_long { Err(io::Error::new(ErrorKind::InvalidData, "too long a line")) } else { Ok(()) };
        }
        match line.trim_ascii() {
            b"quit" => return stream.write_all(b"BYE\n").await,
            _ => stream.write_all(&line.to_ascii_uppercase()).await?,
        }
    }
}

#[actix::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let settings = layers::load::<Settings>(None, std::env::vars_os(), [])?.settings;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Shout)?.with_log(log);
    signals.forward_to(server.handle());
    Ok(server.run().await?.exit_code().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    /// What a client hears that says this and ends.
    async fn heard(says: &[u8], stopping: impl Future<Output = ()>) -> (io::Result<()>, String) {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        client.write_all(says).await.unwrap();
        let (mut hears, mut out) = tokio::io::split(client);
        out.shutdown().await.unwrap();
        let served = shout(server, stopping).await;
        let mut heard = String::new();
        hears.read_to_string(&mut heard).await.unwrap();
        (served, heard)
    }

    #[tokio::test]
    async fn each_whole_line_is_answered_in_capitals() {
        assert_eq!(heard(b"hello\nquit\nunheard\n", pending()).await.1, "HELLO\nBYE\n");
        assert_eq!(heard(b"hello\nhalf a", pending()).await.1, "HELLO\n");
        assert_eq!(heard(b"hello\nhalf a", ready(())).await.1, "HELLO\n");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_an_error() {
        let (served, heard) = heard(&[b"hello\n", &[b'a'; 5000][..]].concat(), pending()).await;
        assert_eq!((served.unwrap_err().kind(), &*heard), (ErrorKind::InvalidData, "HELLO\n"));
    }
}
