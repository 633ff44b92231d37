//! A chat room: each line goes to every client. When a connection ends, the others are told, also when it was reset or has
//! crashed. A client that reads too slowly misses lines, and costs no memory.
//!
//! Run it with `cargo run --example chat`, talk from two terminals with `nc 127.0.0.1 12345`, and stop it with Ctrl-C: every
//! client hears a farewell and has a clean end. `ECHO_SERVER_LISTEN__ADDRESS` chooses another address.

use futures_util::StreamExt;
use std::{
    error::Error,
    io::{self, ErrorKind},
    pin::pin,
    process::ExitCode,
};
use supervised_echo::{AtStop, Server, Service, Settings, Signals, Socket, logging, settings::layers};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::broadcast::{self, error::RecvError},
};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

/// The longest line, in bytes.
const LONGEST: usize = 512;
/// So many lines are kept for clients that have not read them yet: once for all clients.
const KEPT: usize = 64;

/// The one room, which all connections of all threads share.
struct Room(broadcast::Sender<String>);

impl Room {
    fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    fn say(&self, line: String) {
        let _ = self.0.send(line + "\n"); // an empty room is an error
    }
}

impl Service for Room {
    const AT_STOP: AtStop = AtStop::Notify;

    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let (name, stopping) = (socket.peer().to_string(), socket.stopping());
        chat(socket, self, &name, stopping).await
    }
}

/// A client that is in the room. It is dropped with the service's future, whatever has ended the connection.
struct Member<'a> {
    room: &'a Room,
    name: &'a str,
}

impl<'a> Member<'a> {
    fn enter(room: &'a Room, name: &'a str) -> Self {
        room.say(format!("* {name} is here"));
        Self { room, name }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.room.say(format!("* {} has left", self.name));
    }
}

/// The protocol. While a line is being written no other is read or heard: so nothing piles up for a client that does not read.
async fn chat(
    stream: impl AsyncRead + AsyncWrite,
    room: &Room,
    name: &str,
    stopping: impl Future<Output = ()>,
) -> io::Result<()> {
    let (from, mut to) = tokio::io::split(stream);
    let mut lines = FramedRead::new(from, LinesCodec::new_with_max_length(LONGEST));
    let (mut said, mut stopping) = (room.0.subscribe(), pin!(stopping));
    let _member = Member::enter(room, name);
    loop {
        let heard = tokio::select! {
            biased; // lines that have arrived go to all before the farewell
            line = lines.next() => match line {
                Some(Ok(line)) => {
                    room.say(format!("{name}: {line}"));
                    continue;
                }
                Some(Err(LinesCodecError::Io(error))) => return Err(error),
                Some(Err(error)) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
                None => return Ok(()),
            },
            heard = said.recv() => match heard {
                Ok(line) => line,
                Err(RecvError::Lagged(missed)) => format!("* you have missed {missed} lines\n"),
                Err(RecvError::Closed) => return Ok(()),
            },
            () = &mut stopping => return to.write_all(b"* the server stops: farewell\n").await,
        };
        to.write_all(heard.as_bytes()).await?;
    }
}

#[actix::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let settings = layers::load::<Settings>(None, std::env::vars_os(), [])?.settings;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Room::new())?.with_log(log);
    signals.forward_to(server.handle());
    Ok(server.run().await?.exit_code().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::io::{AsyncBufReadExt, BufReader};

    #[tokio::test]
    async fn each_line_goes_to_every_client_and_they_are_told_when_one_is_dropped() {
        let room = Room::new();
        let ((ann, server), (mut bob, other)) = (tokio::io::duplex(1024), tokio::io::duplex(1024));
        let mut heard = BufReader::new(ann).lines();
        let hear = async {
            for line in ["* Ann is here", "* Bob is here", "Bob: hello"] {
                assert_eq!(heard.next_line().await.unwrap().unwrap(), line);
            }
        };
        let mut anns = pin!(chat(server, &room, "Ann", pending()));
        bob.write_all(b"hello\n").await.unwrap();
        tokio::select! {
            biased; // Ann comes first
            _ = &mut anns => unreachable!("Ann stays"),
            _ = chat(other, &room, "Bob", pending()) => unreachable!("Bob has not ended"),
            () = hear => {} // and with that Bob's future is dropped, as at a crash
        }
        tokio::select! {
            _ = anns => unreachable!("Ann stays"),
            line = heard.next_line() => assert_eq!(line.unwrap().unwrap(), "* Bob has left"),
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_too_slowly_misses_lines_and_is_told_so() {
        let room = Room::new();
        let (client, server) = tokio::io::duplex(64); // as good as no buffer
        let speak = async {
            for n in 0..10 * KEPT {
                room.say(format!("line {n}"));
                tokio::task::yield_now().await;
            }
            let mut lines = BufReader::new(client).lines();
            while !lines.next_line().await.unwrap().unwrap().starts_with("* you have missed") {}
        };
        tokio::select! {
            _ = chat(server, &room, "Ann", pending()) => unreachable!("Ann stays"),
            () = speak => {}
        }
    }
}
