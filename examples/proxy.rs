//! A proxy: each client has a connection of its own to another server, and each side may end its half before the other. A stop
//! ends the input from the clients. The other server sees that as their FIN, and answers what it has.
//!
//! Start the echo server with `cargo run`, the proxy with `ECHO_SERVER_LISTEN__ADDRESS=127.0.0.1:12346 cargo run --example proxy
//! -- 127.0.0.1:12345`, talk to it with `nc 127.0.0.1 12346`, and stop it with Ctrl-C.

use std::{error::Error, io, process::ExitCode};
use supervised_echo::{Server, Service, Settings, Signals, Socket, logging, settings::layers};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
};

/// Passes everything on to the server at this address.
struct Proxy(String);

impl Service for Proxy {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let upstream = TcpStream::connect(&self.0).await?;
        upstream.set_nodelay(true)?;
        pass_on(socket, upstream).await
    }
}

/// The protocol: what comes from one side goes to the other, and so does its end. It is over when both sides have ended.
async fn pass_on(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut upstream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}

#[actix::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(upstream) = std::env::args().nth(1) else {
        eprintln!("to which server? proxy HOST:PORT");
        return Ok(2.into());
    };
    let settings = layers::load::<Settings>(None, std::env::vars_os(), [])?.settings;
    let (log, _written_to_the_end) = logging::logger(&settings.log, logging::Stream::Stdout)?;
    let signals = Signals::register()?;
    let server = Server::bind(settings, Proxy(upstream))?.with_log(log);
    signals.forward_to(server.handle());
    Ok(server.run().await?.exit_code().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn either_side_goes_on_after_the_others_end() {
        let ((mut client, near), (far, mut upstream)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let talk = async {
            let (mut question, mut answer) = (String::new(), String::new());
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            upstream.read_to_string(&mut question).await.unwrap();
            upstream.write_all(b"answer").await.unwrap();
            upstream.shutdown().await.unwrap();
            client.read_to_string(&mut answer).await.unwrap();
            (question, answer)
        };
        let (passed, heard) = tokio::join!(pass_on(near, far), talk);
        assert!(passed.is_ok());
        assert_eq!(heard, ("question".to_owned(), "answer".to_owned()));
    }
}
